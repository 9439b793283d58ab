//! Replies as people read them.

use crate::control::{
    ConsoleTail, DeviceList, DiskInfo, DiskList, DiskRequest, Event, EventList, Happening, HealthInfo, LimitsInfo,
    LookRequest, MachineInfo, MapInfo, MediaErrorInfo, MediaErrorList, MemoryDeviceInfo, MemoryList, MemoryRemoved,
    MemoryRequest, Metrics, NodeList, NvdimmAdded, NvdimmInfo, NvdimmList, NvdimmRequest, OperationInfo, OperationKind,
    OperationList, OperationRequest, OperationResult, OperationState, Request, StateInfo, TableEntry, TableInfo,
    TableList,
};
use crate::memory::limits::MemoryUse;
use devices::{
    nvdimm::{
        flush::FlushCounts,
        media::{ErrorSource, ErrorState},
    },
    units::ByteSize,
};
use serde_json::Value;
use std::fmt::Write;

/// The reply to `request` as lines of text.
pub(super) fn text(request: &Request, reply: Value) -> Result<String, serde_json::Error> {
    Ok(match request {
        Request::Describe => machine(&serde_json::from_value(reply)?),
        Request::Look(request) => sight(request, reply)?,
        Request::Nvdimm(NvdimmRequest::Show { .. }) => nvdimm(&serde_json::from_value(reply)?),
        Request::Nvdimm(NvdimmRequest::Health { .. }) => health(&serde_json::from_value(reply)?),
        Request::Memory(MemoryRequest::List) => memory(&serde_json::from_value(reply)?),
        Request::Disk(DiskRequest::List) => {
            let DiskList { disks } = serde_json::from_value(reply)?;
            match disks.is_empty() {
                true => "no disks\n".to_owned(),
                false => disks.iter().map(DiskInfo::to_string).collect(),
            }
        }
        Request::Disk(_) => serde_json::from_value::<DiskInfo>(reply)?.to_string(),
        Request::Nvdimm(NvdimmRequest::List) => nvdimms(&serde_json::from_value(reply)?),
        Request::Nvdimm(NvdimmRequest::Add(_))
        | Request::Memory(_)
        | Request::Dax(_)
        | Request::Operation(OperationRequest::Show { .. }) => operation(&serde_json::from_value(reply)?),
        Request::Operation(OperationRequest::List) => operations(&serde_json::from_value(reply)?),
        Request::Nvdimm(NvdimmRequest::Lock { id }) => format!("{id} is locked\n"),
        Request::Nvdimm(NvdimmRequest::Inject { range, .. }) => format!("{range} are bad\n"),
        Request::Nvdimm(NvdimmRequest::Clear { range }) => format!("{range} are good\n"),
        Request::Nvdimm(NvdimmRequest::Errors { .. }) => errors(&serde_json::from_value(reply)?),
        Request::Limits(_) => limits(&serde_json::from_value(reply)?),
        Request::Fault(request) => super::fault::text(request, reply)?,
        Request::PowerButton => "the power button is pressed; whether the guest turns itself off is up to it\n".into(),
        Request::Ask(_) => "the guest is asked; what it does about it is up to it\n".into(),
        Request::Pause | Request::Resume | Request::Reboot | Request::Quit => {
            let StateInfo { state } = serde_json::from_value(reply)?;
            format!("the machine is {state}\n")
        }
    })
}

fn ms(n: u64) -> String {
    format!("{}.{:01} s", n / 1000, n % 1000 / 100)
}

fn errors(list: &MediaErrorList) -> String {
    if list.errors.is_empty() {
        return "no errors\n".into();
    }
    let line = |error: &MediaErrorInfo| {
        let spa = error
            .spa
            .map_or_else(String::new, |spa| format!(", the guest's {spa:#x}"));
        let state = match error.state {
            ErrorState::Latent => "latent",
            ErrorState::Known => "known",
        };
        let source = match error.source {
            ErrorSource::Guest => "the guest",
            ErrorSource::Host => "the host",
            ErrorSource::Einj => "the guest's EINJ",
            ErrorSource::Backing => "the memory behind it",
        };
        let MediaErrorInfo { id, dpa, len, .. } = error;
        format!("{id}: {len:#x} bytes at DPA {dpa:#x}{spa}, {state}, made by {source}\n")
    };
    list.errors.iter().map(line).collect()
}

fn machine(m: &MachineInfo) -> String {
    format!(
        "machine: {} for {}, {} of them paused; daxvisor {}, process {}\n{}{}{}{}",
        m.state,
        ms(m.uptime_ms),
        ms(m.paused_ms),
        m.version,
        m.pid,
        m.plan,
        nvdimms(&m.nvdimm),
        memory(&m.memory),
        m.virtio
    )
}

fn operations(list: &OperationList) -> String {
    if list.operations.is_empty() {
        return "no operations\n".into();
    }
    list.operations.iter().map(line).collect()
}

/// An operation as one line.
fn line(o: &OperationInfo) -> String {
    let kind = serde_json::to_value(o.kind).unwrap_or_default();
    let kind = kind.as_str().unwrap_or_default().replace('-', " ");
    let took = o
        .ended_ms
        .map(|end| format!(" after {}", ms(end.saturating_sub(o.started_ms))));
    let took = took.unwrap_or_default();
    let state = match o.state {
        OperationState::Running if o.kind == OperationKind::RangeAdd => "comes with the next boot",
        OperationState::Done if o.kind == OperationKind::RangeAdd => "came with a boot",
        OperationState::Running => "waits for the guest",
        OperationState::Done => "confirmed by the guest",
        OperationState::Unanswered => "not answered by the guest",
        OperationState::Failed => "failed",
    };
    format!("operation {}: {kind} {}: {state}{took}\n", o.id, o.target)
}

/// An operation with all that is known of it.
fn operation(o: &OperationInfo) -> String {
    let mut text = line(o);
    for step in &o.steps {
        text += &format!("  at {}: {}\n", ms(step.at_ms), step.meaning);
    }
    if let Some(error) = &o.error {
        text += &format!("  {error}\n");
    }
    match o.result.clone() {
        Some(OperationResult::NvdimmAdded(nvdimm)) => text += &added(*nvdimm),
        Some(OperationResult::MemoryAdded(added)) => text += &device(&added),
        Some(OperationResult::MemoryRemoved(MemoryRemoved { id, len })) => {
            text += &format!("  {id} is gone, {} are the host's again\n", ByteSize(len));
        }
        Some(OperationResult::RangePlanned(range)) => {
            let last = range.start.saturating_add(range.len.saturating_sub(1));
            text += &format!(
                "  {}: {} at {:#x}-{last:#x}\n",
                range.id,
                ByteSize(range.len),
                range.start
            );
        }
        Some(OperationResult::MemoryTarget(target)) => text += &format!("  {target}"),
        None => {}
    }
    text
}

fn memory(list: &MemoryList) -> String {
    if list.devices.is_empty() && list.slots == 0 {
        return "no memory devices\n".into();
    }
    let head = format!(
        "memory devices: {} slots, memory block of the guest {}\n",
        list.slots,
        ByteSize(list.block)
    );
    list.devices.iter().map(device).fold(head, |text, line| text + &line)
}

fn device(device: &MemoryDeviceInfo) -> String {
    let MemoryDeviceInfo {
        id, start, len, node, ..
    } = device;
    if let Some(plugging) = &device.plugging {
        let last = start.saturating_add(len.saturating_sub(1));
        let driver = if plugging.driver { "" } else { ", no driver" };
        return format!(
            "  {id}: virtio-mem, node {node}, {} plugged of {} asked for, at most {} at {start:#x}-{last:#x}, blocks of {}{driver}\n",
            ByteSize(plugging.plugged),
            ByteSize(plugging.requested),
            ByteSize(*len),
            ByteSize(plugging.block)
        );
    }
    let slot = device.slot.map_or_else(String::new, |slot| format!("slot {slot}, "));
    let last = start.saturating_add(len.saturating_sub(1));
    let file = device.file.as_ref().map(|file| format!(", {}", file.display()));
    let offset = device.offset.map(|offset| format!(" from {offset:#x}"));
    let guest = device.guest.map(|guest| format!(", {guest}"));
    let said = device.ost.as_ref().map(|ost| format!(" ({})", ost.text));
    let more = [file, offset, guest, said].into_iter().flatten().collect::<String>();
    format!(
        "  {id}: {slot}node {node}, {} at {start:#x}-{last:#x}{more}\n",
        ByteSize(*len)
    )
}

fn limits(info: &LimitsInfo) -> String {
    let MemoryUse {
        boot,
        devices,
        resizable,
    } = info.used;
    let mut text = format!(
        "RAM {}: {boot} at boot, {devices} in memory devices, {resizable} in virtio-mem\n",
        info.total
    );
    // Writing to a String cannot fail.
    if let Some(domain) = &info.domain {
        let _ = writeln!(
            text,
            "the domain has {}, and could take {}",
            domain.current, domain.ballooned
        );
    }
    for (name, size) in info.limits.named() {
        let _ = writeln!(text, "  {name}: {size}");
    }
    text
}

fn sight(request: &LookRequest, reply: Value) -> Result<String, serde_json::Error> {
    Ok(match request {
        LookRequest::State => {
            let StateInfo { state } = serde_json::from_value(reply)?;
            format!("the machine is {state}\n")
        }
        LookRequest::Map => map(&serde_json::from_value(reply)?),
        LookRequest::Nodes => nodes(&serde_json::from_value(reply)?),
        LookRequest::Devices => devices(&serde_json::from_value(reply)?),
        LookRequest::Metrics => metrics(&serde_json::from_value(reply)?),
        LookRequest::Events { .. } => {
            let EventList { events, lost } = serde_json::from_value(reply)?;
            let gap = (lost > 0).then(|| format!("{lost} earlier events are not kept any more\n"));
            gap.into_iter().chain(events.iter().map(event)).collect()
        }
        LookRequest::Console { .. } => serde_json::from_value::<ConsoleTail>(reply)?.text,
        LookRequest::Tables => {
            let TableList { tables } = serde_json::from_value(reply)?;
            let line = |t: &TableEntry| format!("{} at {:#x}: {} bytes\n", t.signature, t.address, t.len);
            tables.iter().map(line).collect()
        }
        LookRequest::Table { .. } => table(&serde_json::from_value(reply)?),
    })
}

fn map(info: &MapInfo) -> String {
    let number = |n: Option<u32>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let mut text = String::new();
    for e in &info.map {
        let (node, name) = (number(e.node), e.name.as_deref().unwrap_or("-"));
        let range = format!("{:#x}-{:#x}", e.start, e.last);
        let size = ByteSize((e.last - e.start).saturating_add(1)).to_string();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{range:<33} {size:>8}  {:<12} node {node:<3} {name}", e.kind);
    }
    text
}

fn nodes(list: &NodeList) -> String {
    let mut text = String::new();
    for node in &list.nodes {
        let row: Vec<_> = node
            .distances
            .iter()
            .map(|(to, value)| format!("{to}:{value}"))
            .collect();
        let vcpus = if node.vcpus.is_empty() { "none" } else { &node.vcpus };
        let (number, memory, row) = (node.node, node.memory, row.join(" "));
        let _ = writeln!(text, "node {number}: vCPUs {vcpus}, RAM {memory}, distances {row}");
    }
    text
}

fn devices(list: &DeviceList) -> String {
    let hex = |n: Option<u64>| n.map_or_else(|| "-".to_owned(), |n| format!("{n:#x}"));
    let mut text = format!(
        "{:<14} {:<22} {:>6} {:>12} {:>4}\n",
        "device", "kind", "port", "address", "gsi"
    );
    for d in &list.devices {
        let gsi = d.gsi.map_or_else(|| "-".to_owned(), |n| n.to_string());
        let (port, address) = (hex(d.port), hex(d.address));
        let _ = writeln!(text, "{:<14} {:<22} {port:>6} {address:>12} {gsi:>4}", d.id, d.kind);
    }
    text
}

fn metrics(m: &Metrics) -> String {
    let e = &m.exits;
    format!(
        "up {}, {} of them paused; processor time {}\nexits: {} port, {} collected, {} mmio, {} other\n\
         memory: {} resident, {} of them of files; console: {} bytes\nrequests: {}, {} under way; events: {}\n",
        ms(m.uptime_ms),
        ms(m.paused_ms),
        ms(m.cpu_us / 1000),
        e.port,
        e.collected,
        e.mmio,
        e.other,
        ByteSize(m.resident),
        ByteSize(m.resident_file),
        m.console_bytes,
        m.requests,
        m.under_way,
        m.events
    )
}

/// An event as a line.
pub(super) fn event(event: &Event) -> String {
    let what = match &event.what {
        Happening::State { state } => format!("the machine is {state}"),
        Happening::Operation { operation } => line(operation).trim_end().to_owned(),
        Happening::FitSeen { generation, seen } => {
            format!("the guest has read version {seen} of the NFIT, of {generation}")
        }
        Happening::Request { request, done: true } => format!("request: {request}"),
        Happening::Request { request, done: false } => format!("request refused: {request}"),
        Happening::MemoryRefused {
            asked,
            current,
            static_max,
        } => format!("the guest was refused {asked} of memory: it has {current}, and static-max is {static_max}"),
        Happening::Fault {
            change,
            gpa,
            len,
            ranges,
            vcpu,
        } => super::fault::change(*change, *gpa, *len, *ranges, *vcpu),
        Happening::End { outcome } => format!("the end: {outcome}"),
        Happening::Gap { lost } => format!("{lost} events were missed"),
    };
    format!("{:>6} {:>10}  {what}\n", event.seq, ms(event.at_ms))
}

fn table(table: &TableInfo) -> String {
    let mut text = format!("{} at {:#x}\n", table.signature, table.address);
    let digits: Vec<_> = table.bytes.as_bytes().chunks(2).map(String::from_utf8_lossy).collect();
    for (n, row) in digits.chunks(16).enumerate() {
        let _ = writeln!(text, "  {:04x}: {}", n * 16, row.join(" "));
    }
    text
}

fn nvdimm(info: &NvdimmInfo) -> String {
    let list = NvdimmList {
        dimms: vec![info.clone()],
        ..NvdimmList::default()
    };
    let text = nvdimms(&list);
    let lines = text.lines().skip(1).map(|line| format!("{}\n", line.trim_start()));
    lines.collect()
}

fn health(h: &HealthInfo) -> String {
    let words = |words: &[String], none: &str| match words {
        [] => none.to_owned(),
        some => some.join(", "),
    };
    let t = &h.thresholds;
    format!(
        "{}: {}; alarms: {}\n  spares {} % (alarm at {}), life used {} %\n  media {} C (alarm at {}), controller {} C \
         (alarm at {}); armed: {}\n  unsafe shutdowns: {}{}\n",
        h.id,
        words(&h.condition, "good"),
        words(&h.alarms, "none"),
        h.spares,
        t.spares,
        h.life_used,
        h.media_temperature,
        t.media_temperature,
        h.controller_temperature,
        t.controller_temperature,
        words(&t.armed, "none"),
        h.unsafe_shutdowns,
        if h.dirty { ", the last one among them" } else { "" }
    )
}

fn added(added: NvdimmAdded) -> String {
    let list = NvdimmList {
        fit_generation: added.fit_generation,
        fit_seen: added.fit_seen,
        dimms: vec![added.dimm],
    };
    nvdimms(&list)
}

fn flushes(
    FlushCounts {
        writes,
        flushes,
        failed,
    }: FlushCounts,
) -> String {
    let failed = match failed {
        0 => String::new(),
        n => format!(" ({n} failed)"),
    };
    format!(", {writes} writes to its flush hint, {flushes} flushes{failed}")
}

fn nvdimms(list: &NvdimmList) -> String {
    if list.dimms.is_empty() {
        return "no NVDIMMs\n".into();
    }
    let seen = match list.fit_seen {
        0 => "the guest has not read it yet".into(),
        n => format!("the guest has read version {n}"),
    };
    let mut text = format!("NFIT version {}, {seen}\n", list.fit_generation);
    for NvdimmInfo {
        id,
        bus,
        slot,
        handle,
        start,
        len,
        node,
        label_size,
        readonly,
        flush,
    } in &list.dimms
    {
        let labels = match label_size {
            0 => "no labels".to_owned(),
            n => format!("labels {}", ByteSize(*n)),
        };
        let readonly = if *readonly { ", read-only" } else { "" };
        let bus = if *bus == 0 {
            String::new()
        } else {
            format!("bus {bus}, ")
        };
        let node = node.map_or_else(String::new, |node| format!("node {node}, "));
        let place = start.map_or_else(String::new, |start| {
            format!(" at {start:#x}-{:#x}", start.saturating_add(len.saturating_sub(1)))
        });
        let flush = flush.map_or_else(String::new, flushes);
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "  {id}: {bus}slot {slot}, handle {handle:#x}, {node}{}{place}, {labels}{readonly}{flush}",
            ByteSize(*len)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::LimitsRequest;
    use serde_json::json;

    #[test]
    fn nvdimms_are_lines() {
        let dimm = json!({"id": "a", "bus": 0, "slot": 1, "handle": 2, "start": 0x1_0000_0000u64, "len": 1 << 30, "node": 3,
            "label_size": 131_072, "readonly": true, "flush": {"writes": 7, "flushes": 3, "failed": 1}});
        let reply = json!({"fit_generation": 2, "fit_seen": 1, "dimms": [dimm]});
        let shown = text(&Request::Nvdimm(NvdimmRequest::List), reply).unwrap();
        assert_eq!(
            shown,
            "NFIT version 2, the guest has read version 1\n  a: slot 1, handle 0x2, node 3, 1G at \
             0x100000000-0x13fffffff, labels 128K, read-only, 7 writes to its flush hint, 3 flushes (1 failed)\n"
        );
        let none = json!({"fit_generation": 0, "fit_seen": 0, "dimms": []});
        assert_eq!(
            text(&Request::Nvdimm(NvdimmRequest::List), none).unwrap(),
            "no NVDIMMs\n"
        );
    }

    #[test]
    fn memory_devices_are_lines_with_what_the_guest_said() {
        let device = json!({"id": "a", "kind": "dimm", "slot": 3, "start": 0x1_0000_0000u64, "len": 1 << 30, "node": 2,
            "backing": "devdax", "file": "/dev/dax0.0", "offset": 1 << 21, "guest": "unplug-refused",
            "ost": {"event": 3, "status": 0x82, "text": "eject request: device busy"}});
        let reply = json!({"slots": 8, "block": 1 << 27, "devices": [device]});
        let shown = text(&Request::Memory(MemoryRequest::List), reply).unwrap();
        assert_eq!(
            shown,
            "memory devices: 8 slots, memory block of the guest 128M\n  a: slot 3, node 2, 1G at 0x100000000-0x13fffffff, \
             /dev/dax0.0 from 0x200000, kept by the guest (eject request: device busy)\n"
        );
        let request = Request::Memory(MemoryRequest::Remove {
            id: "a".into(),
            deadline: None,
        });
        let operation = json!({"id": 3, "kind": "memory-remove", "target": "a", "state": "done", "started_ms": 100, "ended_ms": 2100,
            "steps": [{"at_ms": 900, "action": "ost", "event": 3, "status": 0x84, "meaning": "eject request: in progress"}],
            "result": {"id": "a", "len": 1 << 30}, "error": null});
        let shown = text(&request, operation).unwrap();
        assert_eq!(
            shown,
            "operation 3: memory remove a: confirmed by the guest after 2.0 s\n  at 0.9 s: eject request: in progress\n  a is \
             gone, 1G are the host's again\n"
        );
    }

    #[test]
    fn errors_are_lines() {
        let request = Request::Nvdimm(NvdimmRequest::Errors { id: None });
        assert_eq!(text(&request, json!({"errors": []})).unwrap(), "no errors\n");
        let error = json!({"id": "a", "dpa": 4096, "len": 64, "spa": 1u64 << 32, "source": "host", "state": "latent"});
        let lost = json!({"id": "b", "dpa": 0, "len": 128, "spa": null, "source": "guest", "state": "known"});
        assert_eq!(
            text(&request, json!({"errors": [error, lost]})).unwrap(),
            "a: 0x40 bytes at DPA 0x1000, the guest's 0x100000000, latent, made by the host\n\
             b: 0x80 bytes at DPA 0x0, known, made by the guest\n"
        );
    }

    #[test]
    fn limits_are_a_line_each_from_the_highest() {
        let limits =
            json!({"static-max": "4G", "dynamic-max": "3G", "target": "2G", "dynamic-min": "1G", "static-min": "64M"});
        let used = json!({"boot": "1G", "devices": "512M", "resizable": "0"});
        let reply = json!({"limits": limits, "used": used, "total": "1536M"});
        let shown = text(&Request::Limits(LimitsRequest::Get), reply).unwrap();
        assert_eq!(
            shown,
            "RAM 1536M: 1G at boot, 512M in memory devices, 0 in virtio-mem\n  static-max: 4G\n  dynamic-max: 3G\n  \
             target: 2G\n  dynamic-min: 1G\n  static-min: 64M\n"
        );
    }

    #[test]
    fn state_is_a_sentence_and_anything_else_no_reply() {
        let shown = text(&Request::Pause, json!({"state": "paused"})).unwrap();
        assert_eq!(shown, "the machine is paused\n");
        assert!(text(&Request::Pause, json!({"state": "flying"})).is_err());
        assert!(text(&Request::Describe, json!({})).is_err());
    }
}
