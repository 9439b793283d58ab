//! A guest under QEMU, for files that both monitors have to understand.

use crate::{
    Guest, Scratch,
    guest::{Lost, socket},
    host,
    process::{CONSOLE, Monitor},
};
use anyhow::{Context, Result};
use std::{env, path::Path, process::Command, time::Duration};
use vmm::images::{self, Manifest};

/// As for our own guests; firmware comes on top.
const HELLO: Duration = Duration::from_secs(100);

/// A machine of QEMU with NVDIMMs.
#[derive(Debug, Clone)]
pub struct QemuBuilder {
    kernel: String,
    machine: String,
    memory: String,
    nvdimms: Vec<(String, u64, u64)>,
    more: Vec<String>,
}

impl QemuBuilder {
    /// A guest image's kernel.
    pub fn new(kernel: &str) -> Self {
        Self {
            kernel: kernel.to_owned(),
            machine: "pc,nvdimm=on".to_owned(),
            memory: "512M,slots=32,maxmem=8G".to_owned(),
            nvdimms: vec![],
            more: vec![],
        }
    }

    /// Another `-machine` and `-m`.
    pub fn shape(mut self, machine: &str, memory: &str) -> Self {
        (self.machine, self.memory) = (machine.to_owned(), memory.to_owned());
        self
    }

    /// One more argument with its value.
    pub fn arg(mut self, flag: &str, value: &str) -> Self {
        self.more.extend([flag.to_owned(), value.to_owned()]);
        self
    }

    /// One more NVDIMM over a file of `size` bytes whose last `label` bytes are labels.
    pub fn nvdimm(mut self, file: &Path, size: u64, label: u64) -> Self {
        self.nvdimms.push((file.display().to_string(), size, label));
        self
    }

    fn command(&self, folder: &Path) -> Result<Command> {
        let manifest = Manifest::load(&images::default_dir())?;
        let kernel = manifest.kernel(&self.kernel)?;
        let own = manifest.host.as_ref().and_then(|h| h.qemu.as_ref());
        let mut command = match own {
            None => Command::new("qemu-system-x86_64"),
            Some(qemu) => {
                let mut command = Command::new(&qemu.program);
                qemu.data.iter().for_each(|d| {
                    command.arg("-L").arg(d);
                });
                if !qemu.libraries.is_empty() {
                    let old = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
                    let paths = qemu.libraries.iter().cloned().chain(env::split_paths(&old));
                    command.env("LD_LIBRARY_PATH", env::join_paths(paths).context("library folders")?);
                }
                command
            }
        };
        command
            .args(["-accel", "kvm", "-cpu", "host", "-smp", "1"])
            .args(["-machine", &self.machine, "-m", &self.memory])
            .args(&self.more)
            .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
            .arg("-kernel")
            .arg(&kernel.vmlinux)
            .arg("-initrd")
            .arg(&kernel.initramfs)
            .args(["-append", "console=ttyS0 quiet panic=-1 tsc=reliable no_timer_check"])
            .args(["-device", "virtio-serial-pci", "-device", "virtio-rng-pci"])
            .arg("-serial")
            .arg(format!("file:{}", folder.join(CONSOLE).display()))
            .arg("-chardev")
            .arg(format!(
                "socket,id=agent,path={},server=on,wait=off",
                socket(folder).display()
            ))
            .args([
                "-device",
                &format!("virtserialport,chardev=agent,name={}", agent_protocol::PORT_NAME),
            ]);
        for (n, (file, size, label)) in self.nvdimms.iter().enumerate() {
            command
                .arg("-object")
                .arg(format!(
                    "memory-backend-file,id=mem{n},share=on,mem-path={file},size={size}"
                ))
                .arg("-device")
                .arg(format!("nvdimm,id=nv{n},memdev=mem{n},label-size={label}"));
        }
        Ok(command)
    }

    fn attempt(&self) -> Result<Guest> {
        host::require()?;
        let folder = Scratch::new("qemu")?;
        let command = self.command(folder.path())?;
        Guest::boot(Monitor::start(command, folder, false)?, "QEMU's guest", HELLO)
    }

    /// Boots to the agent's hello. QEMU's guests hang early in nested hosts at times: that is retried once, and reported.
    pub fn start(&self) -> Result<Guest> {
        match self.attempt() {
            Err(hang) if hang.is::<Lost>() => {
                host::report_retry("QEMU's guest never said hello", "known of nested hosts");
                self.attempt()
            }
            other => other,
        }
    }
}
