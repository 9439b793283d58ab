// Runs beside the DSDT in acpiexec, where the doorbell does nothing: the reply of a call is whatever the mailbox holds,
// mostly its own input. Every method returns 0, or the number of the claim that failed.
DefinitionBlock ("", "SSDT", 2, "DAXVSR", "MAILBOX", 1)
{
    External (\_SB.NVDR._DSM, MethodObj)
    External (\_SB.NVDR._FIT, MethodObj)
    External (\_SB.NVDR.NV01._DSM, MethodObj)
    External (\_SB.NVDR.NV01._LSI, MethodObj)
    External (\_SB.NVDR.NV01._LSR, MethodObj)
    External (\_SB.NVDR.NV01._LSW, MethodObj)
    External (\_SB.NVDR.HNDL, FieldUnitObj)
    External (\_SB.NVDR.REVN, FieldUnitObj)
    External (\_SB.NVDR.FUNC, FieldUnitObj)
    External (\_SB.NVDR.ILEN, FieldUnitObj)
    External (\_SB.NVDR.OLEN, FieldUnitObj)
    External (\_SB.NVDR.GUID, FieldUnitObj)
    External (\_SB.NVDR.DBEL, FieldUnitObj)
    External (\_SB.NVDR.DT00, FieldUnitObj)
    External (\_SB.GED.ESEL, FieldUnitObj)
    External (\_SB.GED._EVT, MethodObj)

    Name (INTL, ToUUID ("4309ac30-0d11-11e4-9191-0800200c9a66"))

    // The header says who asks for what, and the doorbell is rung.
    Method (HEAD, 0, Serialized)
    {
        \_SB.NVDR.OLEN = 8
        \_SB.NVDR.DBEL = 0
        Name (ARGS, Package () { Buffer () { 1, 2, 3, 4, 5, 6, 7, 8 } })
        Local0 = \_SB.NVDR.NV01._DSM (INTL, 1, 5, ARGS)
        If (\_SB.NVDR.HNDL != 2) { Return (1) }
        If (\_SB.NVDR.REVN != 1) { Return (2) }
        If (\_SB.NVDR.FUNC != 5) { Return (3) }
        If (\_SB.NVDR.ILEN != 8) { Return (4) }
        If (\_SB.NVDR.GUID != INTL) { Return (5) }
        If (\_SB.NVDR.DBEL == 0) { Return (6) }
        If (Local0 != DerefOf (ARGS [0])) { Return (7) }
        \_SB.NVDR._DSM (INTL, 2, 1, ARGS)
        If (\_SB.NVDR.HNDL != 0xFFFFFFFF) { Return (8) }
        If (\_SB.NVDR.REVN != 2) { Return (9) }
        Return (0)
    }

    // No argument, an empty one and an empty Buffer are all an input of no bytes.
    Method (NONE, 0, Serialized)
    {
        \_SB.NVDR.OLEN = 4
        \_SB.NVDR.DT00 = Buffer (64) { 0x71, 0, 0, 0 }
        Local0 = \_SB.NVDR.NV01._DSM (INTL, 1, 0, Package (0) {})
        If (\_SB.NVDR.ILEN != 0) { Return (1) }
        If (Local0 != Buffer () { 0x71, 0, 0, 0 }) { Return (2) }
        \_SB.NVDR.NV01._DSM (INTL, 1, 4, Package () { Buffer (0) {} })
        If (\_SB.NVDR.ILEN != 0) { Return (3) }
        \_SB.NVDR.NV01._DSM (INTL, 1, 4, 0)
        If (\_SB.NVDR.ILEN != 0) { Return (4) }
        Return (0)
    }

    // A reply is a Buffer of its own length, also where a field would read as an Integer, on both sides of each size of
    // the data fields, and up to all of the mailbox.
    Method (SIZE, 0, Serialized)
    {
        Name (LENS, Package () { 1, 4, 8, 63, 64, 65, 1024, 1025, 4100, 4104, 4160, 4161, 65472 })
        Name (ARGS, Package (1) {})
        Local0 = 0
        While (Local0 < SizeOf (LENS))
        {
            Local1 = DerefOf (LENS [Local0])
            Local2 = Buffer (Local1) {}
            Local2 [Local1 - 1] = 0x5A
            ARGS [0] = Local2
            \_SB.NVDR.OLEN = Local1
            Local3 = \_SB.NVDR.NV01._DSM (INTL, 1, 6, ARGS)
            If (ObjectType (Local3) != 3) { Return (Local1) }
            If (Local3 != Local2) { Return (Local1) }
            Local0++
        }
        \_SB.NVDR.OLEN = 0
        Local3 = \_SB.NVDR.NV01._DSM (INTL, 1, 6, ARGS)
        If (ObjectType (Local3) != 3) { Return (1) }
        If (SizeOf (Local3) != 0) { Return (2) }
        Return (0)
    }

    // _LSI: three Integers; after a failure the status alone counts.
    Method (INFO, 0, Serialized)
    {
        \_SB.NVDR.OLEN = 12
        \_SB.NVDR.DT00 = Buffer (64) { 0, 0, 0, 0, 0, 0, 2, 0, 0, 0x10, 0, 0 }
        Local0 = \_SB.NVDR.NV01._LSI ()
        If (SizeOf (Local0) != 3) { Return (1) }
        If (DerefOf (Local0 [0]) != 0) { Return (2) }
        If (DerefOf (Local0 [1]) != 0x20000) { Return (3) }
        If (DerefOf (Local0 [2]) != 4096) { Return (4) }
        \_SB.NVDR.OLEN = 4
        \_SB.NVDR.DT00 = Buffer (64) { 1 }
        Local0 = \_SB.NVDR.NV01._LSI ()
        If (DerefOf (Local0 [0]) != 1) { Return (5) }
        Return (0)
    }

    // _LSR: four bytes of data stay a Buffer. The input is offset and length as 64-bit numbers.
    Method (LRED, 0, Serialized)
    {
        \_SB.NVDR.OLEN = 12
        Local0 = \_SB.NVDR.NV01._LSR (0x0000000700000003, 4)
        If (\_SB.NVDR.ILEN != 16) { Return (1) }
        If (\_SB.NVDR.FUNC != 2) { Return (2) }
        If (DerefOf (Local0 [0]) != 3) { Return (3) }
        If (ObjectType (DerefOf (Local0 [1])) != 3) { Return (4) }
        If (DerefOf (Local0 [1]) != Buffer () { 7, 0, 0, 0, 4, 0, 0, 0 }) { Return (5) }
        \_SB.NVDR.OLEN = 4
        Local0 = \_SB.NVDR.NV01._LSR (2, 4)
        If (DerefOf (Local0 [0]) != 2) { Return (6) }
        If (SizeOf (DerefOf (Local0 [1])) != 0) { Return (7) }
        \_SB.NVDR.OLEN = 8
        Local0 = \_SB.NVDR.NV01._LSR (0, 4)
        If (ObjectType (DerefOf (Local0 [1])) != 3) { Return (8) }
        If (DerefOf (Local0 [1]) != Buffer (4) {}) { Return (9) }
        Return (0)
    }

    // _LSW: the data follows offset and length.
    Method (LWRI, 0, Serialized)
    {
        \_SB.NVDR.OLEN = 4
        Local0 = \_SB.NVDR.NV01._LSW (2, 3, Buffer () { 7, 8, 9 })
        If (ObjectType (Local0) != 1) { Return (1) }
        If (Local0 != 2) { Return (2) }
        If (\_SB.NVDR.ILEN != 19) { Return (3) }
        If (\_SB.NVDR.FUNC != 3) { Return (4) }
        Local1 = \_SB.NVDR.DT00
        If (Mid (Local1, 0, 19) != Buffer () { 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 7, 8, 9 }) { Return (5) }
        Return (0)
    }

    // _FIT: an empty piece ends it.
    Method (FITS, 0, Serialized)
    {
        \_SB.NVDR.OLEN = 8
        Local0 = \_SB.NVDR._FIT ()
        If (ObjectType (Local0) != 3) { Return (1) }
        If (SizeOf (Local0) != 0) { Return (2) }
        If (\_SB.NVDR.HNDL != 0xFFFFFFFF) { Return (3) }
        If (\_SB.NVDR.ILEN != 16) { Return (4) }
        Return (0)
    }
}
