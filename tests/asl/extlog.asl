// Runs in acpiexec beside a DSDT with an extended error log. Every method returns 0, or the number of the claim that failed.
DefinitionBlock ("", "SSDT", 2, "DAXVSR", "EXTLOG", 1)
{
    External (\_SB._DSM, MethodObj)

    Name (ELOG, ToUUID ("663E35AF-CC10-41A4-88EA-5470AF055295"))

    // Functions 0 and 1, in revisions 0 and 1.
    Method (FNCS, 0, Serialized)
    {
        Local0 = \_SB._DSM (ELOG, 0, 0, Package () {})
        If (ObjectType (Local0) != 3) { Return (1) }
        If (Local0 != Buffer () { 3 }) { Return (2) }
        If (\_SB._DSM (ELOG, 1, 0, Package () {}) != Buffer () { 3 }) { Return (3) }
        Return (0)
    }

    // An Integer, whatever the arguments are.
    Method (ADDR, 0, Serialized)
    {
        Local0 = \_SB._DSM (ELOG, 0, 1, Package () {})
        If (ObjectType (Local0) != 1) { Return (1) }
        If (Local0 != 0x1D0000) { Return (2) }
        If (\_SB._DSM (ELOG, 1, 1, Package () { 7, Buffer () { 1 } }) != 0x1D0000) { Return (3) }
        Return (0)
    }

    // Nothing else.
    Method (NONE, 0, Serialized)
    {
        If (\_SB._DSM (ELOG, 0, 2, Package () {}) != Buffer () { 0 }) { Return (1) }
        Local0 = ToUUID ("663E35AF-CC10-41A4-88EA-5470AF055296")
        If (\_SB._DSM (Local0, 0, 0, Package () {}) != Buffer () { 0 }) { Return (2) }
        If (\_SB._DSM (Local0, 0, 1, Package () {}) != Buffer () { 0 }) { Return (3) }
        Return (0)
    }
}
