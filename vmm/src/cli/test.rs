//! `daxvisor test`: suites on kernels.
//!
//! ```text
//! suites, kernels --> cases --here--> schedule --> journal --> reports, exit code
//!                       |                             ^
//!                       +--nested host: this command again, with --host kvm and --resume
//! ```
//! Exit codes are its own ([`EXIT_CODES`]).

mod merge;
mod output;

use super::{ExitCode, Failure, MachinePlan};
use crate::{
    acpi,
    boottest::{
        case::{Case, Context, Prepared, Results},
        expand::{self, Ready},
        filter::{Filter, Shard, Subject},
        kernel::{self, Kernel, KernelArg},
        schedule::{self, Options},
        schema,
        verdict::{CaseResult, Verdict, exit_code},
    },
    config::{VmConfig, probe::Purpose},
    hv::signal,
    layout::map,
    machine::acpi_input,
    nested::{self, HostChoice, HostError, HostOptions, Place, Reexec},
};
use clap::{Args, Subcommand};
use devices::units::ByteSize;
use output::{Progress, Reports};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// What `test` exits with.
const EXIT_CODES: &str = "Exit codes:
  0   every case passed, was skipped for its reason, or failed as expected
  1   a case failed, crashed, timed out, or passed only on a retry
  2   bad command line or suite
  3   something could not be tested: host, kernel file, disk; or nothing was (125 with --bisect)
  130 interrupted; go on with --resume";

/// Of the memory that the host has to give, what guests may take together.
const MEMORY_SHARE: u64 = 80;

#[derive(Args)]
#[command(after_help = EXIT_CODES, subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
pub(super) struct TestArgs {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Suite files, or folders of them
    #[arg(value_name = "SUITE", required = true)]
    suites: Vec<PathBuf>,
    /// Kernel to test, repeatable: PATH or @NAME, with :LABEL for reports, and behind HYPERVISOR,dom0= as its first domain
    #[arg(long = "kernel", value_name = "KERNEL[:LABEL]")]
    kernels: Vec<KernelArg>,
    /// Initial RAM file system with the guest agent, for kernels given by path [default: that of a guest image]
    #[arg(long, value_name = "PATH|@NAME")]
    initrd: Option<PathBuf>,
    /// System.map of the kernel with this label, to name bare addresses in traces
    #[arg(long, value_name = "LABEL=FILE", value_parser = pair)]
    system_map: Vec<(String, PathBuf)>,
    /// Only cases that this holds for, such as `suite=kmem and not kernel=*6.1*`; a bare word is looked for in names
    #[arg(long, value_name = "EXPR")]
    filter: Option<Filter>,
    /// Only the i-th of n parts of the cases
    #[arg(long, value_name = "I/N")]
    shard: Option<Shard>,
    /// Run every case this often
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    repeat: u32,
    /// Try a case that did not pass again, up to this often; one that passes then is flaky, which is no pass
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=10))]
    retry: u32,
    /// Begin no case after one that did not pass
    #[arg(long)]
    fail_fast: bool,
    /// A requirement that is not met is an error instead of a reason to skip
    #[arg(long)]
    no_skip: bool,
    /// Most guests at once [default: as many as the host has processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    jobs: Option<u32>,
    /// List the cases and exit
    #[arg(long)]
    list: bool,
    /// Check the suites and exit
    #[arg(long, conflicts_with = "list")]
    check: bool,
    /// Folder of results and of every case's files
    #[arg(long, value_name = "DIR", default_value = "daxvisor-test")]
    out: PathBuf,
    /// Keep the results that the folder has, run what is missing and what ended in an error
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    reports: Reports,
    /// End with 125 instead of 3, for `git bisect run`
    #[arg(long)]
    bisect: bool,
    /// Which KVM runs the guests
    #[arg(long, value_enum, default_value_t)]
    host: HostChoice,
}

#[derive(Subcommand)]
enum Verb {
    /// Put the results of several folders, such as shards, into one report
    Merge(merge::MergeArgs),
    /// Print the JSON Schema of suite files
    Schema,
}

fn pair(text: &str) -> Result<(String, PathBuf), String> {
    let pair = text
        .split_once('=')
        .filter(|(label, file)| !label.is_empty() && !file.is_empty());
    let (label, file) = pair.ok_or_else(|| format!("'{text}' is no map: expected LABEL=FILE"))?;
    Ok((label.to_owned(), file.into()))
}

/// Runs the verb.
pub(super) fn run(args: &TestArgs) -> Result<ExitCode, Failure> {
    match &args.verb {
        Some(Verb::Merge(args)) => return merge::run(args),
        Some(Verb::Schema) => {
            let text = serde_json::to_string_pretty(&schema::suite()).map_err(Failure::vmm)?;
            return super::say(&(text + "\n"));
        }
        None => {}
    }
    let ready = suites(args)?;
    if args.check {
        eprintln!("{} scenarios in every shape are fine", ready.len());
        return Ok(ExitCode::PassedOn(0));
    }
    let mut cases = cases(args, ready)?;
    let plan = Results::new(cases.iter().map(Case::blank).collect());
    if let Some(shard) = args.shard {
        let mut place = 0..;
        cases.retain(|_| place.next().is_some_and(|p| shard.has(p)));
    }
    if args.list {
        return super::say(&cases.iter().map(|c| c.id() + "\n").collect::<String>());
    }
    fs::create_dir_all(&args.out)
        .map_err(|e| infrastructure(args, &format!("cannot make folder {}: {e}", args.out.display())))?;
    let plan = serde_json::to_vec(&plan).map_err(Failure::vmm)?;
    output::write(&args.out.join(schedule::PLAN), &plan).map_err(|why| infrastructure(args, &why))?;
    match nested::choose(args.host) {
        Place::Here => run_here(args, cases),
        Place::Nested(announcement) => {
            if let Some(line) = announcement {
                eprintln!("{line}");
            }
            run_nested(args, &cases)
        }
    }
}

fn usage(problem: String) -> Failure {
    Failure::new(ExitCode::BadConfig, anyhow::anyhow!(problem))
}

fn infrastructure(args: &TestArgs, problem: &str) -> Failure {
    Failure::new(
        ExitCode::PassedOn(if args.bisect { 125 } else { 3 }),
        anyhow::anyhow!("{problem}"),
    )
}

fn suites(args: &TestArgs) -> Result<Vec<Ready>, Failure> {
    let loaded = expand::load(&args.suites).map_err(|e| Failure::new(ExitCode::BadConfig, e))?;
    let mut ready = Vec::new();
    let mut failure: Option<Failure> = None;
    for one in &loaded {
        match expand::expand(one) {
            Ok(mut found) => ready.append(&mut found),
            Err(errors) => {
                for error in errors {
                    let next = Failure::new(ExitCode::BadConfig, error);
                    failure = Some(match failure {
                        Some(first) => first.and(next),
                        None => next,
                    });
                }
            }
        }
    }
    failure.map_or(Ok(ready), Err)
}

/// Scenarios times kernels times repetitions, less what is filtered out.
fn cases(args: &TestArgs, ready: Vec<Ready>) -> Result<Vec<Case>, Failure> {
    let kernels = kernels(args)?;
    let mut cases = Vec::new();
    for ready in ready.into_iter().map(Arc::new) {
        for kernel in &kernels {
            for time in 1..=args.repeat {
                let time = if args.repeat == 1 { 0 } else { time };
                cases.push(Case {
                    ready: Arc::clone(&ready),
                    kernel: Arc::clone(kernel),
                    time,
                });
            }
        }
    }
    if let Some(filter) = &args.filter {
        cases.retain(|case| {
            filter.matches(&Subject {
                name: &case.id(),
                suite: &case.ready.suite,
                scenario: &case.ready.scenario,
                kernel: &case.kernel.label,
                tags: &case.ready.tags,
            })
        });
    }
    if cases.is_empty() {
        return Err(usage(
            "no case is left to run; hint: --list without --filter shows them all".to_owned(),
        ));
    }
    Ok(cases)
}

fn kernels(args: &TestArgs) -> Result<Vec<Arc<Kernel>>, Failure> {
    if args.kernels.is_empty() {
        return Err(usage(
            "there is no kernel to test; hint: --kernel PATH or --kernel @NAME, see `cargo xtask images --list`"
                .to_owned(),
        ));
    }
    let maps: BTreeMap<_, _> = args.system_map.iter().cloned().collect();
    let mut kernels: Vec<Arc<Kernel>> = Vec::new();
    for arg in &args.kernels {
        if kernels.iter().any(|k| k.label == arg.label) {
            return Err(usage(format!(
                "two kernels are called '{}'; hint: give them labels, --kernel PATH:LABEL",
                arg.label
            )));
        }
        let map = maps.get(&arg.label).map(PathBuf::as_path);
        kernels.push(Arc::new(kernel::look(arg, args.initrd.as_deref(), map)));
    }
    if let Some(label) = maps.keys().find(|label| kernels.iter().all(|k| k.label != **label)) {
        return Err(usage(format!("--system-map {label}: no kernel has that label")));
    }
    Ok(kernels)
}

/// Plans a machine for its artifacts.
fn prepare(config: VmConfig) -> Result<Prepared, String> {
    let plan = MachinePlan::prepare(config, Purpose::Plan).map_err(|failure| failure.sentence())?;
    let report = map::Report::new(&plan.config, &plan.topology, &plan.layout, plan.phys_bits);
    let tables = acpi::assemble(&acpi_input(&plan.config, &plan.topology, &plan.layout)).map_err(|e| e.to_string())?;
    let tables = tables
        .tables
        .into_iter()
        .map(|t| (t.signature.to_owned(), t.bytes))
        .collect();
    Ok(Prepared { report, tables })
}

/// Sets `stop` as soon as a signal asks this process to end.
fn watch_signals(stop: &'static AtomicBool) -> io::Result<()> {
    const LOOK: Duration = Duration::from_millis(50);
    let asked = signal::termination()?;
    let body = move || {
        while asked.read().is_err() {
            thread::sleep(LOOK);
        }
        stop.store(true, Ordering::SeqCst);
        eprintln!("daxvisor: stopping; go on with --resume");
    };
    thread::Builder::new().name("signals".into()).spawn(body).map(drop)
}

fn run_here(args: &TestArgs, cases: Vec<Case>) -> Result<ExitCode, Failure> {
    static STOP: AtomicBool = AtomicBool::new(false);
    watch_signals(&STOP).map_err(Failure::vmm)?;
    let out = args
        .out
        .canonicalize()
        .map_err(|e| infrastructure(args, &format!("cannot use folder {}: {e}", args.out.display())))?;
    let order: Vec<_> = cases.iter().map(Case::id).collect();
    let kept = kept(args, &out, &order)?;
    let todo: Vec<_> = cases
        .into_iter()
        .filter(|c| kept.iter().all(|r| r.id != c.id()))
        .collect();
    let context = Context {
        program: std::env::current_exe().map_err(Failure::vmm)?,
        out: out.clone(),
        prepare: &prepare,
        stop: &STOP,
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let options = Options {
        jobs: args.jobs.map_or(cores, |j| usize::try_from(j).unwrap_or(cores)),
        cores: u64::try_from(cores).unwrap_or(1).max(args.jobs.unwrap_or(0).into()),
        memory: available_memory() / 100 * MEMORY_SHARE,
        retry: args.retry,
        fail_fast: args.fail_fast,
        no_skip: args.no_skip,
    };
    let progress = Progress::new(order.len(), kept.len());
    let ran = schedule::run(todo, &context, &options, &progress)
        .map_err(|e| infrastructure(args, &format!("cannot write results into {}: {e}", out.display())))?;
    progress.finish();
    let mut results = kept;
    results.extend(ran.results);
    results.sort_by_key(|r| order.iter().position(|id| *id == r.id));
    let code = exit_code(&results, args.bisect);
    let unwritten = args
        .reports
        .write(&results, &out, &BTreeMap::new())
        .err()
        .or(ran.unwritten);
    if let Some(why) = unwritten {
        return Err(infrastructure(args, &why));
    }
    let interrupted = ran.left > 0 && STOP.load(Ordering::SeqCst);
    Ok(ExitCode::PassedOn(if interrupted { 130 } else { code }))
}

/// Results of a run before that are still good. Without --resume they are forgotten.
fn kept(args: &TestArgs, out: &Path, order: &[String]) -> Result<Vec<CaseResult>, Failure> {
    let bad = |e: io::Error| infrastructure(args, &format!("cannot use the results in {}: {e}", out.display()));
    if !args.resume {
        return match fs::remove_file(out.join(schedule::JOURNAL)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(bad(e)),
            _ => Ok(vec![]),
        };
    }
    let mut results = match schedule::journal(out) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => vec![],
        other => other.map_err(bad)?,
    };
    let again = |verdict| verdict == Verdict::Error || (args.no_skip && verdict == Verdict::Skip);
    results.retain(|r| !again(r.verdict) && order.contains(&r.id));
    Ok(results)
}

/// What the host has to give, in bytes.
fn available_memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(2 << 20).saturating_mul(1024)
}

/// Runs the same command in the nested host. When that fails, which says nothing of the kernels, once more from where it was.
fn run_nested(args: &TestArgs, cases: &[Case]) -> Result<ExitCode, Failure> {
    let failed = |e: HostError| infrastructure(args, &e.to_string());
    let largest = cases.iter().map(|c| c.weight().1).max().unwrap_or(0);
    let mut host = HostOptions::default();
    let guests = u64::from(args.jobs.unwrap_or(2)).min(8);
    host.memory = ByteSize(largest.saturating_mul(guests).saturating_add(ByteSize::gib(2).0)).max(ByteSize::gib(4));
    let mut folders = vec![args.out.clone()];
    folders.extend(args.reports.folders());
    let files = cases
        .iter()
        .flat_map(|c| [Some(&c.kernel.kernel), c.kernel.initrd.as_ref()])
        .flatten();
    let pushed = args
        .suites
        .iter()
        .chain(files)
        .chain(args.system_map.iter().map(|(_, f)| f));
    folders.extend(nested::folders_of_hidden(pushed).map_err(failed)?);
    for case in cases {
        folders.extend(nested::hidden_shares(&case.ready.machine).map_err(failed)?);
    }
    let cwd = std::env::current_dir().map_err(Failure::vmm)?;
    let shares = nested::plan_shares(&cwd, &folders).map_err(failed)?;
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    for attempt in 1.. {
        let request = Reexec {
            args: arguments.clone(),
            shares: shares.clone(),
            interactive: false,
            host: host.clone(),
        };
        match nested::reexec_in_host(&request, None) {
            Ok(outcome) => return Ok(ExitCode::PassedOn(outcome.code())),
            Err(e @ HostError::Interrupted(_)) => return Err(Failure::new(ExitCode::PassedOn(130), e)),
            Err(e) if attempt == 2 => return Err(failed(e)),
            Err(e) => {
                eprintln!(
                    "RETRY: the nested host failed, which says nothing of the kernels; going on with what is left: {e}"
                );
                if !args.resume && attempt == 1 {
                    arguments.push("--resume".to_owned());
                }
            }
        }
    }
    Ok(ExitCode::PassedOn(0))
}
