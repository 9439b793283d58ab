//! Folders of the host that a Linux guest reads.

use anyhow::{Context, Result, ensure};
use guest_tests::{Guest, GuestBuilder, Scratch, api::ApiClient, facts};
use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

const MANY: usize = 5000;

/// `size` bytes that repeat nowhere.
fn noise(size: usize, seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()
    };
    (0..size.div_ceil(4)).flat_map(|_| next()).take(size).collect()
}

/// A folder of 5,000 files, a tree with files of awkward sizes, and what must not be reached.
fn fill(folder: &Path) -> Result<Vec<PathBuf>> {
    let many = folder.join("many");
    fs::create_dir_all(&many)?;
    for n in 0..MANY {
        fs::write(many.join(format!("file-number-{n}")), "")?;
    }
    let mut files = Vec::new();
    let sizes = [0, 1, 4095, 4096, 4097, 131_061, 512_000, 3 << 20, 8 << 20];
    for (size, n) in sizes.into_iter().zip(1..) {
        let file = folder.join(format!("tree/level-{n}/with some name/{size}"));
        fs::create_dir_all(file.parent().context("it has a folder")?)?;
        fs::write(&file, noise(size, n))?;
        files.push(file);
    }
    Ok(files)
}

fn config(kernel: &str, folders: &[(&Path, &str)], files: &Scratch) -> GuestBuilder {
    let config = GuestBuilder::new(kernel)
        .memory("512M")
        .arg("--api-socket", &files.text("api"))
        .arg("--on-reset", "restart");
    folders.iter().fold(config, |config, (path, tag)| {
        config.arg("--share", &format!("path={},tag={tag}", path.display()))
    })
}

fn mount(guest: &mut Guest, tag: &str, at: &str, options: &str) -> Result<()> {
    guest.check(&format!(
        "modprobe -a 9pnet_virtio 9p && mkdir -p {at} && \
         mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,{options} {tag} {at}"
    ))?;
    Ok(())
}

/// What the kernel has to say of itself.
fn complaints(guest: &mut Guest) -> Result<()> {
    let text = guest.check("dmesg | grep -e 'BUG: ' -e 'WARNING: ' -e 'Call Trace' -e '9p.*rror' || true")?;
    ensure!(text.is_empty(), "{text}");
    Ok(())
}

fn reads(guest: &mut Guest, folder: &Path, files: &[PathBuf]) -> Result<()> {
    for file in files {
        let inner = Path::new("/mnt").join(file.strip_prefix(folder)?);
        let sum = guest.check(&format!("sha256sum < '{}' | cut -d' ' -f1", inner.display()))?;
        ensure!(sum == facts::sha256(file)?, "{} differs", inner.display());
    }
    let names = guest.check("ls /mnt/many | sort -u | wc -l; find /mnt/many -type f | wc -l")?;
    ensure!(names == format!("{MANY}\n{MANY}"), "{names}");
    // Through the page cache and past it.
    let sizes = guest.check("find /mnt/tree -type f | wc -l; stat -c %s '/mnt/tree/level-9/with some name/8388608'")?;
    ensure!(sizes == format!("{}\n8388608", files.len()), "{sizes}");
    Ok(())
}

fn refuses_writes(guest: &mut Guest, folder: &Path) -> Result<()> {
    for script in [
        "touch /mnt/new",
        "mkdir /mnt/new",
        "rm /mnt/many/file-number-1",
        "mv /mnt/many/file-number-1 /mnt/other",
        "echo more >> /mnt/many/file-number-1",
        "ln -s here /mnt/new",
        "ln /mnt/many/file-number-1 /mnt/new",
        "chmod 777 /mnt/many/file-number-1",
        "rmdir /mnt/many",
        "mknod /mnt/new p",
    ] {
        let said = guest.fails(script)?;
        ensure!(said.contains("Read-only file system"), "{script}: {said}");
    }
    ensure!(fs::read_dir(folder.join("many"))?.count() == MANY);
    ensure!(!folder.join("new").exists() && !folder.join("other").exists());
    Ok(())
}

fn runs_programs(guest: &mut Guest, folder: &Path) -> Result<()> {
    let busybox = folder.join("busybox");
    fs::write(&busybox, guest.file("/bin/busybox")?)?;
    fs::set_permissions(&busybox, fs::Permissions::from_mode(0o755))?;
    fs::write(folder.join("script"), "#!/bin/sh\necho script $1\n")?;
    fs::set_permissions(folder.join("script"), fs::Permissions::from_mode(0o755))?;
    ensure!(guest.check("/mnt/busybox echo in place; /mnt/script two")? == "in place\nscript two");
    Ok(())
}

/// A module as a file, and a tree of modules in the place of the guest's own.
fn loads_modules(guest: &mut Guest, folder: &Path) -> Result<()> {
    let release = guest.check("uname -r")?;
    let root = format!("/lib/modules/{release}");
    let file = guest.check(&format!("find {root} -name 'loop.ko*' | head -n 1"))?;
    ensure!(!file.is_empty(), "{release} has no loop module");
    let inner = file.strip_prefix("/lib/modules/").context("it is a module")?;
    let module = folder.join("modules").join(inner);
    fs::create_dir_all(module.parent().context("it has a folder")?)?;
    fs::write(&module, guest.file(&file)?)?;
    let table = format!("{root}/modules.dep");
    fs::write(
        folder.join(format!("modules/{release}/modules.dep")),
        guest.file(&table)?,
    )?;
    let loaded = "grep -c '^loop ' /proc/modules";
    ensure!(guest.check(&format!("insmod /mnt/modules/{inner} && {loaded}"))? == "1");
    guest.check("rmmod loop")?;
    guest.check(&format!(
        "mount --bind /mnt/modules /lib/modules && modprobe loop && {loaded} && rmmod loop && umount /lib/modules"
    ))?;
    Ok(())
}

/// Links are the guest's: one that leads out of the share leads to the guest's own file.
fn follows_links_itself(guest: &mut Guest, files: &Scratch, folder: &Path) -> Result<()> {
    let secret = files.join("secret");
    fs::write(&secret, "of the host")?;
    symlink(&secret, folder.join("absolute"))?;
    symlink("../secret", folder.join("above"))?;
    symlink("many/file-number-1", folder.join("within"))?;
    let said = guest.fails("cat /mnt/absolute /mnt/above")?;
    ensure!(said.contains("No such file"), "{said}");
    guest.check(&format!(
        "mkdir -p {0} && echo of the guest > {1} && echo of the guest > /secret",
        files.path().display(),
        secret.display()
    ))?;
    ensure!(guest.check("cat /mnt/absolute /mnt/above /mnt/within")? == "of the guest\nof the guest");
    ensure!(guest.check("readlink /mnt/above; ls -d /mnt/../mnt/..")? == "../secret\n/mnt/../mnt/..");
    // What is no file of bytes is the guest's own.
    rustix::fs::mknodat(
        rustix::fs::CWD,
        folder.join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o644),
        0,
    )?;
    ensure!(guest.check("stat -c %F /mnt/pipe; (echo word > /mnt/pipe &) ; cat /mnt/pipe")? == "fifo\nword");
    Ok(())
}

fn sees_what_the_host_does(guest: &mut Guest, folder: &Path) -> Result<()> {
    let file = folder.join("changing");
    fs::write(&file, "old\n")?;
    mount(guest, "live", "/live", "ro,cache=none")?;
    ensure!(guest.check("cat /live/changing")? == "old");
    guest.check("(exec 3< /live/changing; until test -e /go; do sleep 0.1; done; cat <&3 > /was) & sleep 0.5")?;
    let new = folder.join("new");
    fs::write(&new, "new, and longer\n")?;
    fs::rename(&new, &file)?;
    ensure!(
        guest.check("cat /live/changing; touch /go; sleep 1; cat /was")? == "new, and longer\nold",
        "an open file stays, a name leads to what has it now"
    );
    fs::remove_file(&file)?;
    guest.fails("cat /live/changing")?;
    guest.check("umount /live")?;
    Ok(())
}

fn shared(kernel: &str) -> Result<()> {
    let files = Scratch::new("share")?;
    let (tree, live) = (files.join("tree"), files.join("live"));
    fs::create_dir(&live)?;
    let written = fill(&tree)?;
    let mut guest = config(kernel, &[(&tree, "tree"), (&live, "live")], &files).start()?;
    let mut client = ApiClient::connect(&files.join("api"))?;
    // A mount that means to write is told otherwise by the share.
    mount(&mut guest, "tree", "/mnt", "rw,cache=loose")?;
    reads(&mut guest, &tree, &written).context("reading")?;
    refuses_writes(&mut guest, &tree).context("writing")?;
    runs_programs(&mut guest, &tree).context("programs")?;
    loads_modules(&mut guest, &tree).context("modules")?;
    follows_links_itself(&mut guest, &files, &tree).context("links")?;
    sees_what_the_host_does(&mut guest, &live).context("changes")?;
    let shares = &client.get("/vm")?["virtio"]["shares"];
    let share = facts::find(shares, "tag", "tree")?;
    ensure!(
        facts::number(share, "bytes")? > 11 << 20 && facts::number(share, "known")? > 10,
        "{share}"
    );
    guest.check("umount /mnt")?;
    complaints(&mut guest)?;
    // A guest that starts anew, with files open.
    mount(&mut guest, "tree", "/mnt", "ro,cache=mmap")?;
    guest.check("(exec 3< /mnt/many/file-number-7; sleep 1000) > /dev/null 2>&1 &")?;
    let mut guest = guest.rebooted().context("the reboot")?;
    mount(&mut guest, "tree", "/mnt", "ro,cache=mmap")?;
    reads(&mut guest, &tree, &written).context("reading after a reboot")?;
    let text = guest.check("/mnt/busybox echo again")?;
    ensure!(text == "again", "{text}");
    let shares = &client.get("/vm")?["virtio"]["shares"];
    let open = facts::number(facts::find(shares, "tag", "tree")?, "open")?;
    ensure!(open < 10, "{shares}");
    guest.check("umount /mnt")?;
    complaints(&mut guest)?;
    guest.power_off()?;
    Ok(())
}

#[test]
fn folders_are_read_in_place_on_6_1() -> Result<()> {
    shared("debian-6.1-amd64")
}

#[test]
fn folders_are_read_in_place_on_6_12() -> Result<()> {
    shared("debian-6.12-amd64")
}

#[test]
fn what_is_no_folder_is_refused() -> Result<()> {
    let files = Scratch::new("no-share")?;
    fs::write(files.join("file"), "")?;
    for (path, why) in [("none", "cannot"), ("file", "expected a folder")] {
        let refused = config("debian-6.1-amd64", &[(&files.join(path), "x")], &files).refused()?;
        ensure!(refused.code == 2, "{}: {}", refused.code, refused.stderr);
        ensure!(
            refused.stderr.contains("shared folder x") && refused.stderr.contains(why),
            "{}",
            refused.stderr
        );
    }
    Ok(())
}
