//! One backing file with its namespaces under daxvisor and under QEMU, both ways.

use anyhow::{Result, ensure};
use guest_tests::{Guest, GuestBuilder, QUICK, QemuBuilder, Scratch, facts};
use std::{
    fs::File,
    time::{Duration, Instant},
};

const LABEL: u64 = 128 << 10;
const SIZE: u64 = (64 << 20) + LABEL;

/// Makes an fsdax namespace with a file; gives the namespace's uuid and the file's checksum.
fn make(guest: &mut Guest, n: usize) -> Result<(String, String)> {
    let made = guest.json(&format!("ndctl create-namespace -f -e namespace{n}.0 -m fsdax"))?;
    guest.check(&format!(
        "mkfs.ext4 -q -b 4096 /dev/pmem{n} && mkdir -p /m && mount -t ext4 -o dax /dev/pmem{n} /m && \
         dd if=/dev/urandom of=/m/file bs=1M count=2 2>/dev/null && umount /m"
    ))?;
    Ok((facts::text(&made, "uuid")?.to_owned(), content(guest, n)?))
}

fn content(guest: &mut Guest, n: usize) -> Result<String> {
    guest.check(&format!(
        "mkdir -p /m && mount -t ext4 -o ro,dax /dev/pmem{n} /m && sha256sum /m/file && umount /m"
    ))
}

/// Finds what the other monitor's guest made.
fn finds(guest: &mut Guest, n: usize, made: &(String, String)) -> Result<()> {
    let all = guest.json("ndctl list -N")?;
    let found = facts::find(&all, "dev", &format!("namespace{n}.0"))?;
    ensure!(
        found["mode"] == "fsdax" && found["uuid"] == made.0.as_str(),
        "{found} is not {made:?}"
    );
    ensure!(content(guest, n)? == made.1, "the file in namespace{n}.0 is another");
    Ok(())
}

#[test]
fn a_backing_file_serves_under_both_monitors() -> Result<()> {
    let files = Scratch::new("both")?;
    let (first, second) = (files.join("first"), files.join("second"));
    for path in [&first, &second] {
        File::create(path)?.set_len(SIZE)?;
    }
    let ours = GuestBuilder::new(QUICK)
        .nvdimm(&format!("{},size={SIZE}", first.display()))
        .nvdimm(&format!("{},size={SIZE}", second.display()));
    let mut guest = ours.start()?;
    let made = make(&mut guest, 0)?;
    guest.power_off()?;

    let mut guest = QemuBuilder::new(QUICK)
        .nvdimm(&first, SIZE, LABEL)
        .nvdimm(&second, SIZE, LABEL)
        .start()?;
    finds(&mut guest, 0, &made)?;
    let theirs = make(&mut guest, 1)?;
    guest.end(0, |client| client.power_off(Instant::now() + Duration::from_secs(60)))?;

    let mut guest = ours.start()?;
    finds(&mut guest, 0, &made)?;
    finds(&mut guest, 1, &theirs)?;
    guest.power_off()?;
    Ok(())
}
