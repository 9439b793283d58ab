//! The initramfs images: agent as init, busybox, modules; programs for guests.

use crate::{
    agent::Programs,
    cpio::Tree,
    kernel::{Kernel, Modules},
    modules::{Available, Dependencies},
    recipe::{self, Module},
    store::{Key, Store},
    tools::{Sets, Tools},
};
use anyhow::{Context, Result, bail};
use std::{
    fs::{self, File},
    io::BufWriter,
    path::{Path, PathBuf},
};

/// For whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The guest under test.
    Guest,
    /// The nested host.
    Host,
}

/// Where the agent looks for the list of modules.
const MODULE_LIST: &str = "etc/daxvisor-agent.modules";
/// Names under which the agent ends the machine; busybox would ask an init that we do not have.
const POWER_NAMES: &[&str] = &["poweroff", "halt", "reboot"];
const PROFILE: &str = "export PS1='\\h:\\w\\$ '\nexport HOME=/root\n";

fn skeleton(agent: &[u8]) -> Result<Tree> {
    let mut tree = Tree::default();
    for folder in [
        "dev",
        "proc",
        "sys",
        "run",
        "etc/ndctl/keys",
        "mnt",
        "host",
        "usr/bin",
        "usr/sbin",
        "usr/lib",
        "usr/lib64",
        "var/lib",
    ] {
        tree.folder(folder, 0o755)?;
    }
    tree.folder("tmp", 0o1777)?;
    tree.folder("root", 0o700)?;
    for name in ["bin", "sbin", "lib", "lib64"] {
        tree.link(name, &format!("usr/{name}"))?;
    }
    // The kernel opens the console for its first process before anything is mounted.
    tree.char_device("dev/console", 0o600, 5, 1)?;
    tree.char_device("dev/null", 0o666, 1, 3)?;
    tree.file("init", 0o755, agent)?;
    for name in POWER_NAMES {
        tree.link(&format!("usr/sbin/{name}"), "/init")?;
    }
    tree.file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\n")?;
    tree.file("etc/group", 0o644, "root:x:0:\ntty:x:5:\n")?;
    tree.file("etc/profile", 0o644, PROFILE)?;
    tree.file("etc/hosts", 0o644, "127.0.0.1 localhost\n")?;
    // busybox's mount tries these when it is given no type; the kernel knows only what is loaded already.
    tree.file("etc/filesystems", 0o644, "ext4\nxfs\n*\n")?;
    tree.link("etc/mtab", "/proc/self/mounts")?;
    Ok(tree)
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Guest => "guest",
            Self::Host => "host",
        }
    }

    /// Modules loaded at boot, and those only carried along.
    fn modules(self) -> (&'static [Module], &'static [Module]) {
        match self {
            Self::Guest => (recipe::GUEST_BOOT, recipe::GUEST_ON_DEMAND),
            Self::Host => (recipe::HOST_BOOT, &[]),
        }
    }
}

/// Puts the modules of a role below `scratch`, indexes them, adds them to the tree; returns the boot list.
fn add_modules(
    role: Role,
    from: &Path,
    kernel: &Kernel,
    tools: &Tools,
    scratch: &Path,
    tree: &mut Tree,
) -> Result<String> {
    let release = &kernel.release;
    let place = format!("lib/modules/{release}");
    let staged = scratch.join(&place);
    fs::create_dir_all(&staged)?;
    let (boot, carried) = role.modules();
    let available = Available::scan(from)?;
    available.copy_closure(kernel.modules.of(boot), &staged)?;
    available.copy_closure(kernel.modules.of(carried), &staged)?;
    for index in ["modules.builtin", "modules.builtin.modinfo", "modules.order"] {
        let _ = fs::copy(from.join(index), staged.join(index));
    }
    tools.depmod(scratch, release)?;
    tree.copy(&staged, &format!("usr/{place}"))?;
    let order = Dependencies::parse(&fs::read_to_string(staged.join("modules.dep"))?).load_order(boot);
    // A kernel may have everything built in.
    if order.is_empty() && kernel.modules == Modules::Recipe {
        bail!("there is nothing to load, which cannot be right");
    }
    Ok(order.iter().map(|path| format!("/{place}/{path}\n")).collect())
}

/// Builds the image of a role for a kernel; returns its path relative to the images' folder.
pub fn build(store: &Store, role: Role, kernel: &Kernel, tools: &Sets, programs: &Programs) -> Result<PathBuf> {
    let (tools, newer) = (&tools.plain, &tools.newer);
    let mut key = Key::new("initramfs");
    key.add(role.name())
        .add(kernel.folder.to_string_lossy().as_bytes())
        .add(tools.root.to_string_lossy().as_bytes());
    key.add(&programs.agent)
        .add(format!(
            "{:?}{:?}{:?}",
            role.modules(),
            recipe::PROGRAMS,
            recipe::CONFIGURATION
        ))
        .add(PROFILE);
    if role == Role::Guest {
        key.add(&programs.memprobe)
            .add(newer.root.to_string_lossy().as_bytes())
            .add(format!("{:?}", recipe::NEWER_PROGRAMS));
    }
    let folder = store.step(&format!("initramfs-{}", role.name()), &key, |out| {
        let scratch = store.scratch()?;
        let mut tree = skeleton(&programs.agent)?;
        let modules = store.dir().join(&kernel.folder).join("modules");
        let list = add_modules(role, &modules, kernel, tools, scratch.path(), &mut tree)?;
        tree.file(MODULE_LIST, 0o644, list)?;
        if role == Role::Guest {
            tools.add_programs(&mut tree)?;
            newer.add_newer(&mut tree)?;
            tree.file("usr/bin/memprobe", 0o755, programs.memprobe.as_slice())?;
        }
        tools.add_busybox(&mut tree)?;
        let mut file = BufWriter::new(File::create(out.join("initramfs.cpio"))?);
        tree.write(&mut file)?;
        file.into_inner().context("cannot write the initramfs")?.sync_all()?;
        Ok(())
    })?;
    Ok(folder.join("initramfs.cpio"))
}
