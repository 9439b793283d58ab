//! Debian's kernels boot by every protocol, on the processors that were asked for, with the devices that were promised.

use anyhow::{Context, Result, ensure};
use guest_tests::{Guest, GuestBuilder, QUICK, Scratch, facts};
use std::{collections::BTreeMap, fs, time::Duration};
use vmm::{
    boot::unpack,
    images::{self, KernelImage, Manifest},
};

fn image(name: &str) -> Result<KernelImage> {
    Ok(Manifest::load(&images::default_dir())?.kernel(name)?.clone())
}

/// Boots to the agent, looks whether it is the kernel that was meant and nothing went wrong, and powers off.
fn boots(what: &str, guest: &GuestBuilder, release: &str) -> Result<()> {
    let mut guest = guest.start().with_context(|| what.to_owned())?;
    let hello = guest.client().hello();
    ensure!(
        hello.kernel == release,
        "{what}: booted {}, expected {release}",
        hello.kernel
    );
    ensure!(hello.problems.is_empty(), "{what}: {:?}", hello.problems);
    guest.power_off().with_context(|| what.to_owned())?;
    Ok(())
}

fn by_every_protocol(name: &str) -> Result<()> {
    let KernelImage { release, vmlinux, .. } = image(name)?;
    let bzimage = GuestBuilder::new(name).memory("512M");
    let elf = GuestBuilder::new(&vmlinux.display().to_string())
        .memory("512M")
        .arg("--initrd", &format!("@{name}"));
    boots(
        "bzImage that the monitor unpacks",
        &bzimage.clone().arg("--unpack", "on"),
        &release,
    )?;
    // The guest's own decompressor is the slowest thing a nested host does.
    let slow = bzimage.arg("--unpack", "off").hello_within(Duration::from_secs(180));
    boots("bzImage that unpacks itself", &slow, &release)?;
    boots(
        "vmlinux by the 64-bit protocol",
        &elf.clone().arg("--boot", "linux64"),
        &release,
    )?;
    boots("vmlinux by PVH", &elf.arg("--boot", "pvh"), &release)
}

#[test]
fn debian_6_1_amd64_boots_by_every_protocol() -> Result<()> {
    by_every_protocol("debian-6.1-amd64")
}

#[test]
fn debian_6_1_cloud_boots_by_every_protocol() -> Result<()> {
    by_every_protocol("debian-6.1-cloud-amd64")
}

#[test]
fn debian_6_12_amd64_boots_by_every_protocol() -> Result<()> {
    by_every_protocol("debian-6.12-amd64")
}

#[test]
fn monitor_unpacks_what_the_image_tool_unpacked() -> Result<()> {
    for name in guest_tests::KERNELS {
        let image = image(name)?;
        let unpacked = unpack::unpack(&fs::read(&image.bzimage)?)?;
        let vmlinux = fs::read(&image.vmlinux)?;
        // Relocations may follow what the image tool keeps.
        ensure!(
            unpacked.starts_with(&vmlinux),
            "{name}: the monitor unpacks something else"
        );
    }
    Ok(())
}

/// One file of each processor's topology, by processor.
fn topology(guest: &mut Guest, file: &str) -> Result<Vec<String>> {
    let script =
        format!("for i in $(seq 0 $(($(nproc)-1))); do cat /sys/devices/system/cpu/cpu$i/topology/{file}; done");
    Ok(guest.check(&script)?.lines().map(str::to_owned).collect())
}

#[test]
fn two_sockets_of_two_threads_are_what_the_guest_sees() -> Result<()> {
    let config = GuestBuilder::new(QUICK).cpus("4,sockets=2,cores=1,threads=2");
    let plan = config.dry_run()?;
    let mut guest = config.start()?;
    ensure!(guest.check("nproc")? == "4");
    ensure!(topology(&mut guest, "physical_package_id")? == ["0", "0", "1", "1"]);
    ensure!(topology(&mut guest, "core_id")? == ["0"; 4]);
    ensure!(topology(&mut guest, "thread_siblings_list")? == ["0-1", "0-1", "2-3", "2-3"]);
    ensure!(topology(&mut guest, "core_siblings_list")? == ["0-1", "0-1", "2-3", "2-3"]);
    let ids = guest.check("grep ^apicid /proc/cpuinfo | sed 's/.*: //'")?;
    let planned: Vec<_> = facts::list(&plan, "vcpus")?
        .iter()
        .map(|v| v["apic_id"].to_string())
        .collect();
    ensure!(
        ids.lines().eq(planned.iter().map(String::as_str)),
        "{ids} are not {planned:?}"
    );
    guest.power_off()?;
    Ok(())
}

#[test]
fn two_cores_of_another_vendor_are_what_the_guest_sees() -> Result<()> {
    let config = GuestBuilder::new(QUICK)
        .cpus("2,sockets=1,cores=2,threads=1")
        .arg("--cpu", "vendor=GenuineIntel,-avx,-rdrand");
    let mut guest = config.start()?;
    ensure!(guest.check("nproc")? == "2");
    ensure!(topology(&mut guest, "physical_package_id")? == ["0", "0"]);
    ensure!(topology(&mut guest, "core_id")? == ["0", "1"]);
    ensure!(topology(&mut guest, "thread_siblings_list")? == ["0", "1"]);
    let cpuinfo = guest.check("cat /proc/cpuinfo")?;
    let values = |key: &str| {
        cpuinfo
            .lines()
            .filter(|l| l.starts_with(key))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    ensure!(
        values("vendor_id") == vec!["vendor_id\t: GenuineIntel"; 2],
        "{:?}",
        values("vendor_id")
    );
    for flags in values("flags") {
        let flags: Vec<_> = flags.split_whitespace().collect();
        ensure!(flags.contains(&"sse4_2") && flags.contains(&"hypervisor"), "{flags:?}");
        ensure!(!flags.contains(&"avx") && !flags.contains(&"rdrand"), "{flags:?}");
    }
    guest.power_off()?;
    Ok(())
}

#[test]
fn eight_vcpus_come_up() -> Result<()> {
    let mut guest = GuestBuilder::new(QUICK).cpus("8").start()?;
    ensure!(guest.check("nproc")? == "8");
    ensure!(guest.check("cat /sys/devices/system/cpu/online")? == "0-7");
    // Each of them runs something.
    let each = guest
        .check("for i in 0 1 2 3 4 5 6 7; do taskset -c $i sh -c 'cut -d\" \" -f39 /proc/self/stat' || exit 1; done")?;
    ensure!(each.lines().count() == 8, "{each}");
    guest.power_off()?;
    Ok(())
}

#[test]
fn devices_and_tables_are_those_that_were_promised() -> Result<()> {
    let files = Scratch::new("tables")?;
    let config = GuestBuilder::new("debian-6.12-amd64")
        .cpus("2")
        .arg("--numa", "node=1")
        .nvdimm(&format!("{},size=64M,node=1", files.text("a")));
    let dump = files.join("dump");
    config.acpi_dump(&dump)?;
    let mut guest = config.start()?;
    ensure!(
        guest
            .check("cat /sys/class/misc/hw_random/rng_current")?
            .starts_with("virtio_rng")
    );
    ensure!(guest.check("head -c 64 /dev/hwrng | wc -c")? == "64");
    ensure!(guest.check("head -c 64 /dev/hwrng | sha256sum")? != guest.check("head -c 64 /dev/hwrng | sha256sum")?);
    guest.check("grep -q QEMU0001 /sys/bus/acpi/devices/*/hid")?;
    guest.check("modprobe pvpanic-mmio && ls /sys/bus/platform/drivers/pvpanic-mmio/QEMU0001:00")?;

    let mut dumped = BTreeMap::new();
    for entry in fs::read_dir(&dump)? {
        let path = entry?.path();
        let name = path
            .file_stem()
            .context("a table without a name")?
            .to_string_lossy()
            .to_uppercase();
        dumped.insert(name, fs::read(&path)?);
    }
    let names = guest.check("cd /sys/firmware/acpi/tables && ls -p | grep -v /")?;
    for name in names.lines() {
        // The kernel calls the FADT by the signature it has in memory.
        let seen = guest.file(&format!("/sys/firmware/acpi/tables/{name}"))?;
        let planned = dumped
            .get(name)
            .with_context(|| format!("the guest has a table {name} that was not dumped"))?;
        ensure!(seen == *planned, "table {name} differs from the one that was dumped");
    }
    for name in ["FACP", "DSDT", "APIC", "NFIT", "SRAT", "SLIT"] {
        ensure!(names.lines().any(|n| n == name), "the guest has no {name}: {names}");
    }
    guest.power_off()?;
    Ok(())
}
