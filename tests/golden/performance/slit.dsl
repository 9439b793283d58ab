[000h 0000   4]                    Signature : "SLIT"    [System Locality Information Table]
[004h 0004   4]                 Table Length : 0000003C
[008h 0008   1]                     Revision : 01
[009h 0009   1]                     Checksum : E4
[00Ah 0010   6]                       Oem ID : "DAXVSR"
[010h 0016   8]                 Oem Table ID : "DAXVISOR"
[018h 0024   4]                 Oem Revision : 00000001
[01Ch 0028   4]              Asl Compiler ID : "RVAT"
[020h 0032   4]        Asl Compiler Revision : 01000000

[024h 0036   8]                   Localities : 0000000000000004
[02Ch 0044   4]                 Locality   0 : 0A 14 14 14
[030h 0048   4]                 Locality   1 : 14 0A 14 14
[034h 0052   4]                 Locality   2 : 14 14 0A 14
[038h 0056   4]                 Locality   3 : 14 14 14 0A

Raw Table Data: Length 60 (0x3C)

    0000: 53 4C 49 54 3C 00 00 00 01 E4 44 41 58 56 53 52  // SLIT<.....DAXVSR
    0010: 44 41 58 56 49 53 4F 52 01 00 00 00 52 56 41 54  // DAXVISOR....RVAT
    0020: 00 00 00 01 04 00 00 00 00 00 00 00 0A 14 14 14  // ................
    0030: 14 0A 14 14 14 14 0A 14 14 14 14 0A              // ............
