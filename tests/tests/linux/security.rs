//! NVDIMM security as ndctl drives it, and what of the contents is ever found in the backing file.

use anyhow::{Context, Result, ensure};
use guest_tests::{Guest, GuestBuilder, Scratch};
use rustix::process::Signal;
use std::{fs, path::Path, thread, time::Duration};

/// A whole region of 64 MiB and the label area.
const SIZE: u64 = (64 << 20) + (128 << 10);
const SECRET: &str = "the contents of an encrypted DIMM";
/// More than the longest time that a store waits for being written back.
const WRITTEN_BACK: Duration = Duration::from_secs(4);
const KEYS: &str = "/etc/ndctl/keys";

/// Puts a master key for ndctl's keys into the user's keyring and into ndctl's folder.
const MASTER_KEY: &str = "mkdir -p /etc/ndctl/keys && \
     dd if=/dev/urandom bs=1 count=32 2>/dev/null | keyctl padd user nvdimm-master @u >/dev/null && \
     keyctl pipe $(keyctl search @u user nvdimm-master) > /etc/ndctl/keys/nvdimm-master.blob";

/// What the guest keeps in its file system, which is lost at its end.
type KeyFiles = Vec<(String, Vec<u8>)>;

fn take_keys(guest: &mut Guest) -> Result<KeyFiles> {
    let names = guest.check(&format!("ls {KEYS}/*.blob"))?;
    names
        .lines()
        .map(|name| Ok((name.to_owned(), guest.file(name)?)))
        .collect()
}

fn give_keys(guest: &mut Guest, keys: &KeyFiles) -> Result<()> {
    guest.check(&format!("mkdir -p {KEYS}"))?;
    for (name, bytes) in keys {
        guest.client().put_file(name, 0o600, bytes)?;
    }
    guest.check("ndctl load-keys").map(drop)
}

/// State of the DIMM, and whether it is frozen.
fn state(guest: &mut Guest) -> Result<(String, bool)> {
    let list = guest.json("ndctl list -D -i")?;
    let dimm = list.get(0).context("there is no DIMM")?;
    let security = dimm["security"].as_str().with_context(|| format!("{list}"))?;
    Ok((security.to_owned(), dimm["security_frozen"] == true))
}

fn expect(guest: &mut Guest, security: &str) -> Result<()> {
    let found = state(guest)?.0;
    ensure!(found == security, "security is {found}, expected {security}");
    Ok(())
}

/// Writes the secret to the start of the raw namespace, past every cache of the guest.
fn write_secret(guest: &mut Guest) -> Result<()> {
    let write = format!("printf '%s' '{SECRET}' | dd of=/dev/pmem0 bs=4096 seek=100 conv=fsync,notrunc 2>/dev/null");
    guest.check(&write).map(drop)
}

/// What is where the secret was written, with every odd character as a question mark.
fn read_secret(guest: &mut Guest) -> Result<String> {
    let copy = format!(
        "dd if=/dev/pmem0 of=/tmp/page bs=4096 skip=100 count=1 2>/dev/null && head -c {} /tmp/page > /tmp/secret",
        SECRET.len()
    );
    guest.check(&copy)?;
    let plain = |byte: u8| {
        if byte == b' ' || byte.is_ascii_graphic() {
            char::from(byte)
        } else {
            '?'
        }
    };
    Ok(guest.file("/tmp/secret")?.into_iter().map(plain).collect())
}

fn expect_secret(guest: &mut Guest) -> Result<()> {
    let found = read_secret(guest)?;
    ensure!(found == SECRET, "found '{found}'");
    Ok(())
}

/// Whether a text that lies within one page is in the file.
fn in_file(path: &Path, text: &str) -> Result<bool> {
    let bytes = fs::read(path)?;
    let mut used = bytes.chunks(4096).filter(|page| !is_zero(page));
    Ok(used.any(|page| page.windows(text.len()).any(|window| window == text.as_bytes())))
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(4096).all(|page| page == &[0; 4096][..page.len()])
}

fn dimm(files: &Scratch, more: &str) -> String {
    format!("{},size={SIZE},encrypt=on{more}", files.text("dimm"))
}

#[test]
fn passphrase_protects_contents_over_kills_and_power_cycles() -> Result<()> {
    let files = Scratch::new("security")?;
    let config = GuestBuilder::new("debian-6.1-amd64").nvdimm(&dimm(&files, ",overwrite-time=1"));

    let mut guest = config.start()?;
    expect(&mut guest, "disabled")?;
    guest.check("ndctl create-namespace -m raw -f -e namespace0.0 -n a-name-of-its-own")?;
    write_secret(&mut guest)?;
    guest.check("ndctl disable-region all")?;
    guest.check(MASTER_KEY)?;
    guest.check("ndctl setup-passphrase nmem0 -k user:nvdimm-master")?;
    expect(&mut guest, "unlocked")?;
    guest.check("ndctl update-passphrase nmem0")?;
    guest.check("ndctl remove-passphrase nmem0")?;
    expect(&mut guest, "disabled")?;
    guest.check("ndctl setup-passphrase nmem0 -k user:nvdimm-master")?;
    guest.check("ndctl freeze-security nmem0")?;
    ensure!(state(&mut guest)? == ("unlocked".into(), true));
    guest.fails("ndctl remove-passphrase nmem0")?;
    let keys = take_keys(&mut guest)?;
    thread::sleep(WRITTEN_BACK);
    let ended = guest.signal(Signal::KILL)?;
    ensure!(ended.killed == Some(9), "{ended:?}");
    let path = files.join("dimm");
    for text in [SECRET, "a-name-of-its-own", "NAMESPACE_INDEX"] {
        ensure!(!in_file(&path, text)?, "{text} is in the file");
    }

    let mut guest = config.start()?;
    ensure!(state(&mut guest)? == ("locked".into(), false));
    guest.fails("ls /dev/pmem0")?;
    guest.fails("ndctl enable-dimm nmem0")?;
    give_keys(&mut guest, &keys)?;
    guest.check("ndctl enable-dimm nmem0")?;
    expect(&mut guest, "unlocked")?;
    guest.check("ndctl enable-region region0")?;
    expect_secret(&mut guest)?;
    let again = format!(
        "printf last | dd of=/dev/pmem0 bs=4096 seek=200 conv=fsync,notrunc 2>/dev/null; {}",
        "sync"
    );
    guest.check(&again)?;
    guest.power_off()?;

    let mut guest = config.start()?;
    give_keys(&mut guest, &keys)?;
    guest.check("ndctl enable-dimm nmem0 && ndctl enable-region region0")?;
    expect_secret(&mut guest)?;
    let last = guest.check("dd if=/dev/pmem0 bs=4096 skip=200 count=1 2>/dev/null | head -c 4")?;
    ensure!(last == "last", "written just before the end: {last}");

    // Erase: the labels stay, the data is noise.
    guest.check("ndctl disable-region all && ndctl sanitize-dimm --crypto-erase nmem0")?;
    expect(&mut guest, "disabled")?;
    guest.check("ndctl enable-region region0")?;
    let namespaces = guest.json("ndctl list -N -i")?;
    ensure!(namespaces.to_string().contains("a-name-of-its-own"), "{namespaces}");
    ensure!(read_secret(&mut guest)? != SECRET);

    // Overwrite: everything is gone.
    write_secret(&mut guest)?;
    guest.check("ndctl disable-region all && ndctl setup-passphrase nmem0 -k user:nvdimm-master")?;
    guest.check("ndctl sanitize-dimm --overwrite nmem0")?;
    expect(&mut guest, "overwrite")?;
    guest.check("ndctl wait-overwrite nmem0")?;
    ensure!(is_zero(&fs::read(&path)?), "the file is not overwritten");
    guest.check("ndctl disable-dimm nmem0 && ndctl enable-dimm nmem0 && ndctl enable-region region0")?;
    let namespaces = guest.json("ndctl list -N -i")?;
    ensure!(!namespaces.to_string().contains("a-name-of-its-own"), "{namespaces}");
    guest.power_off()?;
    Ok(())
}

#[test]
fn newer_kernels_use_an_unlocked_dimm_when_they_do_not_know_that_they_are_guests() -> Result<()> {
    let files = Scratch::new("security")?;
    let config = GuestBuilder::new("debian-6.12-amd64").nvdimm(&dimm(&files, ""));

    let mut guest = config.start()?;
    guest.check("ndctl create-namespace -m raw -f -e namespace0.0")?;
    write_secret(&mut guest)?;
    guest.check("ndctl disable-region all")?;
    guest.check(MASTER_KEY)?;
    guest.check("ndctl setup-passphrase nmem0 -k user:nvdimm-master")?;
    let keys = take_keys(&mut guest)?;
    guest.power_off()?;

    let mut guest = config.start()?;
    give_keys(&mut guest, &keys)?;
    guest.check("ndctl enable-dimm nmem0")?;
    expect(&mut guest, "unlocked")?;
    guest.fails("ndctl enable-region region0 && ls /dev/pmem0")?;
    guest.power_off()?;

    let mut guest = config.arg("--cpu", "-hypervisor").cpus("2").start()?;
    guest.fails("grep -qw hypervisor /proc/cpuinfo")?;
    let clock = guest.check("cat /sys/devices/system/clocksource/clocksource0/current_clocksource")?;
    ensure!(clock == "tsc", "the clock is {clock}");
    give_keys(&mut guest, &keys)?;
    guest.check("ndctl enable-dimm nmem0 && ndctl enable-region region0")?;
    expect_secret(&mut guest)?;
    guest.check("ndctl disable-region all && ndctl sanitize-dimm --crypto-erase nmem0")?;
    expect(&mut guest, "disabled")?;
    guest.check("ndctl enable-region region0")?;
    ensure!(read_secret(&mut guest)? != SECRET);
    guest.power_off()?;
    Ok(())
}
