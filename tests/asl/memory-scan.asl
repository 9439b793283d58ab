// Runs in acpiexec beside a DSDT whose MNTF was renamed: the one here notes what it is called with and takes the pending
// event away, as the controller does.
DefinitionBlock ("", "SSDT", 2, "DAXVSR", "MEMSCAN", 1)
{
    External (\_SB.MEMC, DeviceObj)
    External (\_SB.MEMC.MSCN, MethodObj)
    External (\_SB.MEMC.MFLG, FieldUnitObj)
    External (\_SB.MEMC.MNXT, FieldUnitObj)
    External (\_SB.GED._EVT, MethodObj)
    External (\_SB.GED.ESEL, FieldUnitObj)

    // Calls so far; slot and value of the last.
    Name (CALL, 0)
    Name (SLOT, 0)
    Name (VALU, 0)

    Scope (\_SB.MEMC)
    {
        Method (MNTF, 2, Serialized)
        {
            CALL++
            SLOT = Arg0
            VALU = Arg1
            \_SB.MEMC.MNXT = 0xFFFFFFFF
        }
    }

    Method (INSR, 0, Serialized)
    {
        \_SB.MEMC.MNXT = 3
        \_SB.MEMC.MFLG = 3
        \_SB.MEMC.MSCN ()
        If ((CALL != 1) || (SLOT != 3) || (VALU != 1)) { Return (1) }
        // The event is cleared.
        If (\_SB.MEMC.MFLG != 2) { Return (2) }
        Return (0)
    }

    Method (REMV, 0, Serialized)
    {
        \_SB.MEMC.MNXT = 4
        \_SB.MEMC.MFLG = 5
        \_SB.MEMC.MSCN ()
        If ((CALL != 1) || (SLOT != 4) || (VALU != 3)) { Return (1) }
        If (\_SB.MEMC.MFLG != 4) { Return (2) }
        Return (0)
    }

    Method (BOTH, 0, Serialized)
    {
        \_SB.MEMC.MNXT = 0
        \_SB.MEMC.MFLG = 7
        \_SB.MEMC.MSCN ()
        If ((CALL != 2) || (SLOT != 0) || (VALU != 3)) { Return (1) }
        Return (0)
    }

    Method (NONE, 0, Serialized)
    {
        \_SB.MEMC.MNXT = 0xFFFFFFFF
        \_SB.MEMC.MFLG = 7
        \_SB.MEMC.MSCN ()
        If (CALL != 0) { Return (1) }
        Return (0)
    }

    // The generic event device scans when the bit of memory devices is set, and only then.
    Method (GEDM, 0, Serialized)
    {
        \_SB.MEMC.MNXT = 1
        \_SB.MEMC.MFLG = 3
        \_SB.GED.ESEL = 4
        \_SB.GED._EVT (5)
        If (CALL != 0) { Return (1) }
        \_SB.GED.ESEL = 1
        \_SB.GED._EVT (5)
        If ((CALL != 1) || (SLOT != 1)) { Return (2) }
        Return (0)
    }
}
