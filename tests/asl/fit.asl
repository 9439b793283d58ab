// Runs in acpiexec beside a DSDT whose NCAL was renamed: the one here stands in for mailbox and monitor, with a FIT of ten
// bytes in pieces of four that can change half-way. Every method returns 0, or the number of the claim that failed.
DefinitionBlock ("", "SSDT", 2, "DAXVSR", "FIT", 1)
{
    External (\_SB.NVDR, DeviceObj)
    External (\_SB.NVDR._FIT, MethodObj)

    Name (FIT1, Buffer () { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 })
    Name (FIT2, Buffer () { 21, 22, 23, 24, 25, 26 })
    // Calls so far; the call at which the FIT changes; the status of every call.
    Name (ASKS, 0)
    Name (MOVE, 0xFF)
    Name (STAT, 0)

    Scope (\_SB.NVDR)
    {
        // Guid, revision, function, input, handle.
        Method (NCAL, 5, Serialized)
        {
            ASKS++
            Local0 = Buffer () { 0, 0, 0, 0, 1, 0, 0, 0 }
            Local1 = FIT1
            If (ASKS >= MOVE)
            {
                Local0 [4] = 2
                Local1 = FIT2
            }
            Local2 = ToInteger (Mid (Arg3, 0, 8))
            Local3 = ToInteger (Mid (Arg3, 8, 8))
            If (STAT != 0) { Return (Buffer () { 3, 0, 0, 0 }) }
            If ((Local2 != 0) && (Local3 != DerefOf (Local0 [4]))) { Return (Buffer () { 0, 1, 0, 0 }) }
            Return (Concatenate (Local0, Mid (Local1, Local2, 4)))
        }
    }

    // Four, four, two bytes, then the empty piece.
    Method (ALLP, 0, Serialized)
    {
        Local0 = \_SB.NVDR._FIT ()
        If (Local0 != FIT1) { Return (1) }
        If (ASKS != 4) { Return (2) }
        Return (0)
    }

    // Changed before the third call: refused, then four, two bytes and the empty piece of the new one.
    Method (CHNG, 0, Serialized)
    {
        MOVE = 3
        Local0 = \_SB.NVDR._FIT ()
        If (Local0 != FIT2) { Return (1) }
        If (ASKS != 6) { Return (2) }
        Return (0)
    }

    // A failure gives an empty FIT, not a part of one.
    Method (FAIL, 0, Serialized)
    {
        STAT = 1
        Local0 = \_SB.NVDR._FIT ()
        If (ObjectType (Local0) != 3) { Return (1) }
        If (SizeOf (Local0) != 0) { Return (2) }
        Return (0)
    }
}
