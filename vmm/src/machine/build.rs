//! Composition: from a configuration and its plans to a machine that is ready to run.
//!
//! The order is the order of what can fail cheaply first: the kernel image is read before memory is mapped, and NVDIMM
//! files are opened (and perhaps created) when everything else about them is known to be right.

use super::{
    Outcome, RunLimits,
    console::ConsoleError,
    control::{self, Control},
    events::{self, Loop},
    fault::MachineChecks,
    growth::Growth,
    hotplug,
    images::Images,
    net::NetError,
    platform::Devices,
    ranges,
    records::RecordsError,
    restart::Kept,
    share::ShareError,
    socket::SocketError,
    vsock::VsockError,
};
use crate::{
    acpi::{self, AcpiCpu, AcpiInput, AcpiNuma, HmatPlan},
    boot::{self, CpuState},
    config::{VmConfig, probe::BackingFacts},
    cpuid::{self, CpuModel, VcpuShape},
    fault::Faults,
    hv::{self, HvError, Kvm, KvmError, Vcpu, Vm},
    layout::{self, Layout},
    mce::{self, Personality},
    memory::{
        Access, GuestMap, GuestMapError,
        backing::BackingError,
        device::DeviceError,
        encrypted::writeback::WriteBack,
        pluggable::PluggableError,
        ram::{self, RamError},
        state::StateFileError,
    },
    nvdimm, smbios,
    topology::Topology,
    vcpu::{Platform, VcpuThreads},
    xen::Xen,
};
use devices::BusError;
use std::{io, path::PathBuf, sync::Arc, time::Instant};
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace};
use vmm_sys_util::eventfd::EventFd;

/// Why a machine cannot be built. Nothing of it is left when one of these is returned.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// No KVM.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// KVM refused something.
    #[error(transparent)]
    Hv(#[from] HvError),
    /// More vCPUs than KVM runs.
    #[error("`cpus={asked}` is more than the {most} vCPUs this KVM runs")]
    TooManyCpus {
        /// What was asked for.
        asked: u8,
        /// KVM's own limit.
        most: usize,
    },
    /// More modules than SMBIOS has room for.
    #[error(transparent)]
    Smbios(#[from] smbios::TooLarge),
    /// No Xen personality.
    #[error(transparent)]
    Xen(#[from] hv::NoXen),
    /// No extended error log.
    #[error(transparent)]
    Extlog(#[from] hv::NoMsrExits),
    /// No RAM.
    #[error(transparent)]
    Ram(#[from] RamError),
    /// Memory in the way of memory.
    #[error(transparent)]
    Map(#[from] GuestMapError),
    /// The memory of an SPA range.
    #[error("cannot map SPA range {name}")]
    Spa {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An NVDIMM's backing.
    #[error("NVDIMM {id} cannot be used")]
    Nvdimm {
        /// Which.
        id: String,
        /// Why.
        #[source]
        source: BackingError,
    },
    /// The contents of an NVDIMM.
    #[error("the contents of NVDIMM {id} cannot be read")]
    Contents {
        /// Which.
        id: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An NVDIMM's state.
    #[error("NVDIMM {id} cannot be used")]
    NvdimmState {
        /// Which.
        id: String,
        /// Why.
        #[source]
        source: StateFileError,
    },
    /// The guest's error records.
    #[error(transparent)]
    Records(#[from] RecordsError),
    /// A memory device's memory.
    #[error("memory device {id} cannot be used")]
    MemoryDevice {
        /// Which.
        id: String,
        /// Why.
        #[source]
        source: DeviceError,
    },
    /// A network device's wire.
    #[error("network device {id} cannot be used")]
    Net {
        /// Which.
        id: String,
        /// Why.
        #[source]
        source: NetError,
    },
    /// The socket device.
    #[error("the vsock device cannot be used")]
    Vsock(#[from] VsockError),
    /// A shared folder.
    #[error("shared folder {tag} cannot be used")]
    Share {
        /// Which.
        tag: String,
        /// Why.
        #[source]
        source: ShareError,
    },
    /// A virtio device's backing.
    #[error("virtio device {id} cannot be used")]
    Virtio {
        /// Which.
        id: String,
        /// Why.
        #[source]
        source: BackingError,
    },
    /// Memory that grows.
    #[error(transparent)]
    Pluggable(#[from] PluggableError),
    /// A memory range's file.
    #[error("memory range {id} cannot be used")]
    Range {
        /// Which.
        id: String,
        /// Why.
        #[source]
        source: BackingError,
    },
    /// Kernel or initrd.
    #[error(transparent)]
    Boot(#[from] boot::BootError),
    /// Writing it.
    #[error(transparent)]
    Load(#[from] boot::LoadError),
    /// A kernel that cannot be read, or is none.
    #[error("cannot use {0} as the kernel")]
    Image(PathBuf, #[source] boot::ImageError),
    /// The initrd cannot be read.
    #[error("cannot read initrd {0}")]
    Initrd(PathBuf, #[source] io::Error),
    /// A module cannot be read.
    #[error("cannot read module {0}")]
    Module(PathBuf, #[source] io::Error),
    /// No kernel was named.
    #[error("a machine needs a kernel; hint: pass `--kernel PATH`")]
    NoKernel,
    /// The CPU model.
    #[error(transparent)]
    Cpuid(#[from] cpuid::CpuidError),
    /// The limits.
    #[error(transparent)]
    Limits(#[from] crate::config::LimitsError),
    /// Tables.
    #[error(transparent)]
    Acpi(#[from] acpi::AcpiError),
    /// The console.
    #[error(transparent)]
    Console(#[from] ConsoleError),
    /// The agent's socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// Two devices at one address: a mistake in the layout.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// Anything the host's kernel refused.
    #[error("cannot {0}")]
    Host(&'static str, #[source] io::Error),
}

/// A machine that is ready to run.
pub struct Machine {
    // Dropped in this order: processors, then what they reach.
    vcpus: Vec<Vcpu>,
    parts: Loop,
}

/// What was decided before anything is touched.
pub struct Plans<'a> {
    /// vCPUs and nodes.
    pub topology: &'a Topology,
    /// Addresses.
    pub layout: &'a Layout,
    /// Guest physical address bits that they were planned for.
    pub phys_bits: u8,
    /// NVDIMM backings by slot, then those of virtio-pmem devices.
    pub backings: &'a [BackingFacts],
    /// Backings of the memory devices in their order.
    pub memory_devices: &'a [BackingFacts],
}

/// What ACPI tables say of a configuration; also for `daxvisor acpi dump`.
pub fn acpi_input(config: &VmConfig, topology: &Topology, layout: &Layout) -> AcpiInput {
    let nodes: Vec<u32> = topology.nodes.iter().map(|n| n.node).collect();
    let distances = nodes
        .iter()
        .map(|from| nodes.iter().map(|to| topology.distance(*from, *to)).collect())
        .collect();
    AcpiInput {
        cpus: topology
            .vcpus
            .iter()
            .map(|v| AcpiCpu {
                apic_id: v.apic_id.0,
                node: v.node,
            })
            .collect(),
        ram: layout.ram.clone(),
        numa: (!config.numa.is_empty()).then_some(AcpiNuma { nodes, distances }),
        memory: ranges::acpi_memory(layout),
        initiators: ranges::acpi_initiators(config),
        hmat: HmatPlan::new(config, topology),
        nvdimm: nvdimm::plan(config, layout),
        memory_slots: config.memory_slot_count(),
        apei: layout::apei(&config.apei),
        extlog: layout::extlog(&config.apei, topology, mce::BANKS),
        virtio: layout.virtio.clone(),
        serial: true,
        pvpanic: true,
        fixed_hardware: config.is_multiboot(),
    }
}

impl Machine {
    /// Builds the machine; its processors stand at the kernel's entry. `kept` is what a machine has left that was reset.
    pub fn build(config: &VmConfig, plans: &Plans<'_>, mut kept: Option<Kept>) -> Result<Self, BuildError> {
        let Plans { topology, layout, .. } = *plans;
        let kvm = Kvm::open()?;
        if usize::from(config.cpus.count) > kvm.max_vcpus() {
            return Err(BuildError::TooManyCpus {
                asked: config.cpus.count,
                most: kvm.max_vcpus(),
            });
        }
        let tables = acpi::assemble(&acpi_input(config, topology, layout))?;
        let images = Images::open(config, layout, tables.rsdp, &kvm)?;
        let vm = kvm.create_vm()?;
        if config.xen.is_some() {
            kvm.check_xen()?;
            vm.enable_xen()?;
        }
        if config.apei.has_extlog() {
            kvm.check_msr_exits()?;
        }
        if config.is_multiboot() {
            vm.create_pit()?;
        }
        let mut map = GuestMap::default();
        for region in &layout.ram {
            let mapping = ram::allocate(region.range, &config.memory)?;
            map.add(&vm, region.range.start, region.range.len, mapping, Access::ReadWrite)?;
        }
        let entry = images.load(map.memory())?;
        let root = config.is_multiboot().then(|| tables.get("RSDP")).flatten();
        let copy = root.map(|root| (layout::LOW_RSDP, &root.bytes));
        for (gpa, bytes) in tables.tables.iter().map(|table| (table.gpa, &table.bytes)).chain(copy) {
            let written = map.memory().memory().write_slice(bytes, GuestAddress(gpa.0));
            written.map_err(|e| BuildError::Host("write the ACPI tables", io::Error::other(e)))?;
        }
        for (gpa, bytes) in smbios::pieces(config, topology, layout)? {
            let written = map.memory().memory().write_slice(&bytes, GuestAddress(gpa.0));
            written.map_err(|e| BuildError::Host("write the SMBIOS tables", io::Error::other(e)))?;
        }
        ranges::map(config, layout, &vm, &mut map)?;
        let mut files = kept.as_mut().map(Kept::take_files).unwrap_or_default();
        let (dimms, encrypted) = super::nvdimm::open(config, plans, &vm, &mut map, &mut files)?;
        let plugged = hotplug::open(config, plans, &vm, &mut map)?;
        let (vcpus, checks) = create_vcpus(config, topology, &kvm, &vm, &entry)?;
        let plan = layout::map::Report::new(config, topology, layout, plans.phys_bits);
        let virtio = super::virtio::open(config, layout, plans.backings, &vm, &mut map, &mut files.pmem)?;
        let places = (topology, layout);
        let devices = Devices::build(config, places, &vm, map.memory(), dimms, virtio, kept.as_mut())?;
        let mut config = config.clone();
        config.fix_memory_slots();
        let limits = kept.as_ref().map_or_else(|| config.limits(), |kept| Ok(kept.limits))?;
        let growth = Growth {
            config,
            topology: topology.clone(),
            layout: layout.clone(),
            phys_bits: plans.phys_bits,
            limits,
            memory: map,
            plugged,
            files,
            write_back: WriteBack::start(encrypted).map_err(|e| BuildError::Host("start a thread", e))?,
            vm,
        };
        let faults = Faults::new(
            growth.memory.windows().clone(),
            devices.nvdimm.clone(),
            devices.bad_lines.clone(),
        );
        let poison = &growth.config.poison;
        let faults = match poison.clear_on_write {
            true => faults.with_clear_on_write(),
            false => faults,
        };
        let faults = Arc::new(match poison.userfaultfd {
            true => faults,
            false => faults.without_traps(),
        });
        let printer = devices.domain_printer()?;
        let xen = growth.config.xen.as_ref().map(|xen| {
            let domain = crate::xen::plan(&growth.config, &growth.layout, xen, &growth.limits);
            let apic_ids = topology.vcpus.iter().map(|place| place.apic_id.0).collect();
            Xen::new(
                domain,
                (growth.vm.clone(), growth.memory.stage(&growth.vm)),
                &plan,
                apic_ids,
                printer,
            )
        });
        let mut parts = devices.into_loop(plan, growth, &vcpus, tables.tables, (faults, checks, xen))?;
        if let Some(kept) = kept {
            parts.resume(kept);
        }
        // Last of all: from here on a DIMM that is not shut down was in use.
        for bus in &parts.nvdimm {
            let kept = bus.with(|bus| bus.keep());
            kept.map_err(|e| BuildError::Host("write the state of an NVDIMM", e))?;
        }
        Ok(Self { vcpus, parts })
    }

    /// Buses and counters, also for a look after the run.
    pub fn platform(&self) -> &Arc<Platform> {
        &self.parts.platform
    }

    /// The way of requests to the machine once it runs.
    pub fn control(&mut self) -> io::Result<Control> {
        let (control, calls) = control::channel(self.parts.events.clone())?;
        self.parts.calls = Some(calls);
        Ok(control)
    }

    /// Runs the guest until something ends it; at most for `limit`, which begins with the first start. What is left of a machine
    /// that is to be started again comes with its outcome.
    pub fn run(mut self, options: RunLimits) -> io::Result<(Outcome, Option<Kept>)> {
        hv::install_kick_handler()?;
        self.parts.on_reset = options.on_reset;
        if let Some(limit) = options.limit {
            self.parts.deadline.get_or_insert(Instant::now() + limit);
        }
        let platform = self.parts.platform.clone();
        let nvdimms = self.parts.nvdimm.clone();
        let threads = VcpuThreads::start(&platform, std::mem::take(&mut self.vcpus))?;
        let (outcome, kept) = events::run(self.parts, threads)?;
        if outcome.is_orderly() {
            for bus in &nvdimms {
                bus.with(|bus| bus.shut_down())?;
            }
        }
        if outcome == Outcome::TimedOut {
            // Whoever looks into a guest that hangs wants to know where.
            for at in platform.stopped_at() {
                let interrupts = if at.rflags & 1 << 9 == 0 { "off" } else { "on" };
                tracing::warn!(
                    vcpu = at.apic_id,
                    rip = format_args!("{:#x}", at.rip),
                    interrupts,
                    "at the time limit"
                );
            }
        }
        let exits = &platform.exits;
        tracing::info!(
            port = exits.port.load(std::sync::atomic::Ordering::Relaxed),
            mmio = exits.mmio.load(std::sync::atomic::Ordering::Relaxed),
            collected = exits.collected.load(std::sync::atomic::Ordering::Relaxed),
            hypercalls = exits.hypercalls.load(std::sync::atomic::Ordering::Relaxed),
            "exits"
        );
        Ok((outcome, kept))
    }
}

fn create_vcpus(
    config: &VmConfig,
    topology: &Topology,
    kvm: &Kvm,
    vm: &Vm,
    entry: &CpuState,
) -> Result<(Vec<Vcpu>, MachineChecks), BuildError> {
    let supported = kvm.supported_cpuid()?;
    let model = CpuModel::new(&config.cpu)?;
    let asked = Personality::plan(model.vendor(&supported), kvm.mce_supported()?);
    let mut personality = asked;
    let mut ports = Vec::new();
    let host = cpuid::HostLimits {
        tsc_deadline_timer: kvm.has_tsc_deadline(),
    };
    let mut vcpus = Vec::new();
    for place in &topology.vcpus {
        let mut vcpu = vm.create_vcpu(place.apic_id.0)?;
        let shape = VcpuShape {
            apic_id: place.apic_id.0,
            thread_bits: topology.thread_bits(),
            package_bits: topology.socket_shift(),
            threads_per_core: topology.shape.threads.into(),
            threads_per_package: u32::from(topology.shape.threads) * u32::from(topology.shape.cores),
        };
        let mut entries = model.entries(&supported, &host, &shape);
        if let Some(xen) = &config.xen {
            // Numbers in hypercalls are those of the ACPI tables.
            let number = u32::try_from(vcpus.len()).unwrap_or(u32::MAX);
            let leaves = cpuid::XenLeaves {
                version: xen.version.word(),
                own_vectors: xen.version.has_own_vectors(),
                msr: hv::HYPERCALL_MSR,
                vcpu: number,
            };
            cpuid::show_xen(&mut entries, &leaves);
            vcpu.set_xen_id(number)?;
        }
        vcpu.set_cpuid(&entries)?;
        vcpu.set_up_mce(&asked)?;
        let port = vcpu.mce_port(&asked)?;
        personality = asked.with_held(port.mcg_cap()?, kvm.check_msr_exits().is_ok());
        let extlog = if config.apei.has_extlog() { mce::cap::ELOG } else { 0 };
        if personality.shown() | extlog != 0 {
            vcpu.show_mcg_cap(personality.cap | extlog);
            if vcpus.is_empty() {
                vm.exit_on_reads(mce::msr::MCG_CAP)?;
            }
        }
        ports.push(port);
        vcpu.set_reset_msrs()?;
        vcpu.set_local_interrupts()?;
        // The others wait for their start-up interrupt.
        if vcpus.is_empty() {
            vcpu.set_state(entry)?;
        }
        vcpus.push(vcpu);
    }
    Ok((vcpus, MachineChecks { personality, ports }))
}

pub(super) fn event() -> Result<EventFd, BuildError> {
    let flags = libc::EFD_NONBLOCK | libc::EFD_CLOEXEC;
    EventFd::new(flags).map_err(|e| BuildError::Host("create an eventfd", e))
}

pub(super) fn twin(event: &EventFd) -> Result<EventFd, BuildError> {
    event.try_clone().map_err(|e| BuildError::Host("share an eventfd", e))
}
