//! Replies as people read them.

use crate::control::{
    DiskInfo, DiskList, DiskRequest, LimitsInfo, MachineInfo, MemoryTargetInfo, NvdimmAdded, NvdimmInfo, NvdimmList,
    NvdimmRequest, Request, StateInfo,
};
use crate::memory::limits::MemoryUse;
use devices::units::ByteSize;
use serde_json::Value;
use std::fmt::Write;

/// The reply to `request` as lines of text.
pub(super) fn text(request: &Request, reply: Value) -> Result<String, serde_json::Error> {
    Ok(match request {
        Request::Describe => machine(&serde_json::from_value(reply)?),
        Request::Memory(_) => serde_json::from_value::<MemoryTargetInfo>(reply)?.to_string(),
        Request::Disk(DiskRequest::List) => {
            let DiskList { disks } = serde_json::from_value(reply)?;
            match disks.is_empty() {
                true => "no disks\n".to_owned(),
                false => disks.iter().map(DiskInfo::to_string).collect(),
            }
        }
        Request::Disk(_) => serde_json::from_value::<DiskInfo>(reply)?.to_string(),
        Request::Nvdimm(NvdimmRequest::List) => nvdimms(&serde_json::from_value(reply)?),
        Request::Nvdimm(NvdimmRequest::Add(_)) => added(serde_json::from_value(reply)?),
        Request::Nvdimm(NvdimmRequest::Lock { id }) => format!("{id} is locked\n"),
        Request::Limits(_) => limits(&serde_json::from_value(reply)?),
        Request::PowerButton => "the power button is pressed; whether the guest turns itself off is up to it\n".into(),
        Request::Pause | Request::Resume | Request::Quit => {
            let StateInfo { state } = serde_json::from_value(reply)?;
            format!("the machine is {state}\n")
        }
    })
}

fn machine(m: &MachineInfo) -> String {
    let ms = |n: u64| format!("{}.{:01} s", n / 1000, n % 1000 / 100);
    format!(
        "machine: {} for {}, {} of them paused; daxvisor {}, process {}\n{}{}{}",
        m.state,
        ms(m.uptime_ms),
        ms(m.paused_ms),
        m.version,
        m.pid,
        m.plan,
        nvdimms(&m.nvdimm),
        m.virtio
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
    for (name, size) in info.limits.named() {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {name}: {size}");
    }
    text
}

fn added(added: NvdimmAdded) -> String {
    let list = NvdimmList {
        fit_generation: added.fit_generation,
        fit_seen: added.fit_seen,
        dimms: vec![added.dimm],
    };
    nvdimms(&list)
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
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "  {id}: {bus}slot {slot}, handle {handle:#x}, {node}{}{place}, {labels}{readonly}",
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
            "label_size": 131_072, "readonly": true});
        let reply = json!({"fit_generation": 2, "fit_seen": 1, "dimms": [dimm]});
        let shown = text(&Request::Nvdimm(NvdimmRequest::List), reply).unwrap();
        assert_eq!(
            shown,
            "NFIT version 2, the guest has read version 1\n  a: slot 1, handle 0x2, node 3, 1G at \
             0x100000000-0x13fffffff, labels 128K, read-only\n"
        );
        let none = json!({"fit_generation": 0, "fit_seen": 0, "dimms": []});
        assert_eq!(
            text(&Request::Nvdimm(NvdimmRequest::List), none).unwrap(),
            "no NVDIMMs\n"
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
