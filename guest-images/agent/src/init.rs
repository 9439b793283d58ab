//! The first process: from a bare kernel to a served command port. Nothing here may ever return or panic the kernel.

use crate::{
    button,
    cmdline::Options,
    hostroot, modules, mounts, port,
    reaper::Reaper,
    server::{self, Power},
    shell,
};
use rustix::{
    fs::sync,
    process::{Resource, Rlimit, setrlimit},
    system::{RebootCommand, reboot, sethostname},
};
use signal_hook::{
    consts::{SIGINT, SIGTERM, SIGUSR1, SIGUSR2},
    iterator::Signals,
};
use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

/// How long file systems may take to sync before the machine is turned off regardless.
const SYNC_DEADLINE: Duration = Duration::from_secs(10);

/// Writes a line to the console; there may be none, and then nobody misses it.
pub fn say(line: &str) {
    if let Ok(mut console) = OpenOptions::new().write(true).open("/dev/console") {
        let _ = console.write_all(format!("daxvisor-agent: {line}\r\n").as_bytes());
    }
}

/// Syncs and ends the machine.
pub fn end(power: Power) -> ! {
    let (done, wait) = mpsc::channel();
    thread::spawn(move || {
        sync();
        let _ = done.send(());
    });
    let _ = wait.recv_timeout(SYNC_DEADLINE);
    let command = match power {
        Power::Off => RebootCommand::PowerOff,
        Power::Reboot => RebootCommand::Restart,
    };
    loop {
        if let Err(e) = reboot(command) {
            say(&format!("cannot end the machine: {e}"));
        }
        thread::sleep(Duration::from_secs(1));
    }
}

/// How the machine is to end when the first process gets `signal`: what busybox's halt, poweroff and reboot send, and the
/// kernel for Ctrl-Alt-Del.
fn meaning(signal: i32) -> Option<Power> {
    match signal {
        SIGUSR1 | SIGUSR2 => Some(Power::Off),
        SIGTERM | SIGINT => Some(Power::Reboot),
        _ => None,
    }
}

/// Ends the machine when a signal says so. Without a handler the kernel keeps signals from the first process.
fn heed_signals() -> Option<String> {
    let signals = Signals::new([SIGUSR1, SIGUSR2, SIGTERM, SIGINT]);
    let mut signals = match signals {
        Ok(signals) => signals,
        Err(e) => return Some(format!("cannot wait for signals: {e}")),
    };
    thread::spawn(move || {
        if let Some(power) = signals.forever().find_map(meaning) {
            end(power);
        }
    });
    None
}

fn raise_limits() -> Vec<String> {
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    let files = Rlimit {
        current: Some(1 << 20),
        maximum: Some(1 << 20),
    };
    let limits = [
        (Resource::Memlock, unlimited, "locked memory"),
        (Resource::Nofile, files, "open files"),
    ];
    let failed = limits
        .into_iter()
        .filter_map(|(what, limit, name)| Some((name, setrlimit(what, limit).err()?)));
    failed
        .map(|(name, e)| format!("cannot raise the limit of {name}: {e}"))
        .collect()
}

/// Brings the loopback interface up; programs expect it, few guests need it.
fn loopback(reaper: &Reaper) {
    let mut command = Command::new("/bin/busybox");
    command
        .args(["ifconfig", "lo", "127.0.0.1", "up"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if let Ok(child) = reaper.spawn(&mut command) {
        child.wait();
    }
}

/// Makes the system usable; returns the options and all that went wrong.
fn set_up(reaper: &Reaper) -> (Options, Vec<String>) {
    let mut problems = mounts::mount_table(Path::new("/"));
    let mut options = Options::parse(&fs::read_to_string("/proc/cmdline").unwrap_or_default());
    problems.append(&mut options.problems);
    if options.host {
        // Nested KVM talks about every register it does not know; the console is for the user.
        let _ = fs::write("/proc/sys/kernel/printk", "1 4 1 7");
    }
    match fs::read_to_string(modules::LIST) {
        Ok(list) => problems.extend(modules::load_all(&list, &options)),
        Err(e) => problems.push(format!("cannot read {}: {e}", modules::LIST)),
    }
    problems.extend(raise_limits());
    let name: &[u8] = if options.host { b"daxvisor-host" } else { b"daxvisor" };
    let _ = sethostname(name);
    loopback(reaper);
    if options.host {
        match hostroot::enter(&options) {
            Ok(more) => problems.extend(more),
            Err(e) => problems.push(format!("{e:#}")),
        }
    }
    (options, problems)
}

/// Never returns: the kernel panics when its first process ends.
pub fn run() -> ! {
    let reaper = Reaper::start();
    let (options, mut problems) = set_up(&reaper);
    problems.extend(heed_signals());
    button::heed(|| end(Power::Off));
    for problem in &problems {
        say(problem);
    }
    say("ready");
    if options.shell {
        let reaper = Arc::clone(&reaper);
        thread::spawn(move || shell::for_ever(&reaper));
    }
    let Some(path) = port::find() else {
        if options.shell {
            loop {
                thread::park();
            }
        }
        say("no command port; here is a shell, `poweroff` or its end turns the machine off");
        shell::once(&reaper);
        end(Power::Off)
    };
    let service = server::Service {
        reaper,
        problems,
        power: end,
    };
    port::serve_for_ever(&path, service)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_mean_what_busybox_means_by_them() {
        assert_eq!(meaning(SIGUSR2), Some(Power::Off));
        assert_eq!(meaning(SIGTERM), Some(Power::Reboot));
        assert_eq!(meaning(1), None);
    }
}
