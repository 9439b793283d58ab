[000h 0000   4]                    Signature : "HMAT"    [Heterogeneous Memory Attributes Table]
[004h 0004   4]                 Table Length : 0000019E
[008h 0008   1]                     Revision : 02
[009h 0009   1]                     Checksum : F5
[00Ah 0010   6]                       Oem ID : "DAXVSR"
[010h 0016   8]                 Oem Table ID : "DAXVISOR"
[018h 0024   4]                 Oem Revision : 00000001
[01Ch 0028   4]              Asl Compiler ID : "RVAT"
[020h 0032   4]        Asl Compiler Revision : 01000000

[024h 0036   4]                     Reserved : 00000000

[028h 0040   2]               Structure Type : 0000 [Memory Proximity Domain Attributes]
[02Ah 0042   2]                     Reserved : 0000
[02Ch 0044   4]                       Length : 00000028
[030h 0048   2]        Flags (decoded below) : 0001
            Processor Proximity Domain Valid : 1
[032h 0050   2]                    Reserved1 : 0000
[034h 0052   4] Attached Initiator Proximity Domain : 00000000
[038h 0056   4]      Memory Proximity Domain : 00000000
[03Ch 0060   4]                    Reserved2 : 00000000
[040h 0064   8]                    Reserved3 : 0000000000000000
[048h 0072   8]                    Reserved4 : 0000000000000000

[050h 0080   2]               Structure Type : 0000 [Memory Proximity Domain Attributes]
[052h 0082   2]                     Reserved : 0000
[054h 0084   4]                       Length : 00000028
[058h 0088   2]        Flags (decoded below) : 0001
            Processor Proximity Domain Valid : 1
[05Ah 0090   2]                    Reserved1 : 0000
[05Ch 0092   4] Attached Initiator Proximity Domain : 00000001
[060h 0096   4]      Memory Proximity Domain : 00000001
[064h 0100   4]                    Reserved2 : 00000000
[068h 0104   8]                    Reserved3 : 0000000000000000
[070h 0112   8]                    Reserved4 : 0000000000000000

[078h 0120   2]               Structure Type : 0000 [Memory Proximity Domain Attributes]
[07Ah 0122   2]                     Reserved : 0000
[07Ch 0124   4]                       Length : 00000028
[080h 0128   2]        Flags (decoded below) : 0000
            Processor Proximity Domain Valid : 0
[082h 0130   2]                    Reserved1 : 0000
[084h 0132   4] Attached Initiator Proximity Domain : 00000000
[088h 0136   4]      Memory Proximity Domain : 00000002
[08Ch 0140   4]                    Reserved2 : 00000000
[090h 0144   8]                    Reserved3 : 0000000000000000
[098h 0152   8]                    Reserved4 : 0000000000000000

[0A0h 0160   2]               Structure Type : 0001 [System Locality Latency and Bandwidth Information]
[0A2h 0162   2]                     Reserved : 0000
[0A4h 0164   4]                       Length : 0000004A
[0A8h 0168   1]        Flags (decoded below) : 00
                            Memory Hierarchy : 0
[0A9h 0169   1]                    Data Type : 01
[0AAh 0170   2]                    Reserved1 : 0000
[0ACh 0172   4] Initiator Proximity Domains # : 00000003
[0B0h 0176   4]   Target Proximity Domains # : 00000003
[0B4h 0180   4]                    Reserved2 : 00000000
[0B8h 0184   8]              Entry Base Unit : 0000000000002710
[0C0h 0192   4] Initiator Proximity Domain List : 00000000
[0C4h 0196   4] Initiator Proximity Domain List : 00000001
[0C8h 0200   4] Initiator Proximity Domain List : 00000003
[0CCh 0204   4] Target Proximity Domain List : 00000000
[0D0h 0208   4] Target Proximity Domain List : 00000001
[0D4h 0212   4] Target Proximity Domain List : 00000002
[0D8h 0216   2]                        Entry : 0008
[0DAh 0218   2]                        Entry : 000D
[0DCh 0220   2]                        Entry : 0019
[0DEh 0222   2]                        Entry : 000D
[0E0h 0224   2]                        Entry : 0008
[0E2h 0226   2]                        Entry : 0019
[0E4h 0228   2]                        Entry : 000D
[0E6h 0230   2]                        Entry : 000D
[0E8h 0232   2]                        Entry : 0000

[0EAh 0234   2]               Structure Type : 0001 [System Locality Latency and Bandwidth Information]
[0ECh 0236   2]                     Reserved : 0000
[0EEh 0238   4]                       Length : 0000004A
[0F2h 0242   1]        Flags (decoded below) : 00
                            Memory Hierarchy : 0
[0F3h 0243   1]                    Data Type : 02
[0F4h 0244   2]                    Reserved1 : 0000
[0F6h 0246   4] Initiator Proximity Domains # : 00000003
[0FAh 0250   4]   Target Proximity Domains # : 00000003
[0FEh 0254   4]                    Reserved2 : 00000000
[102h 0258   8]              Entry Base Unit : 0000000000002710
[10Ah 0266   4] Initiator Proximity Domain List : 00000000
[10Eh 0270   4] Initiator Proximity Domain List : 00000001
[112h 0274   4] Initiator Proximity Domain List : 00000003
[116h 0278   4] Target Proximity Domain List : 00000000
[11Ah 0282   4] Target Proximity Domain List : 00000001
[11Eh 0286   4] Target Proximity Domain List : 00000002
[122h 0290   2]                        Entry : 0008
[124h 0292   2]                        Entry : 000D
[126h 0294   2]                        Entry : 0028
[128h 0296   2]                        Entry : 000D
[12Ah 0298   2]                        Entry : 0008
[12Ch 0300   2]                        Entry : 0028
[12Eh 0302   2]                        Entry : 000D
[130h 0304   2]                        Entry : 000D
[132h 0306   2]                        Entry : 0000

[134h 0308   2]               Structure Type : 0001 [System Locality Latency and Bandwidth Information]
[136h 0310   2]                     Reserved : 0000
[138h 0312   4]                       Length : 0000004A
[13Ch 0316   1]        Flags (decoded below) : 00
                            Memory Hierarchy : 0
[13Dh 0317   1]                    Data Type : 03
[13Eh 0318   2]                    Reserved1 : 0000
[140h 0320   4] Initiator Proximity Domains # : 00000003
[144h 0324   4]   Target Proximity Domains # : 00000003
[148h 0328   4]                    Reserved2 : 00000000
[14Ch 0332   8]              Entry Base Unit : 0000000000001900
[154h 0340   4] Initiator Proximity Domain List : 00000000
[158h 0344   4] Initiator Proximity Domain List : 00000001
[15Ch 0348   4] Initiator Proximity Domain List : 00000003
[160h 0352   4] Target Proximity Domain List : 00000000
[164h 0356   4] Target Proximity Domain List : 00000001
[168h 0360   4] Target Proximity Domain List : 00000002
[16Ch 0364   2]                        Entry : 0004
[16Eh 0366   2]                        Entry : 0002
[170h 0368   2]                        Entry : 0001
[172h 0370   2]                        Entry : 0002
[174h 0372   2]                        Entry : 0004
[176h 0374   2]                        Entry : 0001
[178h 0376   2]                        Entry : 0002
[17Ah 0378   2]                        Entry : 0002
[17Ch 0380   2]                        Entry : 0000

[17Eh 0382   2]               Structure Type : 0002 [Memory Side Cache Information]
[180h 0384   2]                     Reserved : 0000
[182h 0386   4]                       Length : 00000020
[186h 0390   4]      Memory Proximity Domain : 00000002
[18Ah 0394   4]                    Reserved1 : 00000000
[18Eh 0398   8]       Memory Side Cache Size : 0000000004000000
[196h 0406   4] Cache Attributes (decoded below) : 00401111
                          Total Cache Levels : 1
                                 Cache Level : 1
                         Cache Associativity : 1
                                Write Policy : 1
                             Cache Line Size : 0040
[19Ah 0410   2]                    Reserved2 : 0000
[19Ch 0412   2]              SMBIOS Handle # : 0000

Raw Table Data: Length 414 (0x19E)

    0000: 48 4D 41 54 9E 01 00 00 02 F5 44 41 58 56 53 52  // HMAT......DAXVSR
    0010: 44 41 58 56 49 53 4F 52 01 00 00 00 52 56 41 54  // DAXVISOR....RVAT
    0020: 00 00 00 01 00 00 00 00 00 00 00 00 28 00 00 00  // ............(...
    0030: 01 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00  // ................
    0040: 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00  // ................
    0050: 00 00 00 00 28 00 00 00 01 00 00 00 01 00 00 00  // ....(...........
    0060: 01 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00  // ................
    0070: 00 00 00 00 00 00 00 00 00 00 00 00 28 00 00 00  // ............(...
    0080: 00 00 00 00 00 00 00 00 02 00 00 00 00 00 00 00  // ................
    0090: 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00  // ................
    00A0: 01 00 00 00 4A 00 00 00 00 01 00 00 03 00 00 00  // ....J...........
    00B0: 03 00 00 00 00 00 00 00 10 27 00 00 00 00 00 00  // .........'......
    00C0: 00 00 00 00 01 00 00 00 03 00 00 00 00 00 00 00  // ................
    00D0: 01 00 00 00 02 00 00 00 08 00 0D 00 19 00 0D 00  // ................
    00E0: 08 00 19 00 0D 00 0D 00 00 00 01 00 00 00 4A 00  // ..............J.
    00F0: 00 00 00 02 00 00 03 00 00 00 03 00 00 00 00 00  // ................
    0100: 00 00 10 27 00 00 00 00 00 00 00 00 00 00 01 00  // ...'............
    0110: 00 00 03 00 00 00 00 00 00 00 01 00 00 00 02 00  // ................
    0120: 00 00 08 00 0D 00 28 00 0D 00 08 00 28 00 0D 00  // ......(.....(...
    0130: 0D 00 00 00 01 00 00 00 4A 00 00 00 00 03 00 00  // ........J.......
    0140: 03 00 00 00 03 00 00 00 00 00 00 00 00 19 00 00  // ................
    0150: 00 00 00 00 00 00 00 00 01 00 00 00 03 00 00 00  // ................
    0160: 00 00 00 00 01 00 00 00 02 00 00 00 04 00 02 00  // ................
    0170: 01 00 02 00 04 00 01 00 02 00 02 00 00 00 02 00  // ................
    0180: 00 00 20 00 00 00 02 00 00 00 00 00 00 00 00 00  // .. .............
    0190: 00 04 00 00 00 00 11 11 40 00 00 00 00 00        // ........@.....
