//! `daxvisor host run|check`.

use super::{
    HostOptions, Outcome, RunOptions, StdinMode, host::default_image, options::kernel_argument, reexec::hidden_folders,
    run_command,
};
use crate::hv::probe::{Probe, probe_and_remember};
use clap::{Args, Subcommand};
use devices::units::ByteSize;
use rustix::{stdio::stdin, termios::isatty};
use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

/// Arguments of `daxvisor host`.
#[derive(Debug, Args)]
pub struct HostArgs {
    #[command(subcommand)]
    command: HostCommand,
}

#[derive(Debug, Subcommand)]
enum HostCommand {
    /// Run a command in a machine whose KVM runs kernels (QEMU TCG with nested SVM)
    ///
    /// The command sees this machine's files, read-only but for the working directory and the shared folders; /tmp, /run,
    /// /var/tmp and /dev/shm are its own. Output and signals pass through, and so does the exit code; ours are 124 (timeout),
    /// 125 (the nested host failed, not the command), 127 (the command could not be started).
    Run(RunArgs),
    /// Say what /dev/kvm can do here, by running a tiny guest
    ///
    /// Exit code 0 when it runs kernels, else 1.
    Check(CheckArgs),
}

/// Arguments of `daxvisor host run`.
#[derive(Debug, Args)]
struct RunArgs {
    /// Folder that the command may write to (the working directory always is)
    #[arg(long, value_name = "DIR")]
    share: Vec<PathBuf>,
    /// vCPUs; more than one is no faster for a single guest, and less reliable
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    cpus: u8,
    /// RAM
    #[arg(long, value_name = "SIZE", default_value = "6G", value_parser = memory_size)]
    memory: ByteSize,
    /// End the command after this long: SIGTERM, then SIGKILL, exit code 124
    #[arg(long, value_name = "SECS", value_parser = seconds)]
    timeout: Option<Duration>,
    /// Give up (and try once more) when the nested host is not up after this long
    #[arg(long, value_name = "SECS", default_value = "90", value_parser = seconds)]
    start_timeout: Duration,
    /// Parameter for the nested host's kernel, such as memmap=512M!4G for an NVDIMM region of its own; repeatable
    #[arg(long = "kernel-arg", value_name = "ARG", value_parser = kernel_argument)]
    kernel_args: Vec<String>,
    /// Let time count instructions, on one CPU: figures repeat whatever else runs here
    #[arg(long)]
    icount: bool,
    /// Variable for the command
    #[arg(long, value_name = "K=V", value_parser = variable)]
    env: Vec<(String, String)>,
    /// Pass standard input on even when it is a terminal
    #[arg(long, conflicts_with = "no_stdin")]
    interactive: bool,
    /// Pass no standard input on
    #[arg(long)]
    no_stdin: bool,
    /// The command and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD"
    )]
    command: Vec<String>,
}

/// Arguments of `daxvisor host check`.
#[derive(Debug, Args)]
struct CheckArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn memory_size(text: &str) -> Result<ByteSize, String> {
    let size: ByteSize = text.parse().map_err(|e: devices::units::ByteSizeError| e.to_string())?;
    if size < ByteSize::mib(512) {
        Err(format!(
            "'{text}' is too little for the nested host: expected at least 512M"
        ))
    } else {
        Ok(size)
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let bad = || format!("'{text}' is not a time: expected seconds above 0, such as 90 or 0.5");
    let value = text.parse().ok().filter(|s| *s > 0.0).ok_or_else(bad)?;
    Duration::try_from_secs_f64(value).map_err(|_| bad())
}

fn variable(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
    let (name, value) = pair.ok_or_else(|| format!("'{text}' is not a variable: expected NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Runs the subcommand; the exit code is the process's.
pub fn run(args: HostArgs) -> ExitCode {
    match args.command {
        HostCommand::Run(args) => run_here(args),
        HostCommand::Check(args) => check(&args),
    }
}

fn run_here(args: RunArgs) -> ExitCode {
    let forward = args.interactive || !args.no_stdin && !isatty(stdin());
    let mut shares = args.share;
    if let (Ok(cwd), Some(program)) = (std::env::current_dir(), args.command.first()) {
        shares.extend(hidden_folders(&cwd, Path::new(program)));
    }
    let options = RunOptions {
        host: HostOptions {
            shares,
            cpus: args.cpus,
            memory: args.memory,
            kernel_args: args.kernel_args,
            icount: args.icount,
            start_timeout: args.start_timeout,
            ..HostOptions::default()
        },
        timeout: args.timeout,
        env: args.env,
        stdin: if forward { StdinMode::Forward } else { StdinMode::None },
    };
    match run_command(&options, &args.command) {
        Ok(outcome) => {
            match &outcome {
                Outcome::TimedOut => {
                    let limit = options.timeout.unwrap_or_default();
                    eprintln!("daxvisor: '{}' was ended after {limit:?}", args.command.join(" "));
                }
                Outcome::NotStarted(why) => eprintln!("daxvisor: {why}"),
                Outcome::Exited(_) => {}
            }
            outcome.code().into()
        }
        Err(error) => {
            report(&error);
            error.exit_code().into()
        }
    }
}

/// An error with its causes, once.
fn report(error: &dyn std::error::Error) {
    let mut text = format!("daxvisor: {error}");
    let mut cause = error.source();
    while let Some(inner) = cause {
        text += &format!(": {inner}");
        cause = inner.source();
    }
    eprintln!("{text}");
}

fn check(args: &CheckArgs) -> ExitCode {
    let probe = probe_and_remember();
    let nested = default_image().map(|image| image.release).map_err(|e| e.to_string());
    let text = if args.json {
        as_json(&probe, &nested)
    } else {
        as_text(&probe, &nested)
    };
    if let Err(e) = writeln!(io::stdout(), "{text}") {
        eprintln!("daxvisor: cannot write the result: {e}");
        return ExitCode::FAILURE;
    }
    if probe.kind.runs_kernels() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn as_json(probe: &Probe, nested: &Result<String, String>) -> String {
    serde_json::json!({
        "kind": probe.kind,
        "runs-kernels": probe.kind.runs_kernels(),
        "loop-rate": probe.rate,
        "detail": probe.detail,
        "nested-host": nested.as_ref().map_or_else(
            |e| serde_json::json!({ "ready": false, "error": e }),
            |release| serde_json::json!({ "ready": true, "kernel": release }),
        ),
    })
    .to_string()
}

fn as_text(probe: &Probe, nested: &Result<String, String>) -> String {
    let means = match probe.kind.runs_kernels() {
        true => "unmodified kernels run on it",
        false => "unmodified kernels do not run on it; `daxvisor run` uses the nested host",
    };
    let nested = match nested {
        Ok(release) => format!("ready (Linux {release} under QEMU TCG with SVM)"),
        Err(e) => format!("not ready: {e}"),
    };
    format!(
        "/dev/kvm: {}\n  {}\n  {means}\nnested host: {nested}",
        probe.kind, probe.detail
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hv::probe::KvmKind;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        host: HostArgs,
    }

    fn run_args(args: &[&str]) -> Result<RunArgs, String> {
        let all = ["host", "run"].iter().chain(args);
        match Cli::try_parse_from(all).map_err(|e| e.to_string())?.host.command {
            HostCommand::Run(run) => Ok(run),
            HostCommand::Check(_) => Err("check".into()),
        }
    }

    #[test]
    fn command_takes_everything_after_its_name() {
        let args = run_args(&[
            "--share",
            "/a",
            "--env",
            "A=b=c",
            "--timeout",
            "1.5",
            "--",
            "sh",
            "-c",
            "exit 7",
        ])
        .unwrap();
        assert_eq!(args.command, ["sh", "-c", "exit 7"]);
        assert_eq!(args.env, [("A".into(), "b=c".into())]);
        assert_eq!((args.cpus, args.memory), (1, ByteSize::gib(6)));
        assert_eq!(args.timeout, Some(Duration::from_millis(1500)));
        assert_eq!(run_args(&["ls", "--env"]).unwrap().command, ["ls", "--env"]);
    }

    #[test]
    fn bad_arguments_name_the_value_and_what_was_expected() {
        for (args, expected) in [
            (&["--memory", "1x", "ls"][..], "'1x' is not a size"),
            (&["--memory", "64M", "ls"], "at least 512M"),
            (&["--timeout", "-1", "ls"], "-1"),
            (&["--timeout", "0", "ls"], "'0' is not a time"),
            (&["--timeout", "1e300", "ls"], "'1e300' is not a time"),
            (&["--env", "=x", "ls"], "expected NAME=VALUE"),
            (&["--cpus", "0", "ls"], "1..=64"),
            (&["--kernel-arg", "a b", "ls"], "'a b' is not a kernel parameter"),
            (&[], "<CMD>"),
        ] {
            let error = run_args(args).unwrap_err();
            assert!(error.contains(expected), "{args:?}: {error}");
        }
    }

    #[test]
    fn check_says_the_same_in_text_and_json() {
        let probe = Probe {
            kind: KvmKind::Paravirtual,
            rate: Some(3.5e6),
            detail: "3.5 million loop iterations/s".into(),
        };
        let text = as_text(&probe, &Ok("6.12".into()));
        assert!(
            text.starts_with("/dev/kvm: paravirtual\n  3.5 million") && text.contains("uses the nested host"),
            "{text}"
        );
        let json: serde_json::Value = serde_json::from_str(&as_json(&probe, &Err("no images".into()))).unwrap();
        assert_eq!(json["kind"], "paravirtual");
        assert_eq!(json["runs-kernels"], false);
        assert_eq!(json["nested-host"]["error"], "no images");
    }
}
