//! The devices of a machine on their buses, in guest ABI order, and the loop that serves them.

use super::{
    OnReset,
    build::{BuildError, event, twin},
    console::{Console, ConsoleError, Printer},
    events::{Agent, Loop},
    fault::MachineChecks,
    growth::Growth,
    nvdimm::OpenBus,
    records::RecordsFile,
    restart::Kept,
    tail::{Tail, Tee},
    virtio::{LiveVirtio, VirtioDevices},
};
use crate::{
    acpi,
    config::VmConfig,
    control::CONSOLE_KEPT,
    fault::Faults,
    hv::{self, CoalescedPorts, Vcpu, Vm},
    layout::{self, Layout, ports},
    mce::BANKS,
    memory::lost,
    topology::Topology,
    vcpu::{Platform, Room},
    xen::Xen,
};
use devices::{
    BadLines, Bus, Clock, GuestMemory,
    acpi::{AcpiDevice, AcpiEvent, EventLine, fixed::FixedHardware, memory_hotplug::MemoryHotplug},
    apei::{Apei, ApeiKept, ApeiPlan, ExtendedLog},
    no_timer::NoTimer,
    nvdimm::{FlushHints, MailboxPlan, NvdimmBus},
    pci_config::PciConfig,
    pvpanic::PvPanic,
    rtc::Rtc,
    serial::SerialPort,
    test_exit::TestExit,
    units::{Gpa, GpaRange},
    virtio::VirtioMmio,
};
use std::{
    io,
    mem::take,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};
use vmm_sys_util::eventfd::EventFd;

/// Devices on their buses, and what the loop needs of them.
pub(super) struct Devices {
    ports: Bus,
    mmio: Bus,
    serial: Arc<SerialPort>,
    console: Console,
    domain_console: Console,
    tail: Arc<Tail>,
    serial_room: EventFd,
    virtio: Vec<(GpaRange, Arc<VirtioMmio>)>,
    live: LiveVirtio,
    agent: Option<Agent>,
    acpi: Arc<AcpiDevice>,
    apei: Option<Arc<Apei>>,
    extlog: Option<ExtendedLog>,
    memory: Option<Arc<MemoryHotplug>>,
    pub(super) nvdimm: Vec<Arc<NvdimmBus>>,
    flush_hints: Arc<FlushHints>,
    pub(super) bad_lines: BadLines,
}

fn at(port: u64, len: u64) -> GpaRange {
    GpaRange::new(Gpa(port), len)
}

impl Devices {
    /// A way to the reader of the domain's console.
    pub(super) fn domain_printer(&self) -> Result<Printer, BuildError> {
        Ok(self.domain_console.printer().map_err(ConsoleError::Output)?)
    }

    /// In guest ABI order.
    pub(super) fn build(
        config: &VmConfig,
        (topology, layout): (&Topology, &Layout),
        vm: &Vm,
        memory: &GuestMemory,
        nvdimms: Vec<OpenBus>,
        virtio: VirtioDevices,
        kept: Option<&mut Kept>,
    ) -> Result<Self, BuildError> {
        let (mut ports, mut mmio) = (Bus::default(), Bus::default());
        let errors = match (&config.apei.records, kept.as_deref()) {
            (_, Some(kept)) => kept.apei.clone(),
            (Some(path), None) => {
                let (records, file) = RecordsFile::open(path)?;
                ApeiKept {
                    records,
                    store: Some(Arc::new(file)),
                    fatal: None,
                }
            }
            (None, None) => ApeiKept::default(),
        };
        let (console, domain_console, tail) = match kept {
            Some(kept) => (
                take(&mut kept.console),
                take(&mut kept.domain_console),
                kept.tail.clone(),
            ),
            None => {
                let domain = config.xen.as_ref().and_then(|xen| xen.console.as_ref());
                let domain = domain.map(|console| Console::open(console, "Xen console"));
                let first = Console::open(&config.console, "console")?;
                (first, domain.transpose()?.unwrap_or_default(), Arc::default())
            }
        };
        let serial_room = event()?;
        let room = twin(&serial_room)?;
        let output = console.output().map_err(ConsoleError::Output)?;
        let output = match &config.api_socket {
            None => output,
            Some(_) => Box::new(Tee {
                output,
                tail: tail.clone(),
                most: usize::try_from(CONSOLE_KEPT).unwrap_or(usize::MAX),
            }),
        };
        let line = Arc::new(vm.irq_line(layout::gsi::COM1)?);
        let serial = Arc::new(SerialPort::new(line, output, Box::new(move || drop(room.write(1)))));
        ports.insert(at(ports::COM1, SerialPort::PORTS), serial.clone())?;
        ports.insert(at(ports::TEST_EXIT, TestExit::PORTS), Arc::new(TestExit))?;
        ports.insert(at(ports::PVPANIC, PvPanic::PORTS), Arc::new(PvPanic))?;
        ports.insert(at(ports::PCI_CONFIG, PciConfig::PORTS), Arc::new(PciConfig::default()))?;
        let acpi = Arc::new(AcpiDevice::new(vm.irq_line(layout::gsi::GED)?));
        ports.insert(at(ports::ACPI, AcpiDevice::PORTS), acpi.clone())?;
        let memory_devices = memory_registers(config, layout, &acpi);
        if let Some(registers) = &memory_devices {
            ports.insert(at(ports::MEMORY_HOTPLUG, MemoryHotplug::PORTS), registers.clone())?;
        }
        let apei = error_interfaces(config, memory, &acpi, errors)?;
        if let Some(apei) = &apei {
            ports.insert(at(ports::APEI, ApeiPlan::PORTS), apei.clone())?;
        }
        let extlog = extended_log(config, topology, memory)?;
        let clock = Clock::default();
        if config.is_multiboot() {
            let fixed = Arc::new(FixedHardware::new(clock.clone()));
            ports.insert(at(ports::ACPI_FIXED, FixedHardware::PORTS), fixed)?;
            let wall = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            ports.insert(at(ports::RTC, Rtc::PORTS), Arc::new(Rtc::new(Box::new(wall))))?;
        } else {
            ports.insert(at(ports::NO_TIMER, NoTimer::PORTS), Arc::new(NoTimer))?;
        }
        let mut buses = Vec::new();
        let flush_hints = Arc::new(FlushHints::default());
        for OpenBus {
            plan,
            labels,
            states,
            secured,
            flushes,
        } in nvdimms
        {
            let dimms = plan.nfit.dimms.clone();
            let doorbell = at(plan.mailbox.doorbell.into(), MailboxPlan::DOORBELL_PORTS);
            let line = EventLine(acpi.clone(), AcpiEvent::Nvdimm);
            let bus = Arc::new(NvdimmBus::new(memory.clone(), plan, labels, line, &clock));
            super::nvdimm::restore(&bus, states)?;
            super::secure::secure(&bus, secured, &clock)?;
            for (dimm, flush) in dimms.iter().zip(flushes) {
                super::nvdimm::add_hint(&flush_hints, &bus, dimm, flush);
            }
            ports.insert(doorbell, bus.clone())?;
            buses.push(bus);
        }
        if !buses.is_empty() {
            mmio.insert(layout::FLUSH_HINTS, flush_hints.clone())?;
        }
        let VirtioDevices { models, agent, live } = virtio;
        let bad_lines = BadLines::doubted(lost::is_held);
        let mut virtio = Vec::new();
        for (device, (range, gsi)) in models.into_iter().zip(&layout.virtio) {
            let line = Arc::new(vm.irq_line(*gsi)?);
            let transport = VirtioMmio::new(device, memory.clone(), line).with_bad_lines(bad_lines.clone());
            let transport = Arc::new(match config.is_multiboot() {
                true => transport.with_platform_access(),
                false => transport,
            });
            mmio.insert(*range, transport.clone())?;
            virtio.push((*range, transport));
        }
        Ok(Self {
            ports,
            mmio,
            serial,
            console,
            domain_console,
            tail,
            serial_room,
            virtio,
            live,
            agent,
            acpi,
            apei,
            extlog,
            memory: memory_devices,
            nvdimm: buses,
            flush_hints,
            bad_lines,
        })
    }

    pub(super) fn into_loop(
        self,
        plan: layout::map::Report,
        growth: Growth,
        vcpus: &[Vcpu],
        tables: Vec<acpi::Table>,
        (faults, checks, xen): (Arc<Faults>, MachineChecks, Option<Xen>),
    ) -> Result<Loop, BuildError> {
        let vm = &growth.vm;
        let mut doorbells = Vec::new();
        for (n, (range, transport)) in self.virtio.iter().enumerate() {
            for queue in 0..transport.queue_count() {
                let queue = u16::try_from(queue).unwrap_or(u16::MAX);
                let register = range.start.0 + VirtioMmio::notify_offset();
                doorbells.push((n, queue, vm.doorbell(register, queue.into())?));
            }
        }
        let collected = match vcpus.first() {
            Some(vcpu) => CoalescedPorts::new(vm, vcpu, &[ports::COM1])?,
            None => None,
        };
        let wake = event()?;
        let room = self.console.backlog().cloned().map(|output| output as Arc<dyn Room>);
        let (platform, reports) = Platform::new(self.ports, self.mmio, collected, (faults, xen), twin(&wake)?, room);
        Ok(Loop {
            platform,
            reports,
            wake,
            terminate: hv::signal::termination().map_err(|e| BuildError::Host("handle termination signals", e))?,
            serial: self.serial,
            console: self.console,
            domain_console: self.domain_console.into(),
            serial_room: self.serial_room,
            virtio: self.virtio.into_iter().map(|(_, t)| t).collect(),
            doorbells,
            live: self.live,
            agent: self.agent,
            calls: None,
            events: Arc::default(),
            life: None,
            on_reset: OnReset::default(),
            tail: self.tail,
            tables,
            acpi: self.acpi,
            apei: self.apei,
            extlog: self.extlog,
            memory: self.memory,
            nvdimm: self.nvdimm,
            flush_hints: self.flush_hints,
            plan,
            checks,
            deadline: None,
            growth,
        })
    }
}

/// The error interfaces, with what is left of the boot before.
fn error_interfaces(
    config: &VmConfig,
    memory: &GuestMemory,
    acpi: &Arc<AcpiDevice>,
    kept: ApeiKept,
) -> Result<Option<Arc<Apei>>, BuildError> {
    let Some(plan) = layout::apei(&config.apei) else {
        return Ok(None);
    };
    let line = EventLine(acpi.clone(), AcpiEvent::HardwareError);
    let apei = Apei::new(memory.clone(), plan, line, kept);
    let apei = apei.map_err(|e| BuildError::Host("write the error interfaces", io::Error::other(e)))?;
    Ok(Some(Arc::new(apei)))
}

/// The extended error log, with an empty directory.
fn extended_log(
    config: &VmConfig,
    topology: &Topology,
    memory: &GuestMemory,
) -> Result<Option<ExtendedLog>, BuildError> {
    let plan = layout::extlog(&config.apei, topology, BANKS);
    let log = plan.map(|plan| ExtendedLog::new(memory.clone(), plan)).transpose();
    log.map_err(|e| BuildError::Host("write the extended error log", io::Error::other(e)))
}

/// The registers of the memory devices, with those in their slots that are there at boot; none without slots.
fn memory_registers(config: &VmConfig, layout: &Layout, acpi: &Arc<AcpiDevice>) -> Option<Arc<MemoryHotplug>> {
    let slots = config.memory_slot_count();
    let line = EventLine(acpi.clone(), AcpiEvent::Memory);
    let registers = (slots > 0).then(|| Arc::new(MemoryHotplug::new(slots, line)))?;
    for placed in &layout.memory {
        registers.plug_cold(placed.slot, placed.range, placed.node);
    }
    Some(registers)
}
