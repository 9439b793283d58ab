[000h 0000   4]                    Signature : "NFIT"    [NVDIMM Firmware Interface Table]
[004h 0004   4]                 Table Length : 00000148
[008h 0008   1]                     Revision : 01
[009h 0009   1]                     Checksum : 7A
[00Ah 0010   6]                       Oem ID : "DAXVSR"
[010h 0016   8]                 Oem Table ID : "DAXVISOR"
[018h 0024   4]                 Oem Revision : 00000001
[01Ch 0028   4]              Asl Compiler ID : "RVAT"
[020h 0032   4]        Asl Compiler Revision : 01000000

[024h 0036   4]                     Reserved : 00000000

[028h 0040   2]                Subtable Type : 0000 [System Physical Address Range]
[02Ah 0042   2]                       Length : 0038

[02Ch 0044   2]                  Range Index : 0002
[02Eh 0046   2]        Flags (decoded below) : 0003
                   Add/Online Operation Only : 1
                      Proximity Domain Valid : 1
[030h 0048   4]                     Reserved : 00000000
[034h 0052   4]             Proximity Domain : 00000002
[038h 0056  16]             Region Type GUID : 66F0D379-B4F3-4074-AC43-0D3318B78CDB
[048h 0072   8]           Address Range Base : 0000000180000000
[050h 0080   8]         Address Range Length : 000000003FFE0000
[058h 0088   8]         Memory Map Attribute : 0000000000008008

[060h 0096   2]                Subtable Type : 0001 [Memory Range Map]
[062h 0098   2]                       Length : 0030

[064h 0100   4]                Device Handle : 00000001
[068h 0104   2]                  Physical Id : 0000
[06Ah 0106   2]                    Region Id : 0000
[06Ch 0108   2]                  Range Index : 0002
[06Eh 0110   2]         Control Region Index : 0003
[070h 0112   8]                  Region Size : 000000003FFE0000
[078h 0120   8]                Region Offset : 0000000000000000
[080h 0128   8]          Address Region Base : 0000000000000000
[088h 0136   2]             Interleave Index : 0000
[08Ah 0138   2]              Interleave Ways : 0001
[08Ch 0140   2]                        Flags : 0000
                       Save to device failed : 0
                  Restore from device failed : 0
                       Platform flush failed : 0
                            Device not armed : 0
                      Health events observed : 0
                       Health events enabled : 0
                              Mapping failed : 0
[08Eh 0142   2]                     Reserved : 0000

[090h 0144   2]                Subtable Type : 0000 [System Physical Address Range]
[092h 0146   2]                       Length : 0038

[094h 0148   2]                  Range Index : 0004
[096h 0150   2]        Flags (decoded below) : 0003
                   Add/Online Operation Only : 1
                      Proximity Domain Valid : 1
[098h 0152   4]                     Reserved : 00000000
[09Ch 0156   4]             Proximity Domain : 00000003
[0A0h 0160  16]             Region Type GUID : 66F0D379-B4F3-4074-AC43-0D3318B78CDB
[0B0h 0176   8]           Address Range Base : 00000001C0000000
[0B8h 0184   8]         Address Range Length : 000000001FFE0000
[0C0h 0192   8]         Memory Map Attribute : 0000000000008008

[0C8h 0200   2]                Subtable Type : 0001 [Memory Range Map]
[0CAh 0202   2]                       Length : 0030

[0CCh 0204   4]                Device Handle : 00000002
[0D0h 0208   2]                  Physical Id : 0000
[0D2h 0210   2]                    Region Id : 0000
[0D4h 0212   2]                  Range Index : 0004
[0D6h 0214   2]         Control Region Index : 0005
[0D8h 0216   8]                  Region Size : 000000001FFE0000
[0E0h 0224   8]                Region Offset : 0000000000000000
[0E8h 0232   8]          Address Region Base : 0000000000000000
[0F0h 0240   2]             Interleave Index : 0000
[0F2h 0242   2]              Interleave Ways : 0001
[0F4h 0244   2]                        Flags : 0008
                       Save to device failed : 0
                  Restore from device failed : 0
                       Platform flush failed : 0
                            Device not armed : 1
                      Health events observed : 0
                       Health events enabled : 0
                              Mapping failed : 0
[0F6h 0246   2]                     Reserved : 0000

[0F8h 0248   2]                Subtable Type : 0004 [NVDIMM Control Region]
[0FAh 0250   2]                       Length : 0020

[0FCh 0252   2]                 Region Index : 0003
[0FEh 0254   2]                    Vendor Id : 8086
[100h 0256   2]                    Device Id : 0001
[102h 0258   2]                  Revision Id : 0001
[104h 0260   2]          Subsystem Vendor Id : 0000
[106h 0262   2]          Subsystem Device Id : 0000
[108h 0264   2]        Subsystem Revision Id : 0000
[10Ah 0266   1]                 Valid Fields : 00
[10Bh 0267   1]       Manufacturing Location : 00
[10Ch 0268   2]           Manufacturing Date : 0000
[10Eh 0270   2]                     Reserved : 0000
[110h 0272   4]                Serial Number : 00123456
[114h 0276   2]                         Code : 0301
[116h 0278   2]                 Window Count : 0000
/**** ACPI subtable terminates early - may be older version (dump table) */

[118h 0280   2]                Subtable Type : 0004 [NVDIMM Control Region]
[11Ah 0282   2]                       Length : 0020

[11Ch 0284   2]                 Region Index : 0005
[11Eh 0286   2]                    Vendor Id : 8086
[120h 0288   2]                    Device Id : 0001
[122h 0290   2]                  Revision Id : 0001
[124h 0292   2]          Subsystem Vendor Id : 0000
[126h 0294   2]          Subsystem Device Id : 0000
[128h 0296   2]        Subsystem Revision Id : 0000
[12Ah 0298   1]                 Valid Fields : 00
[12Bh 0299   1]       Manufacturing Location : 00
[12Ch 0300   2]           Manufacturing Date : 0000
[12Eh 0302   2]                     Reserved : 0000
[130h 0304   4]                Serial Number : 00123457
[134h 0308   2]                         Code : 0301
[136h 0310   2]                 Window Count : 0000
/**** ACPI subtable terminates early - may be older version (dump table) */

[138h 0312   2]                Subtable Type : 0007 [Platform Capabilities]
[13Ah 0314   2]                       Length : 0010

[13Ch 0316   1]           Highest Capability : 01
[13Dh 0317   3]                     Reserved : 000000
[140h 0320   4] Capabilities (decoded below) : 00000003
                       Cache Flush to NVDIMM : 1
                      Memory Flush to NVDIMM : 1
                            Memory Mirroring : 0
[144h 0324   4]                     Reserved : 00000000

Raw Table Data: Length 328 (0x148)

    0000: 4E 46 49 54 48 01 00 00 01 7A 44 41 58 56 53 52  // NFITH....zDAXVSR
    0010: 44 41 58 56 49 53 4F 52 01 00 00 00 52 56 41 54  // DAXVISOR....RVAT
    0020: 00 00 00 01 00 00 00 00 00 00 38 00 02 00 03 00  // ..........8.....
    0030: 00 00 00 00 02 00 00 00 79 D3 F0 66 F3 B4 74 40  // ........y..f..t@
    0040: AC 43 0D 33 18 B7 8C DB 00 00 00 80 01 00 00 00  // .C.3............
    0050: 00 00 FE 3F 00 00 00 00 08 80 00 00 00 00 00 00  // ...?............
    0060: 01 00 30 00 01 00 00 00 00 00 00 00 02 00 03 00  // ..0.............
    0070: 00 00 FE 3F 00 00 00 00 00 00 00 00 00 00 00 00  // ...?............
    0080: 00 00 00 00 00 00 00 00 00 00 01 00 00 00 00 00  // ................
    0090: 00 00 38 00 04 00 03 00 00 00 00 00 03 00 00 00  // ..8.............
    00A0: 79 D3 F0 66 F3 B4 74 40 AC 43 0D 33 18 B7 8C DB  // y..f..t@.C.3....
    00B0: 00 00 00 C0 01 00 00 00 00 00 FE 1F 00 00 00 00  // ................
    00C0: 08 80 00 00 00 00 00 00 01 00 30 00 02 00 00 00  // ..........0.....
    00D0: 00 00 00 00 04 00 05 00 00 00 FE 1F 00 00 00 00  // ................
    00E0: 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00  // ................
    00F0: 00 00 01 00 08 00 00 00 04 00 20 00 03 00 86 80  // .......... .....
    0100: 01 00 01 00 00 00 00 00 00 00 00 00 00 00 00 00  // ................
    0110: 56 34 12 00 01 03 00 00 04 00 20 00 05 00 86 80  // V4........ .....
    0120: 01 00 01 00 00 00 00 00 00 00 00 00 00 00 00 00  // ................
    0130: 57 34 12 00 01 03 00 00 07 00 10 00 01 00 00 00  // W4..............
    0140: 03 00 00 00 00 00 00 00                          // ........
