//! The table of routes.

use super::*;

/// The name of an NVDIMM in a path.
const NVDIMM_ID: Parameter = Parameter {
    name: "id",
    about: "Name of the NVDIMM.",
    values: Values::Text,
};
/// The name of a disk in a path.
const DISK_ID: Parameter = Parameter {
    name: "id",
    about: "Name of the disk.",
    values: Values::Text,
};
const MEMORY_ID: Parameter = Parameter {
    name: "id",
    about: "Name of the memory device.",
    values: Values::Text,
};
const DEADLINE: Parameter = Parameter {
    name: "deadline",
    about: "Seconds that the guest may take; 30 when it is left out.",
    values: Values::UpTo(3600),
};
const FAULT_ID: Parameter = Parameter {
    name: "id",
    about: "Id of the bad range, as the list has it.",
    values: Values::Text,
};
const STORM: Parameter = Parameter {
    name: "storm",
    about: "Number of the storm, as the injection and the list have it.",
    values: Values::UpTo(u64::MAX >> 1),
};
const FAULT_NUMBER: Parameter = Parameter {
    name: "number",
    about: "Number of the fault.",
    values: Values::UpTo(u32::MAX as u64),
};
const SINCE: Parameter = Parameter {
    name: "since",
    about: "Number of the last event that is known.",
    values: Values::UpTo(u64::MAX >> 1),
};
const BYTES: Parameter = Parameter {
    name: "bytes",
    about: "How many of the last bytes; all that are kept when it is left out.",
    values: Values::UpTo(CONSOLE_KEPT),
};
const SIGNATURE: Parameter = Parameter {
    name: "signature",
    about: "Signature of the table.",
    values: Values::Text,
};
const OPERATION_ID: Parameter = Parameter {
    name: "id",
    about: "Number of the operation.",
    values: Values::UpTo(u64::MAX >> 1),
};
const WAIT: Parameter = Parameter {
    name: "wait",
    about: "Seconds to wait for its end before the answer.",
    values: Values::UpTo(MAX_WAIT),
};

use Does::{Ask, Document, Stream};
use Method::{Delete, Get, Post, Put};

/// All routes.
pub static ROUTES: &[Route] = &[
    route(Get, "/openapi.json", "openapi", "This document.", Document),
    route(
        Get,
        "/vm",
        "describe",
        "The whole machine: state, map, nodes, vCPUs, NVDIMMs.",
        Ask(|_| Ok(Request::Describe)),
    )
    .answers::<MachineInfo>(),
    route(
        Get,
        "/vm/state",
        "state",
        "The phase of the machine.",
        Ask(|_| look(LookRequest::State)),
    )
    .answers::<StateInfo>(),
    route(
        Get,
        "/vm/metrics",
        "metrics",
        "Counters of the run.",
        Ask(|_| look(LookRequest::Metrics)),
    )
    .answers::<Metrics>(),
    route(
        Get,
        "/vm/events",
        "listEvents",
        "What happened to the machine, oldest first, 256 at most.",
        Ask(|input| {
            look(LookRequest::Events {
                since: input.number("since")?,
            })
        }),
    )
    .with(&[SINCE])
    .answers::<EventList>(),
    route(
        Get,
        "/events",
        "streamEvents",
        "What happens to the machine, as server-sent events.",
        Stream,
    )
    .with(&[SINCE])
    .answers::<Event>(),
    route(
        Get,
        "/vm/console",
        "console",
        "The last that the guest wrote to its console.",
        Ask(|input| {
            look(LookRequest::Console {
                bytes: input.given("bytes")?.unwrap_or(CONSOLE_KEPT),
            })
        }),
    )
    .with(&[BYTES])
    .answers::<ConsoleTail>(),
    route(
        Get,
        "/memory/map",
        "memoryMap",
        "The guest physical map.",
        Ask(|_| look(LookRequest::Map)),
    )
    .answers::<MapInfo>(),
    route(
        Get,
        "/numa/nodes",
        "nodes",
        "NUMA nodes, vCPUs and distances.",
        Ask(|_| look(LookRequest::Nodes)),
    )
    .answers::<NodeList>(),
    route(
        Get,
        "/devices",
        "devices",
        "Devices of the platform.",
        Ask(|_| look(LookRequest::Devices)),
    )
    .answers::<DeviceList>(),
    route(
        Get,
        "/acpi/tables",
        "listTables",
        "The ACPI tables that the guest was started with.",
        Ask(|_| look(LookRequest::Tables)),
    )
    .answers::<TableList>(),
    route(
        Get,
        "/acpi/tables/{signature}",
        "showTable",
        "One of them, with its bytes.",
        Ask(|input| {
            look(LookRequest::Table {
                signature: input.text("signature"),
            })
        }),
    )
    .with(&[SIGNATURE])
    .answers::<TableInfo>(),
    route(
        Post,
        "/vm/pause",
        "pause",
        "Stops every vCPU; answered when all of them stand still.",
        Ask(|_| Ok(Request::Pause)),
    )
    .answers::<StateInfo>(),
    route(
        Post,
        "/vm/resume",
        "resume",
        "Lets the vCPUs go on.",
        Ask(|_| Ok(Request::Resume)),
    )
    .answers::<StateInfo>(),
    route(
        Post,
        "/vm/power-button",
        "powerButton",
        "Presses the ACPI power button: the guest is asked to turn itself off.",
        Ask(|_| Ok(Request::PowerButton)),
    )
    .answers::<StateInfo>(),
    route(
        Post,
        "/vm/ask/power-off",
        "askPowerOff",
        "Asks the guest to turn itself off: a guest of Xen through its store, answered when its kernel has taken that; any other by the power button.",
        Ask(|_| Ok(Request::Ask(GuestPower::PowerOff))),
    )
    .answers::<StateInfo>(),
    route(
        Post,
        "/vm/ask/reboot",
        "askReboot",
        "Asks a guest of Xen to reboot; answered when its kernel has taken that.",
        Ask(|_| Ok(Request::Ask(GuestPower::Reboot))),
    )
    .answers::<StateInfo>(),
    route(
        Post,
        "/vm/reboot",
        "reboot",
        "Resets the machine at once, without asking the guest: it starts again with everything that was added to it.",
        Ask(|_| Ok(Request::Reboot)),
    )
    .answers::<StateInfo>(),
    route(
        Post,
        "/vm/shutdown",
        "shutdown",
        "Ends the machine at once, without asking the guest.",
        Ask(|_| Ok(Request::Quit)),
    )
    .answers::<StateInfo>(),
    route(
        Get,
        "/nvdimms",
        "listNvdimms",
        "The NVDIMMs, and which version of the NFIT the guest has read.",
        Ask(|_| Ok(Request::Nvdimm(NvdimmRequest::List))),
    )
    .answers::<NvdimmList>(),
    route(
        Post,
        "/nvdimms",
        "addNvdimm",
        "Gives the guest one more NVDIMM, in the next free slot.",
        Ask(|input| Ok(Request::Nvdimm(NvdimmRequest::Add(Box::new(input.json()?))))),
    )
    .takes::<NvdimmConfig>()
    .begins(),
    route(
        Get,
        "/nvdimms/{id}",
        "showNvdimm",
        "One NVDIMM.",
        Ask(|input| Ok(Request::Nvdimm(NvdimmRequest::Show { id: input.text("id") }))),
    )
    .with(&[NVDIMM_ID])
    .answers::<NvdimmInfo>(),
    route(
        Get,
        "/nvdimms/{id}/health",
        "nvdimmHealth",
        "Sensors, counters and thresholds of an NVDIMM.",
        Ask(|input| Ok(Request::Nvdimm(NvdimmRequest::Health { id: input.text("id") }))),
    )
    .with(&[NVDIMM_ID])
    .answers::<HealthInfo>(),
    route(
        Post,
        "/nvdimms/{id}/lock",
        "lockNvdimm",
        "Locks an NVDIMM that has a passphrase, as a power cycle does: for tests.",
        Ask(|input| Ok(Request::Nvdimm(NvdimmRequest::Lock { id: input.text("id") }))),
    )
    .with(&[NVDIMM_ID])
    .answers::<StateInfo>(),
    route(
        Get,
        "/media-errors",
        "listMediaErrors",
        "The bad ranges of the NVDIMMs, with who made them and who knows of them.",
        Ask(|input| {
            let id = input.named("id");
            Ok(Request::Nvdimm(NvdimmRequest::Errors { id }))
        }),
    )
    .with(&[NVDIMM_ID])
    .answers::<MediaErrorList>(),
    route(
        Post,
        "/media-errors",
        "injectMediaError",
        "Makes bytes bad: of one NVDIMM, or of what the guest sees at an address.",
        Ask(|input| {
            let MediaInject { id, start, len, latent } = input.json()?;
            let range = MediaRange { id, start, len };
            Ok(Request::Nvdimm(NvdimmRequest::Inject { range, latent }))
        }),
    )
    .takes::<MediaInject>()
    .answers::<StateInfo>(),
    route(
        Post,
        "/media-errors/clear",
        "clearMediaErrors",
        "Makes bytes good, whoever made them bad.",
        Ask(|input| Ok(Request::Nvdimm(NvdimmRequest::Clear { range: input.json()? }))),
    )
    .takes::<MediaRange>()
    .answers::<StateInfo>(),
    route(
        Get,
        "/faults",
        "listFaults",
        "Bad memory, how loads of it are caught, and how many were.",
        Ask(|_| Ok(Request::Fault(FaultRequest::List))),
    )
    .answers::<FaultList>(),
    route(
        Post,
        "/faults",
        "injectFault",
        "Makes lines of memory bad, or tells what that would come to; answered when loads meet them.",
        Ask(|input| Ok(Request::Fault(FaultRequest::Inject(Box::new(input.json()?))))),
    )
    .takes::<FaultInject>()
    .answers::<FaultReport>(),
    route(
        Post,
        "/faults/notify",
        "notifyFault",
        "Tells the guest of an error, through firmware or a machine check bank; memory does not become bad by it.",
        Ask(|input| Ok(Request::Fault(FaultRequest::Notify(Box::new(input.json()?))))),
    )
    .takes::<FaultNotify>()
    .answers::<FaultNotified>(),
    route(
        Post,
        "/faults/clear",
        "clearFaults",
        "Makes lines of memory good, whoever made them bad.",
        Ask(|input| Ok(Request::Fault(FaultRequest::Clear(input.json()?)))),
    )
    .takes::<FaultRange>()
    .answers::<StateInfo>(),
    route(
        Delete,
        "/faults/storms/{storm}",
        "stopStorm",
        "Makes no more of what an injection was to make bad later.",
        Ask(|input| {
            Ok(Request::Fault(FaultRequest::Stop {
                storm: input.number("storm")?,
            }))
        }),
    )
    .with(&[STORM])
    .answers::<StateInfo>(),
    route(
        Delete,
        "/faults/{id}",
        "removeFault",
        "Makes a whole bad range good.",
        Ask(|input| Ok(Request::Fault(FaultRequest::Remove { id: input.text("id") }))),
    )
    .with(&[FAULT_ID])
    .answers::<StateInfo>(),
    route(
        Get,
        "/memory/devices",
        "listMemoryDevices",
        "The memory devices, and what the guest has made of them.",
        Ask(|_| Ok(Request::Memory(MemoryRequest::List))),
    )
    .answers::<MemoryList>(),
    route(
        Post,
        "/memory/devices",
        "addMemoryDevice",
        "Gives the guest one more memory device.",
        Ask(|input| Ok(Request::Memory(MemoryRequest::Add(Box::new(input.json()?))))),
    )
    .takes::<MemoryDeviceConfig>()
    .begins(),
    route(
        Delete,
        "/memory/devices/{id}",
        "removeMemoryDevice",
        "Asks the guest to give a memory device back.",
        Ask(|input| {
            let deadline = input.given("deadline")?.and_then(|seconds| u16::try_from(seconds).ok());
            let id = input.text("id");
            Ok(Request::Memory(MemoryRequest::Remove { id, deadline }))
        }),
    )
    .with(&[MEMORY_ID, DEADLINE])
    .begins(),
    route(
        Put,
        "/memory/devices/{id}/target",
        "setMemoryTarget",
        "Asks the guest to have so much of a virtio-mem device plugged.",
        Ask(|input| {
            let MemoryTarget { size } = input.json()?;
            let id = input.text("id");
            Ok(Request::Memory(MemoryRequest::Target { id, size }))
        }),
    )
    .with(&[MEMORY_ID])
    .takes::<MemoryTarget>()
    .begins(),
    route(
        Post,
        "/dax-ranges",
        "addDaxRange",
        "Gives the guest a range of a device-dax node of the host, as what is asked for.",
        Ask(|input| Ok(Request::Dax(DaxRequest::Add(Box::new(input.json()?))))),
    )
    .takes::<DaxRange>()
    .begins(),
    route(
        Get,
        "/disks",
        "listDisks",
        "The disks, their limits, faults and counts.",
        Ask(|_| Ok(Request::Disk(DiskRequest::List))),
    )
    .answers::<DiskList>(),
    route(
        Post,
        "/disks/{id}/faults",
        "addDiskFault",
        "Makes something wrong with a disk.",
        Ask(|input| {
            let (id, fault) = (input.text("id"), input.json()?);
            Ok(Request::Disk(DiskRequest::AddFault { id, fault }))
        }),
    )
    .with(&[DISK_ID])
    .takes::<DiskFault>()
    .answers::<DiskInfo>(),
    route(
        Delete,
        "/disks/{id}/faults",
        "removeDiskFaults",
        "Takes all faults of a disk away; what hangs by them goes on.",
        Ask(|input| {
            let (id, number) = (input.text("id"), None);
            Ok(Request::Disk(DiskRequest::RemoveFault { id, number }))
        }),
    )
    .with(&[DISK_ID])
    .answers::<DiskInfo>(),
    route(
        Delete,
        "/disks/{id}/faults/{number}",
        "removeDiskFault",
        "Takes one fault of a disk away; what hangs by it goes on.",
        Ask(|input| {
            let number = u32::try_from(input.number("number")?).ok();
            let id = input.text("id");
            Ok(Request::Disk(DiskRequest::RemoveFault { id, number }))
        }),
    )
    .with(&[DISK_ID, FAULT_NUMBER])
    .answers::<DiskInfo>(),
    route(
        Put,
        "/disks/{id}/throttle",
        "throttleDisk",
        "Sets the limits of a disk; what is not named has none.",
        Ask(|input| {
            let (id, throttle) = (input.text("id"), input.json()?);
            Ok(Request::Disk(DiskRequest::Throttle { id, throttle }))
        }),
    )
    .with(&[DISK_ID])
    .takes::<DiskThrottle>()
    .answers::<DiskInfo>(),
    route(
        Get,
        "/limits",
        "limits",
        "The limits of the machine's RAM, and how much there is.",
        Ask(|_| Ok(Request::Limits(LimitsRequest::Get))),
    )
    .answers::<LimitsInfo>(),
    route(
        Put,
        "/limits",
        "setLimits",
        "Changes the dynamic limits or the target, all that are named or none.",
        Ask(|input| Ok(Request::Limits(LimitsRequest::Set(input.json()?)))),
    )
    .takes::<LimitsConfig>()
    .answers::<LimitsInfo>(),
    route(
        Get,
        "/operations",
        "listOperations",
        "Operations under way, and the last that ended.",
        Ask(|_| Ok(Request::Operation(OperationRequest::List))),
    )
    .answers::<OperationList>(),
    route(
        Get,
        "/operations/{id}",
        "showOperation",
        "One operation, and what the guest has done of it so far.",
        Ask(|input| {
            let (id, wait) = (input.number("id")?, input.number("wait")?);
            Ok(Request::Operation(OperationRequest::Show { id, wait }))
        }),
    )
    .with(&[OPERATION_ID, WAIT])
    .answers::<OperationInfo>(),
];

#[expect(clippy::unnecessary_wraps, reason = "the table wants what may fail")]
fn look(request: LookRequest) -> Result<Request, ControlError> {
    Ok(Request::Look(request))
}
