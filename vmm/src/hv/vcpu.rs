//! One virtual processor: initial state, running, and what made it stop.

use super::{HvError, refused, signal};
use crate::{
    boot::{CpuState, SegmentRegister},
    cpuid::CpuidEntry,
    mce::msr,
};
use devices::units::Gpa;
use kvm_bindings::{
    CpuId, KVM_COALESCED_MMIO_PAGE_OFFSET, KVM_EXIT_XEN, Msrs, kvm_cpuid_entry2, kvm_dtable, kvm_msr_entry, kvm_regs,
    kvm_segment,
};
use kvm_ioctls::{VcpuExit, VcpuFd};
use std::{fs::File, io, os::fd::AsRawFd, os::fd::BorrowedFd, thread::JoinHandle};
use vm_memory::{FileOffset, MmapRegion, mmap::MmapRegionBuilder};
use vmm_sys_util::signal::{Killable, register_signal_handler};

/// A virtual processor. Lives on the thread that runs it.
pub struct Vcpu {
    fd: VcpuFd,
    apic_id: u32,
    /// What reads of `MCG_CAP` find, where they are exits.
    pub(super) mcg_cap: u64,
}

/// Why [`Vcpu::run`] came back.
#[derive(Debug)]
pub enum Exit<'a> {
    /// Reads from a port: one or more accesses of `size` bytes each, all from the same port.
    PortRead {
        /// Port number.
        port: u64,
        /// Bytes of one access.
        size: usize,
        /// To be filled, `size` bytes an access.
        data: &'a mut [u8],
    },
    /// Writes to a port.
    PortWrite {
        /// Port number.
        port: u64,
        /// Bytes of one access.
        size: usize,
        /// `size` bytes an access.
        data: &'a [u8],
    },
    /// A load from an address without memory.
    MmioRead(u64, &'a mut [u8]),
    /// A store to an address without (writable) memory.
    MmioWrite(u64, &'a [u8]),
    /// A read of `MCG_CAP`, which has been answered.
    RegisterRead,
    /// A Xen hypercall; [`Vcpu::answer_hypercall`] before it runs again.
    Hypercall(Hypercall),
    /// A signal or a request to stop.
    Interrupted,
    /// The processor shut down: a triple fault.
    Shutdown,
    /// KVM had to carry out an instruction and cannot; it is still to be done. The text says where.
    NotEmulated(String),
    /// KVM cannot go on with this guest; the text says why.
    Stuck(String),
}

/// A Xen hypercall as KVM hands it over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hypercall {
    /// Number.
    pub number: u64,
    /// Arguments.
    pub args: [u64; 6],
    /// Made in 64-bit mode.
    pub is_64_bit: bool,
    /// Current privilege level.
    pub privilege: u32,
}

impl Vcpu {
    pub(super) fn new(fd: VcpuFd, apic_id: u32) -> Self {
        let mcg_cap = 0;
        Self { fd, apic_id, mcg_cap }
    }

    /// Number of its local APIC.
    pub fn apic_id(&self) -> u32 {
        self.apic_id
    }

    pub(super) fn fd(&self) -> &VcpuFd {
        &self.fd
    }

    fn refused(&self, what: &str) -> impl FnOnce(kvm_ioctls::Error) -> HvError + use<> {
        refused(format!("{what} of vCPU {}", self.apic_id))
    }

    /// Sets what CPUID answers.
    pub fn set_cpuid(&self, entries: &[CpuidEntry]) -> Result<(), HvError> {
        let entries: Vec<_> = entries.iter().map(kvm_cpuid).collect();
        let too_many = |_| HvError {
            what: format!("take {} CPUID leaves", entries.len()),
            source: io::Error::from(io::ErrorKind::InvalidInput),
        };
        let cpuid = CpuId::from_entries(&entries).map_err(too_many)?;
        self.fd.set_cpuid2(&cpuid).map_err(self.refused("set the CPUID"))
    }

    /// What every processor has after reset beyond KVM's own defaults.
    pub fn set_reset_msrs(&self) -> Result<(), HvError> {
        // IA32_MISC_ENABLE: fast strings. IA32_MTRR_DEF_TYPE: MTRRs on, write-back, as firmware leaves it.
        let values = [(0x1a0, 1), (0x2ff, 1 << 11 | 6)];
        for (index, data) in values {
            self.set_msr(index, data)?;
        }
        Ok(())
    }

    pub(super) fn set_msr(&self, index: u32, data: u64) -> Result<(), HvError> {
        let msrs = Msrs::from_entries(&[kvm_msr_entry {
            index,
            data,
            ..Default::default()
        }]);
        let msrs = msrs.map_err(|_| HvError {
            what: "build a list of MSRs".into(),
            source: io::Error::from(io::ErrorKind::InvalidInput),
        })?;
        // Zero written: this KVM does not know the register, and the guest will find it as CPUID says.
        self.fd.set_msrs(&msrs).map_err(self.refused("set the MSRs"))?;
        Ok(())
    }

    /// Puts the boot processor where the boot protocol wants it.
    pub fn set_state(&self, state: &CpuState) -> Result<(), HvError> {
        let mut sregs = self.fd.get_sregs().map_err(self.refused("read the system registers"))?;
        sregs.cs = kvm_segment_of(&state.cs);
        for data in [
            &mut sregs.ds,
            &mut sregs.es,
            &mut sregs.fs,
            &mut sregs.gs,
            &mut sregs.ss,
        ] {
            *data = kvm_segment_of(&state.data);
        }
        sregs.tr = kvm_segment_of(&state.tr);
        sregs.ldt = kvm_segment_of(&state.ldt);
        sregs.gdt = kvm_dtable {
            base: state.gdt.base,
            limit: state.gdt.limit,
            ..Default::default()
        };
        sregs.idt = kvm_dtable {
            base: state.idt.base,
            limit: state.idt.limit,
            ..Default::default()
        };
        (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer) = (state.cr0, state.cr3, state.cr4, state.efer);
        self.fd
            .set_sregs(&sregs)
            .map_err(self.refused("set the system registers"))?;
        let regs = kvm_regs {
            rip: state.rip,
            rax: state.rax,
            rsi: state.rsi,
            rbx: state.rbx,
            rsp: state.rsp,
            rflags: state.rflags,
            ..Default::default()
        };
        self.fd.set_regs(&regs).map_err(self.refused("set the registers"))
    }

    /// Local interrupts as firmware leaves them: LINT0 takes the PIC, LINT1 is the NMI.
    pub fn set_local_interrupts(&self) -> Result<(), HvError> {
        /// Offsets in the register page; delivery modes ExtINT and NMI (Intel SDM 3A 11.5.1).
        const LINTS: [(usize, u8); 2] = [(0x350, 7), (0x360, 4)];
        let mut lapic = self.fd.get_lapic().map_err(self.refused("read the local APIC"))?;
        for (offset, mode) in LINTS {
            // The delivery mode is bits 10:8, so it lies in the register's second byte.
            let byte = &mut lapic.regs[offset + 1];
            #[expect(clippy::cast_possible_wrap, reason = "KVM declares register bytes as C char")]
            {
                *byte = (*byte & !7) | mode as i8;
            }
        }
        self.fd.set_lapic(&lapic).map_err(self.refused("set the local APIC"))
    }

    /// Runs the guest until something needs this process.
    pub fn run(&mut self) -> Result<Exit<'_>, HvError> {
        /// What is left of an exit once the borrow of the run page is over.
        enum Io {
            Read(u16, *mut u8, usize),
            Write(u16, *const u8, usize),
        }
        let (apic_id, mcg_cap) = (self.apic_id, self.mcg_cap);
        // Two steps, because the width of one access of a string instruction stands in the same page as its data.
        let io = match self.fd.run() {
            Ok(VcpuExit::IoIn(port, data)) => Io::Read(port, data.as_mut_ptr(), data.len()),
            Ok(VcpuExit::IoOut(port, data)) => Io::Write(port, data.as_ptr(), data.len()),
            // SAFETY of the lifetimes below: the slices lie in the run page, which lives as long as `self`.
            Ok(VcpuExit::MmioRead(addr, data)) => {
                let (data, len) = (data.as_mut_ptr(), data.len());
                // SAFETY: as returned by `run` a moment ago; nothing else refers to it while `self` is borrowed.
                return Ok(Exit::MmioRead(addr, unsafe {
                    std::slice::from_raw_parts_mut(data, len)
                }));
            }
            Ok(VcpuExit::MmioWrite(addr, data)) => {
                let (data, len) = (data.as_ptr(), data.len());
                // SAFETY: as above.
                return Ok(Exit::MmioWrite(addr, unsafe { std::slice::from_raw_parts(data, len) }));
            }
            Ok(VcpuExit::X86Rdmsr(read)) if read.index == msr::MCG_CAP => {
                (*read.data, *read.error) = (mcg_cap, 0);
                return Ok(Exit::RegisterRead);
            }
            Ok(VcpuExit::Intr) => return Ok(Exit::Interrupted),
            Ok(VcpuExit::Shutdown) => return Ok(Exit::Shutdown),
            Ok(VcpuExit::FailEntry(reason, cpu)) => {
                return Ok(Exit::Stuck(format!(
                    "the processor refused to enter the guest (reason {reason:#x} on CPU {cpu})"
                )));
            }
            Ok(VcpuExit::InternalError) => return Ok(self.internal_error()),
            Ok(VcpuExit::Unsupported(KVM_EXIT_XEN)) => return Ok(self.hypercall()),
            Ok(other) => {
                return Ok(Exit::Stuck(format!(
                    "KVM stopped the guest with an exit nobody asked for: {other:?}"
                )));
            }
            Err(e) if [libc::EINTR, libc::EAGAIN].contains(&e.errno()) => return Ok(Exit::Interrupted),
            Err(e) => return Err(refused(format!("run vCPU {apic_id}"))(e)),
        };
        // SAFETY: the last exit was a port access, so `io` is the member of the union that KVM filled.
        let size = usize::from(unsafe { self.fd.get_kvm_run().__bindgen_anon_1.io.size });
        Ok(match io {
            Io::Read(port, data, len) => Exit::PortRead {
                port: port.into(),
                size,
                // SAFETY: as returned by `run` a moment ago; nothing else refers to it while `self` is borrowed.
                data: unsafe { std::slice::from_raw_parts_mut(data, len) },
            },
            Io::Write(port, data, len) => Exit::PortWrite {
                port: port.into(),
                size,
                // SAFETY: as above.
                data: unsafe { std::slice::from_raw_parts(data, len) },
            },
        })
    }

    /// KVM_EXIT_XEN: there is one kind.
    fn hypercall(&mut self) -> Exit<'static> {
        // SAFETY: the last exit was one of Xen's, so `xen` is the member of the union that KVM filled, and so is its only member.
        let call = unsafe { self.fd.get_kvm_run().__bindgen_anon_1.xen.u.hcall };
        Exit::Hypercall(Hypercall {
            number: call.input,
            args: call.params,
            is_64_bit: call.longmode != 0,
            privilege: call.cpl,
        })
    }

    /// What the guest's hypercall returns: the last exit has to be one.
    pub fn answer_hypercall(&mut self, result: i64) {
        // A store to a member of a union of plain data.
        self.fd.get_kvm_run().__bindgen_anon_1.xen.u.hcall.result = result.cast_unsigned();
    }

    /// KVM_EXIT_INTERNAL_ERROR in words.
    fn internal_error(&mut self) -> Exit<'static> {
        // SAFETY: the last exit was an internal error, so `internal` is the member of the union that KVM filled.
        let (suberror, ndata, data) = unsafe {
            let internal = self.fd.get_kvm_run().__bindgen_anon_1.internal;
            (internal.suberror, internal.ndata, internal.data)
        };
        let kind = match suberror {
            1 => "it cannot emulate an instruction",
            2 => "an event could not be delivered twice over",
            3 => "an event could not be delivered",
            4 => "the processor exited for an unexpected reason",
            _ => "an unknown reason",
        };
        let at = self
            .fd
            .get_regs()
            .map_or_else(|_| "?".into(), |r| format!("{:#x}", r.rip));
        let shown = &data[..data.len().min(ndata as usize)];
        let text = format!("KVM gave up at instruction {at}: {kind} (suberror {suberror}, data {shown:x?})");
        if suberror == 1 {
            Exit::NotEmulated(text)
        } else {
            Exit::Stuck(text)
        }
    }

    /// Gives up an access to memory that [`Vcpu::run`] has returned as an exit: nothing of its instruction has happened, except
    /// that a store which the instruction makes after it may have been done with zeros.
    pub fn cancel_access(&mut self) -> Result<(), HvError> {
        /// An access is made of at most two pages' worth of 8-byte pieces, and its instruction may have a second one.
        const PIECES: usize = 64;
        let before = self.fd.get_regs().map_err(self.refused("read the registers"))?;
        // A string instruction would go on for all its elements.
        let mut one = before;
        one.rcx = one.rcx.min(1);
        self.fd.set_regs(&one).map_err(self.refused("set the registers"))?;
        self.set_immediate_exit(true);
        let mut ended = false;
        for _ in 0..PIECES {
            match self.run()? {
                Exit::Interrupted => {
                    ended = true;
                    break;
                }
                Exit::MmioRead(_, data) => data.fill(0),
                Exit::MmioWrite(..) => {}
                other => {
                    tracing::debug!(?other, "an access that was given up goes on");
                    break;
                }
            }
        }
        self.set_immediate_exit(false);
        if !ended {
            let source = io::Error::other("its instruction does not end");
            let what = format!("give up an access of vCPU {}", self.apic_id);
            return Err(HvError { what, source });
        }
        self.fd.set_regs(&before).map_err(self.refused("set the registers"))
    }

    /// Goes on `bytes` after the current instruction's beginning.
    pub fn skip(&self, bytes: u64) -> Result<(), HvError> {
        let mut regs = self.fd.get_regs().map_err(self.refused("read the registers"))?;
        regs.rip = regs.rip.wrapping_add(bytes);
        self.fd.set_regs(&regs).map_err(self.refused("set the registers"))
    }

    /// Where the guest's page tables lead from `address` now.
    pub fn translate(&self, address: u64) -> Option<Gpa> {
        /// `EFLAGS.AC`.
        const ACCESS: u64 = 1 << 18;
        let look = || {
            let found = self.fd.translate_gva(address).ok()?;
            (found.valid != 0).then_some(Gpa(found.physical_address))
        };
        look().or_else(|| {
            // KVM looks as the guest's kernel would, which may not see a program's pages (SMAP) unless this flag is set.
            let before = self.fd.get_regs().ok()?;
            let open = kvm_regs {
                rflags: before.rflags | ACCESS,
                ..before
            };
            self.fd.set_regs(&open).ok()?;
            let found = look();
            self.fd.set_regs(&before).ok()?;
            found
        })
    }

    /// What an instruction's operands are made of.
    pub fn operands(&self) -> Result<Operands, HvError> {
        let regs = self.fd.get_regs().map_err(self.refused("read the registers"))?;
        let sregs = self.fd.get_sregs().map_err(self.refused("read the system registers"))?;
        let bits = match (sregs.cs.l, sregs.cs.db) {
            (1, _) => 64,
            (_, 1) => 32,
            _ => 16,
        };
        Ok(Operands {
            rip: regs.rip,
            bits,
            // In the order of their encoding.
            general: [
                regs.rax, regs.rcx, regs.rdx, regs.rbx, regs.rsp, regs.rbp, regs.rsi, regs.rdi, regs.r8, regs.r9,
                regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15,
            ],
            segments: [sregs.es, sregs.cs, sregs.ss, sregs.ds, sregs.fs, sregs.gs].map(|segment| segment.base),
        })
    }

    /// Where the processor itself loads from, without an instruction that says so.
    pub fn own_loads(&self) -> Result<OwnLoads, HvError> {
        /// `CR0.PG`, `EFER.LMA`, `CR4.LA57`.
        const BITS: (u64, u64, u64) = (1 << 31, 1 << 10, 1 << 12);
        let regs = self.fd.get_regs().map_err(self.refused("read the registers"))?;
        let sregs = self.fd.get_sregs().map_err(self.refused("read the system registers"))?;
        let events = self.fd.get_vcpu_events().map_err(self.refused("read the events"))?;
        let levels = match (sregs.cr0 & BITS.0 != 0, sregs.efer & BITS.1 != 0) {
            (true, true) => 4 + u32::from(sregs.cr4 & BITS.2 != 0),
            _ => 0,
        };
        let flat = |base: u64, offset: u64| if levels == 0 { base.wrapping_add(offset) } else { offset };
        Ok(OwnLoads {
            levels,
            root: sregs.cr3,
            cr2: sregs.cr2,
            rip: flat(sregs.cs.base, regs.rip),
            // The word below is the first that an exception stores.
            rsp: flat(sregs.ss.base, regs.rsp.wrapping_sub(8)),
            idt: sregs.idt.base,
            gdt: sregs.gdt.base,
            tss: sregs.tr.base,
            is_delivering: events.interrupt.injected != 0 || events.exception.injected != 0 || events.nmi.injected != 0,
        })
    }

    /// Next instruction and flags.
    pub fn position(&self) -> Result<(u64, u64), HvError> {
        let regs = self.fd.get_regs().map_err(self.refused("read the registers"))?;
        Ok((regs.rip, regs.rflags))
    }

    /// Marks the guest's clock: time went by in which the processor stood still, so that its watchdogs do not take that for
    /// a lockup. A guest without a paravirtual clock has nothing to mark.
    pub fn was_paused(&self) {
        if let Err(e) = self.fd.kvmclock_ctrl() {
            tracing::debug!(vcpu = self.apic_id, "the pause is not marked in the guest's clock: {e}");
        }
    }

    /// Stops `run` at once the next time, or lets it run again.
    pub fn set_immediate_exit(&mut self, on: bool) {
        self.fd.set_kvm_immediate_exit(u8::from(on));
    }

    /// The page through which KVM hands over collected writes; the same one for every vCPU of a machine.
    pub(super) fn coalesced_ring_page(&self) -> Result<MmapRegion<()>, HvError> {
        let failed = |source| HvError {
            what: "map the ring of collected writes".into(),
            source,
        };
        // SAFETY: the descriptor is open for as long as `self`, and the clone is a descriptor of its own.
        let fd = unsafe { BorrowedFd::borrow_raw(self.fd.as_raw_fd()) };
        let file = File::from(fd.try_clone_to_owned().map_err(failed)?);
        let page = rustix::param::page_size();
        let offset = u64::from(KVM_COALESCED_MMIO_PAGE_OFFSET) * page as u64;
        MmapRegionBuilder::<()>::new(page)
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(libc::MAP_SHARED)
            .with_file_offset(FileOffset::new(file, offset))
            .build()
            .map_err(|e| failed(io::Error::other(e)))
    }
}

/// What an instruction's operands are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operands {
    /// Where it begins, in its code segment.
    pub rip: u64,
    /// Width of its mode: 16, 32 or 64.
    pub bits: u32,
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
    pub general: [u64; 16],
    /// Bases of ES, CS, SS, DS, FS, GS.
    pub segments: [u64; 6],
}

/// Where a processor loads from by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnLoads {
    /// Levels of the page tables of 64-bit mode; 0: addresses are physical, or tables are of another kind.
    pub levels: u32,
    /// `CR3`.
    pub root: u64,
    /// Address of the last page fault.
    pub cr2: u64,
    /// Next instruction.
    pub rip: u64,
    /// Where the next exception stores.
    pub rsp: u64,
    /// Interrupt table.
    pub idt: u64,
    /// Segment table.
    pub gdt: u64,
    /// Task state segment.
    pub tss: u64,
    /// An exception or interrupt is on its way in and has not got there.
    pub is_delivering: bool,
}

/// Makes a blocked KVM_RUN of another thread return.
pub trait Kick {
    /// Sends the kick; the target may miss it if it is just about to enter the guest, so kick until it answers.
    fn kick(&self);
}

impl<T> Kick for JoinHandle<T> {
    fn kick(&self) {
        // A thread that has ended needs no kick.
        let _ = self.kill(signal::kick());
    }
}

/// To be called once before the first vCPU thread starts.
pub fn install_kick_handler() -> io::Result<()> {
    /// Nothing to do: the signal's only purpose is to make KVM_RUN return EINTR.
    extern "C" fn ignore(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    register_signal_handler(signal::kick(), ignore).map_err(|e| io::Error::from_raw_os_error(e.errno()))
}

fn kvm_segment_of(s: &SegmentRegister) -> kvm_segment {
    kvm_segment {
        base: s.base,
        limit: s.limit,
        selector: s.selector,
        type_: s.typ,
        present: u8::from(s.present),
        dpl: s.dpl,
        db: u8::from(s.db),
        s: u8::from(s.s),
        l: u8::from(s.l),
        g: u8::from(s.g),
        avl: 0,
        unusable: u8::from(s.unusable),
        padding: 0,
    }
}

fn kvm_cpuid(e: &CpuidEntry) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 {
        function: e.function,
        index: e.index,
        flags: e.flags,
        eax: e.eax,
        ebx: e.ebx,
        ecx: e.ecx,
        edx: e.edx,
        ..Default::default()
    }
}

pub(super) fn plain_cpuid(e: &kvm_cpuid_entry2) -> CpuidEntry {
    CpuidEntry {
        function: e.function,
        index: e.index,
        flags: e.flags,
        eax: e.eax,
        ebx: e.ebx,
        ecx: e.ecx,
        edx: e.edx,
    }
}
