//! The serial console: to a file, on a pseudo terminal, and on the user's own, which is always given back.

use anyhow::{Context, Result, ensure};
use guest_tests::{
    GuestBuilder, QUICK, Scratch, host,
    process::{Ended, Monitor, STDERR},
    terminal::{self, Terminal},
};
use rustix::process::Signal;
use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

const BOOT: Duration = Duration::from_secs(100);
const SOON: Duration = Duration::from_secs(30);

#[test]
fn file_has_the_kernels_log_and_the_agents_line() -> Result<()> {
    let ended = GuestBuilder::new(QUICK)
        .loud()
        .cmdline("daxvisor.test=42")
        .start()?
        .power_off()?;
    for words in [
        "Linux version 6.1.",
        "daxvisor.test=42",
        "daxvisor-agent: ready",
        "Power down",
    ] {
        ensure!(
            ended.console.contains(words),
            "no '{words}' in the console's {} bytes",
            ended.console.len()
        );
    }
    Ok(())
}

#[test]
fn pseudo_terminal_carries_a_shell() -> Result<()> {
    let mut guest = GuestBuilder::new(QUICK)
        .console("pty")
        .cmdline("daxvisor.shell")
        .start()?;
    let said = guest.monitor().folder().tail(STDERR, 5);
    let path = said.split_whitespace().find(|w| w.starts_with("/dev/pts/"));
    let path = PathBuf::from(path.with_context(|| format!("no terminal is named in: {said}"))?);
    let console = terminal::open_path(&path)?;
    terminal::type_in(&console, b"echo $((6*7))-seen\n")?;
    terminal::read_until(&console, "42-seen", SOON)?;
    guest.power_off()?;
    Ok(())
}

/// A monitor on a terminal of its own.
fn on_terminal(terminal: &Terminal) -> Result<Monitor> {
    host::require()?;
    let folder = Scratch::new("terminal")?;
    let guest = GuestBuilder::new(QUICK).console("stdio").without_agent();
    let mut command = guest.command(folder.path())?;
    command
        .stdin(terminal.stdio()?)
        .stdout(terminal.stdio()?)
        .stderr(terminal.stdio()?);
    Monitor::start(command, folder, true)
}

/// The shell of a guest without an agent channel, and Ctrl-A x out of it.
#[test]
fn ctrl_a_x_leaves_a_shell_and_gives_the_terminal_back() -> Result<()> {
    let terminal = Terminal::new()?;
    let before = terminal.modes()?;
    let mut monitor = on_terminal(&terminal)?;
    terminal::read_until(terminal.user(), "here is a shell", BOOT)?;
    terminal::type_in(terminal.user(), b"echo $((6*7))-seen\r")?;
    terminal::read_until(terminal.user(), "42-seen", SOON)?;
    ensure!(
        terminal.modes()? != before,
        "the terminal is not raw while the guest has it"
    );
    terminal::type_in(terminal.user(), b"\x01x")?;
    let ended = monitor.wait(SOON)?;
    ensure!(ended.code == 6, "exit code {}", ended.code);
    ensure!(terminal.modes()? == before, "the terminal is not what it was");
    Ok(())
}

/// Ends a monitor by a signal as soon as it has made the terminal raw.
fn after_signal(signal: Signal) -> Result<Ended> {
    let terminal = Terminal::new()?;
    let before = terminal.modes()?;
    let mut monitor = on_terminal(&terminal)?;
    let deadline = Instant::now() + SOON;
    while terminal.modes()? == before {
        ensure!(
            monitor.is_running() && Instant::now() < deadline,
            "the terminal never became raw"
        );
        thread::sleep(Duration::from_millis(5));
    }
    monitor.signal(signal)?;
    let ended = monitor.wait(SOON)?;
    ensure!(
        terminal.modes()? == before,
        "the terminal is not what it was after {signal:?}"
    );
    Ok(ended)
}

#[test]
fn terminal_is_given_back_after_a_signal_and_after_a_crash() -> Result<()> {
    for (signal, code) in [(Signal::TERM, 143), (Signal::HUP, 129), (Signal::INT, 130)] {
        let ended = after_signal(signal)?;
        ensure!(
            ended.code == code && ended.killed.is_none(),
            "{signal:?}: exit code {}",
            ended.code
        );
    }
    for crash in [Signal::SEGV, Signal::ABORT, Signal::BUS] {
        ensure!(after_signal(crash)?.code != 0, "{crash:?}");
    }
    Ok(())
}
