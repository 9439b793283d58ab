// Runs in acpiexec beside a DSDT whose NCAL was renamed: the one here stands in for mailbox and monitor, with one set of
// events that it hands out once. Every method returns 0, or the number of the claim that failed.
DefinitionBlock ("", "SSDT", 2, "DAXVSR", "EVENTS", 1)
{
    External (\_SB.GED._EVT, MethodObj)
    External (\_SB.GED.ESEL, FieldUnitObj)
    External (\_SB.NVDR, DeviceObj)

    // Calls so far.
    Name (ASKS, 0)

    Scope (\_SB.NVDR)
    {
        // Guid, revision, function, input, handle.
        Method (NCAL, 5, Serialized)
        {
            ASKS++
            If ((Arg2 != 2) || (Arg4 != 0xFFFFFFFF)) { Return (Buffer () { 1, 0, 0, 0 }) }
            // Status, both root events, slots 1 and 31.
            Return (Buffer () { 0, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0x80 })
        }
    }

    // Power button and NVDIMM at once.
    Method (EVNT, 0, Serialized)
    {
        \_SB.GED.ESEL = 6
        \_SB.GED._EVT (5)
        If (ASKS != 1) { Return (1) }
        Return (0)
    }

    // Without the NVDIMM's bit nothing is asked.
    Method (BUTT, 0, Serialized)
    {
        \_SB.GED.ESEL = 2
        \_SB.GED._EVT (5)
        If (ASKS != 0) { Return (1) }
        Return (0)
    }
}
