//! Configurations that nobody would write: whatever a flag or a file says is read and planned, or refused. Nothing panics.

use super::{HostLimits, Layout};
use crate::{
    acpi,
    config::{
        VmConfig, file,
        flags::{self, FLAGS},
        probe::BackingFacts,
    },
    machine,
    topology::Topology,
};
use devices::units::ByteSize;
use proptest::{collection::vec, prelude::*, sample::select};

/// The keys that the help of a flag names, and those of all others.
fn keys(value: &str) -> Vec<String> {
    let words = value.split('=').filter_map(|before| {
        let word = before.rsplit(|c: char| !(c.is_ascii_lowercase() || c == '-')).next()?;
        (!word.is_empty()).then(|| word.to_owned())
    });
    words.collect()
}

/// What stands behind a key: sizes and numbers at their ends, words that mean something somewhere, and anything.
fn value() -> impl Strategy<Value = String> {
    let known = [
        "0",
        "1",
        "2",
        "3",
        "63",
        "64",
        "255",
        "256",
        "65535",
        "4294967295",
        "4294967296",
        "18446744073709551615",
        "18446744073709551616",
        "-1",
        "4K",
        "4095",
        "64M",
        "128M",
        "1G",
        "3G",
        "4G",
        "16T",
        "64T",
        "16E",
        "0x0",
        "0x1000",
        "0xd0000000",
        "0xffffffffffffffff",
        "on",
        "off",
        "auto",
        "ram",
        "reserved",
        "soft-reserved",
        "pmem",
        "hole",
        "unusable",
        "persistent",
        "volatile",
        "virtual-disk",
        "map",
        "parameter",
        "100ns",
        "1GB/s",
        "10%",
        "a",
        "b",
        "[0-3]",
        "[0,1]",
        "[a,b]",
        "",
        "0-8",
        "0:10",
        "1s",
        "memfd",
        "hugetlb",
        "devdax",
        "/nowhere/x",
    ];
    prop_oneof![8 => select(known.to_vec()).prop_map(str::to_owned), 1 => "[ -~]{0,12}"]
}

/// A flag with a text for it: its own keys, or others.
fn flag() -> impl Strategy<Value = (&'static str, String)> {
    (0..FLAGS.len()).prop_flat_map(|at| {
        let flag = &FLAGS[at];
        let mut own = keys(flag.value);
        own.push("size".to_owned());
        let pair = (select(own), value()).prop_map(|(key, value)| format!("{key}={value}"));
        let text = prop_oneof![
            6 => vec(pair, 1..5).prop_map(|pairs| pairs.join(",")),
            2 => value(),
            1 => "\\PC{0,40}",
        ];
        text.prop_map(|text| (flag.name, text))
    })
}

/// Plans everything that is planned before a machine is built.
fn plan(config: &VmConfig) {
    if config.validate().is_err() {
        return;
    }
    let Ok(topology) = Topology::plan(config) else {
        return;
    };
    let facts = |size: Option<ByteSize>| BackingFacts {
        size: size.unwrap_or(ByteSize::gib(1)),
        page: ByteSize::kib(4),
    };
    let backings = config.nvdimm.iter().map(|nvdimm| facts(nvdimm.size));
    let pmem = config.virtio_pmem.iter().map(|device| facts(device.size));
    let host = HostLimits {
        phys_bits: 46,
        backings: backings.chain(pmem).collect(),
        memory_devices: config.memory_device.iter().map(|device| facts(device.size)).collect(),
    };
    if let Ok(layout) = Layout::plan(config, &topology, &host) {
        let _ = acpi::assemble(&machine::acpi_input(config, &topology, &layout));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5000, ..ProptestConfig::default() })]

    #[test]
    fn any_flags_are_planned_or_refused(given in vec(flag(), 0..6)) {
        let mut config = VmConfig::default();
        // One after the other, so that what cannot be read does not hide the rest.
        for (name, text) in given {
            let mut next = config.clone();
            let text = [text];
            if flags::apply(&mut next, |flag| if flag == name { &text[..] } else { &[] }).is_err() {
                continue;
            }
            let good = next.validate().is_ok();
            plan(&next);
            // What is printed of it is read back, when it can be.
            if let Ok(text) = file::print(&next) {
                prop_assert_eq!(file::parse::<VmConfig>(&text), Ok(next.clone()));
            }
            if good {
                config = next;
            }
        }
    }

    #[test]
    fn any_text_is_a_file_or_none(text in "(\\[{0,2}[a-z-]{1,16}\\]{0,2}\n|[a-z-]{1,12} = [\"0-9GMK\\[\\]a-z{}=]{0,12}\n|\\PC{0,20}\n){0,8}") {
        if let Ok(config) = file::parse::<VmConfig>(&text) {
            plan(&config);
        }
    }
}
