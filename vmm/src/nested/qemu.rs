//! QEMU's command line, as a pure function.

use super::{HostError, HostOptions};
use crate::images::HostImage;
use agent_protocol::PORT_NAME;
use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

/// `COMMAND_LINE_SIZE` of x86, less its NUL.
pub(super) const CMDLINE_MAX: usize = 2047;

/// A program, its arguments, and variables to set.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct QemuPlan {
    pub program: PathBuf,
    pub args: Vec<OsString>,
    pub env: Vec<(&'static str, OsString)>,
}

/// The command that boots `image` with `shares` writable, connects the agent to `socket` and logs to `log`.
pub(super) fn plan(
    image: &HostImage,
    options: &HostOptions,
    shares: &[PathBuf],
    socket: &Path,
    log: &Path,
) -> Result<QemuPlan, HostError> {
    let mut args = Args::default();
    let cpus = if options.icount { 1 } else { options.cpus.max(1) };
    args.option(
        "-accel",
        if options.icount {
            "tcg,thread=single"
        } else {
            "tcg,thread=multi"
        },
    );
    if options.icount {
        args.option("-icount", "shift=0");
    }
    // erms and fsrm make a kernel prefer byte-wise `rep movsb`, which is the slow way in TCG.
    args.option("-cpu", "max,svm=on,-erms,-fsrm");
    args.option("-machine", "pc").option("-smp", cpus.to_string());
    args.option("-m", format!("{}M", options.memory.0 >> 20));
    for flag in ["-nodefaults", "-no-user-config", "-no-reboot"] {
        args.flag(flag);
    }
    args.option("-display", "none");
    args.option("-kernel", &image.vmlinux)
        .option("-initrd", &image.initramfs);
    args.option("-append", kernel_cmdline(shares, &options.kernel_args)?);
    // QEMU's own complaints go to the same file, so both sides append.
    args.option("-chardev", join("file,id=serial,append=on,path=", log))
        .option("-serial", "chardev:serial");
    args.option("-chardev", join("socket,id=agent,path=", socket));
    args.option("-device", "virtio-serial-pci");
    args.option("-device", format!("virtserialport,chardev=agent,name={PORT_NAME}"));
    // Without a source of entropy, L1's first getrandom(2) can wait for seconds.
    args.option("-device", "virtio-rng-pci");
    args.option(
        "-virtfs",
        "local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap",
    );
    for (n, share) in shares.iter().enumerate() {
        let mut value = join("local,path=", share);
        value.push(format!(",mount_tag={},security_model=none,multidevs=remap", tag(n)));
        args.option("-virtfs", value);
    }
    let mut env = Vec::new();
    let mut program = PathBuf::from("qemu-system-x86_64");
    if let Some(qemu) = &image.qemu {
        program.clone_from(&qemu.program);
        for folder in &qemu.data {
            args.option("-L", folder);
        }
        if !qemu.libraries.is_empty() {
            let path = env::join_paths(&qemu.libraries).map_err(|e| HostError::Share {
                path: qemu.program.clone(),
                why: e.to_string(),
            })?;
            env.push(("LD_LIBRARY_PATH", path));
        }
    }
    Ok(QemuPlan {
        program,
        args: args.0,
        env,
    })
}

fn tag(share: usize) -> String {
    format!("share{share}")
}

/// `panic=-1` resets at once, which `-no-reboot` turns into QEMU's end: a panic of L1 is noticed without waiting. After an
/// oops a thread is gone, a vCPU's more often than not, and what waits for it would wait for ever: an oops is a panic too.
fn kernel_cmdline(shares: &[PathBuf], more: &[String]) -> Result<String, HostError> {
    let mut line = String::from("console=ttyS0 quiet tsc=reliable panic=-1 oops=panic daxvisor.host=1");
    for (n, share) in shares.iter().enumerate() {
        line += &format!(" daxvisor.share={}:{}", tag(n), escape(&share.to_string_lossy()));
    }
    for argument in more {
        line.push(' ');
        line += argument;
    }
    if line.len() > CMDLINE_MAX {
        Err(HostError::TooManyShares(line.len()))
    } else {
        Ok(line)
    }
}

/// A word of a command line may not hold blanks or quotes; the agent undoes `%20`.
fn escape(path: &str) -> String {
    let mut word = String::new();
    for c in path.chars() {
        if c.is_ascii_graphic() && !matches!(c, '%' | '"') || !c.is_ascii() && !c.is_whitespace() && !c.is_control() {
            word.push(c);
        } else {
            let mut bytes = [0; 4];
            c.encode_utf8(&mut bytes)
                .bytes()
                .for_each(|b| word += &format!("%{b:02x}"));
        }
    }
    word
}

/// `prefix` and `path` as one QEMU option value, in which a comma is written twice.
fn join(prefix: &str, path: &Path) -> OsString {
    let mut value = OsString::from(prefix);
    match path.to_str() {
        Some(text) => value.push(text.replace(',', ",,")),
        None => value.push(path),
    }
    value
}

#[derive(Default)]
struct Args(Vec<OsString>);

impl Args {
    fn flag(&mut self, name: &str) -> &mut Self {
        self.0.push(name.into());
        self
    }

    fn option(&mut self, name: &str, value: impl Into<OsString>) -> &mut Self {
        self.flag(name).0.push(value.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::QemuImage;
    use devices::units::ByteSize;

    fn image() -> HostImage {
        HostImage {
            release: "6.12".into(),
            vmlinux: "/i/vmlinux".into(),
            initramfs: "/i/initramfs".into(),
            qemu: None,
        }
    }

    fn shown(options: &HostOptions, image: &HostImage, shares: &[&str]) -> String {
        let shares: Vec<_> = shares.iter().map(PathBuf::from).collect();
        let plan = plan(image, options, &shares, Path::new("/t/agent"), Path::new("/t/log")).unwrap();
        let mut text = String::new();
        for (name, value) in &plan.env {
            text += &format!("{name}={}\n", value.to_str().unwrap());
        }
        text += plan.program.to_str().unwrap();
        for arg in plan.args {
            let arg = arg.into_string().unwrap();
            text += if arg.starts_with('-') { "\n" } else { " " };
            text += &arg;
        }
        text
    }

    #[test]
    fn default_machine() {
        insta::assert_snapshot!(shown(&HostOptions::default(), &image(), &["/work"]), @r"
        qemu-system-x86_64
        -accel tcg,thread=multi
        -cpu max,svm=on,-erms,-fsrm
        -machine pc
        -smp 1
        -m 6144M
        -nodefaults
        -no-user-config
        -no-reboot
        -display none
        -kernel /i/vmlinux
        -initrd /i/initramfs
        -append console=ttyS0 quiet tsc=reliable panic=-1 oops=panic daxvisor.host=1 daxvisor.share=share0:/work
        -chardev file,id=serial,append=on,path=/t/log
        -serial chardev:serial
        -chardev socket,id=agent,path=/t/agent
        -device virtio-serial-pci
        -device virtserialport,chardev=agent,name=org.daxvisor.agent.0
        -device virtio-rng-pci
        -virtfs local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap
        -virtfs local,path=/work,mount_tag=share0,security_model=none,multidevs=remap
        ");
    }

    #[test]
    fn kernel_arguments_come_last_so_that_they_win() {
        let options = HostOptions {
            kernel_args: vec!["memmap=512M!4G".into(), "panic=0".into()],
            ..Default::default()
        };
        let text = shown(&options, &image(), &["/work"]);
        assert!(
            text.contains(" daxvisor.share=share0:/work memmap=512M!4G panic=0\n"),
            "{text}"
        );
    }

    #[test]
    fn instruction_counting_takes_one_cpu_and_one_thread() {
        let options = HostOptions {
            icount: true,
            cpus: 4,
            memory: ByteSize::mib(1536),
            ..Default::default()
        };
        let text = shown(&options, &image(), &[]);
        assert!(text.contains("-accel tcg,thread=single\n-icount shift=0\n"), "{text}");
        assert!(
            text.contains("-smp 1\n-m 1536M\n") && !text.contains("daxvisor.share"),
            "{text}"
        );
    }

    #[test]
    fn unpacked_qemu_brings_its_data_and_libraries() {
        let qemu = QemuImage {
            program: "/q/bin/qemu-system-x86_64".into(),
            data: vec!["/q/share/qemu".into(), "/q/share/seabios".into()],
            libraries: vec!["/q/lib".into(), "/q/lib2".into()],
        };
        let text = shown(
            &HostOptions::default(),
            &HostImage {
                qemu: Some(qemu),
                ..image()
            },
            &[],
        );
        assert!(
            text.starts_with("LD_LIBRARY_PATH=/q/lib:/q/lib2\n/q/bin/qemu-system-x86_64\n"),
            "{text}"
        );
        assert!(text.ends_with("-L /q/share/qemu\n-L /q/share/seabios"), "{text}");
    }

    #[test]
    fn commas_in_paths_do_not_end_an_option() {
        let text = shown(&HostOptions::default(), &image(), &["/a,b"]);
        assert!(text.contains("local,path=/a,,b,mount_tag=share0,"), "{text}");
        assert!(text.contains("daxvisor.share=share0:/a,b\n"), "{text}");
    }

    #[test]
    fn blanks_in_paths_are_escaped_for_the_kernel() {
        let text = shown(&HostOptions::default(), &image(), &["/two words/100%/\"ä\""]);
        assert!(
            text.contains("daxvisor.share=share0:/two%20words/100%25/%22ä%22\n"),
            "{text}"
        );
    }

    #[test]
    fn a_command_line_that_does_not_fit_is_an_error() {
        let shares: Vec<_> = (0..100)
            .map(|n| PathBuf::from(format!("/a/long/enough/folder/{n}")))
            .collect();
        let result = plan(
            &image(),
            &HostOptions::default(),
            &shares,
            Path::new("/s"),
            Path::new("/l"),
        );
        assert!(matches!(result, Err(HostError::TooManyShares(n)) if n > CMDLINE_MAX));
    }
}
