//! The log of the program's own doings, for people who look into it.

use super::{ExitCode, Failure};
use crate::config::VmConfig;
use anyhow::{Context, anyhow};
use clap::Args;
use std::{fs::OpenOptions, io::IsTerminal as _, path::PathBuf, sync::Mutex};
use tracing_subscriber::EnvFilter;

impl LogArgs {
    /// The folder of the log's file.
    pub(super) fn folder(&self) -> Option<PathBuf> {
        let parent = self.log_file.as_ref()?.parent()?;
        Some(if parent.as_os_str().is_empty() {
            ".".into()
        } else {
            parent.to_owned()
        })
    }
}

const QUIET: &str = "virtio_queue=off";

/// Where the log goes and what is in it.
#[derive(Debug, Clone, Args)]
pub(super) struct LogArgs {
    /// What is logged: error, warn, info, debug, trace, or a list such as `warn,vmm::machine=debug`
    #[arg(
        long,
        global = true,
        value_name = "LEVEL",
        default_value = "warn",
        help_heading = "Log"
    )]
    log: String,
    /// Append the log to this file instead of stderr
    #[arg(long, global = true, value_name = "FILE", help_heading = "Log")]
    log_file: Option<PathBuf>,
}

/// Starts logging; once, when the plan of the machine is complete.
pub(super) fn start(args: &LogArgs, config: &VmConfig) -> Result<(), Failure> {
    let bad = |error: anyhow::Error| Failure::new(ExitCode::BadConfig, error);
    let filter = EnvFilter::try_new(&args.log);
    let filter = filter.map_err(|e| bad(anyhow!(e).context(format!("--log '{}' is no log level", args.log))))?;
    // The guest can make virtio-queue complain as fast as it likes; our own devices say what matters, at a bounded rate.
    let filter = filter.add_directive(QUIET.parse().map_err(|e| bad(anyhow!("{QUIET}: {e}")))?);
    let log = tracing_subscriber::fmt().with_env_filter(filter);
    let Some(path) = &args.log_file else {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colours = std::io::stderr().is_terminal() && !plain;
        log.with_ansi(colours).with_writer(std::io::stderr).init();
        return Ok(());
    };
    if let Some(role) = config.role_of(path) {
        let path = path.display();
        return Err(bad(anyhow!(
            "--log-file {path} is also {role}; hint: give the log a file of its own"
        )));
    }
    let file = OpenOptions::new().create(true).append(true).open(path);
    let file = file
        .with_context(|| format!("cannot open the log file {}", path.display()))
        .map_err(bad)?;
    log.with_ansi(false).with_writer(Mutex::new(file)).init();
    Ok(())
}
