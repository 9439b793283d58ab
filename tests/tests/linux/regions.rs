//! Interleave sets, partial mappings, unmapped DIMMs, several buses and virtual disks, as the guest sees them.

use anyhow::{Context, Result, ensure};
use devices::nvdimm::label::format::{CookieMember, LabelVersion, interleave_cookie};
use guest_tests::{Guest, GuestBuilder, QUICK, Scratch, facts};
use serde_json::Value;
use std::{fs::File, os::unix::fs::FileExt};

const MIB: u64 = 1 << 20;
/// A DIMM of 32 MiB with its label area.
const DIMM: &str = "size=32896K";

fn sysfs(guest: &mut Guest, path: &str) -> Result<String> {
    guest.check(&format!("cat /sys/bus/nd/devices/{path}"))
}

/// The region whose SPA range has this index.
fn region(guest: &mut Guest, index: u16) -> Result<String> {
    guest.check(&format!(
        "grep -lx {index} /sys/bus/nd/devices/region*/nfit/range_index | cut -d/ -f6"
    ))
}

fn machine(files: &Scratch) -> GuestBuilder {
    let dimm = |config: GuestBuilder, (n, handle): (u32, u32)| {
        let identity = format!(
            "vendor=0xabcd,serial={},date=0x1620,location=0xa",
            0x1122_3344u32.wrapping_mul(n + 1)
        );
        let file = files.text(&format!("dimm{n}"));
        config.nvdimm(&format!("{file},{DIMM},id=d{n},handle={handle:#x},{identity}"))
    };
    (0..)
        .zip([0x0, 0x1, 0x100, 0x101])
        .fold(GuestBuilder::new(QUICK), dimm)
        .arg("--interleave-set", "dimms=[d0,d1],size=32M,range-index=1")
        .arg("--interleave-set", "dimms=[d0,d1,d2,d3],size=64M,line=64K,range-index=2")
        .nvdimm(&format!(
            "{},{DIMM},id=e0,bus=1,handle=0x10000,format=0x101,flags=[save-failed,restore-failed,flush-failed,not-armed,\
             health-observed]",
            files.text("e0")
        ))
        .nvdimm(&format!(
            "{},{DIMM},id=e1,bus=1,handle=0x10001,mapped=off,flags=map-failed",
            files.text("e1")
        ))
        .arg("--virtual-disk", "type=volatile-cd,size=4M,bus=1")
        .arg("--nvdimm-bus", "1,persistence=memory-controller")
}

fn dimm_facts(list: &Value) -> Result<Vec<(String, u64)>> {
    let dimms = list.as_array().context("no list of DIMMs")?;
    let fact = |d: &Value| Ok((facts::text(d, "id")?.to_owned(), facts::number(d, "handle")?));
    let mut all = dimms.iter().map(fact).collect::<Result<Vec<_>>>()?;
    all.sort();
    Ok(all)
}

#[test]
fn sets_partial_mappings_and_a_second_bus_are_as_configured() -> Result<()> {
    let files = Scratch::new("regions")?;
    let mut guest = machine(&files).start()?;

    let dimms = dimm_facts(&guest.json("ndctl list -D -b ndbus0")?)?;
    // Vendor, location, date and serial are stored as sequences, which the kernel prints from the first byte on.
    let expected = [0x1122_3344u32, 0x2244_6688, 0x3366_99cc, 0x4488_cd10]
        .map(|serial| format!("cdab-0a-2016-{:08x}", serial.swap_bytes()));
    let mut expected: Vec<_> = expected.into_iter().zip([0, 1, 0x100, 0x101]).collect();
    expected.sort();
    ensure!(dimms == expected, "{dimms:x?}, expected {expected:x?}");

    for (index, ways, size) in [(1, 2, 32 * MIB), (2, 4, 64 * MIB)] {
        let region = region(&mut guest, index)?;
        ensure!(sysfs(&mut guest, &format!("{region}/mappings"))? == ways.to_string());
        ensure!(sysfs(&mut guest, &format!("{region}/size"))? == size.to_string());
        let share = size / ways;
        // The second set begins where the first one ends in the DIMMs they share.
        let dpa = if index == 2 { 16 * MIB } else { 0 };
        let first = sysfs(&mut guest, &format!("{region}/mapping0"))?;
        ensure!(first == format!("nmem0,{dpa},{share},0"), "{region}: {first}");
    }
    let two = region(&mut guest, 1)?;
    let cookie = sysfs(&mut guest, &format!("{two}/set_cookie"))?;
    let member = |n: u32| CookieMember {
        region_offset: u64::from(n) * 8192,
        serial: 0x1122_3344u32.wrapping_mul(n + 1),
        vendor: 0xabcd,
        date: 0x1620,
        location: 0xa,
    };
    let expected = [LabelVersion::V1_1, LabelVersion::V1_2].map(|v| interleave_cookie(&[member(0), member(1)], v));
    ensure!(
        expected.iter().any(|e| cookie == format!("{e:#x}")),
        "{cookie}, expected one of {expected:x?}"
    );

    let second = guest.json("ndctl list -Di -b ndbus1")?;
    let unmapped = second.as_array().into_iter().flatten().find(|d| d["handle"] == 0x10001);
    ensure!(unmapped.is_some_and(|d| d["flag_failed_map"] == true), "{second}");
    let flags = guest.check("cat /sys/bus/nd/devices/ndbus1/nmem*/nfit/flags")?;
    ensure!(
        flags
            .lines()
            .any(|l| l.trim_end() == "save_fail restore_fail flush_fail not_armed smart_event"),
        "{flags}"
    );
    ensure!(flags.lines().any(|l| l.trim_end() == "map_fail"), "{flags}");
    let domains = guest.check("cat /sys/bus/nd/devices/ndbus*/region*/persistence_domain | sort -u")?;
    ensure!(domains == "cpu_cache\nmemory_controller", "{domains}");
    let sizes = guest.check("cat /sys/bus/nd/devices/ndbus1/region*/size | sort -n")?;
    ensure!(sizes == format!("{}\n{}", 4 * MIB, 32 * MIB), "{sizes}");
    guest.power_off()?;
    Ok(())
}

#[test]
fn namespaces_span_sets_and_data_lies_in_turns_on_their_dimms() -> Result<()> {
    let files = Scratch::new("stripes")?;
    let config = machine(&files);
    let mut guest = config.start()?;
    guest.check(
        "ndctl disable-region -b ndbus0 all; ndctl init-labels -b ndbus0 all && ndctl enable-region -b ndbus0 all",
    )?;
    let four = region(&mut guest, 2)?;
    guest.check(&format!("ndctl create-namespace -r {four} -m raw -s 64M"))?;
    let disk = guest.check(&format!("ls /sys/bus/nd/devices/{four}/namespace*/block"))?;
    // Each 64 KiB line begins with its number.
    guest.check(&format!(
        "for n in 0 1 2 3 4 5; do printf \"line%02d\" $n | dd of=/dev/{disk} bs=64K seek=$n conv=notrunc,sync 2>/dev/null; done; \
         sync; blockdev --flushbufs /dev/{disk}"
    ))?;
    let listed = guest.json("ndctl list -N -b ndbus0")?;
    guest.reboot()?;

    for line in 0..6u64 {
        let (dimm, k) = (line % 4, line / 4);
        // d0 and d1 gave their first 16 MiB to the other set.
        let start = if dimm < 2 { 16 * MIB } else { 0 };
        let mut found = [0; 6];
        File::open(files.join(&format!("dimm{dimm}")))?.read_exact_at(&mut found, start + k * 65536)?;
        ensure!(found == format!("line{line:02}").as_bytes(), "line {line}: {found:?}");
    }
    let mut guest = config.start()?;
    ensure!(
        guest.json("ndctl list -N -b ndbus0")? == listed,
        "the namespace is found again"
    );
    guest.power_off()?;
    Ok(())
}
