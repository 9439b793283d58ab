[000h 0000   4]                    Signature : "SRAT"    [System Resource Affinity Table]
[004h 0004   4]                 Table Length : 00000158
[008h 0008   1]                     Revision : 03
[009h 0009   1]                     Checksum : 9C
[00Ah 0010   6]                       Oem ID : "DAXVSR"
[010h 0016   8]                 Oem Table ID : "DAXVISOR"
[018h 0024   4]                 Oem Revision : 00000001
[01Ch 0028   4]              Asl Compiler ID : "RVAT"
[020h 0032   4]        Asl Compiler Revision : 01000000

[024h 0036   4]               Table Revision : 00000001
[028h 0040   8]                     Reserved : 0000000000000000

[030h 0048   1]                Subtable Type : 00 [Processor Local APIC/SAPIC Affinity]
[031h 0049   1]                       Length : 10

[032h 0050   1]      Proximity Domain Low(8) : 00
[033h 0051   1]                      Apic ID : 00
[034h 0052   4]        Flags (decoded below) : 00000001
                                     Enabled : 1
[038h 0056   1]              Local Sapic EID : 00
[039h 0057   3]    Proximity Domain High(24) : 000000
[03Ch 0060   4]                 Clock Domain : 00000000

[040h 0064   1]                Subtable Type : 00 [Processor Local APIC/SAPIC Affinity]
[041h 0065   1]                       Length : 10

[042h 0066   1]      Proximity Domain Low(8) : 00
[043h 0067   1]                      Apic ID : 01
[044h 0068   4]        Flags (decoded below) : 00000001
                                     Enabled : 1
[048h 0072   1]              Local Sapic EID : 00
[049h 0073   3]    Proximity Domain High(24) : 000000
[04Ch 0076   4]                 Clock Domain : 00000000

[050h 0080   1]                Subtable Type : 00 [Processor Local APIC/SAPIC Affinity]
[051h 0081   1]                       Length : 10

[052h 0082   1]      Proximity Domain Low(8) : 01
[053h 0083   1]                      Apic ID : 02
[054h 0084   4]        Flags (decoded below) : 00000001
                                     Enabled : 1
[058h 0088   1]              Local Sapic EID : 00
[059h 0089   3]    Proximity Domain High(24) : 000000
[05Ch 0092   4]                 Clock Domain : 00000000

[060h 0096   1]                Subtable Type : 00 [Processor Local APIC/SAPIC Affinity]
[061h 0097   1]                       Length : 10

[062h 0098   1]      Proximity Domain Low(8) : 01
[063h 0099   1]                      Apic ID : 03
[064h 0100   4]        Flags (decoded below) : 00000001
                                     Enabled : 1
[068h 0104   1]              Local Sapic EID : 00
[069h 0105   3]    Proximity Domain High(24) : 000000
[06Ch 0108   4]                 Clock Domain : 00000000

[070h 0112   1]                Subtable Type : 05 [Generic Initiator Affinity]
[071h 0113   1]                       Length : 20

[072h 0114   1]                    Reserved1 : 00
[073h 0115   1]           Device Handle Type : 00
[074h 0116   4]             Proximity Domain : 00000003
[078h 0120  16]                Device Handle : 44 41 58 56 30 30 30 31 00 00 00 00 00 00 00 00
[088h 0136   4]        Flags (decoded below) : 00000001
                                     Enabled : 1
[08Ch 0140   4]                    Reserved2 : 00000000

[090h 0144   1]                Subtable Type : 01 [Memory Affinity]
[091h 0145   1]                       Length : 28

[092h 0146   4]             Proximity Domain : 00000000
[096h 0150   2]                    Reserved1 : 0000
[098h 0152   8]                 Base Address : 0000000000000000
[0A0h 0160   8]               Address Length : 0000000040000000
[0A8h 0168   4]                    Reserved2 : 00000000
[0ACh 0172   4]        Flags (decoded below) : 00000001
                                     Enabled : 1
                               Hot Pluggable : 0
                                Non-Volatile : 0
[0B0h 0176   8]                    Reserved3 : 0000000000000000

[0B8h 0184   1]                Subtable Type : 01 [Memory Affinity]
[0B9h 0185   1]                       Length : 28

[0BAh 0186   4]             Proximity Domain : 00000001
[0BEh 0190   2]                    Reserved1 : 0000
[0C0h 0192   8]                 Base Address : 0000000040000000
[0C8h 0200   8]               Address Length : 0000000080000000
[0D0h 0208   4]                    Reserved2 : 00000000
[0D4h 0212   4]        Flags (decoded below) : 00000001
                                     Enabled : 1
                               Hot Pluggable : 0
                                Non-Volatile : 0
[0D8h 0216   8]                    Reserved3 : 0000000000000000

[0E0h 0224   1]                Subtable Type : 01 [Memory Affinity]
[0E1h 0225   1]                       Length : 28

[0E2h 0226   4]             Proximity Domain : 00000001
[0E6h 0230   2]                    Reserved1 : 0000
[0E8h 0232   8]                 Base Address : 0000000100000000
[0F0h 0240   8]               Address Length : 0000000040000000
[0F8h 0248   4]                    Reserved2 : 00000000
[0FCh 0252   4]        Flags (decoded below) : 00000001
                                     Enabled : 1
                               Hot Pluggable : 0
                                Non-Volatile : 0
[100h 0256   8]                    Reserved3 : 0000000000000000

[108h 0264   1]                Subtable Type : 01 [Memory Affinity]
[109h 0265   1]                       Length : 28

[10Ah 0266   4]             Proximity Domain : 00000002
[10Eh 0270   2]                    Reserved1 : 0000
[110h 0272   8]                 Base Address : 0000000180000000
[118h 0280   8]               Address Length : 0000000040000000
[120h 0288   4]                    Reserved2 : 00000000
[124h 0292   4]        Flags (decoded below) : 00000001
                                     Enabled : 1
                               Hot Pluggable : 0
                                Non-Volatile : 0
[128h 0296   8]                    Reserved3 : 0000000000000000

[130h 0304   1]                Subtable Type : 01 [Memory Affinity]
[131h 0305   1]                       Length : 28

[132h 0306   4]             Proximity Domain : 00000002
[136h 0310   2]                    Reserved1 : 0000
[138h 0312   8]                 Base Address : 00000001C0000000
[140h 0320   8]               Address Length : 0000000040000000
[148h 0328   4]                    Reserved2 : 00000000
[14Ch 0332   4]        Flags (decoded below) : 00000003
                                     Enabled : 1
                               Hot Pluggable : 1
                                Non-Volatile : 0
[150h 0336   8]                    Reserved3 : 0000000000000000

Raw Table Data: Length 344 (0x158)

    0000: 53 52 41 54 58 01 00 00 03 9C 44 41 58 56 53 52  // SRATX.....DAXVSR
    0010: 44 41 58 56 49 53 4F 52 01 00 00 00 52 56 41 54  // DAXVISOR....RVAT
    0020: 00 00 00 01 01 00 00 00 00 00 00 00 00 00 00 00  // ................
    0030: 00 10 00 00 01 00 00 00 00 00 00 00 00 00 00 00  // ................
    0040: 00 10 00 01 01 00 00 00 00 00 00 00 00 00 00 00  // ................
    0050: 00 10 01 02 01 00 00 00 00 00 00 00 00 00 00 00  // ................
    0060: 00 10 01 03 01 00 00 00 00 00 00 00 00 00 00 00  // ................
    0070: 05 20 00 00 03 00 00 00 44 41 58 56 30 30 30 31  // . ......DAXV0001
    0080: 00 00 00 00 00 00 00 00 01 00 00 00 00 00 00 00  // ................
    0090: 01 28 00 00 00 00 00 00 00 00 00 00 00 00 00 00  // .(..............
    00A0: 00 00 00 40 00 00 00 00 00 00 00 00 01 00 00 00  // ...@............
    00B0: 00 00 00 00 00 00 00 00 01 28 01 00 00 00 00 00  // .........(......
    00C0: 00 00 00 40 00 00 00 00 00 00 00 80 00 00 00 00  // ...@............
    00D0: 00 00 00 00 01 00 00 00 00 00 00 00 00 00 00 00  // ................
    00E0: 01 28 01 00 00 00 00 00 00 00 00 00 01 00 00 00  // .(..............
    00F0: 00 00 00 40 00 00 00 00 00 00 00 00 01 00 00 00  // ...@............
    0100: 00 00 00 00 00 00 00 00 01 28 02 00 00 00 00 00  // .........(......
    0110: 00 00 00 80 01 00 00 00 00 00 00 40 00 00 00 00  // ...........@....
    0120: 00 00 00 00 01 00 00 00 00 00 00 00 00 00 00 00  // ................
    0130: 01 28 02 00 00 00 00 00 00 00 00 C0 01 00 00 00  // .(..............
    0140: 00 00 00 40 00 00 00 00 00 00 00 00 03 00 00 00  // ...@............
    0150: 00 00 00 00 00 00 00 00                          // ........
