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

                If ((Local0 & One))
                {
                    \_SB.MEMC.MSCN ()
                }
            }
        }

        Device (MEMC)
        {
            Name (_HID, EisaId ("PNP0A06") /* Generic Container Device */)  // _HID: Hardware ID
            Name (_UID, "Memory devices")  // _UID: Unique ID
            OperationRegion (MREG, SystemIO, 0x0A40, 0x1C)
            Field (MREG, DWordAcc, NoLock, WriteAsZeros)
            {
                MBSL,   32, 
                MBSH,   32, 
                MLNL,   32, 
                MLNH,   32, 
                MPRX,   32
            }

            Field (MREG, DWordAcc, NoLock, WriteAsZeros)
            {
                Offset (0x14), 
                MFLG,   32, 
                MNXT,   32
            }

            Field (MREG, DWordAcc, NoLock, WriteAsZeros)
            {
                MSEL,   32, 
                MOEV,   32, 
                MOST,   32
            }

            Mutex (MLCK, 0x00)
            Method (MSTA, 1, Serialized)
            {
                Acquire (MLCK, 0xFFFF)
                MSEL = Arg0
                Local0 = Zero
                If ((MFLG & One))
                {
                    Local0 = 0x0F
                }

                Release (MLCK)
                Return (Local0)
            }

            Method (MCRS, 1, Serialized)
            {
                Acquire (MLCK, 0xFFFF)
                MSEL = Arg0
                Local0 = Zero
                Name (MTPL, ResourceTemplate ()
                {
                    QWordMemory (ResourceConsumer, PosDecode, MinFixed, MaxFixed, Cacheable, ReadWrite,
                        0x0000000000000000, // Granularity
                        0x0000000000000000, // Range Minimum
                        0x0000000000000000, // Range Maximum
                        0x0000000000000000, // Translation Offset
                        0x0000000000000000, // Length
                        ,, _Y00, AddressRangeMemory, TypeStatic)
                })
                CreateQWordField (MTPL, \_SB.MEMC.MCRS._Y00._MIN, MMIN)  // _MIN: Minimum Base Address
                CreateQWordField (MTPL, \_SB.MEMC.MCRS._Y00._MAX, MMAX)  // _MAX: Maximum Base Address
                CreateQWordField (MTPL, \_SB.MEMC.MCRS._Y00._LEN, MLEN)  // _LEN: Length
                Local2 = ((MLNH << 0x20) | MLNL) /* \_SB_.MEMC.MLNL */
                MMIN = ((MBSH << 0x20) | MBSL) /* \_SB_.MEMC.MBSL */
                MLEN = Local2
                If ((Local2 != Zero))
                {
                    MMAX = ((MMIN + Local2) - One)
                }

                Local0 = MTPL /* \_SB_.MEMC.MCRS.MTPL */
                Release (MLCK)
                Return (Local0)
            }

            Method (MPXM, 1, Serialized)
            {
                Acquire (MLCK, 0xFFFF)
                MSEL = Arg0
                Local0 = Zero
                Local0 = MPRX /* \_SB_.MEMC.MPRX */
                Release (MLCK)
                Return (Local0)
            }

            Method (MOSM, 3, Serialized)
            {
                Acquire (MLCK, 0xFFFF)
                MSEL = Arg0
                Local0 = Zero
                MOEV = Arg1
                MOST = Arg2
                Release (MLCK)
                Return (Local0)
            }

            Method (MEJM, 1, Serialized)
            {
                Acquire (MLCK, 0xFFFF)
                MSEL = Arg0
                Local0 = Zero
                MFLG = 0x08
                Release (MLCK)
                Return (Local0)
            }

            Method (MNTF, 2, Serialized)
            {
                If ((Arg0 < 0x02))
                {
                    If ((Arg0 < One))
                    {
                        Notify (MS00, Arg1)
                    }
                    Else
                    {
                        Notify (MS01, Arg1)
                    }
                }
                ElseIf ((Arg0 < 0x03))
                {
                    Notify (MS02, Arg1)
                }
                ElseIf ((Arg0 < 0x04))
                {
                    Notify (MS03, Arg1)
                }
                Else
                {
                    Notify (MS04, Arg1)
                }
            }

            Method (MSCN, 0, Serialized)
            {
                Acquire (MLCK, 0xFFFF)
                Local0 = MNXT /* \_SB_.MEMC.MNXT */
                While ((Local0 != 0xFFFFFFFF))
                {
                    Local1 = MFLG /* \_SB_.MEMC.MFLG */
                    If ((Local1 & 0x02))
                    {
                        MFLG = 0x02
                        MNTF (Local0, One)
                    }

                    If ((Local1 & 0x04))
                    {
                        MFLG = 0x04
                        MNTF (Local0, 0x03)
                    }

                    Local0 = MNXT /* \_SB_.MEMC.MNXT */
                }

                Release (MLCK)
            }

            Device (MS00)
            {
                Name (_HID, EisaId ("PNP0C80") /* Memory Device */)  // _HID: Hardware ID
                Name (_UID, Zero)  // _UID: Unique ID
                Method (_STA, 0, NotSerialized)  // _STA: Status
                {
                    Return (MSTA (Zero))
                }

                Method (_CRS, 0, NotSerialized)  // _CRS: Current Resource Settings
                {
                    Return (MCRS (Zero))
                }

                Method (_PXM, 0, NotSerialized)  // _PXM: Device Proximity
                {
                    Return (MPXM (Zero))
                }

                Method (_EJ0, 1, NotSerialized)  // _EJx: Eject Device, x=0-9
                {
                    MEJM (Zero)
                }

                Method (_OST, 3, NotSerialized)  // _OST: OSPM Status Indication
                {
                    MOSM (Zero, Arg0, Arg1)
                }
            }

            Device (MS01)
            {
                Name (_HID, EisaId ("PNP0C80") /* Memory Device */)  // _HID: Hardware ID
                Name (_UID, One)  // _UID: Unique ID
                Method (_STA, 0, NotSerialized)  // _STA: Status
                {
                    Return (MSTA (One))
                }

                Method (_CRS, 0, NotSerialized)  // _CRS: Current Resource Settings
                {
                    Return (MCRS (One))
                }

                Method (_PXM, 0, NotSerialized)  // _PXM: Device Proximity
                {
                    Return (MPXM (One))
                }

                Method (_EJ0, 1, NotSerialized)  // _EJx: Eject Device, x=0-9
                {
                    MEJM (One)
                }

                Method (_OST, 3, NotSerialized)  // _OST: OSPM Status Indication
                {
                    MOSM (One, Arg0, Arg1)
                }
            }

            Device (MS02)
            {
                Name (_HID, EisaId ("PNP0C80") /* Memory Device */)  // _HID: Hardware ID
                Name (_UID, 0x02)  // _UID: Unique ID
                Method (_STA, 0, NotSerialized)  // _STA: Status
                {
                    Return (MSTA (0x02))
                }

                Method (_CRS, 0, NotSerialized)  // _CRS: Current Resource Settings
                {
                    Return (MCRS (0x02))
                }

                Method (_PXM, 0, NotSerialized)  // _PXM: Device Proximity
                {
                    Return (MPXM (0x02))
                }

                Method (_EJ0, 1, NotSerialized)  // _EJx: Eject Device, x=0-9
                {
                    MEJM (0x02)
                }

                Method (_OST, 3, NotSerialized)  // _OST: OSPM Status Indication
                {
                    MOSM (0x02, Arg0, Arg1)
                }
            }

            Device (MS03)
            {
                Name (_HID, EisaId ("PNP0C80") /* Memory Device */)  // _HID: Hardware ID
                Name (_UID, 0x03)  // _UID: Unique ID
                Method (_STA, 0, NotSerialized)  // _STA: Status
                {
                    Return (MSTA (0x03))
                }

                Method (_CRS, 0, NotSerialized)  // _CRS: Current Resource Settings
                {
                    Return (MCRS (0x03))
                }

                Method (_PXM, 0, NotSerialized)  // _PXM: Device Proximity
                {
                    Return (MPXM (0x03))
                }

                Method (_EJ0, 1, NotSerialized)  // _EJx: Eject Device, x=0-9
                {
                    MEJM (0x03)
                }

                Method (_OST, 3, NotSerialized)  // _OST: OSPM Status Indication
                {
                    MOSM (0x03, Arg0, Arg1)
                }
            }

            Device (MS04)
            {
                Name (_HID, EisaId ("PNP0C80") /* Memory Device */)  // _HID: Hardware ID
                Name (_UID, 0x04)  // _UID: Unique ID
                Method (_STA, 0, NotSerialized)  // _STA: Status
                {
                    Return (MSTA (0x04))
                }

                Method (_CRS, 0, NotSerialized)  // _CRS: Current Resource Settings
                {
                    Return (MCRS (0x04))
                }

                Method (_PXM, 0, NotSerialized)  // _PXM: Device Proximity
                {
                    Return (MPXM (0x04))
                }

                Method (_EJ0, 1, NotSerialized)  // _EJx: Eject Device, x=0-9
                {
                    MEJM (0x04)
                }

                Method (_OST, 3, NotSerialized)  // _OST: OSPM Status Indication
                {
                    MOSM (0x04, Arg0, Arg1)
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

