//! The ACPI tables of seven configurations, byte for byte, and what ACPICA thinks of them.
//!
//! `tests/golden/<configuration>/<table>.hex` holds the bytes, `<table>.dsl` the same for people (not for the large
//! configuration, which shows nothing new but numbers). The tables are guest ABI: a difference is either a mistake or a change to be told in CHANGELOG.md. `DAXVISOR_BLESS=1` writes what the code
//! now makes.

use devices::{
    apei::ExtlogPlan,
    nvdimm::{NfitHandle, NfitPlan, NvdimmBusPlan, NvdimmPlan, RootPlan, plan::MAX_SLOTS},
    units::{ByteSize, Gpa, GpaRange},
};
use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};
use vmm::{
    acpi::{AcpiCpu, AcpiInitiator, AcpiInput, AcpiMemory, AcpiNuma, HmatPlan, HmatTarget, Table, Tables, assemble},
    config::{ApeiConfig, Bandwidth, CacheAssociativity, CacheWritePolicy, Latency, MemoryCacheConfig, Performance},
    layout::{self, RamRegion},
    mce,
};

const GIB: u64 = ByteSize::gib(1).0;
const LABEL: u32 = 128 << 10;

fn nvdimm(slot: u8, start: u64, len: u64, node: u32, read_only: bool) -> (NvdimmPlan, Gpa, u32) {
    let plan = NvdimmPlan::plain(slot, format!("nvdimm{slot}"), len - u64::from(LABEL), LABEL, read_only);
    (plan, Gpa(start), node)
}

/// The first bus with these DIMMs.
fn bus(dimms: impl IntoIterator<Item = (NvdimmPlan, Gpa, u32)>) -> NvdimmBusPlan {
    NvdimmBusPlan {
        number: 0,
        mailbox: layout::dsm_mailbox(0),
        slots: (0..MAX_SLOTS).map(|n| (n, NfitHandle(u32::from(n) + 1))).collect(),
        nfit: NfitPlan::plain(dimms),
        root: RootPlan::default(),
    }
}

fn ram(start: u64, len: u64, node: u32) -> RamRegion {
    RamRegion {
        range: GpaRange::new(Gpa(start), len),
        node,
    }
}

fn virtio(count: u32) -> Vec<(GpaRange, u32)> {
    let page = |n: u32| GpaRange::new(Gpa(layout::VIRTIO_MMIO.start.0 + u64::from(n) * 0x1000), 0x1000);
    (0..count).map(|n| (page(n), layout::gsi::VIRTIO0 + n)).collect()
}

/// Distances of 10 and 20, as the command line's defaults give.
fn numa(nodes: u32) -> AcpiNuma {
    let row = |from| (0..nodes).map(|to| if from == to { 10 } else { 20 }).collect();
    AcpiNuma {
        nodes: (0..nodes).collect(),
        distances: (0..nodes).map(row).collect(),
    }
}

/// 1 vCPU, no nodes, no NVDIMM.
fn minimal() -> AcpiInput {
    AcpiInput {
        cpus: vec![AcpiCpu { apic_id: 0, node: 0 }],
        ram: vec![ram(0, GIB, 0)],
        virtio: virtio(1),
        serial: true,
        pvpanic: true,
        ..AcpiInput::default()
    }
}

/// 4 vCPUs and RAM on nodes 0 and 1; two NVDIMMs on nodes 2 and 3 of their own, the second read-only.
fn two_nodes() -> AcpiInput {
    AcpiInput {
        cpus: (0..4)
            .map(|n| AcpiCpu {
                apic_id: n,
                node: n / 2,
            })
            .collect(),
        ram: vec![ram(0, GIB, 0), ram(GIB, 2 * GIB, 1), ram(4 * GIB, GIB, 1)],
        numa: Some(numa(4)),
        nvdimm: vec![bus([
            nvdimm(0, 6 * GIB, GIB, 2, false),
            nvdimm(1, 7 * GIB, GIB / 2, 3, true),
        ])],
        virtio: virtio(2),
        ..minimal()
    }
}

/// 64 vCPUs with holes in their APIC ids, some beyond 8 bits, and 32 NVDIMMs.
fn large() -> AcpiInput {
    AcpiInput {
        cpus: (0..64)
            .map(|n| AcpiCpu {
                apic_id: n / 4 * 32 + n % 4,
                node: n / 32,
            })
            .collect(),
        ram: vec![ram(0, 3 * GIB, 0), ram(4 * GIB, GIB, 0), ram(5 * GIB, 4 * GIB, 1)],
        numa: Some(numa(2)),
        nvdimm: vec![bus(
            (0..32).map(|n| nvdimm(n, (10 + u64::from(n)) * GIB, GIB, u32::from(n) % 2, false))
        )],
        virtio: virtio(8),
        ..minimal()
    }
}

/// Two nodes with vCPUs; on node 2 soft-reserved memory behind a cache and a window; a generic initiator on node 3; an
/// HMAT with equal bandwidths and different latencies.
fn performance() -> AcpiInput {
    let known = |read, write, megabytes| Performance {
        read_latency: Some(Latency::ns(read)),
        write_latency: Some(Latency::ns(write)),
        read_bandwidth: Some(Bandwidth::mb(megabytes)),
        write_bandwidth: Some(Bandwidth::mb(megabytes)),
    };
    let (near, remote, far) = (known(80, 80, 25_600), known(130, 130, 12_800), known(250, 400, 6_400));
    let target = |node, initiator| HmatTarget { node, initiator };
    let memory = |start, hot_pluggable| AcpiMemory {
        range: GpaRange::new(Gpa(start), GIB),
        node: 2,
        hot_pluggable,
        non_volatile: false,
    };
    AcpiInput {
        nvdimm: vec![],
        memory: vec![memory(6 * GIB, false), memory(7 * GIB, true)],
        initiators: vec![AcpiInitiator {
            node: 3,
            hid: *b"DAXV0001",
            uid: 0,
        }],
        hmat: Some(HmatPlan {
            initiators: vec![0, 1, 3],
            targets: vec![target(0, Some(0)), target(1, Some(1)), target(2, None)],
            performance: vec![
                vec![near, remote, far],
                vec![remote, near, far],
                vec![remote, remote, Performance::default()],
            ],
            caches: vec![MemoryCacheConfig {
                node: 2,
                size: ByteSize::mib(64),
                level: 1,
                associativity: CacheAssociativity::Direct,
                write_policy: CacheWritePolicy::Back,
                line: 64,
            }],
        }),
        ..two_nodes()
    }
}

/// One node with slots for five memory devices in a window of another.
fn memory_devices() -> AcpiInput {
    AcpiInput {
        numa: Some(numa(2)),
        memory: vec![AcpiMemory {
            range: GpaRange::new(Gpa(4 * GIB), 8 * GIB),
            node: 1,
            hot_pluggable: true,
            non_volatile: false,
        }],
        memory_slots: 5,
        ..minimal()
    }
}

/// Error interfaces.
fn errors() -> AcpiInput {
    let config = ApeiConfig {
        enabled: true,
        ..ApeiConfig::default()
    };
    AcpiInput {
        apei: layout::apei(&config),
        ..minimal()
    }
}

/// Error interfaces with the extended error log.
fn extended_log() -> AcpiInput {
    AcpiInput {
        extlog: Some(ExtlogPlan {
            memory: layout::EXTLOG,
            processors: vec![0],
            banks: mce::BANKS,
        }),
        ..errors()
    }
}

fn configurations() -> [(&'static str, AcpiInput); 7] {
    [
        ("minimal", minimal()),
        ("two-nodes", two_nodes()),
        ("performance", performance()),
        ("memory-devices", memory_devices()),
        ("errors", errors()),
        ("extended-log", extended_log()),
        ("large", large()),
    ]
}

fn tables(input: &AcpiInput) -> Tables {
    assemble(input).expect("the configuration is sound")
}

fn golden(configuration: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(configuration)
}

/// A line with the address, then 16 bytes a line.
fn hex(table: &Table) -> String {
    let line = |(n, bytes): (usize, &[u8])| {
        let bytes: Vec<_> = bytes.iter().map(|b| format!("{b:02x}")).collect();
        format!("{:04x}: {}\n", n * 16, bytes.join(" "))
    };
    let lines: String = table.bytes.chunks(16).enumerate().map(line).collect();
    format!("{} at {}\n{lines}", table.signature, table.gpa)
}

/// Runs a tool of ACPICA in `dir`; a tool that is not there fails the test.
fn acpica(tool: &str, dir: &Path, args: &[&str]) -> Output {
    let run = Command::new(tool).args(args).current_dir(dir).output();
    run.unwrap_or_else(|error| panic!("cannot run {tool}: {error}; hint: apt-get install acpica-tools"))
}

fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr]
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .concat()
}

/// Disassembles `table` in `dir` and returns the path of the source.
fn disassemble(table: &Table, dir: &Path) -> PathBuf {
    let name = table.signature.to_lowercase();
    fs::write(dir.join(format!("{name}.aml")), &table.bytes).unwrap();
    let output = acpica("iasl", dir, &["-d", &format!("{name}.aml")]);
    assert!(output.status.success(), "iasl -d {name}: {}", text(&output));
    dir.join(format!("{name}.dsl"))
}

/// Tables that iasl knows; the RSDP is none.
fn disassemblable(tables: &Tables) -> impl Iterator<Item = &Table> {
    tables.tables.iter().filter(|table| table.signature != "RSDP")
}

#[test]
fn tables_are_the_golden_ones() {
    let bless = env::var_os("DAXVISOR_BLESS").is_some_and(|v| v == "1");
    for (name, input) in configurations() {
        let tables = tables(&input);
        let dir = golden(name);
        if bless {
            write_golden(&tables, &dir, name != "large");
        }
        let mut expected: Vec<_> = fs::read_dir(&dir)
            .unwrap_or_else(|error| panic!("{}: {error}; hint: DAXVISOR_BLESS=1 writes it", dir.display()))
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|e| e == "hex"))
            .collect();
        for table in &tables.tables {
            let path = dir.join(format!("{}.hex", table.signature.to_lowercase()));
            let golden = fs::read_to_string(&path).unwrap_or_default();
            let hint =
                "differs from what the code makes; hint: DAXVISOR_BLESS=1 rewrites it, see the change with git diff";
            assert!(golden == hex(table), "{} {hint}", path.display());
            expected.retain(|p| *p != path);
        }
        assert!(
            expected.is_empty(),
            "golden tables that are no longer made: {expected:?}"
        );
    }
}

fn write_golden(tables: &Tables, dir: &Path, with_source: bool) {
    let _ = fs::remove_dir_all(dir);
    fs::create_dir_all(dir).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    for table in &tables.tables {
        fs::write(dir.join(format!("{}.hex", table.signature.to_lowercase())), hex(table)).unwrap();
    }
    for table in disassemblable(tables).filter(|_| with_source) {
        let source = fs::read_to_string(disassemble(table, scratch.path())).unwrap();
        // The head comment names the tool's version and the time.
        let body = source
            .split_once("*/")
            .map_or(source.as_str(), |(_, body)| body)
            .trim_start();
        fs::write(dir.join(format!("{}.dsl", table.signature.to_lowercase())), body).unwrap();
    }
}

#[test]
fn iasl_understands_every_table() {
    for (name, input) in configurations() {
        for table in disassemblable(&tables(&input)) {
            let scratch = tempfile::tempdir().unwrap();
            let source = fs::read_to_string(disassemble(table, scratch.path())).unwrap();
            // Said of the NFIT's 32-byte control regions, see below.
            let source = source.replace("/**** ACPI subtable terminates early", "");
            // What the hardware error device is called, and fields of the error interfaces' tables.
            let source = source.replace("/* Error Device */", "");
            let named = ["HEST", "BERT", "EINJ", "ERST"].contains(&table.signature);
            for complaint in ["****", "Invalid", "Error", "Warning", "Incorrect checksum"] {
                assert!(
                    named && complaint == "Error" || !source.contains(complaint),
                    "{name} {}: iasl says {complaint}",
                    table.signature
                );
            }
        }
    }
}

#[test]
fn iasl_puts_together_what_it_took_apart() {
    for (name, input) in configurations() {
        // iasl compiles control regions of the NFIT in the long form only, with fields for block windows; ours have none
        // and are 32 bytes, as ACPI 6.5 5.2.25.6 says. The NFIT's bytes are checked by hand beside its builder.
        for table in disassemblable(&tables(&input)).filter(|table| table.signature != "NFIT") {
            let scratch = tempfile::tempdir().unwrap();
            let source = disassemble(table, scratch.path());
            let output = acpica(
                "iasl",
                scratch.path(),
                &["-p", "again", "-oa", &source.to_string_lossy()],
            );
            let said = text(&output);
            assert!(
                output.status.success() && said.contains(" 0 Errors"),
                "{name} {}: {said}",
                table.signature
            );
            let again = fs::read(scratch.path().join("again.aml")).unwrap();
            assert_same_content(name, table, &again);
        }
    }
}

/// Equal but for the checksum and the creator (bytes 9 and 28 to 36), where iasl puts itself.
fn assert_same_content(name: &str, table: &Table, again: &[u8]) {
    let content = |bytes: &[u8]| [&bytes[..9], &bytes[10..28], &bytes[36..]].concat();
    assert!(
        content(&table.bytes) == content(again),
        "{name} {}: iasl makes other bytes of it",
        table.signature
    );
}

/// Runs `methods` of `asl` (a file in `tests/asl`) beside `dsdt` in ACPICA's interpreter, each in a fresh one, and returns
/// what it said of each. Every method must return 0.
fn interpret(dsdt: &[u8], asl: &str, methods: &[&str]) -> Vec<String> {
    let scratch = tempfile::tempdir().unwrap();
    fs::write(scratch.path().join("dsdt.aml"), dsdt).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("asl").join(asl);
    let compiled = acpica("iasl", scratch.path(), &["-p", "test", &source.to_string_lossy()]);
    assert!(compiled.status.success(), "{asl}: {}", text(&compiled));
    let run = |method: &&str| {
        let batch = format!("evaluate \\{method}");
        let said = text(&acpica(
            "acpiexec",
            scratch.path(),
            &["-r", "-di", "-b", &batch, "dsdt.aml", "test.aml"],
        ));
        assert!(said.contains("[Integer] = 0000000000000000"), "{asl} {method}: {said}");
        assert!(
            !said.contains("ACPI Error") && !said.contains("ACPI Warning"),
            "{asl} {method}: {said}"
        );
        said
    };
    methods.iter().map(run).collect()
}

fn dsdt(input: &AcpiInput) -> Vec<u8> {
    tables(input).get("DSDT").expect("there is a DSDT").bytes.clone()
}

#[test]
fn aml_speaks_the_mailbox_protocol() {
    interpret(
        &dsdt(&two_nodes()),
        "mailbox.asl",
        &["HEAD", "NONE", "SIZE", "INFO", "LRED", "LWRI", "FITS"],
    );
}

/// The DSDT of a machine with its mailbox method renamed.
fn without_mailbox(input: &AcpiInput) -> Vec<u8> {
    without(input, b"NCAL")
}

/// The DSDT of a machine with one method renamed. The definition comes first in the table; its callers now find the
/// method of the test.
fn without(input: &AcpiInput, method: &[u8; 4]) -> Vec<u8> {
    let mut dsdt = dsdt(input);
    let definition = dsdt.windows(4).position(|w| w == method).expect("the DSDT has it");
    let old = std::mem::replace(&mut dsdt[definition], b'X');
    dsdt[9] = dsdt[9].wrapping_add(old).wrapping_sub(b'X');
    dsdt
}

/// Devices that a method of a test notifies, with the values.
fn notified(dsdt: &[u8], asl: &str, method: &str) -> BTreeSet<String> {
    let said = interpret(dsdt, asl, &[method]).concat();
    let lines = said.lines().filter_map(|line| {
        let (_, rest) = line.split_once("Notify on [")?;
        let (device, rest) = rest.split_once(']')?;
        let (_, value) = rest.split_once("Value 0x")?;
        Some(format!("{device} {}", value.get(..2)?))
    });
    // Handlers run on threads of their own, in any order.
    lines.collect()
}

#[test]
fn the_extended_error_log_is_found_by_its_functions() {
    interpret(&dsdt(&extended_log()), "extlog.asl", &["FNCS", "ADDR", "NONE"]);
}

#[test]
fn event_method_notifies_the_devices_whose_bits_are_set() {
    let dsdt = without_mailbox(&two_nodes());
    let notified = |method| notified(&dsdt, "events.asl", method);
    let all = ["PWRB 80", "NVDR 80", "NVDR 81", "NV01 81", "NV1F 81"];
    assert_eq!(notified("EVNT"), all.map(String::from).into());
    assert_eq!(notified("BUTT"), ["PWRB 80".to_owned()].into());
}

#[test]
fn memory_devices_read_and_write_their_registers() {
    let dsdt = dsdt(&memory_devices());
    interpret(&dsdt, "memory.asl", &["STAT", "PLCE", "GONE", "PROX", "TELL", "EJCT"]);
}

#[test]
fn memory_scan_notifies_each_device_with_a_pending_event() {
    let all = ["MS00 01", "MS01 03", "MS02 01", "MS03 03", "MS04 01"];
    assert_eq!(
        notified(&dsdt(&memory_devices()), "memory.asl", "NTFY"),
        all.map(String::from).into()
    );
    // Nothing but the scan ends when there is nothing pending: the method of the test takes the event away.
    let scan = without(&memory_devices(), b"MNTF");
    interpret(&scan, "memory-scan.asl", &["INSR", "REMV", "BOTH", "NONE", "GEDM"]);
}

#[test]
fn fit_method_assembles_pieces_and_restarts_when_the_fit_moves() {
    interpret(&without_mailbox(&two_nodes()), "fit.asl", &["ALLP", "CHNG", "FAIL"]);
}
