DefinitionBlock ("", "DSDT", 2, "DAXVSR", "DAXVISOR", 0x00000001)
{
    Scope (\_SB)
    {
        Device (C000)
        {
            Name (_HID, "ACPI0007" /* Processor Device */)  // _HID: Hardware ID
            Name (_UID, Zero)  // _UID: Unique ID
            Name (_PXM, Zero)  // _PXM: Device Proximity
        }

        Device (C001)
        {
            Name (_HID, "ACPI0007" /* Processor Device */)  // _HID: Hardware ID
            Name (_UID, One)  // _UID: Unique ID
            Name (_PXM, Zero)  // _PXM: Device Proximity
        }

        Device (C002)
        {
            Name (_HID, "ACPI0007" /* Processor Device */)  // _HID: Hardware ID
            Name (_UID, 0x02)  // _UID: Unique ID
            Name (_PXM, One)  // _PXM: Device Proximity
        }

        Device (C003)
        {
            Name (_HID, "ACPI0007" /* Processor Device */)  // _HID: Hardware ID
            Name (_UID, 0x03)  // _UID: Unique ID
            Name (_PXM, One)  // _PXM: Device Proximity
        }

        Device (COM1)
        {
            Name (_HID, EisaId ("PNP0501") /* 16550A-compatible COM Serial Port */)  // _HID: Hardware ID
            Name (_UID, Zero)  // _UID: Unique ID
            Name (_CRS, ResourceTemplate ()  // _CRS: Current Resource Settings
            {
                IO (Decode16,
                    0x03F8,             // Range Minimum
                    0x03F8,             // Range Maximum
                    0x00,               // Alignment
                    0x08,               // Length
                    )
                Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive, ,, )
                {
                    0x00000004,
                }
            })
        }

        Device (VM00)
        {
            Name (_HID, "LNRO0005")  // _HID: Hardware ID
            Name (_UID, Zero)  // _UID: Unique ID
            Name (_CRS, ResourceTemplate ()  // _CRS: Current Resource Settings
            {
                Memory32Fixed (ReadWrite,
                    0xD0000000,         // Address Base
                    0x00001000,         // Address Length
                    )
                Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive, ,, )
                {
                    0x00000010,
                }
            })
        }

        Device (VM01)
        {
            Name (_HID, "LNRO0005")  // _HID: Hardware ID
            Name (_UID, One)  // _UID: Unique ID
            Name (_CRS, ResourceTemplate ()  // _CRS: Current Resource Settings
            {
                Memory32Fixed (ReadWrite,
                    0xD0001000,         // Address Base
                    0x00001000,         // Address Length
                    )
                Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive, ,, )
                {
                    0x00000011,
                }
            })
        }

        Device (PEVT)
        {
            Name (_HID, "QEMU0001")  // _HID: Hardware ID
            Name (_STA, 0x0F)  // _STA: Status
            Name (_CRS, ResourceTemplate ()  // _CRS: Current Resource Settings
            {
                IO (Decode16,
                    0x0505,             // Range Minimum
                    0x0505,             // Range Maximum
                    0x01,               // Alignment
                    0x01,               // Length
                    )
            })
        }

        Device (PWRB)
        {
            Name (_HID, EisaId ("PNP0C0C") /* Power Button Device */)  // _HID: Hardware ID
            Name (_UID, Zero)  // _UID: Unique ID
        }

        Device (GED)
        {
            Name (_HID, "ACPI0013" /* Generic Event Device */)  // _HID: Hardware ID
            Name (_UID, Zero)  // _UID: Unique ID
            Name (_CRS, ResourceTemplate ()  // _CRS: Current Resource Settings
            {
                Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive, ,, )
                {
                    0x00000005,
                }
            })
            OperationRegion (EREG, SystemIO, 0x0600, 0x04)
            Field (EREG, DWordAcc, NoLock, Preserve)
            {
                ESEL,   32
            }

            Method (_EVT, 1, Serialized)  // _EVT: Event
            {
                Local0 = ESEL /* \_SB_.GED_.ESEL */
                If ((Local0 & 0x02))
                {
                    Notify (\_SB.PWRB, 0x80) // Status Change
                }

                If ((Local0 & 0x04))
                {
                    \_SB.NVDR.NEVT ()
                }
            }
        }

        Device (NVDR)
        {
            Name (_HID, "ACPI0012" /* NVDIMM Root Device */)  // _HID: Hardware ID
            Name (_UID, Zero)  // _UID: Unique ID
            Name (_STA, 0x0F)  // _STA: Status
            OperationRegion (MBXD, SystemIO, 0x0A18, 0x04)
            Field (MBXD, DWordAcc, NoLock, Preserve)
            {
                DBEL,   32
            }

            OperationRegion (MBXM, SystemMemory, 0x00180000, 0x00010000)
            Field (MBXM, DWordAcc, NoLock, Preserve)
            {
                HNDL,   32, 
                REVN,   32, 
                FUNC,   32, 
                ILEN,   32, 
                GUID,   128, 
                OLEN,   32
            }

            Field (MBXM, QWordAcc, NoLock, Preserve)
            {
                Offset (0x40), 
                DT00,   512
            }

            Field (MBXM, QWordAcc, NoLock, Preserve)
            {
                Offset (0x40), 
                DT01,   8192
            }

            Field (MBXM, QWordAcc, NoLock, Preserve)
            {
                Offset (0x40), 
                DT02,   33280
            }

            Field (MBXM, QWordAcc, NoLock, Preserve)
            {
                Offset (0x40), 
                DT03,   523776
            }

            Method (NCAL, 5, Serialized)
            {
                GUID = Arg0
                REVN = Arg1
                FUNC = Arg2
                HNDL = Arg4
                Local0 = SizeOf (Arg3)
                ILEN = Local0
                If ((Local0 > Zero))
                {
                    If ((Local0 <= 0x40))
                    {
                        DT00 = Arg3
                    }
                    ElseIf ((Local0 <= 0x0400))
                    {
                        DT01 = Arg3
                    }
                    ElseIf ((Local0 <= 0x1040))
                    {
                        DT02 = Arg3
                    }
                    Else
                    {
                        DT03 = Arg3
                    }
                }

                DBEL = One
                Local1 = OLEN /* \_SB_.NVDR.OLEN */
                If ((Local1 <= 0x40))
                {
                    Local2 = DT00 /* \_SB_.NVDR.DT00 */
                }
                ElseIf ((Local1 <= 0x0400))
                {
                    Local2 = DT01 /* \_SB_.NVDR.DT01 */
                }
                ElseIf ((Local1 <= 0x1040))
                {
                    Local2 = DT02 /* \_SB_.NVDR.DT02 */
                }
                Else
                {
                    Local2 = DT03 /* \_SB_.NVDR.DT03 */
                }

                Return (Mid (Local2, Zero, Local1))
            }

            Method (NDSM, 5, Serialized)
            {
                Local0 = Buffer (Zero) {}
                If ((ObjectType (Arg3) == 0x04))
                {
                    If ((SizeOf (Arg3) > Zero))
                    {
                        Local1 = DerefOf (Arg3 [Zero])
                        If ((ObjectType (Local1) == 0x03))
                        {
                            Local0 = Local1
                        }
                    }
                }

                Return (NCAL (Arg0, Arg1, Arg2, Local0, Arg4))
            }

            Method (_DSM, 4, NotSerialized)  // _DSM: Device-Specific Method
            {
                Return (NDSM (Arg0, Arg1, Arg2, Arg3, 0xFFFFFFFF))
            }

            Method (_FIT, 0, Serialized)  // _FIT: Firmware Interface Table
            {
                Local0 = Buffer (Zero) {}
                Local1 = Zero
                Local2 = Zero
                While (One)
                {
                    Local3 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, One, Concatenate (Local1, Local2), 0xFFFFFFFF)
                    Local4 = ToInteger (Mid (Local3, Zero, 0x04))
                    If ((Local4 == 0x0100))
                    {
                        Local0 = Buffer (Zero) {}
                        Local1 = Zero
                        Local2 = Zero
                    }
                    Else
                    {
                        If ((Local4 != Zero))
                        {
                            Return (Buffer (Zero) {})
                        }

                        Local2 = ToInteger (Mid (Local3, 0x04, 0x04))
                        Mid (Local3, 0x08, (SizeOf (Local3) - 0x08), Local5)
                        If ((SizeOf (Local5) == Zero))
                        {
                            Return (Local0)
                        }

                        Concatenate (Local0, Local5, Local0)
                        Local1 += SizeOf (Local5)
                    }
                }
            }

            Device (NV00)
            {
                Name (_ADR, One)  // _ADR: Address
                Method (_DSM, 4, NotSerialized)  // _DSM: Device-Specific Method
                {
                    Return (NDSM (Arg0, Arg1, Arg2, Arg3, One))
                }

                Method (_LSI, 0, Serialized)  // _LSI: Label Storage Information
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, One, Buffer (Zero) {}, One)
                    Local1 = Package (0x03)
                        {
                            Zero, 
                            Zero, 
                            Zero
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    If ((ToInteger (Mid (Local0, Zero, 0x04)) == Zero))
                    {
                        Local1 [One] = ToInteger (Mid (Local0, 0x04, 0x04))
                        Local1 [0x02] = ToInteger (Mid (Local0, 0x08, 0x04))
                    }

                    Return (Local1)
                }

                Method (_LSR, 2, Serialized)  // _LSR: Label Storage Read
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x02, Concatenate (Arg0, Arg1), One)
                    Local1 = Package (0x02)
                        {
                            Zero, 
                            Buffer (Zero) {}
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    Mid (Local0, 0x04, (SizeOf (Local0) - 0x04), Local2)
                    Local1 [One] = Local2
                    Return (Local1)
                }

                Method (_LSW, 3, Serialized)  // _LSW: Label Storage Write
                {
                    Return (ToInteger (Mid (NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x03, Concatenate (Concatenate (Arg0, Arg1
                        ), Arg2), One), Zero, 0x04)))
                }
            }

            Device (NV01)
            {
                Name (_ADR, 0x02)  // _ADR: Address
                Method (_DSM, 4, NotSerialized)  // _DSM: Device-Specific Method
                {
                    Return (NDSM (Arg0, Arg1, Arg2, Arg3, 0x02))
                }

                Method (_LSI, 0, Serialized)  // _LSI: Label Storage Information
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, One, Buffer (Zero) {}, 0x02)
                    Local1 = Package (0x03)
                        {
                            Zero, 
                            Zero, 
                            Zero
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    If ((ToInteger (Mid (Local0, Zero, 0x04)) == Zero))
                    {
                        Local1 [One] = ToInteger (Mid (Local0, 0x04, 0x04))
                        Local1 [0x02] = ToInteger (Mid (Local0, 0x08, 0x04))
                    }

                    Return (Local1)
                }

                Method (_LSR, 2, Serialized)  // _LSR: Label Storage Read
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x02, Concatenate (Arg0, Arg1), 0x02)
                    Local1 = Package (0x02)
                        {
                            Zero, 
                            Buffer (Zero) {}
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    Mid (Local0, 0x04, (SizeOf (Local0) - 0x04), Local2)
                    Local1 [One] = Local2
                    Return (Local1)
                }

                Method (_LSW, 3, Serialized)  // _LSW: Label Storage Write
                {
                    Return (ToInteger (Mid (NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x03, Concatenate (Concatenate (Arg0, Arg1
                        ), Arg2), 0x02), Zero, 0x04)))
                }
            }

            Device (NV02)
            {
                Name (_ADR, 0x03)  // _ADR: Address
                Method (_DSM, 4, NotSerialized)  // _DSM: Device-Specific Method
                {
                    Return (NDSM (Arg0, Arg1, Arg2, Arg3, 0x03))
                }

                Method (_LSI, 0, Serialized)  // _LSI: Label Storage Information
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, One, Buffer (Zero) {}, 0x03)
                    Local1 = Package (0x03)
                        {
                            Zero, 
                            Zero, 
                            Zero
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    If ((ToInteger (Mid (Local0, Zero, 0x04)) == Zero))
                    {
                        Local1 [One] = ToInteger (Mid (Local0, 0x04, 0x04))
                        Local1 [0x02] = ToInteger (Mid (Local0, 0x08, 0x04))
                    }

                    Return (Local1)
                }

                Method (_LSR, 2, Serialized)  // _LSR: Label Storage Read
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x02, Concatenate (Arg0, Arg1), 0x03)
                    Local1 = Package (0x02)
                        {
                            Zero, 
                            Buffer (Zero) {}
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    Mid (Local0, 0x04, (SizeOf (Local0) - 0x04), Local2)
                    Local1 [One] = Local2
                    Return (Local1)
                }

                Method (_LSW, 3, Serialized)  // _LSW: Label Storage Write
                {
                    Return (ToInteger (Mid (NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x03, Concatenate (Concatenate (Arg0, Arg1
                        ), Arg2), 0x03), Zero, 0x04)))
                }
            }

            Device (NV03)
            {
                Name (_ADR, 0x04)  // _ADR: Address
                Method (_DSM, 4, NotSerialized)  // _DSM: Device-Specific Method
                {
                    Return (NDSM (Arg0, Arg1, Arg2, Arg3, 0x04))
                }

                Method (_LSI, 0, Serialized)  // _LSI: Label Storage Information
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, One, Buffer (Zero) {}, 0x04)
                    Local1 = Package (0x03)
                        {
                            Zero, 
                            Zero, 
                            Zero
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    If ((ToInteger (Mid (Local0, Zero, 0x04)) == Zero))
                    {
                        Local1 [One] = ToInteger (Mid (Local0, 0x04, 0x04))
                        Local1 [0x02] = ToInteger (Mid (Local0, 0x08, 0x04))
                    }

                    Return (Local1)
                }

                Method (_LSR, 2, Serialized)  // _LSR: Label Storage Read
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x02, Concatenate (Arg0, Arg1), 0x04)
                    Local1 = Package (0x02)
                        {
                            Zero, 
                            Buffer (Zero) {}
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    Mid (Local0, 0x04, (SizeOf (Local0) - 0x04), Local2)
                    Local1 [One] = Local2
                    Return (Local1)
                }

                Method (_LSW, 3, Serialized)  // _LSW: Label Storage Write
                {
                    Return (ToInteger (Mid (NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x03, Concatenate (Concatenate (Arg0, Arg1
                        ), Arg2), 0x04), Zero, 0x04)))
                }
            }

            Device (NV04)
            {
                Name (_ADR, 0x05)  // _ADR: Address
                Method (_DSM, 4, NotSerialized)  // _DSM: Device-Specific Method
                {
                    Return (NDSM (Arg0, Arg1, Arg2, Arg3, 0x05))
                }

                Method (_LSI, 0, Serialized)  // _LSI: Label Storage Information
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, One, Buffer (Zero) {}, 0x05)
                    Local1 = Package (0x03)
                        {
                            Zero, 
                            Zero, 
                            Zero
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    If ((ToInteger (Mid (Local0, Zero, 0x04)) == Zero))
                    {
                        Local1 [One] = ToInteger (Mid (Local0, 0x04, 0x04))
                        Local1 [0x02] = ToInteger (Mid (Local0, 0x08, 0x04))
                    }

                    Return (Local1)
                }

                Method (_LSR, 2, Serialized)  // _LSR: Label Storage Read
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x02, Concatenate (Arg0, Arg1), 0x05)
                    Local1 = Package (0x02)
                        {
                            Zero, 
                            Buffer (Zero) {}
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    Mid (Local0, 0x04, (SizeOf (Local0) - 0x04), Local2)
                    Local1 [One] = Local2
                    Return (Local1)
                }

                Method (_LSW, 3, Serialized)  // _LSW: Label Storage Write
                {
                    Return (ToInteger (Mid (NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x03, Concatenate (Concatenate (Arg0, Arg1
                        ), Arg2), 0x05), Zero, 0x04)))
                }
            }

            Device (NV05)
            {
                Name (_ADR, 0x06)  // _ADR: Address
                Method (_DSM, 4, NotSerialized)  // _DSM: Device-Specific Method
                {
                    Return (NDSM (Arg0, Arg1, Arg2, Arg3, 0x06))
                }

                Method (_LSI, 0, Serialized)  // _LSI: Label Storage Information
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, One, Buffer (Zero) {}, 0x06)
                    Local1 = Package (0x03)
                        {
                            Zero, 
                            Zero, 
                            Zero
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    If ((ToInteger (Mid (Local0, Zero, 0x04)) == Zero))
                    {
                        Local1 [One] = ToInteger (Mid (Local0, 0x04, 0x04))
                        Local1 [0x02] = ToInteger (Mid (Local0, 0x08, 0x04))
                    }

                    Return (Local1)
                }

                Method (_LSR, 2, Serialized)  // _LSR: Label Storage Read
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x02, Concatenate (Arg0, Arg1), 0x06)
                    Local1 = Package (0x02)
                        {
                            Zero, 
                            Buffer (Zero) {}
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    Mid (Local0, 0x04, (SizeOf (Local0) - 0x04), Local2)
                    Local1 [One] = Local2
                    Return (Local1)
                }

                Method (_LSW, 3, Serialized)  // _LSW: Label Storage Write
                {
                    Return (ToInteger (Mid (NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x03, Concatenate (Concatenate (Arg0, Arg1
                        ), Arg2), 0x06), Zero, 0x04)))
                }
            }

            Device (NV06)
            {
                Name (_ADR, 0x07)  // _ADR: Address
                Method (_DSM, 4, NotSerialized)  // _DSM: Device-Specific Method
                {
                    Return (NDSM (Arg0, Arg1, Arg2, Arg3, 0x07))
                }

                Method (_LSI, 0, Serialized)  // _LSI: Label Storage Information
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, One, Buffer (Zero) {}, 0x07)
                    Local1 = Package (0x03)
                        {
                            Zero, 
                            Zero, 
                            Zero
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    If ((ToInteger (Mid (Local0, Zero, 0x04)) == Zero))
                    {
                        Local1 [One] = ToInteger (Mid (Local0, 0x04, 0x04))
                        Local1 [0x02] = ToInteger (Mid (Local0, 0x08, 0x04))
                    }

                    Return (Local1)
                }

                Method (_LSR, 2, Serialized)  // _LSR: Label Storage Read
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x02, Concatenate (Arg0, Arg1), 0x07)
                    Local1 = Package (0x02)
                        {
                            Zero, 
                            Buffer (Zero) {}
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    Mid (Local0, 0x04, (SizeOf (Local0) - 0x04), Local2)
                    Local1 [One] = Local2
                    Return (Local1)
                }

                Method (_LSW, 3, Serialized)  // _LSW: Label Storage Write
                {
                    Return (ToInteger (Mid (NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x03, Concatenate (Concatenate (Arg0, Arg1
                        ), Arg2), 0x07), Zero, 0x04)))
                }
            }

            Device (NV07)
            {
                Name (_ADR, 0x08)  // _ADR: Address
                Method (_DSM, 4, NotSerialized)  // _DSM: Device-Specific Method
                {
                    Return (NDSM (Arg0, Arg1, Arg2, Arg3, 0x08))
                }

                Method (_LSI, 0, Serialized)  // _LSI: Label Storage Information
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, One, Buffer (Zero) {}, 0x08)
                    Local1 = Package (0x03)
                        {
                            Zero, 
                            Zero, 
                            Zero
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    If ((ToInteger (Mid (Local0, Zero, 0x04)) == Zero))
                    {
                        Local1 [One] = ToInteger (Mid (Local0, 0x04, 0x04))
                        Local1 [0x02] = ToInteger (Mid (Local0, 0x08, 0x04))
                    }

                    Return (Local1)
                }

                Method (_LSR, 2, Serialized)  // _LSR: Label Storage Read
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x02, Concatenate (Arg0, Arg1), 0x08)
                    Local1 = Package (0x02)
                        {
                            Zero, 
                            Buffer (Zero) {}
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    Mid (Local0, 0x04, (SizeOf (Local0) - 0x04), Local2)
                    Local1 [One] = Local2
                    Return (Local1)
                }

                Method (_LSW, 3, Serialized)  // _LSW: Label Storage Write
                {
                    Return (ToInteger (Mid (NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x03, Concatenate (Concatenate (Arg0, Arg1
                        ), Arg2), 0x08), Zero, 0x04)))
                }
            }

            Device (NV08)
            {
                Name (_ADR, 0x09)  // _ADR: Address
                Method (_DSM, 4, NotSerialized)  // _DSM: Device-Specific Method
                {
                    Return (NDSM (Arg0, Arg1, Arg2, Arg3, 0x09))
                }

                Method (_LSI, 0, Serialized)  // _LSI: Label Storage Information
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, One, Buffer (Zero) {}, 0x09)
                    Local1 = Package (0x03)
                        {
                            Zero, 
                            Zero, 
                            Zero
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    If ((ToInteger (Mid (Local0, Zero, 0x04)) == Zero))
                    {
                        Local1 [One] = ToInteger (Mid (Local0, 0x04, 0x04))
                        Local1 [0x02] = ToInteger (Mid (Local0, 0x08, 0x04))
                    }

                    Return (Local1)
                }

                Method (_LSR, 2, Serialized)  // _LSR: Label Storage Read
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x02, Concatenate (Arg0, Arg1), 0x09)
                    Local1 = Package (0x02)
                        {
                            Zero, 
                            Buffer (Zero) {}
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    Mid (Local0, 0x04, (SizeOf (Local0) - 0x04), Local2)
                    Local1 [One] = Local2
                    Return (Local1)
                }

                Method (_LSW, 3, Serialized)  // _LSW: Label Storage Write
                {
                    Return (ToInteger (Mid (NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x03, Concatenate (Concatenate (Arg0, Arg1
                        ), Arg2), 0x09), Zero, 0x04)))
                }
            }

            Device (NV09)
            {
                Name (_ADR, 0x0A)  // _ADR: Address
                Method (_DSM, 4, NotSerialized)  // _DSM: Device-Specific Method
                {
                    Return (NDSM (Arg0, Arg1, Arg2, Arg3, 0x0A))
                }

                Method (_LSI, 0, Serialized)  // _LSI: Label Storage Information
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, One, Buffer (Zero) {}, 0x0A)
                    Local1 = Package (0x03)
                        {
                            Zero, 
                            Zero, 
                            Zero
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    If ((ToInteger (Mid (Local0, Zero, 0x04)) == Zero))
                    {
                        Local1 [One] = ToInteger (Mid (Local0, 0x04, 0x04))
                        Local1 [0x02] = ToInteger (Mid (Local0, 0x08, 0x04))
                    }

                    Return (Local1)
                }

                Method (_LSR, 2, Serialized)  // _LSR: Label Storage Read
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x02, Concatenate (Arg0, Arg1), 0x0A)
                    Local1 = Package (0x02)
                        {
                            Zero, 
                            Buffer (Zero) {}
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    Mid (Local0, 0x04, (SizeOf (Local0) - 0x04), Local2)
                    Local1 [One] = Local2
                    Return (Local1)
                }

                Method (_LSW, 3, Serialized)  // _LSW: Label Storage Write
                {
                    Return (ToInteger (Mid (NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x03, Concatenate (Concatenate (Arg0, Arg1
                        ), Arg2), 0x0A), Zero, 0x04)))
                }
            }

            Device (NV0A)
            {
                Name (_ADR, 0x0B)  // _ADR: Address
                Method (_DSM, 4, NotSerialized)  // _DSM: Device-Specific Method
                {
                    Return (NDSM (Arg0, Arg1, Arg2, Arg3, 0x0B))
                }

                Method (_LSI, 0, Serialized)  // _LSI: Label Storage Information
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, One, Buffer (Zero) {}, 0x0B)
                    Local1 = Package (0x03)
                        {
                            Zero, 
                            Zero, 
                            Zero
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    If ((ToInteger (Mid (Local0, Zero, 0x04)) == Zero))
                    {
                        Local1 [One] = ToInteger (Mid (Local0, 0x04, 0x04))
                        Local1 [0x02] = ToInteger (Mid (Local0, 0x08, 0x04))
                    }

                    Return (Local1)
                }

                Method (_LSR, 2, Serialized)  // _LSR: Label Storage Read
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x02, Concatenate (Arg0, Arg1), 0x0B)
                    Local1 = Package (0x02)
                        {
                            Zero, 
                            Buffer (Zero) {}
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    Mid (Local0, 0x04, (SizeOf (Local0) - 0x04), Local2)
                    Local1 [One] = Local2
                    Return (Local1)
                }

                Method (_LSW, 3, Serialized)  // _LSW: Label Storage Write
                {
                    Return (ToInteger (Mid (NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x03, Concatenate (Concatenate (Arg0, Arg1
                        ), Arg2), 0x0B), Zero, 0x04)))
                }
            }

            Device (NV0B)
            {
                Name (_ADR, 0x0C)  // _ADR: Address
                Method (_DSM, 4, NotSerialized)  // _DSM: Device-Specific Method
                {
                    Return (NDSM (Arg0, Arg1, Arg2, Arg3, 0x0C))
                }

                Method (_LSI, 0, Serialized)  // _LSI: Label Storage Information
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, One, Buffer (Zero) {}, 0x0C)
                    Local1 = Package (0x03)
                        {
                            Zero, 
                            Zero, 
                            Zero
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    If ((ToInteger (Mid (Local0, Zero, 0x04)) == Zero))
                    {
                        Local1 [One] = ToInteger (Mid (Local0, 0x04, 0x04))
                        Local1 [0x02] = ToInteger (Mid (Local0, 0x08, 0x04))
                    }

                    Return (Local1)
                }

                Method (_LSR, 2, Serialized)  // _LSR: Label Storage Read
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x02, Concatenate (Arg0, Arg1), 0x0C)
                    Local1 = Package (0x02)
                        {
                            Zero, 
                            Buffer (Zero) {}
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    Mid (Local0, 0x04, (SizeOf (Local0) - 0x04), Local2)
                    Local1 [One] = Local2
                    Return (Local1)
                }

                Method (_LSW, 3, Serialized)  // _LSW: Label Storage Write
                {
                    Return (ToInteger (Mid (NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x03, Concatenate (Concatenate (Arg0, Arg1
                        ), Arg2), 0x0C), Zero, 0x04)))
                }
            }

            Device (NV0C)
            {
                Name (_ADR, 0x0D)  // _ADR: Address
                Method (_DSM, 4, NotSerialized)  // _DSM: Device-Specific Method
                {
                    Return (NDSM (Arg0, Arg1, Arg2, Arg3, 0x0D))
                }

                Method (_LSI, 0, Serialized)  // _LSI: Label Storage Information
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, One, Buffer (Zero) {}, 0x0D)
                    Local1 = Package (0x03)
                        {
                            Zero, 
                            Zero, 
                            Zero
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    If ((ToInteger (Mid (Local0, Zero, 0x04)) == Zero))
                    {
                        Local1 [One] = ToInteger (Mid (Local0, 0x04, 0x04))
                        Local1 [0x02] = ToInteger (Mid (Local0, 0x08, 0x04))
                    }

                    Return (Local1)
                }

                Method (_LSR, 2, Serialized)  // _LSR: Label Storage Read
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x02, Concatenate (Arg0, Arg1), 0x0D)
                    Local1 = Package (0x02)
                        {
                            Zero, 
                            Buffer (Zero) {}
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    Mid (Local0, 0x04, (SizeOf (Local0) - 0x04), Local2)
                    Local1 [One] = Local2
                    Return (Local1)
                }

                Method (_LSW, 3, Serialized)  // _LSW: Label Storage Write
                {
                    Return (ToInteger (Mid (NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x03, Concatenate (Concatenate (Arg0, Arg1
                        ), Arg2), 0x0D), Zero, 0x04)))
                }
            }

            Device (NV0D)
            {
                Name (_ADR, 0x0E)  // _ADR: Address
                Method (_DSM, 4, NotSerialized)  // _DSM: Device-Specific Method
                {
                    Return (NDSM (Arg0, Arg1, Arg2, Arg3, 0x0E))
                }

                Method (_LSI, 0, Serialized)  // _LSI: Label Storage Information
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, One, Buffer (Zero) {}, 0x0E)
                    Local1 = Package (0x03)
                        {
                            Zero, 
                            Zero, 
                            Zero
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    If ((ToInteger (Mid (Local0, Zero, 0x04)) == Zero))
                    {
                        Local1 [One] = ToInteger (Mid (Local0, 0x04, 0x04))
                        Local1 [0x02] = ToInteger (Mid (Local0, 0x08, 0x04))
                    }

                    Return (Local1)
                }

                Method (_LSR, 2, Serialized)  // _LSR: Label Storage Read
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x02, Concatenate (Arg0, Arg1), 0x0E)
                    Local1 = Package (0x02)
                        {
                            Zero, 
                            Buffer (Zero) {}
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    Mid (Local0, 0x04, (SizeOf (Local0) - 0x04), Local2)
                    Local1 [One] = Local2
                    Return (Local1)
                }

                Method (_LSW, 3, Serialized)  // _LSW: Label Storage Write
                {
                    Return (ToInteger (Mid (NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x03, Concatenate (Concatenate (Arg0, Arg1
                        ), Arg2), 0x0E), Zero, 0x04)))
                }
            }

            Device (NV0E)
            {
                Name (_ADR, 0x0F)  // _ADR: Address
                Method (_DSM, 4, NotSerialized)  // _DSM: Device-Specific Method
                {
                    Return (NDSM (Arg0, Arg1, Arg2, Arg3, 0x0F))
                }

                Method (_LSI, 0, Serialized)  // _LSI: Label Storage Information
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, One, Buffer (Zero) {}, 0x0F)
                    Local1 = Package (0x03)
                        {
                            Zero, 
                            Zero, 
                            Zero
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    If ((ToInteger (Mid (Local0, Zero, 0x04)) == Zero))
                    {
                        Local1 [One] = ToInteger (Mid (Local0, 0x04, 0x04))
                        Local1 [0x02] = ToInteger (Mid (Local0, 0x08, 0x04))
                    }

                    Return (Local1)
                }

                Method (_LSR, 2, Serialized)  // _LSR: Label Storage Read
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x02, Concatenate (Arg0, Arg1), 0x0F)
                    Local1 = Package (0x02)
                        {
                            Zero, 
                            Buffer (Zero) {}
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    Mid (Local0, 0x04, (SizeOf (Local0) - 0x04), Local2)
                    Local1 [One] = Local2
                    Return (Local1)
                }

                Method (_LSW, 3, Serialized)  // _LSW: Label Storage Write
                {
                    Return (ToInteger (Mid (NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x03, Concatenate (Concatenate (Arg0, Arg1
                        ), Arg2), 0x0F), Zero, 0x04)))
                }
            }

            Device (NV0F)
            {
                Name (_ADR, 0x10)  // _ADR: Address
                Method (_DSM, 4, NotSerialized)  // _DSM: Device-Specific Method
                {
                    Return (NDSM (Arg0, Arg1, Arg2, Arg3, 0x10))
                }

                Method (_LSI, 0, Serialized)  // _LSI: Label Storage Information
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, One, Buffer (Zero) {}, 0x10)
                    Local1 = Package (0x03)
                        {
                            Zero, 
                            Zero, 
                            Zero
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    If ((ToInteger (Mid (Local0, Zero, 0x04)) == Zero))
                    {
                        Local1 [One] = ToInteger (Mid (Local0, 0x04, 0x04))
                        Local1 [0x02] = ToInteger (Mid (Local0, 0x08, 0x04))
                    }

                    Return (Local1)
                }

                Method (_LSR, 2, Serialized)  // _LSR: Label Storage Read
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x02, Concatenate (Arg0, Arg1), 0x10)
                    Local1 = Package (0x02)
                        {
                            Zero, 
                            Buffer (Zero) {}
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    Mid (Local0, 0x04, (SizeOf (Local0) - 0x04), Local2)
                    Local1 [One] = Local2
                    Return (Local1)
                }

                Method (_LSW, 3, Serialized)  // _LSW: Label Storage Write
                {
                    Return (ToInteger (Mid (NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x03, Concatenate (Concatenate (Arg0, Arg1
                        ), Arg2), 0x10), Zero, 0x04)))
                }
            }

            Device (NV10)
            {
                Name (_ADR, 0x11)  // _ADR: Address
                Method (_DSM, 4, NotSerialized)  // _DSM: Device-Specific Method
                {
                    Return (NDSM (Arg0, Arg1, Arg2, Arg3, 0x11))
                }

                Method (_LSI, 0, Serialized)  // _LSI: Label Storage Information
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, One, Buffer (Zero) {}, 0x11)
                    Local1 = Package (0x03)
                        {
                            Zero, 
                            Zero, 
                            Zero
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    If ((ToInteger (Mid (Local0, Zero, 0x04)) == Zero))
                    {
                        Local1 [One] = ToInteger (Mid (Local0, 0x04, 0x04))
                        Local1 [0x02] = ToInteger (Mid (Local0, 0x08, 0x04))
                    }

                    Return (Local1)
                }

                Method (_LSR, 2, Serialized)  // _LSR: Label Storage Read
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x02, Concatenate (Arg0, Arg1), 0x11)
                    Local1 = Package (0x02)
                        {
                            Zero, 
                            Buffer (Zero) {}
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    Mid (Local0, 0x04, (SizeOf (Local0) - 0x04), Local2)
                    Local1 [One] = Local2
                    Return (Local1)
                }

                Method (_LSW, 3, Serialized)  // _LSW: Label Storage Write
                {
                    Return (ToInteger (Mid (NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x03, Concatenate (Concatenate (Arg0, Arg1
                        ), Arg2), 0x11), Zero, 0x04)))
                }
            }

            Device (NV11)
            {
                Name (_ADR, 0x12)  // _ADR: Address
                Method (_DSM, 4, NotSerialized)  // _DSM: Device-Specific Method
                {
                    Return (NDSM (Arg0, Arg1, Arg2, Arg3, 0x12))
                }

                Method (_LSI, 0, Serialized)  // _LSI: Label Storage Information
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, One, Buffer (Zero) {}, 0x12)
                    Local1 = Package (0x03)
                        {
                            Zero, 
                            Zero, 
                            Zero
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    If ((ToInteger (Mid (Local0, Zero, 0x04)) == Zero))
                    {
                        Local1 [One] = ToInteger (Mid (Local0, 0x04, 0x04))
                        Local1 [0x02] = ToInteger (Mid (Local0, 0x08, 0x04))
                    }

                    Return (Local1)
                }

                Method (_LSR, 2, Serialized)  // _LSR: Label Storage Read
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x02, Concatenate (Arg0, Arg1), 0x12)
                    Local1 = Package (0x02)
                        {
                            Zero, 
                            Buffer (Zero) {}
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    Mid (Local0, 0x04, (SizeOf (Local0) - 0x04), Local2)
                    Local1 [One] = Local2
                    Return (Local1)
                }

                Method (_LSW, 3, Serialized)  // _LSW: Label Storage Write
                {
                    Return (ToInteger (Mid (NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x03, Concatenate (Concatenate (Arg0, Arg1
                        ), Arg2), 0x12), Zero, 0x04)))
                }
            }

            Device (NV12)
            {
                Name (_ADR, 0x13)  // _ADR: Address
                Method (_DSM, 4, NotSerialized)  // _DSM: Device-Specific Method
                {
                    Return (NDSM (Arg0, Arg1, Arg2, Arg3, 0x13))
                }

                Method (_LSI, 0, Serialized)  // _LSI: Label Storage Information
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, One, Buffer (Zero) {}, 0x13)
                    Local1 = Package (0x03)
                        {
                            Zero, 
                            Zero, 
                            Zero
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    If ((ToInteger (Mid (Local0, Zero, 0x04)) == Zero))
                    {
                        Local1 [One] = ToInteger (Mid (Local0, 0x04, 0x04))
                        Local1 [0x02] = ToInteger (Mid (Local0, 0x08, 0x04))
                    }

                    Return (Local1)
                }

                Method (_LSR, 2, Serialized)  // _LSR: Label Storage Read
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x02, Concatenate (Arg0, Arg1), 0x13)
                    Local1 = Package (0x02)
                        {
                            Zero, 
                            Buffer (Zero) {}
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    Mid (Local0, 0x04, (SizeOf (Local0) - 0x04), Local2)
                    Local1 [One] = Local2
                    Return (Local1)
                }

                Method (_LSW, 3, Serialized)  // _LSW: Label Storage Write
                {
                    Return (ToInteger (Mid (NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x03, Concatenate (Concatenate (Arg0, Arg1
                        ), Arg2), 0x13), Zero, 0x04)))
                }
            }

            Device (NV13)
            {
                Name (_ADR, 0x14)  // _ADR: Address
                Method (_DSM, 4, NotSerialized)  // _DSM: Device-Specific Method
                {
                    Return (NDSM (Arg0, Arg1, Arg2, Arg3, 0x14))
                }

                Method (_LSI, 0, Serialized)  // _LSI: Label Storage Information
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, One, Buffer (Zero) {}, 0x14)
                    Local1 = Package (0x03)
                        {
                            Zero, 
                            Zero, 
                            Zero
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    If ((ToInteger (Mid (Local0, Zero, 0x04)) == Zero))
                    {
                        Local1 [One] = ToInteger (Mid (Local0, 0x04, 0x04))
                        Local1 [0x02] = ToInteger (Mid (Local0, 0x08, 0x04))
                    }

                    Return (Local1)
                }

                Method (_LSR, 2, Serialized)  // _LSR: Label Storage Read
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x02, Concatenate (Arg0, Arg1), 0x14)
                    Local1 = Package (0x02)
                        {
                            Zero, 
                            Buffer (Zero) {}
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    Mid (Local0, 0x04, (SizeOf (Local0) - 0x04), Local2)
                    Local1 [One] = Local2
                    Return (Local1)
                }

                Method (_LSW, 3, Serialized)  // _LSW: Label Storage Write
                {
                    Return (ToInteger (Mid (NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x03, Concatenate (Concatenate (Arg0, Arg1
                        ), Arg2), 0x14), Zero, 0x04)))
                }
            }

            Device (NV14)
            {
                Name (_ADR, 0x15)  // _ADR: Address
                Method (_DSM, 4, NotSerialized)  // _DSM: Device-Specific Method
                {
                    Return (NDSM (Arg0, Arg1, Arg2, Arg3, 0x15))
                }

                Method (_LSI, 0, Serialized)  // _LSI: Label Storage Information
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, One, Buffer (Zero) {}, 0x15)
                    Local1 = Package (0x03)
                        {
                            Zero, 
                            Zero, 
                            Zero
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    If ((ToInteger (Mid (Local0, Zero, 0x04)) == Zero))
                    {
                        Local1 [One] = ToInteger (Mid (Local0, 0x04, 0x04))
                        Local1 [0x02] = ToInteger (Mid (Local0, 0x08, 0x04))
                    }

                    Return (Local1)
                }

                Method (_LSR, 2, Serialized)  // _LSR: Label Storage Read
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x02, Concatenate (Arg0, Arg1), 0x15)
                    Local1 = Package (0x02)
                        {
                            Zero, 
                            Buffer (Zero) {}
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    Mid (Local0, 0x04, (SizeOf (Local0) - 0x04), Local2)
                    Local1 [One] = Local2
                    Return (Local1)
                }

                Method (_LSW, 3, Serialized)  // _LSW: Label Storage Write
                {
                    Return (ToInteger (Mid (NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x03, Concatenate (Concatenate (Arg0, Arg1
                        ), Arg2), 0x15), Zero, 0x04)))
                }
            }

            Device (NV15)
            {
                Name (_ADR, 0x16)  // _ADR: Address
                Method (_DSM, 4, NotSerialized)  // _DSM: Device-Specific Method
                {
                    Return (NDSM (Arg0, Arg1, Arg2, Arg3, 0x16))
                }

                Method (_LSI, 0, Serialized)  // _LSI: Label Storage Information
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, One, Buffer (Zero) {}, 0x16)
                    Local1 = Package (0x03)
                        {
                            Zero, 
                            Zero, 
                            Zero
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    If ((ToInteger (Mid (Local0, Zero, 0x04)) == Zero))
                    {
                        Local1 [One] = ToInteger (Mid (Local0, 0x04, 0x04))
                        Local1 [0x02] = ToInteger (Mid (Local0, 0x08, 0x04))
                    }

                    Return (Local1)
                }

                Method (_LSR, 2, Serialized)  // _LSR: Label Storage Read
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x02, Concatenate (Arg0, Arg1), 0x16)
                    Local1 = Package (0x02)
                        {
                            Zero, 
                            Buffer (Zero) {}
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    Mid (Local0, 0x04, (SizeOf (Local0) - 0x04), Local2)
                    Local1 [One] = Local2
                    Return (Local1)
                }

                Method (_LSW, 3, Serialized)  // _LSW: Label Storage Write
                {
                    Return (ToInteger (Mid (NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x03, Concatenate (Concatenate (Arg0, Arg1
                        ), Arg2), 0x16), Zero, 0x04)))
                }
            }

            Device (NV16)
            {
                Name (_ADR, 0x17)  // _ADR: Address
                Method (_DSM, 4, NotSerialized)  // _DSM: Device-Specific Method
                {
                    Return (NDSM (Arg0, Arg1, Arg2, Arg3, 0x17))
                }

                Method (_LSI, 0, Serialized)  // _LSI: Label Storage Information
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, One, Buffer (Zero) {}, 0x17)
                    Local1 = Package (0x03)
                        {
                            Zero, 
                            Zero, 
                            Zero
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    If ((ToInteger (Mid (Local0, Zero, 0x04)) == Zero))
                    {
                        Local1 [One] = ToInteger (Mid (Local0, 0x04, 0x04))
                        Local1 [0x02] = ToInteger (Mid (Local0, 0x08, 0x04))
                    }

                    Return (Local1)
                }

                Method (_LSR, 2, Serialized)  // _LSR: Label Storage Read
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x02, Concatenate (Arg0, Arg1), 0x17)
                    Local1 = Package (0x02)
                        {
                            Zero, 
                            Buffer (Zero) {}
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    Mid (Local0, 0x04, (SizeOf (Local0) - 0x04), Local2)
                    Local1 [One] = Local2
                    Return (Local1)
                }

                Method (_LSW, 3, Serialized)  // _LSW: Label Storage Write
                {
                    Return (ToInteger (Mid (NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x03, Concatenate (Concatenate (Arg0, Arg1
                        ), Arg2), 0x17), Zero, 0x04)))
                }
            }

            Device (NV17)
            {
                Name (_ADR, 0x18)  // _ADR: Address
                Method (_DSM, 4, NotSerialized)  // _DSM: Device-Specific Method
                {
                    Return (NDSM (Arg0, Arg1, Arg2, Arg3, 0x18))
                }

                Method (_LSI, 0, Serialized)  // _LSI: Label Storage Information
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, One, Buffer (Zero) {}, 0x18)
                    Local1 = Package (0x03)
                        {
                            Zero, 
                            Zero, 
                            Zero
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    If ((ToInteger (Mid (Local0, Zero, 0x04)) == Zero))
                    {
                        Local1 [One] = ToInteger (Mid (Local0, 0x04, 0x04))
                        Local1 [0x02] = ToInteger (Mid (Local0, 0x08, 0x04))
                    }

                    Return (Local1)
                }

                Method (_LSR, 2, Serialized)  // _LSR: Label Storage Read
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x02, Concatenate (Arg0, Arg1), 0x18)
                    Local1 = Package (0x02)
                        {
                            Zero, 
                            Buffer (Zero) {}
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    Mid (Local0, 0x04, (SizeOf (Local0) - 0x04), Local2)
                    Local1 [One] = Local2
                    Return (Local1)
                }

                Method (_LSW, 3, Serialized)  // _LSW: Label Storage Write
                {
                    Return (ToInteger (Mid (NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x03, Concatenate (Concatenate (Arg0, Arg1
                        ), Arg2), 0x18), Zero, 0x04)))
                }
            }

            Device (NV18)
            {
                Name (_ADR, 0x19)  // _ADR: Address
                Method (_DSM, 4, NotSerialized)  // _DSM: Device-Specific Method
                {
                    Return (NDSM (Arg0, Arg1, Arg2, Arg3, 0x19))
                }

                Method (_LSI, 0, Serialized)  // _LSI: Label Storage Information
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, One, Buffer (Zero) {}, 0x19)
                    Local1 = Package (0x03)
                        {
                            Zero, 
                            Zero, 
                            Zero
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    If ((ToInteger (Mid (Local0, Zero, 0x04)) == Zero))
                    {
                        Local1 [One] = ToInteger (Mid (Local0, 0x04, 0x04))
                        Local1 [0x02] = ToInteger (Mid (Local0, 0x08, 0x04))
                    }

                    Return (Local1)
                }

                Method (_LSR, 2, Serialized)  // _LSR: Label Storage Read
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x02, Concatenate (Arg0, Arg1), 0x19)
                    Local1 = Package (0x02)
                        {
                            Zero, 
                            Buffer (Zero) {}
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    Mid (Local0, 0x04, (SizeOf (Local0) - 0x04), Local2)
                    Local1 [One] = Local2
                    Return (Local1)
                }

                Method (_LSW, 3, Serialized)  // _LSW: Label Storage Write
                {
                    Return (ToInteger (Mid (NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x03, Concatenate (Concatenate (Arg0, Arg1
                        ), Arg2), 0x19), Zero, 0x04)))
                }
            }

            Device (NV19)
            {
                Name (_ADR, 0x1A)  // _ADR: Address
                Method (_DSM, 4, NotSerialized)  // _DSM: Device-Specific Method
                {
                    Return (NDSM (Arg0, Arg1, Arg2, Arg3, 0x1A))
                }

                Method (_LSI, 0, Serialized)  // _LSI: Label Storage Information
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, One, Buffer (Zero) {}, 0x1A)
                    Local1 = Package (0x03)
                        {
                            Zero, 
                            Zero, 
                            Zero
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    If ((ToInteger (Mid (Local0, Zero, 0x04)) == Zero))
                    {
                        Local1 [One] = ToInteger (Mid (Local0, 0x04, 0x04))
                        Local1 [0x02] = ToInteger (Mid (Local0, 0x08, 0x04))
                    }

                    Return (Local1)
                }

                Method (_LSR, 2, Serialized)  // _LSR: Label Storage Read
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x02, Concatenate (Arg0, Arg1), 0x1A)
                    Local1 = Package (0x02)
                        {
                            Zero, 
                            Buffer (Zero) {}
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    Mid (Local0, 0x04, (SizeOf (Local0) - 0x04), Local2)
                    Local1 [One] = Local2
                    Return (Local1)
                }

                Method (_LSW, 3, Serialized)  // _LSW: Label Storage Write
                {
                    Return (ToInteger (Mid (NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x03, Concatenate (Concatenate (Arg0, Arg1
                        ), Arg2), 0x1A), Zero, 0x04)))
                }
            }

            Device (NV1A)
            {
                Name (_ADR, 0x1B)  // _ADR: Address
                Method (_DSM, 4, NotSerialized)  // _DSM: Device-Specific Method
                {
                    Return (NDSM (Arg0, Arg1, Arg2, Arg3, 0x1B))
                }

                Method (_LSI, 0, Serialized)  // _LSI: Label Storage Information
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, One, Buffer (Zero) {}, 0x1B)
                    Local1 = Package (0x03)
                        {
                            Zero, 
                            Zero, 
                            Zero
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    If ((ToInteger (Mid (Local0, Zero, 0x04)) == Zero))
                    {
                        Local1 [One] = ToInteger (Mid (Local0, 0x04, 0x04))
                        Local1 [0x02] = ToInteger (Mid (Local0, 0x08, 0x04))
                    }

                    Return (Local1)
                }

                Method (_LSR, 2, Serialized)  // _LSR: Label Storage Read
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x02, Concatenate (Arg0, Arg1), 0x1B)
                    Local1 = Package (0x02)
                        {
                            Zero, 
                            Buffer (Zero) {}
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    Mid (Local0, 0x04, (SizeOf (Local0) - 0x04), Local2)
                    Local1 [One] = Local2
                    Return (Local1)
                }

                Method (_LSW, 3, Serialized)  // _LSW: Label Storage Write
                {
                    Return (ToInteger (Mid (NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x03, Concatenate (Concatenate (Arg0, Arg1
                        ), Arg2), 0x1B), Zero, 0x04)))
                }
            }

            Device (NV1B)
            {
                Name (_ADR, 0x1C)  // _ADR: Address
                Method (_DSM, 4, NotSerialized)  // _DSM: Device-Specific Method
                {
                    Return (NDSM (Arg0, Arg1, Arg2, Arg3, 0x1C))
                }

                Method (_LSI, 0, Serialized)  // _LSI: Label Storage Information
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, One, Buffer (Zero) {}, 0x1C)
                    Local1 = Package (0x03)
                        {
                            Zero, 
                            Zero, 
                            Zero
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    If ((ToInteger (Mid (Local0, Zero, 0x04)) == Zero))
                    {
                        Local1 [One] = ToInteger (Mid (Local0, 0x04, 0x04))
                        Local1 [0x02] = ToInteger (Mid (Local0, 0x08, 0x04))
                    }

                    Return (Local1)
                }

                Method (_LSR, 2, Serialized)  // _LSR: Label Storage Read
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x02, Concatenate (Arg0, Arg1), 0x1C)
                    Local1 = Package (0x02)
                        {
                            Zero, 
                            Buffer (Zero) {}
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    Mid (Local0, 0x04, (SizeOf (Local0) - 0x04), Local2)
                    Local1 [One] = Local2
                    Return (Local1)
                }

                Method (_LSW, 3, Serialized)  // _LSW: Label Storage Write
                {
                    Return (ToInteger (Mid (NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x03, Concatenate (Concatenate (Arg0, Arg1
                        ), Arg2), 0x1C), Zero, 0x04)))
                }
            }

            Device (NV1C)
            {
                Name (_ADR, 0x1D)  // _ADR: Address
                Method (_DSM, 4, NotSerialized)  // _DSM: Device-Specific Method
                {
                    Return (NDSM (Arg0, Arg1, Arg2, Arg3, 0x1D))
                }

                Method (_LSI, 0, Serialized)  // _LSI: Label Storage Information
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, One, Buffer (Zero) {}, 0x1D)
                    Local1 = Package (0x03)
                        {
                            Zero, 
                            Zero, 
                            Zero
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    If ((ToInteger (Mid (Local0, Zero, 0x04)) == Zero))
                    {
                        Local1 [One] = ToInteger (Mid (Local0, 0x04, 0x04))
                        Local1 [0x02] = ToInteger (Mid (Local0, 0x08, 0x04))
                    }

                    Return (Local1)
                }

                Method (_LSR, 2, Serialized)  // _LSR: Label Storage Read
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x02, Concatenate (Arg0, Arg1), 0x1D)
                    Local1 = Package (0x02)
                        {
                            Zero, 
                            Buffer (Zero) {}
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    Mid (Local0, 0x04, (SizeOf (Local0) - 0x04), Local2)
                    Local1 [One] = Local2
                    Return (Local1)
                }

                Method (_LSW, 3, Serialized)  // _LSW: Label Storage Write
                {
                    Return (ToInteger (Mid (NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x03, Concatenate (Concatenate (Arg0, Arg1
                        ), Arg2), 0x1D), Zero, 0x04)))
                }
            }

            Device (NV1D)
            {
                Name (_ADR, 0x1E)  // _ADR: Address
                Method (_DSM, 4, NotSerialized)  // _DSM: Device-Specific Method
                {
                    Return (NDSM (Arg0, Arg1, Arg2, Arg3, 0x1E))
                }

                Method (_LSI, 0, Serialized)  // _LSI: Label Storage Information
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, One, Buffer (Zero) {}, 0x1E)
                    Local1 = Package (0x03)
                        {
                            Zero, 
                            Zero, 
                            Zero
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    If ((ToInteger (Mid (Local0, Zero, 0x04)) == Zero))
                    {
                        Local1 [One] = ToInteger (Mid (Local0, 0x04, 0x04))
                        Local1 [0x02] = ToInteger (Mid (Local0, 0x08, 0x04))
                    }

                    Return (Local1)
                }

                Method (_LSR, 2, Serialized)  // _LSR: Label Storage Read
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x02, Concatenate (Arg0, Arg1), 0x1E)
                    Local1 = Package (0x02)
                        {
                            Zero, 
                            Buffer (Zero) {}
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    Mid (Local0, 0x04, (SizeOf (Local0) - 0x04), Local2)
                    Local1 [One] = Local2
                    Return (Local1)
                }

                Method (_LSW, 3, Serialized)  // _LSW: Label Storage Write
                {
                    Return (ToInteger (Mid (NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x03, Concatenate (Concatenate (Arg0, Arg1
                        ), Arg2), 0x1E), Zero, 0x04)))
                }
            }

            Device (NV1E)
            {
                Name (_ADR, 0x1F)  // _ADR: Address
                Method (_DSM, 4, NotSerialized)  // _DSM: Device-Specific Method
                {
                    Return (NDSM (Arg0, Arg1, Arg2, Arg3, 0x1F))
                }

                Method (_LSI, 0, Serialized)  // _LSI: Label Storage Information
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, One, Buffer (Zero) {}, 0x1F)
                    Local1 = Package (0x03)
                        {
                            Zero, 
                            Zero, 
                            Zero
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    If ((ToInteger (Mid (Local0, Zero, 0x04)) == Zero))
                    {
                        Local1 [One] = ToInteger (Mid (Local0, 0x04, 0x04))
                        Local1 [0x02] = ToInteger (Mid (Local0, 0x08, 0x04))
                    }

                    Return (Local1)
                }

                Method (_LSR, 2, Serialized)  // _LSR: Label Storage Read
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x02, Concatenate (Arg0, Arg1), 0x1F)
                    Local1 = Package (0x02)
                        {
                            Zero, 
                            Buffer (Zero) {}
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    Mid (Local0, 0x04, (SizeOf (Local0) - 0x04), Local2)
                    Local1 [One] = Local2
                    Return (Local1)
                }

                Method (_LSW, 3, Serialized)  // _LSW: Label Storage Write
                {
                    Return (ToInteger (Mid (NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x03, Concatenate (Concatenate (Arg0, Arg1
                        ), Arg2), 0x1F), Zero, 0x04)))
                }
            }

            Device (NV1F)
            {
                Name (_ADR, 0x20)  // _ADR: Address
                Method (_DSM, 4, NotSerialized)  // _DSM: Device-Specific Method
                {
                    Return (NDSM (Arg0, Arg1, Arg2, Arg3, 0x20))
                }

                Method (_LSI, 0, Serialized)  // _LSI: Label Storage Information
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, One, Buffer (Zero) {}, 0x20)
                    Local1 = Package (0x03)
                        {
                            Zero, 
                            Zero, 
                            Zero
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    If ((ToInteger (Mid (Local0, Zero, 0x04)) == Zero))
                    {
                        Local1 [One] = ToInteger (Mid (Local0, 0x04, 0x04))
                        Local1 [0x02] = ToInteger (Mid (Local0, 0x08, 0x04))
                    }

                    Return (Local1)
                }

                Method (_LSR, 2, Serialized)  // _LSR: Label Storage Read
                {
                    Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x02, Concatenate (Arg0, Arg1), 0x20)
                    Local1 = Package (0x02)
                        {
                            Zero, 
                            Buffer (Zero) {}
                        }
                    Local1 [Zero] = ToInteger (Mid (Local0, Zero, 0x04))
                    Mid (Local0, 0x04, (SizeOf (Local0) - 0x04), Local2)
                    Local1 [One] = Local2
                    Return (Local1)
                }

                Method (_LSW, 3, Serialized)  // _LSW: Label Storage Write
                {
                    Return (ToInteger (Mid (NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x03, Concatenate (Concatenate (Arg0, Arg1
                        ), Arg2), 0x20), Zero, 0x04)))
                }
            }

            Method (NEVT, 0, Serialized)
            {
                Local0 = NCAL (ToUUID ("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1") /* Unknown UUID */, One, 0x02, Buffer (Zero) {}, 0xFFFFFFFF)
                Local1 = ToInteger (Mid (Local0, 0x04, 0x04))
                Local2 = ToInteger (Mid (Local0, 0x08, 0x04))
                If ((Local1 & One))
                {
                    Notify (\_SB.NVDR, 0x80) // Status Change
                }

                If ((Local1 & 0x02))
                {
                    Notify (\_SB.NVDR, 0x81) // Information Change
                }

                If (Local2)
                {
                    If ((Local2 & One))
                    {
                        Notify (NV00, 0x81) // Information Change
                    }

                    If ((Local2 & 0x02))
                    {
                        Notify (NV01, 0x81) // Information Change
                    }

                    If ((Local2 & 0x04))
                    {
                        Notify (NV02, 0x81) // Information Change
                    }

                    If ((Local2 & 0x08))
                    {
                        Notify (NV03, 0x81) // Information Change
                    }

                    If ((Local2 & 0x10))
                    {
                        Notify (NV04, 0x81) // Information Change
                    }

                    If ((Local2 & 0x20))
                    {
                        Notify (NV05, 0x81) // Information Change
                    }

                    If ((Local2 & 0x40))
                    {
                        Notify (NV06, 0x81) // Information Change
                    }

                    If ((Local2 & 0x80))
                    {
                        Notify (NV07, 0x81) // Information Change
                    }

                    If ((Local2 & 0x0100))
                    {
                        Notify (NV08, 0x81) // Information Change
                    }

                    If ((Local2 & 0x0200))
                    {
                        Notify (NV09, 0x81) // Information Change
                    }

                    If ((Local2 & 0x0400))
                    {
                        Notify (NV0A, 0x81) // Information Change
                    }

                    If ((Local2 & 0x0800))
                    {
                        Notify (NV0B, 0x81) // Information Change
                    }

                    If ((Local2 & 0x1000))
                    {
                        Notify (NV0C, 0x81) // Information Change
                    }

                    If ((Local2 & 0x2000))
                    {
                        Notify (NV0D, 0x81) // Information Change
                    }

                    If ((Local2 & 0x4000))
                    {
                        Notify (NV0E, 0x81) // Information Change
                    }

                    If ((Local2 & 0x8000))
                    {
                        Notify (NV0F, 0x81) // Information Change
                    }

                    If ((Local2 & 0x00010000))
                    {
                        Notify (NV10, 0x81) // Information Change
                    }

                    If ((Local2 & 0x00020000))
                    {
                        Notify (NV11, 0x81) // Information Change
                    }

                    If ((Local2 & 0x00040000))
                    {
                        Notify (NV12, 0x81) // Information Change
                    }

                    If ((Local2 & 0x00080000))
                    {
                        Notify (NV13, 0x81) // Information Change
                    }

                    If ((Local2 & 0x00100000))
                    {
                        Notify (NV14, 0x81) // Information Change
                    }

                    If ((Local2 & 0x00200000))
                    {
                        Notify (NV15, 0x81) // Information Change
                    }

                    If ((Local2 & 0x00400000))
                    {
                        Notify (NV16, 0x81) // Information Change
                    }

                    If ((Local2 & 0x00800000))
                    {
                        Notify (NV17, 0x81) // Information Change
                    }

                    If ((Local2 & 0x01000000))
                    {
                        Notify (NV18, 0x81) // Information Change
                    }

                    If ((Local2 & 0x02000000))
                    {
                        Notify (NV19, 0x81) // Information Change
                    }

                    If ((Local2 & 0x04000000))
                    {
                        Notify (NV1A, 0x81) // Information Change
                    }

                    If ((Local2 & 0x08000000))
                    {
                        Notify (NV1B, 0x81) // Information Change
                    }

                    If ((Local2 & 0x10000000))
                    {
                        Notify (NV1C, 0x81) // Information Change
                    }

                    If ((Local2 & 0x20000000))
                    {
                        Notify (NV1D, 0x81) // Information Change
                    }

                    If ((Local2 & 0x40000000))
                    {
                        Notify (NV1E, 0x81) // Information Change
                    }

                    If ((Local2 & 0x80000000))
                    {
                        Notify (NV1F, 0x81) // Information Change
                    }
                }
            }
        }
    }

    Name (_S5, Package (0x04)  // _S5_: S5 System State
    {
        0x05, 
        Zero, 
        Zero, 
        Zero
    })
}

