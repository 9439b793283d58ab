[000h 0000   4]                    Signature : "XSDT"    [Extended System Description Table]
[004h 0004   4]                 Table Length : 00000054
[008h 0008   1]                     Revision : 01
[009h 0009   1]                     Checksum : AA
[00Ah 0010   6]                       Oem ID : "DAXVSR"
[010h 0016   8]                 Oem Table ID : "DAXVISOR"
[018h 0024   4]                 Oem Revision : 00000001
[01Ch 0028   4]              Asl Compiler ID : "RVAT"
[020h 0032   4]        Asl Compiler Revision : 01000000

[024h 0036   8]       ACPI Table Address   0 : 0000000000100240
[02Ch 0044   8]       ACPI Table Address   1 : 0000000000100380
[034h 0052   8]       ACPI Table Address   2 : 00000000001003C0
[03Ch 0060   8]       ACPI Table Address   3 : 00000000001004C0
[044h 0068   8]       ACPI Table Address   4 : 0000000000100500
[04Ch 0076   8]       ACPI Table Address   5 : 0000000000100680

Raw Table Data: Length 84 (0x54)

    0000: 58 53 44 54 54 00 00 00 01 AA 44 41 58 56 53 52  // XSDTT.....DAXVSR
    0010: 44 41 58 56 49 53 4F 52 01 00 00 00 52 56 41 54  // DAXVISOR....RVAT
    0020: 00 00 00 01 40 02 10 00 00 00 00 00 80 03 10 00  // ....@...........
    0030: 00 00 00 00 C0 03 10 00 00 00 00 00 C0 04 10 00  // ................
    0040: 00 00 00 00 00 05 10 00 00 00 00 00 80 06 10 00  // ................
    0050: 00 00 00 00                                      // ....
