//! Code on a vCPU with nothing around it but memory and the ports that a test puts there.

use devices::{
    Bus,
    units::{Gpa, GpaRange},
};
use std::time::Duration;
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace};
use vmm::{
    boot::{CpuState, SegmentRegister},
    config::MemoryConfig,
    hv::{self, Kvm, Vcpu, Vm},
    memory::{Access, GuestMap, ram},
    vcpu::{Platform, Report, VcpuThreads},
};
use vmm_sys_util::eventfd::EventFd;

/// Guest memory, from 0.
const MEMORY: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(20);

/// One vCPU and 1 MiB of memory.
pub struct Bare {
    // Dropped in this order.
    vcpu: Option<Vcpu>,
    map: GuestMap,
    /// The virtual machine, for interrupt lines.
    pub vm: Vm,
}

impl Bare {
    /// An empty machine.
    pub fn new() -> Self {
        let vm = Kvm::open().expect("a KVM").create_vm().expect("a virtual machine");
        let mut map = GuestMap::default();
        let range = GpaRange::new(Gpa(0), MEMORY);
        let mapping = ram::allocate(range, &MemoryConfig::default()).expect("a MiB of memory");
        map.add(&vm, range.start, range.len, mapping, Access::ReadWrite)
            .expect("a memory slot");
        let vcpu = Some(vm.create_vcpu(0).expect("a vCPU"));
        Self { vcpu, map, vm }
    }

    /// Puts `bytes` into guest memory.
    pub fn write(&self, at: u64, bytes: &[u8]) {
        let memory = self.map.memory().memory();
        memory.write_slice(bytes, GuestAddress(at)).expect("guest memory");
    }

    /// `len` bytes of guest memory.
    pub fn read(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let memory = self.map.memory().memory();
        memory.read_slice(&mut bytes, GuestAddress(at)).expect("guest memory");
        bytes
    }

    /// Runs from `state` with `ports` until a device or the processor ends it. Once.
    pub fn run(&mut self, state: &CpuState, ports: Bus) -> Report {
        hv::install_kick_handler().expect("a signal handler");
        let vcpu = self.vcpu.take().expect("a machine that has not run yet");
        vcpu.set_state(state).expect("a state KVM takes");
        let wake = EventFd::new(0).expect("an eventfd");
        let (platform, reports) = Platform::new(ports, Bus::default(), None, wake, None);
        let mut threads = VcpuThreads::start(&platform, vec![vcpu]).expect("a thread");
        let report = reports.recv_timeout(LIMIT).expect("the code ends by itself");
        threads.stop();
        report
    }
}

impl Default for Bare {
    fn default() -> Self {
        Self::new()
    }
}

/// Real mode at `segment`:0000, everything else as after reset (Intel SDM 3A table 10-1).
pub fn real_mode(segment: u16) -> CpuState {
    let register = |selector: u16, typ| SegmentRegister {
        selector,
        base: u64::from(selector) << 4,
        limit: 0xffff,
        typ,
        s: true,
        present: true,
        ..SegmentRegister::default()
    };
    let system = |typ| SegmentRegister {
        limit: 0xffff,
        typ,
        present: true,
        ..SegmentRegister::default()
    };
    let vectors = vmm::boot::TableRegister { base: 0, limit: 0x3ff };
    CpuState {
        rip: 0,
        rsi: 0,
        rbx: 0,
        rsp: 0x8000,
        rflags: 2,
        cr0: 0x10,
        cr3: 0,
        cr4: 0,
        efer: 0,
        cs: register(segment, 0xb),
        data: register(0, 3),
        tr: system(0xb),
        ldt: system(2),
        gdt: vectors,
        idt: vectors,
    }
}
