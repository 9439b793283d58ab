// Runs in acpiexec, where ports are plain memory: what is written is read back, and registers that share an offset share
// their content. Selecting a slot therefore is its base's low half. Every method returns 0, or the number of the claim that
// failed.
DefinitionBlock ("", "SSDT", 2, "DAXVSR", "MEMORY", 1)
{
    External (\_SB.MEMC.MSEL, FieldUnitObj)
    External (\_SB.MEMC.MBSH, FieldUnitObj)
    External (\_SB.MEMC.MLNL, FieldUnitObj)
    External (\_SB.MEMC.MLNH, FieldUnitObj)
    External (\_SB.MEMC.MPRX, FieldUnitObj)
    External (\_SB.MEMC.MFLG, FieldUnitObj)
    External (\_SB.MEMC.MOEV, FieldUnitObj)
    External (\_SB.MEMC.MOST, FieldUnitObj)
    External (\_SB.MEMC.MNTF, MethodObj)
    External (\_SB.MEMC.MS02._STA, MethodObj)
    External (\_SB.MEMC.MS02._CRS, MethodObj)
    External (\_SB.MEMC.MS02._PXM, MethodObj)
    External (\_SB.MEMC.MS03._OST, MethodObj)
    External (\_SB.MEMC.MS04._EJ0, MethodObj)

    // Present, absent, and present with a pending event.
    Method (STAT, 0, Serialized)
    {
        \_SB.MEMC.MFLG = 1
        If (\_SB.MEMC.MS02._STA () != 0xF) { Return (1) }
        If (\_SB.MEMC.MSEL != 2) { Return (2) }
        \_SB.MEMC.MFLG = 0
        If (\_SB.MEMC.MS02._STA () != 0) { Return (3) }
        \_SB.MEMC.MFLG = 5
        If (\_SB.MEMC.MS02._STA () != 0xF) { Return (4) }
        Return (0)
    }

    // A range above 4 GiB, longer than 4 GiB.
    Method (PLCE, 0, Serialized)
    {
        \_SB.MEMC.MBSH = 0x12
        \_SB.MEMC.MLNL = 0x40000000
        \_SB.MEMC.MLNH = 3
        Local0 = \_SB.MEMC.MS02._CRS ()
        If (SizeOf (Local0) != 48) { Return (1) }
        CreateByteField (Local0, 0, KIND)
        CreateByteField (Local0, 3, TYPE)
        CreateByteField (Local0, 5, FLGS)
        CreateQWordField (Local0, 14, LOWE)
        CreateQWordField (Local0, 22, HIGH)
        CreateQWordField (Local0, 38, SIZE)
        If (KIND != 0x8A) { Return (2) }
        If (TYPE != 0) { Return (3) }
        // Cacheable, read-write.
        If (FLGS != 3) { Return (4) }
        If (LOWE != 0x1200000002) { Return (5) }
        If (SIZE != 0x340000000) { Return (6) }
        If (HIGH != 0x1540000001) { Return (7) }
        Return (0)
    }

    // A slot that was emptied meanwhile has a range of no bytes.
    Method (GONE, 0, Serialized)
    {
        \_SB.MEMC.MLNL = 0
        \_SB.MEMC.MLNH = 0
        Local0 = \_SB.MEMC.MS02._CRS ()
        CreateQWordField (Local0, 22, HIGH)
        CreateQWordField (Local0, 38, SIZE)
        If (SIZE != 0) { Return (1) }
        If (HIGH != 0) { Return (2) }
        Return (0)
    }

    Method (PROX, 0, Serialized)
    {
        \_SB.MEMC.MPRX = 0x2A
        If (\_SB.MEMC.MS02._PXM () != 0x2A) { Return (1) }
        Return (0)
    }

    Method (TELL, 0, Serialized)
    {
        \_SB.MEMC.MS03._OST (0x103, 0x84, Buffer () { 0 })
        If (\_SB.MEMC.MSEL != 3) { Return (1) }
        If (\_SB.MEMC.MOEV != 0x103) { Return (2) }
        If (\_SB.MEMC.MOST != 0x84) { Return (3) }
        Return (0)
    }

    Method (EJCT, 0, Serialized)
    {
        \_SB.MEMC.MS04._EJ0 (1)
        If (\_SB.MEMC.MSEL != 4) { Return (1) }
        If (\_SB.MEMC.MFLG != 8) { Return (2) }
        Return (0)
    }

    // Every slot, insertions and removals.
    Method (NTFY, 0, Serialized)
    {
        \_SB.MEMC.MNTF (0, 1)
        \_SB.MEMC.MNTF (1, 3)
        \_SB.MEMC.MNTF (2, 1)
        \_SB.MEMC.MNTF (3, 3)
        \_SB.MEMC.MNTF (4, 1)
        Return (0)
    }
}
