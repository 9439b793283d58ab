//! The command line: reads it, plans the machine and hands the plan on.
//!
//! ```text
//! flags, --config --> VmConfig --validate, probe--> Topology, Layout --> --dry-run | acpi dump | the machine
//! ```
//! Data goes to stdout, talk to stderr. Whatever goes wrong is printed here, once, as `error:` and `hint:` lines, and becomes
//! an [`ExitCode`]. Until a plan is complete nothing is created or changed.

mod ctl;
mod exit;
mod failure;
mod log;
mod plan;
mod test;
mod usage;
mod vm;

pub use exit::{ExitCode, TABLE as EXIT_TABLE};
pub use failure::Failure;
pub use plan::MachinePlan;
pub use vm::VmArgs;

use crate::{
    acpi,
    api::{Api, openapi},
    config::{
        DiskConfig, MemoryRangeConfig, VirtioPmemConfig, file, file_of,
        probe::{BackingFacts, Purpose},
    },
    layout::map::Report,
    machine::{Machine, OnReset, Outcome, Plans, RunLimits, acpi_input, records, socket::Socket},
    memory::{
        backing::{self, Held},
        state,
    },
    nested::{self, HostChoice, HostError, HostOptions, Place, Reexec},
};
use clap::{Args, CommandFactory, Parser, Subcommand};
use devices::units::ByteSize;
use std::{
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

#[derive(Parser)]
#[command(
    name = "daxvisor",
    version,
    about = "A virtual machine monitor for people who work on Linux memory"
)]
#[command(arg_required_else_help = true, after_help = exit::help())]
struct Cli {
    #[command(flatten)]
    log: log::LogArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a virtual machine until it ends
    Run(Box<RunArgs>),
    /// The nested host, for machines whose KVM cannot run a kernel
    Host(nested::cli::HostArgs),
    /// Ask something of a running machine
    Ctl(ctl::CtlArgs),
    /// Run boot tests: scenarios on kernels, a verdict for each
    Test(Box<test::TestArgs>),
    /// Look at ACPI tables
    #[command(subcommand)]
    Acpi(AcpiCommand),
    /// Look at the REST API
    #[command(subcommand)]
    Api(ApiCommand),
    /// Print completions for a shell
    Completions {
        /// Which
        shell: clap_complete::Shell,
    },
    /// Write the man pages, one for each command
    Man {
        /// Folder for them
        dir: PathBuf,
    },
}

#[derive(Subcommand)]
enum ApiCommand {
    /// Print the OpenAPI document
    Openapi,
}

#[derive(Subcommand)]
enum AcpiCommand {
    /// Write the tables that a machine would have, one file for each
    Dump(Box<DumpArgs>),
}

#[derive(Args)]
struct RunArgs {
    #[command(flatten)]
    vm: VmArgs,
    #[command(flatten)]
    options: RunOptions,
    /// Print the guest physical map, nodes and vCPUs, and exit
    #[arg(long)]
    dry_run: bool,
    /// Print the map as JSON
    #[arg(long, requires = "dry_run")]
    json: bool,
    /// Print the configuration of file and flags as TOML, and exit
    #[arg(long, conflicts_with = "dry_run")]
    print_config: bool,
}

/// How a machine is run, beyond what it is.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct RunOptions {
    /// Which KVM runs the guest: this machine's, the nested host's, or the first of them that can
    #[arg(long, value_enum, default_value_t)]
    pub host: HostChoice,
    /// End the run after this many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Option<Duration>,
    /// End the run when the parent process ends, which has this number
    #[arg(long, value_name = "PID")]
    pub parent: Option<i32>,
    /// What a reset by the guest does
    #[arg(long, value_enum, default_value_t)]
    pub on_reset: OnReset,
}

#[derive(Args)]
struct DumpArgs {
    /// Folder for the tables
    dir: PathBuf,
    #[command(flatten)]
    vm: VmArgs,
}

/// The whole program.
pub fn main() -> std::process::ExitCode {
    let code = match Cli::try_parse() {
        Ok(Cli {
            command: Command::Host(args),
            ..
        }) => return nested::cli::run(args),
        Ok(cli) => dispatch(cli).unwrap_or_else(|failure| failure.print()),
        // Help and version go to stdout, the help of a command that says nothing to stderr. A reader that has gone is nobody
        // to tell.
        Err(error) if usage::is_help(&error) => {
            let _ = error.print();
            match error.use_stderr() {
                true => ExitCode::BadConfig,
                false => ExitCode::PowerOff,
            }
        }
        Err(error) => usage::failure(&error, &Cli::command(), std::env::args_os()).print(),
    };
    code.code().into()
}

fn dispatch(cli: Cli) -> Result<ExitCode, Failure> {
    match cli.command {
        Command::Run(args) => run(*args, &cli.log),
        Command::Ctl(args) => ctl::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Api(ApiCommand::Openapi) => say(openapi::text()),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "daxvisor", &mut text);
            say(&String::from_utf8_lossy(&text))
        }
        Command::Man { dir } => {
            let written = std::fs::create_dir_all(&dir).and_then(|()| clap_mangen::generate_to(Cli::command(), &dir));
            let failed = |e| anyhow::Error::new(e).context(format!("cannot write man pages to {}", dir.display()));
            written.map_err(|e| Failure::new(ExitCode::BadConfig, failed(e)))?;
            Ok(ExitCode::PowerOff)
        }
        Command::Host(_) => unreachable!("`host` has exit codes of its own and never comes here"),
        Command::Acpi(AcpiCommand::Dump(args)) => {
            let plan = MachinePlan::prepare(args.vm.config()?, Purpose::Plan)?;
            log::start(&cli.log, &plan.config)?;
            dump(&args.dir, &plan)
        }
    }
}

fn run(args: RunArgs, log: &log::LogArgs) -> Result<ExitCode, Failure> {
    let config = args.vm.config()?;
    if args.print_config {
        config.validate()?;
        return say(&file::print(&config).map_err(Failure::vmm)?);
    }
    let purpose = if args.dry_run { Purpose::Plan } else { Purpose::Boot };
    let plan = MachinePlan::prepare(config, purpose)?;
    if args.dry_run {
        let report = Report::new(&plan.config, &plan.topology, &plan.layout, plan.phys_bits);
        return match args.json {
            true => say(&(serde_json::to_string_pretty(&report).map_err(Failure::vmm)? + "\n")),
            false => say(&report.to_string()),
        };
    }
    log::start(log, &plan.config)?;
    match nested::choose(args.options.host) {
        Place::Here => start(&plan, &args.options),
        Place::Nested(announcement) => {
            if let Some(line) = announcement {
                eprintln!("{line}");
            }
            start_nested(&plan, args.vm.file(), log.folder())
        }
    }
}

/// Data for stdout. A reader that has seen enough is no error.
fn say(text: &str) -> Result<ExitCode, Failure> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::vmm(e)),
        _ => Ok(ExitCode::PowerOff),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(n) if n > 0 => Ok(Duration::from_secs(n)),
        _ => Err("expected a whole number of seconds, at least 1".to_owned()),
    }
}

/// Has this process end as soon as its parent does, as if asked to by SIGTERM.
fn follow(parent: i32) -> Result<(), Failure> {
    use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
    set_parent_process_death_signal(Some(Signal::TERM)).map_err(Failure::vmm)?;
    // It may have ended before it could be followed.
    if getppid().map(Pid::as_raw_pid) == Some(parent) {
        return Ok(());
    }
    let gone = anyhow::anyhow!(
        "--parent {parent} is not the parent of this process; hint: it has ended already, or is another one"
    );
    Err(Failure::new(ExitCode::BadConfig, gone))
}

/// The socket of the API, before anything is built: clients wait in its queue until there is a machine.
fn api_socket(plan: &MachinePlan) -> Result<Option<Socket>, Failure> {
    let path = plan.config.api_socket.as_deref();
    let socket = path.map(|path| Socket::listen("API", path)).transpose();
    socket.map_err(|e| Failure::new(ExitCode::BadConfig, e))
}

/// Runs the machine that was planned.
fn start(plan: &MachinePlan, options: &RunOptions) -> Result<ExitCode, Failure> {
    options.parent.map_or(Ok(()), follow)?;
    let socket = api_socket(plan)?;
    let mut machine = Machine::build(&plan.config, &plans(plan), None)?;
    let api = socket.map(|socket| Api::start(socket, machine.control()?));
    let api = api.transpose().map_err(Failure::vmm)?;
    let limits = RunLimits {
        limit: options.timeout,
        on_reset: options.on_reset,
    };
    let outcome = loop {
        let (outcome, kept) = machine.run(limits).map_err(Failure::vmm)?;
        let Some(kept) = kept else { break outcome };
        let plan = MachinePlan::prepare(kept.config.clone(), Purpose::Boot)?;
        machine = Machine::build(&plan.config, &plans(&plan), Some(kept))?;
    };
    drop(api);
    if outcome != Outcome::PowerOff {
        eprintln!("daxvisor: {outcome}");
    }
    Ok(ExitCode::from(&outcome))
}

fn plans(plan: &MachinePlan) -> Plans<'_> {
    Plans {
        topology: &plan.topology,
        layout: &plan.layout,
        phys_bits: plan.phys_bits,
        backings: &plan.backings,
        memory_devices: &plan.memory_devices,
    }
}

/// Runs the same command in the nested host; its exit code is ours.
fn start_nested(plan: &MachinePlan, file: Option<&Path>, log: Option<PathBuf>) -> Result<ExitCode, Failure> {
    let nested = |error: HostError| Failure::new(ExitCode::PassedOn(error.exit_code()), error);
    let socket = api_socket(plan)?;
    let shares = nested::shares_of(&plan.config, file).map_err(nested)?;
    let states = plan.config.nvdimm.iter().filter_map(|n| n.state.as_deref());
    let held_states: Result<Vec<_>, _> = states.map(state::hold).collect();
    let _held_states = held_states.map_err(|e| Failure::new(ExitCode::BadConfig, e))?;
    let records = plan.config.apei.records.as_deref().map(records::hold).transpose();
    let _held_records = records.map_err(|e| Failure::new(ExitCode::BadConfig, e))?;
    let held = hold_backings(plan)?;
    let mut host = HostOptions::default();
    // What the guest touches is the nested host's memory, beside what that needs itself.
    let encrypted = plan
        .config
        .nvdimm
        .iter()
        .zip(&plan.backings)
        .filter(|(nvdimm, _)| nvdimm.encrypt);
    let plaintext = encrypted.fold(0, |sum: u64, (_, facts)| sum.saturating_add(facts.size.0));
    let plugged = plan.config.virtio_mem.iter();
    let plugged = plugged.fold(0, |sum: u64, device| sum.saturating_add(device.size.0));
    let touched = plan
        .layout
        .ram_size()
        .0
        .saturating_add(plaintext)
        .saturating_add(plugged);
    host.memory = host.memory.max(ByteSize(touched.saturating_add(ByteSize::gib(2).0)));
    host.shares.extend(log);
    let request = Reexec {
        args: std::env::args().skip(1).collect(),
        shares,
        interactive: plan.config.is_interactive(),
        host,
    };
    let outcome = nested::reexec_in_host(&request, socket);
    let code = outcome
        .as_ref()
        .map_or_else(HostError::exit_code, nested::Outcome::code);
    let failed = [ExitCode::VmmError, ExitCode::BadConfig, ExitCode::HostFailure].map(ExitCode::code);
    if outcome.is_err() || failed.contains(&code) {
        held.into_iter().for_each(Held::discard_untouched);
    }
    outcome.map(|_| ExitCode::PassedOn(code)).map_err(nested)
}

/// Locks do not cross the boundary of the nested host: held here, they keep a second run out of the files. New files are
/// created here as well, and are gone again when one of them cannot be had.
fn hold_backings(plan: &MachinePlan) -> Result<Vec<Held>, Failure> {
    let mut held = Vec::new();
    let ranges = plan.config.memory_range.iter();
    let ranges: Vec<_> = ranges.filter_map(MemoryRangeConfig::backing).collect();
    let range_facts = ranges.iter().map(|range| BackingFacts {
        size: range.size.unwrap_or_default(),
        page: ByteSize::kib(4),
    });
    let devices = plan
        .config
        .memory_device
        .iter()
        .zip(plan.memory_devices.iter().copied());
    let devices: Vec<_> = devices
        .filter_map(|(device, facts)| Some((file_of(device)?, facts)))
        .collect();
    let devices = devices.iter().map(|(file, facts)| (file, *facts));
    let pmem: Vec<_> = plan.config.virtio_pmem.iter().map(VirtioPmemConfig::backing).collect();
    let backings = plan
        .config
        .nvdimm
        .iter()
        .chain(&pmem)
        .zip(plan.backings.iter().copied());
    let disks: Vec<_> = plan.config.disk.iter().map(DiskConfig::backing).collect();
    let disk_facts = disks.iter().map(|disk| BackingFacts {
        size: disk.size.unwrap_or_default(),
        page: ByteSize::kib(4),
    });
    let others = ranges.iter().zip(range_facts).chain(disks.iter().zip(disk_facts));
    for (backing, facts) in backings.chain(others).chain(devices) {
        match backing::hold(backing, facts) {
            Ok(one) => held.extend(one),
            Err(error) => {
                held.into_iter().for_each(Held::discard_untouched);
                return Err(Failure::new(ExitCode::BadConfig, error));
            }
        }
    }
    Ok(held)
}

/// Writes the ACPI tables of the machine that was planned.
fn dump(dir: &Path, plan: &MachinePlan) -> Result<ExitCode, Failure> {
    let tables = acpi::assemble(&acpi_input(&plan.config, &plan.topology, &plan.layout)).map_err(Failure::vmm)?;
    let bad = |what: &str, path: &Path, e| {
        Failure::new(
            ExitCode::BadConfig,
            anyhow::Error::new(e).context(format!("cannot {what} {}", path.display())),
        )
    };
    std::fs::create_dir_all(dir).map_err(|e| bad("make folder", dir, e))?;
    let mut listed = String::new();
    for table in &tables.tables {
        // As acpidump and iasl name them.
        let path = dir.join(format!("{}.dat", table.signature.to_lowercase()));
        std::fs::write(&path, &table.bytes).map_err(|e| bad("write", &path, e))?;
        listed += &format!(
            "{} at {}: {} bytes in {}\n",
            table.signature,
            table.gpa,
            table.bytes.len(),
            path.display()
        );
    }
    say(&listed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
