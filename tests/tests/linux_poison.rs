//! Bad memory on real kernels: who is told, who is stopped, what becomes good again.

use anyhow::{Context, Result, ensure};
use guest_tests::{Guest, GuestBuilder, Scratch, control::ctl, guest::program};
use serde_json::Value;
use std::path::PathBuf;

/// A machine whose processors recover from memory errors and copy with care: Intel's rules, and string moves that the kernel
/// trusts.
fn machine(kernel: &str, files: &Scratch) -> GuestBuilder {
    GuestBuilder::new(kernel)
        .arg("--cpu", "vendor=GenuineIntel,add=erms")
        .arg("--control-socket", &files.text("control"))
        .cpus("2")
        .nvdimm("size=65664K,id=pmem0,label=128K")
}

struct Host(PathBuf);

impl Host {
    fn fault(&self, args: &[&str]) -> Result<Value> {
        let all: Vec<&str> = ["--json", "fault"].iter().chain(args).copied().collect();
        let done = ctl(&program()?, &self.0, &all)?;
        let said = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.code() == Some(0), "ctl {args:?}: {said}");
        Ok(serde_json::from_slice(&done.stdout)?)
    }
}

#[test]
fn poison_try() -> Result<()> {
    let files = Scratch::new("poison")?;
    let host = Host(files.join("control"));
    let kernel = std::env::var("POISON_KERNEL").unwrap_or_else(|_| "debian-6.1-cloud-amd64".into());
    let mut guest = machine(&kernel, &files).loud().start()?;
    println!("{}", guest.check("ndctl list -RN; cat /proc/iomem | grep -i persist; dmesg | grep -i mce; grep -o -w erms /proc/cpuinfo")?);
    println!("{}", guest.check("ndctl disable-region all && ndctl init-labels all && ndctl enable-region all; ndctl create-namespace -r region0 -m fsdax -M mem")?);
    println!("{}", guest.check("mkfs.ext4 -q -b 4096 /dev/pmem0 && mount -o dax /dev/pmem0 /mnt; dd if=/dev/zero of=/mnt/f bs=1M count=2 2>&1; sync; mount | grep mnt; xfs_io -c 'fiemap -v' /mnt/f; cat /sys/block/pmem0/device/resource /sys/bus/nd/devices/region0/resource")?);
    println!("{}", host.fault(&["list"])?);
    println!("{:?}", guest.sh("memprobe map /mnt/f 2097152 load:0 load:4096")?);
    let blocks = guest.check("xfs_io -c 'fiemap' /mnt/f | sed -n 's/.*0: \\[0..[0-9]*\\]: \\([0-9]*\\)\\.\\..*/\\1/p'")?;
    let sector: u64 = blocks.trim().parse().context(blocks.clone())?;
    let resource = guest.check("cat /sys/block/pmem0/device/resource")?;
    let start = u64::from_str_radix(resource.trim_start_matches("0x"), 16)?;
    // pmem disk's data begins 2M? ask
    println!("sector {sector} start {start:#x}; {}", guest.check("cat /sys/bus/nd/devices/pfn0.0/resource /sys/bus/nd/devices/pfn0.0/size; ls /sys/bus/nd/devices")?);
    let data = guest.check("cat /sys/bus/nd/devices/pfn0.0/resource")?;
    let data = u64::from_str_radix(data.trim_start_matches("0x"), 16)?;
    let gpa = data + sector * 512 + 3 * 4096 + 0x240;
    let injected = host.fault(&["inject", "--gpa", &format!("{gpa:#x}")])?;
    println!("{injected}");
    println!("{:?}", guest.sh("memprobe map /mnt/f 2097152 load:0 load:4096 load:12288 store:12288 load:12288 load:0x3200 load:0x3280 vector:0x3280")?);
    println!("{}", host.fault(&["list"])?);
    println!("{:?}", guest.sh("memprobe map /mnt/f 2097152 load:0x3240")?);
    println!("{}", host.fault(&["list"])?);
    println!("{:?}", guest.sh("dmesg | tail -30; cat /sys/block/pmem0/badblocks; ndctl list -RN --media-errors; memprobe read /mnt/f 12288 4096; memprobe read /mnt/f 0 4096")?);
    println!("{:?}", guest.monitor().quote());
    guest.power_off()?;
    Ok(())
}
