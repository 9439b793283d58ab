//! The payload of the probe: its bytes, its steps, and the memory it finds.

use kvm_bindings::{kvm_segment, kvm_sregs};
use std::io;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// The payload, assembled from payload.S (a test compares).
#[rustfmt::skip]
const PAYLOAD: [u8; 0xf4] = {
    let mut code = [0x90; 0xf4]; // nop between the steps
    const START: &[u8] = &[
        0xb8, 0x20, 0x00, 0x00, 0x00,             // 00 mov $0x20, %eax        CR4.PAE
        0x0f, 0x22, 0xe0,                         // 05 mov %eax, %cr4
        0xb8, 0x00, 0x10, 0x00, 0x00,             // 08 mov $0x1000, %eax
        0x0f, 0x22, 0xd8,                         // 0d mov %eax, %cr3
        0xb9, 0x80, 0x00, 0x00, 0xc0,             // 10 mov $0xc0000080, %ecx  EFER
        0x0f, 0x32,                               // 15 rdmsr
        0x0d, 0x00, 0x01, 0x00, 0x00,             // 17 or $0x100, %eax        EFER.LME
        0x0f, 0x30,                               // 1c wrmsr
        0xb8, 0x01, 0x00, 0x00, 0x80,             // 1e mov $0x80000001, %eax  CR0.PG | CR0.PE
        0x0f, 0x22, 0xc0,                         // 23 mov %eax, %cr0
        0xea, 0x2d, 0x00, 0x01, 0x00, 0x08, 0x00, // 26 ljmp $8, $0x1002d
        0xb0, 0x40,                               // 2d mov $64, %al
        0xe6, 0x10,                               // 2f out %al, $0x10
    ];
    const COUNT: &[u8] = &[
        0xe5, 0x14,                               // 40 in $0x14, %eax
        0x85, 0xc0,                               // 42 test %eax, %eax
        0x74, 0x06,                               // 44 jz 4c
        0xff, 0xc8,                               // 46 dec %eax
        0x75, 0xfc,                               // 48 jnz 46
        0xeb, 0xf4,                               // 4a jmp 40
        0xb0, 0x01,                               // 4c mov $1, %al
        0xe6, 0x10,                               // 4e out %al, $0x10
    ];
    const UD2: &[u8] = &[
        0xbc, 0x00, 0x80, 0x00, 0x00,             // 60 mov $0x8000, %esp
        0x31, 0xdb,                               // 65 xor %ebx, %ebx
        0x0f, 0x0b,                               // 67 ud2
        0x89, 0xd8,                               // 69 mov %ebx, %eax
        0xe6, 0x10,                               // 6b out %al, $0x10
    ];
    const INT3: &[u8] = &[
        0xbc, 0x00, 0x80, 0x00, 0x00,             // 80 mov $0x8000, %esp
        0x31, 0xdb,                               // 85 xor %ebx, %ebx
        0xcc,                                     // 87 int3
        0x89, 0xd8,                               // 88 mov %ebx, %eax
        0xe6, 0x10,                               // 8a out %al, $0x10
    ];
    const CMPXCHG16B: &[u8] = &[
        0x31, 0xc0,                               // a0 xor %eax, %eax
        0x31, 0xd2,                               // a2 xor %edx, %edx
        0x8d, 0x58, 0x01,                         // a4 lea 1(%rax), %ebx
        0x89, 0xd9,                               // a7 mov %ebx, %ecx
        0xbf, 0x00, 0x50, 0x00, 0x00,             // a9 mov $0x5000, %edi
        0xf0, 0x48, 0x0f, 0xc7, 0x0f,             // ae lock cmpxchg16b (%rdi)
        0x0f, 0x94, 0xc0,                         // b3 sete %al
        0xe6, 0x10,                               // b6 out %al, $0x10
    ];
    const END: &[u8] = &[0xf4];                   // c0 hlt
    const UD_HANDLER: &[u8] = &[
        0xb3, 0x06,                               // e0 mov $6, %bl
        0x48, 0x83, 0x04, 0x24, 0x02,             // e2 addq $2, (%rsp)
        0x48, 0xcf,                               // e7 iretq
    ];
    const BP_HANDLER: &[u8] = &[
        0xb3, 0x03,                               // f0 mov $3, %bl
        0x48, 0xcf,                               // f2 iretq
    ];
    let parts = [(0x00, START), (0x40, COUNT), (0x60, UD2), (0x80, INT3), (0xa0, CMPXCHG16B), (0xc0, END), (0xe0, UD_HANDLER), (0xf0, BP_HANDLER)];
    let mut part = 0;
    while part < parts.len() {
        let (at, bytes) = parts[part];
        let mut n = 0;
        while n < bytes.len() {
            code[at + n] = bytes[n];
            n += 1;
        }
        part += 1;
    }
    code
};

/// One step of the payload: where it starts, its name in reports, and the byte it reports when all went well.
pub(super) struct Step {
    pub at: u64,
    pub name: &'static str,
    pub expect: u8,
}

pub(super) const STEPS: [Step; 5] = [
    Step {
        at: 0x00,
        name: "the switch to long mode",
        expect: 64,
    },
    Step {
        at: 0x40,
        name: "a counted loop",
        expect: 1,
    },
    Step {
        at: 0x60,
        name: "ud2 with an IDT",
        expect: 6,
    },
    Step {
        at: 0x80,
        name: "int3 with an IDT",
        expect: 3,
    },
    Step {
        at: 0xa0,
        name: "lock cmpxchg16b",
        expect: 1,
    },
];

const MEMORY: usize = 0x2_0000;
const GDT: GuestAddress = GuestAddress(0x500);
const PAGE_TABLES: GuestAddress = GuestAddress(0x1000); // PML4, PDPT, PD: one page each
const IDT: GuestAddress = GuestAddress(0x4000);
pub(super) const BASE: u64 = 0x1_0000;
pub(super) const REPORT_PORT: u16 = 0x10;
pub(super) const COUNT_PORT: u16 = 0x14;

/// Payload and tables in fresh memory.
pub(super) fn load_payload() -> io::Result<GuestMemoryMmap> {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]).map_err(io::Error::other)?;
    // Null, 64-bit code, data, 32-bit code (Intel SDM 3A 3.4.5).
    let gdt: [u64; 4] = [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0x00cf_9b00_0000_ffff];
    let idt_gate = |handler: u64| (8 << 16) | (0x8e << 40) | (handler & 0xffff) | ((handler >> 16) & 0xffff) << 48;
    let pages = PAGE_TABLES.0;
    let mut words: Vec<(u64, u64)> = (0u64..).step_by(8).map(|o| GDT.0 + o).zip(gdt).collect();
    words.extend([
        (pages, (pages + 0x1000) | 3),
        (pages + 0x1000, (pages + 0x2000) | 3),
        (pages + 0x2000, 0x83), // 2 MiB page at 0
        (IDT.0 + 16 * 6, idt_gate(BASE + 0xe0)),
        (IDT.0 + 16 * 3, idt_gate(BASE + 0xf0)),
    ]);
    for (at, word) in words {
        memory.write_obj(word, GuestAddress(at)).map_err(io::Error::other)?;
    }
    memory
        .write_slice(&PAYLOAD, GuestAddress(BASE))
        .map_err(io::Error::other)?;
    Ok(memory)
}

/// Flat 32-bit protected mode, paging off, our GDT and IDT.
pub(super) fn protected_mode(sregs: &mut kvm_sregs) {
    let code = kvm_segment {
        limit: 0xffff_ffff,
        selector: 0x18,
        type_: 11,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..Default::default()
    };
    let data = kvm_segment {
        selector: 0x10,
        type_: 3,
        ..code
    };
    sregs.cs = code;
    for segment in [
        &mut sregs.ds,
        &mut sregs.es,
        &mut sregs.fs,
        &mut sregs.gs,
        &mut sregs.ss,
    ] {
        *segment = data;
    }
    (sregs.gdt.base, sregs.gdt.limit) = (GDT.0, 31);
    (sregs.idt.base, sregs.idt.limit) = (IDT.0, 16 * 32 - 1);
    sregs.cr0 |= 1;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::Path, process::Command};

    #[test]
    fn payload_is_what_its_source_assembles_to() {
        let dir = tempfile::tempdir().unwrap();
        let (object, binary) = (dir.path().join("probe.o"), dir.path().join("probe.bin"));
        // binutils are there wherever Rust can link.
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/hv/probe/payload.S");
        assert!(
            Command::new("as")
                .arg("--64")
                .arg(source)
                .arg("-o")
                .arg(&object)
                .status()
                .unwrap()
                .success()
        );
        let copy = Command::new("objcopy")
            .args(["-O", "binary", "-j", ".text"])
            .arg(&object)
            .arg(&binary)
            .status();
        assert!(copy.unwrap().success());
        assert_eq!(fs::read(binary).unwrap(), PAYLOAD);
    }
}
