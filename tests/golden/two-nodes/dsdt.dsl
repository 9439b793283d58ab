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
                    Notify (\_SB.NVDR, 0x80) // Status Change
                }
            }
        }

        Device (NVDR)
        {
            Name (_HID, "ACPI0012" /* NVDIMM Root Device */)  // _HID: Hardware ID
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

