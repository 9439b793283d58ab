//! The program as its user meets it: what it prints, how it ends, and what it leaves behind.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};
use tempfile::TempDir;
use vmm::{
    cli::{EXIT_TABLE, ExitCode},
    config::flags::FLAGS,
};

/// The program in an empty folder of its own.
struct Bench {
    dir: TempDir,
}

impl Bench {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_daxvisor"));
        command
            .args(args)
            .current_dir(self.dir.path())
            .env("DAXVISOR_IMAGES", self.path("images"));
        command.output().unwrap()
    }

    /// Runs, and expects stdout.
    fn prints(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(
            output.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(
            output.stderr.is_empty(),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs, and expects to be refused with `end` and exactly these lines, and nothing created.
    fn refused(&self, args: &[&str], end: ExitCode, lines: &[&str]) {
        let before = listing(self.dir.path());
        let output = self.run(args);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(stderr.lines().collect::<Vec<_>>(), lines, "{args:?}");
        assert_eq!(output.status.code(), Some(end.code().into()), "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
        assert_eq!(listing(self.dir.path()), before, "{args:?} left something behind");
    }
}

fn listing(dir: &Path) -> Vec<(std::path::PathBuf, u64, std::time::SystemTime)> {
    let entry = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.unwrap();
        let meta = entry.metadata().unwrap();
        (entry.path(), meta.len(), meta.modified().unwrap())
    };
    let mut all: Vec<_> = fs::read_dir(dir).unwrap().map(entry).collect();
    all.sort();
    all
}

const BAD: ExitCode = ExitCode::BadConfig;

#[test]
fn missing_kernel_is_refused_before_anything_is_created() {
    let bench = Bench::new();
    let nvdimm = ["--nvdimm", "new.img,size=16M", "--console", "file:log"];
    bench.refused(
        &["run", nvdimm[0], nvdimm[1], nvdimm[2], nvdimm[3]],
        BAD,
        &[
            "error: there is no kernel to boot",
            "hint: add --kernel PATH, or --kernel @NAME for a guest image",
        ],
    );
    bench.refused(
        &[
            "run", "--kernel", "vmlinuz", "--initrd", "initrd", nvdimm[0], nvdimm[1], nvdimm[2], nvdimm[3],
        ],
        BAD,
        &[
            "error: cannot use vmlinuz as the kernel: No such file or directory (os error 2)",
            "hint: check the path, which begins at the working directory unless it is absolute",
            "error: cannot use initrd as the initrd: No such file or directory (os error 2)",
            "hint: check the path, which begins at the working directory unless it is absolute",
        ],
    );
}

#[test]
fn guest_image_that_is_not_there_says_how_to_get_it() {
    let bench = Bench::new();
    let missing = format!("error: there are no guest images in {}", bench.path("images").display());
    let hint = "hint: run `cargo xtask images`, or set DAXVISOR_IMAGES to a folder that has them";
    bench.refused(
        &["run", "--kernel", "@debian"],
        ExitCode::HostFailure,
        &[&missing, hint],
    );

    fs::create_dir(bench.path("images")).unwrap();
    let kernel = r#"{"release": "6.1", "bzimage": "k/bz", "vmlinux": "k/elf", "initramfs": "k/cpio"}"#;
    let manifest = format!(r#"{{"kernels": {{"debian": {kernel}}}, "host": null, "packages": {{}}}}"#);
    fs::write(bench.path("images/manifest.json"), manifest).unwrap();
    bench.refused(
        &["run", "--kernel", "@other"],
        BAD,
        &[
            "error: there is no kernel image 'other'; expected one of: debian",
            "hint: `cargo xtask images` fetches the default set",
        ],
    );
    let hypervisors = r#"{"hypervisors": {"xen": {"version": "4", "image": "k/gz"}}, "packages": {}}"#;
    fs::write(bench.path("images/hypervisors.json"), hypervisors).unwrap();
    bench.refused(
        &["run", "--kernel", "@other", "--module", "@debian"],
        BAD,
        &[
            "error: there is no hypervisor image 'other'; expected one of: xen",
            "hint: `cargo xtask images` fetches the default set",
        ],
    );
    let lost = |file: &str, role: &str| {
        let path = bench.path("images/k").join(file);
        format!(
            "error: cannot use {} as the {role}: No such file or directory (os error 2)",
            path.display()
        )
    };
    let path_hint = "hint: check the path, which begins at the working directory unless it is absolute";
    for (flags, kernel) in [
        (vec![], "elf"),
        (vec!["--boot=pvh"], "elf"),
        (vec!["--unpack=on"], "bz"),
        (vec!["--unpack=off"], "bz"),
    ] {
        let args = [vec!["run", "--kernel=@debian"], flags].concat();
        let lines = [&lost(kernel, "kernel"), path_hint, &lost("cpio", "initrd"), path_hint];
        bench.refused(&args, BAD, &lines);
    }
}

#[test]
fn unknown_keys_and_bad_values_name_flag_key_and_choice() {
    let bench = Bench::new();
    let keys = "expected one of id, file, offset, size, backing, node, label, readonly, encrypt, flush, overwrite-time, bus, \
                handle, mapped, flags, functions, physical-id, vendor, device, revision, subsystem-vendor, subsystem-device, \
                subsystem-revision, serial, location, date, format, state, family, health-condition, health-spares, \
                health-life-used, health-media-temperature, health-controller-temperature, health-shutdown-count, \
                health-alarms, health-spares-threshold, health-media-temperature-threshold, \
                health-controller-temperature-threshold";
    bench.refused(
        &["run", "--nvdimm", "a,size=16M,colour=red", "--memory", "lots", "--cpus", "4,threads=two", "--console", "tty"],
        BAD,
        &[
            "error: --cpus '4,threads=two': threads: 'two' is not a whole number from 0 to 255",
            "hint: `daxvisor run --help` shows what --cpus takes",
            "error: --memory 'lots': size: 'lots' is not a size: expected a whole number with an optional suffix K, M, G or T (powers of 1024), below 16E",
            "hint: `daxvisor run --help` shows what --memory takes",
            &format!("error: --nvdimm 'a,size=16M,colour=red': unknown key 'colour': {keys}"),
            "hint: `daxvisor run --help` shows what --nvdimm takes",
            "error: --console 'tty': 'tty' is not a console: expected stdio, file:PATH, pty or none",
            "hint: `daxvisor run --help` shows what --console takes",
        ],
    );
    bench.refused(
        &["run", "--nvdimm", "size=16M,readonly"],
        BAD,
        &[
            "error: --nvdimm 'size=16M,readonly': 'readonly' has no value: expected key=value",
            "hint: write readonly=VALUE, or put a value with commas in brackets, as in key=[a,b]",
        ],
    );
}

#[test]
fn problems_of_values_and_files_are_told_together_and_once() {
    let bench = Bench::new();
    bench.refused(
        &[
            "run",
            "--memory",
            "10M",
            "--nvdimm",
            "a,size=16M,node=3",
            "--nvdimm",
            "a,size=16M",
        ],
        BAD,
        &[
            "error: memory size 10M is out of range: expected 64M to 64T",
            "error: nvdimm0 names node 3, which is not defined: the nodes are 0",
            "hint: add --numa node=3",
            "error: a is named both for nvdimm0 and for nvdimm1, and would be overwritten",
            "hint: give each a file of its own",
            "error: there is no kernel to boot",
            "hint: add --kernel PATH, or --kernel @NAME for a guest image",
        ],
    );
}

#[test]
fn file_of_another_size_is_left_as_it_is() {
    let bench = Bench::new();
    fs::write(bench.path("dimm"), "precious").unwrap();
    bench.refused(
        &["run", "--dry-run", "--nvdimm", "dimm,size=16M"],
        BAD,
        &[
            "error: the size of dimm is 8, but size= of nvdimm0 is 16M",
            "hint: nothing is cut or extended; write size=8, or use another file",
        ],
    );
    assert_eq!(fs::read(bench.path("dimm")).unwrap(), b"precious");
}

#[test]
fn map_beyond_the_processor_is_refused_with_numbers() {
    let bench = Bench::new();
    let output = bench.run(&["run", "--dry-run", "--memory", "64T"]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    // Whether 64 TiB fit is the processor's matter: with 47 bits or more they do.
    match output.status.code() {
        Some(0) => assert!(
            String::from_utf8(output.stdout)
                .unwrap()
                .contains("0x100000000-0x40003fffffff")
        ),
        code => {
            assert_eq!(code, Some(2), "{stderr}");
            assert!(
                stderr.starts_with("error: the RAM of node 0 would lie at 0x100000000 with 65533G"),
                "{stderr}"
            );
            assert!(stderr.contains("\nhint: use less or smaller memory"), "{stderr}");
        }
    }
}

#[test]
fn configuration_file_errors_name_the_place() {
    let bench = Bench::new();
    let missing = "error: cannot read the configuration file vm.toml: No such file or directory (os error 2)";
    bench.refused(&["run", "--config", "vm.toml"], BAD, &[missing]);
    fs::write(bench.path("vm.toml"), "[memory]\nsize = '1G'\nspeed = 3\n").unwrap();
    let unknown =
        "error: vm.toml: line 3, column 1: unknown field `speed`, expected one of `size`, `hugepages`, `shared`";
    bench.refused(&["run", "--config", "vm.toml"], BAD, &[unknown]);
}

#[test]
fn log_never_goes_into_a_file_of_the_machine() {
    let bench = Bench::new();
    fs::write(bench.path("kernel"), "x").unwrap();
    bench.refused(
        &[
            "run",
            "--kernel",
            "kernel",
            "--nvdimm",
            "dimm,size=16M",
            "--log-file",
            "./dimm",
        ],
        BAD,
        &[
            "error: --log-file ./dimm is also nvdimm0",
            "hint: give the log a file of its own",
        ],
    );
    let lines = bench.run(&["run", "--kernel", "kernel", "--log", "vmm=loud"]);
    let stderr = String::from_utf8(lines.stderr).unwrap();
    assert!(
        stderr.starts_with("error: --log 'vmm=loud' is no log level: "),
        "{stderr}"
    );
    assert_eq!(lines.status.code(), Some(2));
}

/// Errors of the command line itself are told as those of values are: a sentence, a hint, exit code 2.
#[test]
fn wrong_command_lines_are_told_in_a_sentence_with_a_hint() {
    let bench = Bench::new();
    let ctl = ["ctl", "--api-socket", "s"];
    let see = |command: &str| format!("hint: `{command} --help` shows what there is");
    for (args, error, hint) in [
        (
            &["host", "run", "--cpus", "0", "ls"][..],
            "--cpus '0' is out of range: expected 1 to 64",
            see("daxvisor host run"),
        ),
        (
            &["host", "run", "--cpus", "many", "ls"],
            "--cpus 'many' is no number: expected a whole one",
            see("daxvisor host run"),
        ),
        (
            &["host", "run"],
            "`daxvisor host run` needs <CMD>...",
            see("daxvisor host run"),
        ),
        (
            &["ctl", "memory", "list"],
            "`daxvisor ctl memory list` needs --api-socket <PATH>",
            see("daxvisor ctl memory list"),
        ),
        (
            &[&ctl[..], &["memory", "target"]].concat(),
            "`daxvisor ctl memory target` needs <SIZE>",
            see("daxvisor ctl memory target"),
        ),
        (
            &[&ctl[..], &["memory", "target", "grow", "much"]].concat(),
            "SIZE 'much' is not a size: expected a whole number with an optional suffix K, M, G or T (powers of 1024), below 16E",
            see("daxvisor ctl memory target"),
        ),
        (
            &[&ctl[..], &["memory", "remove", "x", "--deadline", "0"]].concat(),
            "--deadline '0' is out of range: expected 1 to 3600",
            see("daxvisor ctl memory remove"),
        ),
        (
            &[&ctl[..], &["operation", "show", "99999999999999999999"]].concat(),
            "ID '99999999999999999999' is out of range: expected less than 64 bits of a number",
            see("daxvisor ctl operation show"),
        ),
        (
            &[&ctl[..], &["fly"]].concat(),
            "`daxvisor ctl` has no command 'fly'",
            see("daxvisor ctl"),
        ),
        (
            &[&ctl[..], &["fault", "inject", "4096", "--node", "1"]].concat(),
            "[GPA] cannot be given together with --node <NODE>",
            "hint: leave one of them out".into(),
        ),
        (
            &["run", "--host", "kwm"],
            "--host 'kwm' is no choice: expected one of auto, kvm, nested",
            "hint: did you mean kvm?".into(),
        ),
        (&["run", "--memory"], "--memory has no value", see("daxvisor run")),
        (
            &["run", "--memroy", "1G"],
            "`daxvisor run` does not know '--memroy'",
            "hint: did you mean --memory?".into(),
        ),
        (
            &["run", "--timeout", "0"],
            "--timeout '0': expected a whole number of seconds, at least 1",
            see("daxvisor run"),
        ),
        (
            &["run", "--json"],
            "`daxvisor run` needs --dry-run",
            see("daxvisor run"),
        ),
    ] {
        bench.refused(args, BAD, &[&format!("error: {error}"), &hint]);
    }
}

#[test]
fn man_pages_and_completions_know_every_verb() {
    let bench = Bench::new();
    bench.prints(&["man", "pages"]);
    for page in [
        "daxvisor",
        "daxvisor-run",
        "daxvisor-ctl",
        "daxvisor-ctl-memory-target",
        "daxvisor-ctl-dax-add",
    ] {
        let text = fs::read_to_string(bench.path("pages").join(format!("{page}.1"))).expect(page);
        assert!(
            text.contains(".SH NAME") && text.contains(".SH SYNOPSIS"),
            "{page}: {text}"
        );
    }
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let text = bench.prints(&["completions", shell]);
        for word in ["power-button", "target", "dry-run", "api-socket"] {
            assert!(text.contains(word), "{shell} does not complete {word}");
        }
    }
}

#[test]
fn usage_errors_end_as_bad_configuration_and_help_does_not() {
    let bench = Bench::new();
    for args in [
        &["run", "--bogus"][..],
        &["run", "--json"],
        &["fly"],
        &["run", "--timeout", "0"],
        &["acpi", "dump"],
        &[],
    ] {
        assert_eq!(bench.run(args).status.code(), Some(2), "{args:?}");
    }
    let help = bench.prints(&["run", "--help"]);
    for flag in FLAGS {
        assert!(help.contains(&format!("--{} ", flag.name)), "{}", flag.name);
    }
    assert!(
        bench
            .prints(&["--help"])
            .contains("Exit codes:\n  0       the guest powered off")
    );
    assert_eq!(
        bench.prints(&["--version"]),
        format!("daxvisor {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn printed_configuration_is_file_and_flags_and_loads_back() {
    let bench = Bench::new();
    let file =
        "kernel = 'k'\nmemory = { size = '2G', shared = true }\n[[nvdimm]]\nfile = 'a'\nsize = '16M'\nid = 'log'\n";
    fs::write(bench.path("vm.toml"), file).unwrap();
    let args = [
        "run",
        "--config",
        "vm.toml",
        "--memory",
        "1G",
        "--nvdimm",
        "b,size=32M,id=log",
        "--cpu",
        "-pku",
    ];
    let printed = bench.prints(&[&args[..], &["--print-config"]].concat());
    let config: vmm::config::VmConfig = toml::from_str(&printed).unwrap();
    assert_eq!(config.memory.size.unwrap().to_string(), "1G");
    assert!(config.memory.shared, "{printed}");
    assert_eq!(config.cpu.remove, ["pku"]);
    assert!(
        matches!(config.nvdimm.as_slice(), [one] if one.file.as_deref() == Some(Path::new("b"))),
        "{printed}"
    );

    fs::write(bench.path("effective.toml"), &printed).unwrap();
    assert_eq!(
        bench.prints(&["run", "--config", "effective.toml", "--print-config"]),
        printed
    );
    bench.refused(
        &["run", "--cpus", "65", "--print-config"],
        BAD,
        &["error: 65 vCPUs are asked for: expected 1 to 64", "hint: --cpus N"],
    );
}

#[test]
fn dry_run_needs_no_kernel_and_creates_nothing() {
    let bench = Bench::new();
    let args = [
        "run",
        "--dry-run",
        "--cpus=2",
        "--numa=node=1",
        "--nvdimm",
        "pm,size=512M,node=1",
        "--console=file:log",
    ];
    let text = bench.prints(&args);
    assert!(text.contains("  100000000-11ffdffff : Persistent Memory\n"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&bench.prints(&[&args[..], &["--json"]].concat())).unwrap();
    assert_eq!(json["nvdimms"][0]["start"], 1u64 << 32);
    assert_eq!(json["nvdimms"][0]["len"], (512 << 20) - (128 << 10));
    assert_eq!(json["nodes"][1]["node"], 1);
    assert_eq!(json["vcpus"].as_array().unwrap().len(), 2);
    assert_eq!(listing(bench.dir.path()), []);
}

#[test]
fn reader_that_stops_early_is_no_error() {
    let bench = Bench::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_daxvisor"));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command
        .args(["run", "--dry-run"])
        .current_dir(bench.dir.path())
        .stdout(writer)
        .output()
        .unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn documentation_has_every_flag_exit_code_and_the_example_machine() {
    let bench = Bench::new();
    let text = include_str!("../../docs/config.md");
    for flag in FLAGS {
        let heading = text
            .lines()
            .any(|l| l.starts_with("### ") && l.contains(&format!("--{}", flag.name)));
        assert!(heading, "--{}", flag.name);
    }
    for (codes, meaning) in EXIT_TABLE {
        let codes = if codes.start() == codes.end() {
            codes.start().to_string()
        } else {
            format!("{}-{}", codes.start(), codes.end())
        };
        assert!(text.contains(&format!("| {codes} | {meaning} |\n")), "{codes}");
    }
    let example = text
        .split("```toml\n")
        .nth(1)
        .and_then(|t| t.split("```").next())
        .unwrap();
    fs::write(bench.path("vm.toml"), example).unwrap();
    let flags = [
        "--kernel=@debian-6.1-cloud-amd64",
        "--cpus=2",
        "--memory=1G",
        "--numa=node=1",
    ];
    let flags = [
        &["run", "--print-config", "--nvdimm=pmem0.img,size=512M,node=1"][..],
        &flags,
    ]
    .concat();
    assert_eq!(
        bench.prints(&["run", "--print-config", "--config=vm.toml"]),
        bench.prints(&flags)
    );
}

#[test]
fn documented_map_is_the_map() {
    let bench = Bench::new();
    let text = include_str!("../../docs/guest-abi.md");
    let json = bench.prints(&[
        "run",
        "--dry-run",
        "--json",
        "--memory=4G",
        "--agent-socket=a",
        "--nvdimm=size=16M",
    ]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    for entry in json["map"].as_array().unwrap() {
        let start = format!("`{:#x}`", entry["start"].as_u64().unwrap());
        let known = match entry["kind"].as_str().unwrap() {
            "NVDIMM" => entry["start"] == 5u64 << 30,
            "virtio-mmio" => text.contains("virtio-mmio transports from `0xd0000000`, one page each"),
            _ => text.contains(&start),
        };
        assert!(known, "{entry}");
    }
    for line in json["iomem"].as_array().unwrap() {
        assert!(text.contains(line["name"].as_str().unwrap()), "{line}");
    }
    use vmm::layout::{gsi, ports};
    for port in [
        ports::COM1,
        ports::TEST_EXIT,
        ports::PVPANIC,
        ports::ACPI,
        ports::DSM_DOORBELL,
    ] {
        assert!(text.contains(&format!("| `{port:#x}`")), "{port:#x}");
    }
    for gsi in [gsi::COM1, gsi::GED, gsi::VIRTIO0] {
        assert!(text.contains(&format!("\n| {gsi} ")), "{gsi}");
    }
}
