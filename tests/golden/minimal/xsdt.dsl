[000h 0000   4]                    Signature : "XSDT"    [Extended System Description Table]
[004h 0004   4]                 Table Length : 00000034
[008h 0008   1]                     Revision : 01
[009h 0009   1]                     Checksum : 1D
[00Ah 0010   6]                       Oem ID : "DAXVSR"
[010h 0016   8]                 Oem Table ID : "DAXVISOR"
[018h 0024   4]                 Oem Revision : 00000001
[01Ch 0028   4]              Asl Compiler ID : "RVAT"
[020h 0032   4]        Asl Compiler Revision : 01000000

[024h 0036   8]       ACPI Table Address   0 : 00000000001001C0
[02Ch 0044   8]       ACPI Table Address   1 : 0000000000100300

Raw Table Data: Length 52 (0x34)

    0000: 58 53 44 54 34 00 00 00 01 1D 44 41 58 56 53 52  // XSDT4.....DAXVSR
    0010: 44 41 58 56 49 53 4F 52 01 00 00 00 52 56 41 54  // DAXVISOR....RVAT
    0020: 00 00 00 01 C0 01 10 00 00 00 00 00 00 03 10 00  // ................
    0030: 00 00 00 00                                      // ....
