//! Command lines of the programs, each as its own documentation recommends, and their files in memory.

use super::record::{Log, Plan, Scenario, Unpack, Vmm};
use anyhow::{Context, Result, ensure};
use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use vmm::images::KernelImage;

/// Largest firmware file that any of the machines may want.
const FIRMWARE_MAX: u64 = 4 << 20;
/// Guest RAM of a boot.
const BOOT_GIB: u32 = 1;

/// Copies of everything that is read while time counts, in a folder that is memory: a slow file system of the host must
/// not be part of the figures.
pub struct Staged {
    dir: tempfile::TempDir,
    kernel: KernelImage,
    unpack: Vec<(String, KernelImage)>,
}

impl Staged {
    /// Copies.
    pub fn new(plan: &Plan) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("bench-").tempdir_in("/dev/shm")?;
        let at = dir.path();
        copy(&plan.daxvisor, &at.join("daxvisor"))?;
        copy(&plan.qemu.program, &at.join("qemu"))?;
        fs::create_dir(at.join("lib"))?;
        for program in [&plan.daxvisor, &plan.qemu.program] {
            for library in libraries(program, &plan.qemu.libraries)? {
                copy(&library, &at.join("lib").join(library.file_name().unwrap_or_default()))?;
            }
        }
        fs::create_dir(at.join("firmware"))?;
        for folder in &plan.qemu.data {
            for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
                let entry = entry?;
                let firmware = [Some("bin"), Some("rom")].contains(&entry.path().extension().and_then(OsStr::to_str));
                if firmware && fs::metadata(entry.path())?.len() <= FIRMWARE_MAX {
                    copy(&entry.path(), &at.join("firmware").join(entry.file_name()))?;
                }
            }
        }
        let kernel = stage(&plan.kernel, at, "")?;
        let unpack = plan
            .unpack
            .iter()
            .map(|(name, image)| Ok((name.clone(), stage(image, at, name)?)));
        let unpack = unpack.collect::<Result<_>>()?;
        Ok(Self { dir, kernel, unpack })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where the guest's console goes.
    pub fn console(&self) -> PathBuf {
        self.path("console.log")
    }

    /// The program's path, by which its execution is recognised.
    pub fn program(&self, vmm: Vmm) -> PathBuf {
        self.path(if vmm == Vmm::Daxvisor { "daxvisor" } else { "qemu" })
    }

    /// The command for `scenario`.
    pub fn command(&self, vmm: Vmm, scenario: &Scenario) -> Result<Command> {
        let mut command = Command::new(self.program(vmm));
        command
            .env("LD_LIBRARY_PATH", self.path("lib"))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let ram = match scenario {
            Scenario::Start { gib } => *gib,
            _ => BOOT_GIB,
        };
        let quiet = match scenario {
            Scenario::Boot { log: Log::Full } | Scenario::Count { log: Log::Full } => "",
            _ => " quiet",
        };
        let mut image = &self.kernel;
        let mut file = &image.vmlinux;
        if let Scenario::Unpack { kernel, how } = scenario {
            image = &self
                .unpack
                .iter()
                .find(|(name, _)| name == kernel)
                .context("no such kernel in the plan")?
                .1;
            file = if *how == Unpack::Vmlinux {
                &image.vmlinux
            } else {
                &image.bzimage
            };
            ensure!(vmm == Vmm::Daxvisor, "only daxvisor's unpacking is compared");
            command.args(["run", "--unpack", if *how == Unpack::Guest { "off" } else { "auto" }]);
        } else if vmm == Vmm::Daxvisor {
            command.arg("run");
        }
        let (kernel, initrd) = (file, &image.initramfs);
        if vmm == Vmm::Daxvisor {
            command.args(["--host", "kvm", "--memory", &format!("{ram}G")]);
            if !quiet.is_empty() {
                command.args(["--cmdline", quiet.trim()]);
            }
            command.arg("--kernel").arg(kernel).arg("--initrd").arg(initrd);
            command.arg("--console").arg(join("file:", &self.console()));
        } else {
            // What daxvisor's own defaults say, as far as the machine has it.
            let pci = if vmm == Vmm::QemuMicrovm { " pci=off" } else { "" };
            let machine: &[&str] = match vmm {
                Vmm::QemuMicrovm => &[
                    "-M",
                    "microvm,acpi=on,rtc=on,x-option-roms=off",
                    "-bios",
                    "qboot.rom",
                    "-device",
                    "virtio-rng-device",
                ],
                _ => &["-M", "q35", "-device", "virtio-rng-pci"],
            };
            command.args(["-accel", "kvm", "-cpu", "host", "-smp", "1", "-m", &format!("{ram}G")]);
            command
                .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
                .args(machine);
            command
                .arg("-L")
                .arg(self.path("firmware"))
                .arg("-kernel")
                .arg(kernel)
                .arg("-initrd")
                .arg(initrd);
            command.arg("-append").arg(format!(
                "console=ttyS0 panic=-1{pci} tsc=reliable cryptomgr.notests{quiet}"
            ));
            command.arg("-serial").arg(join("file:", &self.console()));
        }
        Ok(command)
    }
}

fn join(prefix: &str, path: &Path) -> String {
    format!("{prefix}{}", path.display())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

fn stage(image: &KernelImage, dir: &Path, name: &str) -> Result<KernelImage> {
    let place = |from: &PathBuf, what: &str| {
        let to = dir.join(format!("{what}{name}"));
        copy(from, &to).map(|()| to)
    };
    Ok(KernelImage {
        release: image.release.clone(),
        bzimage: place(&image.bzimage, "bzimage")?,
        vmlinux: place(&image.vmlinux, "vmlinux")?,
        initramfs: place(&image.initramfs, "initramfs")?,
    })
}

/// The shared libraries that `program` loads, as its dynamic linker tells.
fn libraries(program: &Path, folders: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let listed = Command::new(program)
        .env("LD_TRACE_LOADED_OBJECTS", "1")
        .env("LD_LIBRARY_PATH", std::env::join_paths(folders)?)
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    ensure!(
        !text.contains("not found"),
        "{} lacks libraries:\n{text}",
        program.display()
    );
    // Lines read `name => /path (0xaddress)`.
    let path = |line: &str| Some(PathBuf::from(line.split_once("=> ")?.1.split_once(" (0x")?.0));
    Ok(text
        .lines()
        .filter_map(path)
        .filter(|path| path.is_absolute())
        .collect())
}
