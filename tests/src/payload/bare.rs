//! Code on a vCPU with nothing around it but memory and the ports that a test puts there.

use devices::{
    BadLines, Bus,
    units::{Gpa, GpaRange},
};
use std::{sync::Arc, time::Duration};
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace};
use vmm::{
    boot::{CpuState, SegmentRegister},
    config::MemoryConfig,
    fault::Faults,
    hv::{self, Kvm, McePort, Vcpu, Vm},
    mce::{Banks, Kind, Personality},
    memory::{Access, GuestMap, ram},
    vcpu::{Consumption, Platform, Report, StoppedAt, VcpuThreads},
};
use vmm_sys_util::eventfd::EventFd;

/// Guest memory, from 0.
const MEMORY: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(20);

/// One vCPU and 1 MiB of memory.
pub struct Bare {
    // Dropped in this order.
    vcpu: Option<Vcpu>,
    /// Memory errors.
    pub faults: Arc<Faults>,
    stopped_at: Option<StoppedAt>,
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
        let faults = Faults::new(map.windows().clone(), vec![], BadLines::default());
        Self {
            vcpu,
            faults: Arc::new(faults),
            stopped_at: None,
            map,
            vm,
        }
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

    /// Gives the vCPU machine check banks.
    pub fn machine_checks(&mut self, personality: &Personality) -> McePort {
        let vcpu = self.vcpu.as_ref().expect("a machine that has not run yet");
        vcpu.set_up_mce(personality).expect("machine check banks");
        vcpu.mce_port(personality).expect("a second descriptor")
    }

    /// The same as [`Bare::run`], with a machine check for each load of bad memory. What the registers held before each.
    pub fn run_checked(
        &mut self,
        state: &CpuState,
        ports: Bus,
        personality: &Personality,
        checks: &McePort,
    ) -> (Report, Vec<(Gpa, Banks)>) {
        let mut met = vec![];
        let report = self.run_with(state, ports, |platform, threads| {
            while threads.standing().0 == 0 {
                std::thread::yield_now();
            }
            for (apic_id, consumption) in platform.consumptions() {
                let Consumption::Load(line, _) = consumption else {
                    panic!("{consumption:?}")
                };
                let banks = checks.banks().expect("the registers");
                let record = personality.record(Kind::Srar, line, 6, true);
                record.admit(&banks).expect("a processor that takes it");
                checks.inject(&record).expect("a machine check");
                met.push((line, banks));
                platform.settle_consumption(apic_id);
            }
            threads.resume();
            true
        });
        (report, met)
    }

    /// Runs from `state` with `ports` until a device or the processor ends it, or it meets bad memory. Once.
    pub fn run(&mut self, state: &CpuState, ports: Bus) -> Report {
        self.run_with(state, ports, |_, _| false)
    }

    /// Where the vCPU was when it was stopped, unless it ended by itself.
    pub fn stopped_at(&self) -> Option<StoppedAt> {
        self.stopped_at
    }

    /// `met` is asked whether the guest goes on after it has met bad memory.
    fn run_with(
        &mut self,
        state: &CpuState,
        ports: Bus,
        mut met: impl FnMut(&Platform, &VcpuThreads) -> bool,
    ) -> Report {
        hv::install_kick_handler().expect("a signal handler");
        let vcpu = self.vcpu.take().expect("a machine that has not run yet");
        vcpu.set_state(state).expect("a state KVM takes");
        let wake = EventFd::new(0).expect("an eventfd");
        let (platform, reports) = Platform::new(ports, Bus::default(), None, (self.faults.clone(), None), wake, None);
        let mut threads = VcpuThreads::start(&platform, vec![vcpu]).expect("a thread");
        let report = loop {
            match reports.recv_timeout(LIMIT).expect("the code ends by itself") {
                Report::Standing => {}
                Report::Poisoned if met(&platform, &threads) => {}
                report => break report,
            }
        };
        threads.stop();
        self.stopped_at = platform.stopped_at().first().copied();
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
        rax: 0,
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
