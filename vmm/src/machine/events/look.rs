//! Looks at the machine, which change nothing.

use super::Running;
use crate::{
    control::{
        Answer, CONSOLE_KEPT, ConsoleTail, ControlError, DeviceInfo, DeviceList, EVENTS_TOLD, ErrorKind, Exits,
        HealthInfo, LookRequest, MapInfo, Metrics, NodeList, Response, Sight, StateInfo, TableEntry, TableInfo,
        TableList, ThresholdsInfo,
    },
    layout::{gsi, ports},
    nvdimm,
};
use devices::nvdimm::{
    BusState,
    health::{Alarms, Condition, Health},
};
use std::{fs, sync::atomic::Ordering};

impl Running {
    pub(super) fn look(&self, request: &LookRequest) -> Answer {
        let plan = &self.parts.plan;
        Ok(Response::Sight(Box::new(match request {
            LookRequest::State => return Ok(Response::State(StateInfo { state: self.phase })),
            LookRequest::Map => Sight::Map(MapInfo {
                phys_bits: plan.phys_bits,
                map: plan.map.clone(),
                iomem: plan.iomem.clone(),
            }),
            LookRequest::Nodes => Sight::Nodes(NodeList {
                nodes: plan.nodes.clone(),
                vcpus: plan.vcpus.clone(),
                performance: plan.performance.clone(),
            }),
            LookRequest::Devices => Sight::Devices(DeviceList {
                devices: self.devices(),
            }),
            LookRequest::Metrics => Sight::Metrics(self.metrics()),
            LookRequest::Events { since } => Sight::Events(
                self.parts
                    .events
                    .since(*since, usize::try_from(EVENTS_TOLD).unwrap_or(usize::MAX)),
            ),
            LookRequest::Console { bytes } => {
                let most = usize::try_from((*bytes).min(CONSOLE_KEPT)).unwrap_or(usize::MAX);
                let (bytes, before) = self.parts.tail.last(most);
                let text = String::from_utf8_lossy(&bytes).into_owned();
                Sight::Console(ConsoleTail { text, before })
            }
            LookRequest::Tables => Sight::Tables(TableList {
                tables: self.parts.tables.iter().map(entry).collect(),
            }),
            LookRequest::Table { signature } => Sight::Table(self.table(signature)?),
        })))
    }

    fn table(&self, signature: &str) -> Result<TableInfo, ControlError> {
        let table = self.parts.tables.iter().find(|table| table.signature == signature);
        let table = table.ok_or_else(|| {
            let why = format!("the guest has no ACPI table '{signature}'");
            ControlError::new(ErrorKind::NotFound, why).field("signature")
        })?;
        Ok(TableInfo {
            signature: table.signature.to_owned(),
            address: table.gpa.0,
            bytes: table.bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        })
    }

    fn devices(&self) -> Vec<DeviceInfo> {
        let at_port = |id: &str, kind: &str, port: u64, gsi: Option<u32>| DeviceInfo {
            id: id.to_owned(),
            kind: kind.to_owned(),
            port: Some(port),
            address: None,
            gsi,
        };
        let mut devices = vec![
            at_port("serial0", "16550 serial port", ports::COM1, Some(gsi::COM1)),
            at_port("test-exit", "test exit", ports::TEST_EXIT, None),
            at_port("pvpanic", "pvpanic", ports::PVPANIC, None),
            at_port("pci-config", "PCI configuration", ports::PCI_CONFIG, None),
            at_port("ged", "generic event device", ports::ACPI, Some(gsi::GED)),
        ];
        for bus in nvdimm::plan(&self.parts.growth.config, &self.parts.growth.layout) {
            let (id, doorbell) = (format!("nvdimm-bus{}", bus.number), bus.mailbox.doorbell);
            devices.push(at_port(&id, "NVDIMM root device", doorbell.into(), Some(gsi::GED)));
        }
        let places = self.parts.growth.layout.virtio.iter();
        for (n, (transport, (range, gsi))) in self.parts.virtio.iter().zip(places).enumerate() {
            devices.push(DeviceInfo {
                id: format!("virtio{n}"),
                kind: format!("virtio {}", virtio_name(transport.device_type())),
                port: None,
                address: Some(range.start.0),
                gsi: Some(*gsi),
            });
        }
        devices
    }

    fn metrics(&self) -> Metrics {
        let (uptime_ms, paused_ms) = self.clock.read();
        let exits = &self.parts.platform.exits;
        let count = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
        let (resident, resident_file) = resident();
        Metrics {
            uptime_ms,
            paused_ms,
            exits: Exits {
                port: count(&exits.port),
                mmio: count(&exits.mmio),
                collected: count(&exits.collected),
                hypercalls: count(&exits.hypercalls),
                other: count(&exits.other),
            },
            console_bytes: self.parts.tail.last(0).1,
            requests: self.requests,
            under_way: self.pending.len() as u64,
            events: self.parts.events.last(),
            resident,
            resident_file,
            cpu_us: cpu_us(),
        }
    }
}

fn entry(table: &crate::acpi::Table) -> TableEntry {
    TableEntry {
        signature: table.signature.to_owned(),
        address: table.gpa.0,
        len: table.bytes.len() as u64,
    }
}

/// virtio 1.2 section 5.
fn virtio_name(kind: u32) -> &'static str {
    match kind {
        1 => "network device",
        2 => "block device",
        3 => "console",
        4 => "entropy source",
        9 => "shared folder",
        19 => "socket device",
        24 => "memory device",
        27 => "persistent memory",
        _ => "device",
    }
}

/// Bytes of this process that are in memory, and those of them that files or shared memory back: `/proc/self/statm`.
fn resident() -> (u64, u64) {
    let text = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let mut fields = text.split(' ').skip(1).map(|n| n.parse::<u64>().unwrap_or(0));
    let page = rustix::param::page_size() as u64;
    let mut next = || fields.next().unwrap_or(0).saturating_mul(page);
    (next(), next())
}

/// Processor time of this process.
fn cpu_us() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec));
    seconds.unwrap_or(0) * 1_000_000 + nanos.unwrap_or(0) / 1000
}

/// Health of the NVDIMM called `id`, if the bus has it.
pub(super) fn health(state: &BusState, id: &str) -> Option<HealthInfo> {
    let dimm = state.dimms.iter().find(|dimm| dimm.plan.id == id)?;
    Some(health_info(id, &dimm.health))
}

fn health_info(id: &str, health: &Health) -> HealthInfo {
    let (reading, thresholds) = (health.reading(), health.thresholds());
    let words = |set: &[(bool, &str)]| set.iter().filter(|(is, _)| *is).map(|(_, w)| (*w).to_owned()).collect();
    let alarms = |set: Alarms| {
        words(&[
            (set.contains(Alarms::SPARES), "spares"),
            (set.contains(Alarms::MEDIA_TEMPERATURE), "media-temperature"),
            (set.contains(Alarms::CONTROLLER_TEMPERATURE), "controller-temperature"),
        ])
    };
    HealthInfo {
        id: id.to_owned(),
        condition: words(&[
            (reading.condition.contains(Condition::NON_CRITICAL), "non-critical"),
            (reading.condition.contains(Condition::CRITICAL), "critical"),
            (reading.condition.contains(Condition::FATAL), "fatal"),
        ]),
        alarms: alarms(reading.trips),
        spares: reading.spares,
        life_used: reading.life_used,
        media_temperature: reading.media_temperature.degrees(),
        controller_temperature: reading.controller_temperature.degrees(),
        unsafe_shutdowns: reading.shutdown_count,
        dirty: reading.dirty,
        thresholds: ThresholdsInfo {
            armed: alarms(thresholds.armed()),
            spares: thresholds.spares,
            media_temperature: thresholds.media_temperature.degrees(),
            controller_temperature: thresholds.controller_temperature.degrees(),
        },
    }
}
