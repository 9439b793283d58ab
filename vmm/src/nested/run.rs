//! One command from start to exit code: host, streams, signals, timeout.

use super::{
    Event, Host, HostError, HostOptions, INFRASTRUCTURE_FAILURE, NOT_STARTED, Running, TIMED_OUT,
    bridge::Bridge,
    host::{Control, Fault, default_image},
    signals::Watch,
    stdin::Feed,
    terminal::Raw,
};
use crate::{images::HostImage, machine::socket::Socket};
use agent_protocol::{Exec, ExitStatus};
use std::{
    env,
    io::{self, Write},
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread,
    time::Duration,
};

/// After SIGTERM and again after SIGKILL, for the command to be gone.
const GRACE: Duration = Duration::from_secs(5);
/// Set for commands in the nested host, so that they know where they are.
pub(super) const INSIDE: (&str, &str) = ("DAXVISOR_HOST", "nested");
/// Variables that name sockets, displays and folders which are not there in the nested host.
const NOT_PASSED: [&str; 9] = [
    "DBUS_SESSION_BUS_ADDRESS",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
    "XDG_RUNTIME_DIR",
    "SSH_AUTH_SOCK",
    "TMPDIR",
    "PWD",
    "OLDPWD",
];

/// How to run a command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// The machine.
    pub host: HostOptions,
    /// How long the command may run.
    pub timeout: Option<Duration>,
    /// Variables on top of ours.
    pub env: Vec<(String, String)>,
    /// What the command reads.
    pub stdin: StdinMode,
}

/// Where the command's standard input comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StdinMode {
    /// `/dev/null`.
    #[default]
    None,
    /// Ours, as it comes.
    Forward,
    /// Ours, with a terminal in raw mode: each key goes through, Ctrl-C too.
    Raw,
}

/// How the command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// By itself or by a signal.
    Exited(ExitStatus),
    /// By us, after the timeout.
    TimedOut,
    /// It never started; says why.
    NotStarted(String),
}

impl Outcome {
    /// The exit code that passes this on: the command's own, or the shell's convention.
    pub fn code(&self) -> u8 {
        match self {
            // exit(2) keeps the low 8 bits.
            Self::Exited(ExitStatus::Code(code)) => code.to_le_bytes()[0],
            Self::Exited(ExitStatus::Signal(signal)) => signal_code(*signal),
            Self::TimedOut => TIMED_OUT,
            Self::NotStarted(_) => NOT_STARTED,
        }
    }
}

/// 128 + n, as shells say it.
pub(super) fn signal_code(signal: i32) -> u8 {
    u8::try_from(128_i32.saturating_add(signal)).unwrap_or(INFRASTRUCTURE_FAILURE)
}

/// Runs `argv` in a new nested host, in the working directory, with our output streams, and passes signals on.
///
/// Installs handlers for SIGINT, SIGTERM, SIGHUP and SIGQUIT.
pub fn run_command(options: &RunOptions, argv: &[String]) -> Result<Outcome, HostError> {
    run_with(
        &default_image()?,
        options,
        argv,
        None,
        &mut io::stdout(),
        &mut io::stderr(),
    )
}

/// The same for a command that runs a machine, whose API socket is offered out here.
pub(super) fn run_machine(options: &RunOptions, argv: &[String], api: Option<Offer>) -> Result<Outcome, HostError> {
    run_with(
        &default_image()?,
        options,
        argv,
        api,
        &mut io::stdout(),
        &mut io::stderr(),
    )
}

/// A socket out here, and the command inside that serves one client of it.
pub(super) struct Offer {
    pub socket: Socket,
    pub argv: Vec<String>,
}

/// The same with everything named.
pub(super) fn run_with(
    image: &HostImage,
    options: &RunOptions,
    argv: &[String],
    offer: Option<Offer>,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> Result<Outcome, HostError> {
    let cwd = env::current_dir().map_err(HostError::io("cannot read the working directory"))?;
    let watch = Watch::new()?;
    let host = start(image, options, &watch, stderr)?;
    let exec = Exec {
        argv: argv.to_vec(),
        env: environment(env::vars_os(), &options.env),
        cwd: cwd.to_str().map(str::to_owned),
        stdin: options.stdin != StdinMode::None,
        ..Exec::default()
    };
    let running = host.exec(exec.clone())?;
    watch.aim(running.control());
    let client = |argv| Exec {
        argv,
        stdin: true,
        ..exec
    };
    let bridge = offer.map(|offer| Bridge::start(offer.socket, host.commands(), client(offer.argv)));
    let bridge = bridge.transpose()?;
    let timer = options
        .timeout
        .map(|t| Timer::start(t, running.control()))
        .transpose()?;
    let _raw = match options.stdin {
        StdinMode::Raw => Raw::enter().map_err(HostError::io("cannot set the terminal up"))?,
        _ => None,
    };
    let _feed = match options.stdin {
        StdinMode::None => None,
        _ => Some(Feed::start(io::stdin(), running.control()).map_err(HostError::io("cannot start a thread"))?),
    };
    let ended = carry(&running, stdout, stderr);
    let timed_out = timer.is_some_and(Timer::stop);
    let slow = running.control().slow();
    if let Some(bridge) = bridge {
        bridge.finish();
    }
    let outcome = match ended {
        // The last resort of a timeout is to end the host.
        Err(HostError::Interrupted(_)) if timed_out => return Ok(Outcome::TimedOut),
        other => other?,
    };
    host.shutdown();
    if let Some(report) = slow {
        tell(stderr, &format!("warning: the nested host was slow at times: {report}"));
    }
    Ok(if timed_out { Outcome::TimedOut } else { outcome })
}

/// A line of ours between the command's; a closed stderr is nobody's fault.
fn tell(stderr: &mut dyn Write, line: &str) {
    let _ = writeln!(stderr, "{line}");
}

/// Starts a host, a second time when the first one did not come up.
fn start(image: &HostImage, options: &RunOptions, watch: &Watch, stderr: &mut dyn Write) -> Result<Host, HostError> {
    let attempt = || {
        let host = Host::launch(image, &options.host)?;
        watch.aim(host.control());
        host.wait_up().map(|()| host)
    };
    let host = match attempt() {
        Err(e) if e.start_may_be_retried() => {
            tell(stderr, &format!("retry: {e}"));
            attempt()?
        }
        other => other?,
    };
    for problem in host.hello().into_iter().flat_map(|h| h.problems) {
        tell(stderr, &format!("warning: nested host: {problem}"));
    }
    Ok(host)
}

/// Copies output until the command is over.
fn carry(running: &Running, stdout: &mut dyn Write, stderr: &mut dyn Write) -> Result<Outcome, HostError> {
    loop {
        let written = match running.next(None)? {
            Some(Event::Stdout(data)) => stdout.write_all(&data).and_then(|()| stdout.flush()),
            Some(Event::Stderr(data)) => stderr.write_all(&data).and_then(|()| stderr.flush()),
            Some(Event::Exited(status)) => return Ok(Outcome::Exited(status)),
            Some(Event::NotStarted(why)) => return Ok(Outcome::NotStarted(why)),
            None => Ok(()),
        };
        if written.is_err() {
            // What a writer to a closed pipe gets.
            running.control().signal(libc::SIGPIPE);
        }
    }
}

/// Our environment without what makes no sense there, then `extra`.
fn environment(
    ours: impl Iterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
    extra: &[(String, String)],
) -> Vec<(String, String)> {
    let text = ours.filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
    let mut env: Vec<_> = text.filter(|(k, _)| !NOT_PASSED.contains(&k.as_str())).collect();
    env.push((INSIDE.0.into(), INSIDE.1.into()));
    env.extend(extra.iter().cloned());
    env
}

/// Ends a command that takes too long: SIGTERM, then SIGKILL, then the whole host.
#[derive(Debug)]
struct Timer {
    cancel: Sender<()>,
    thread: thread::JoinHandle<bool>,
}

impl Timer {
    fn start(after: Duration, command: Control) -> Result<Self, HostError> {
        let (cancel, cancelled) = channel::<()>();
        let expired = move |time| cancelled.recv_timeout(time) == Err(RecvTimeoutError::Timeout);
        let body = move || {
            if !expired(after) {
                return false;
            }
            // A stuck CPU is why it took so long, as far as anyone can tell.
            if let Some(report) = command.slow() {
                command.abort(Fault::LockedUp(report));
                return true;
            }
            command.signal(libc::SIGTERM);
            if expired(GRACE) {
                command.signal(libc::SIGKILL);
                if expired(GRACE) {
                    command.abort(Fault::Interrupted(libc::SIGKILL));
                }
            }
            true
        };
        let thread = thread::Builder::new().name("timeout".into()).spawn(body);
        Ok(Self {
            cancel,
            thread: thread.map_err(HostError::io("cannot start a thread"))?,
        })
    }

    /// Whether time ran out.
    fn stop(self) -> bool {
        drop(self.cancel);
        self.thread.join().unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_pass_through_exactly() {
        for code in [0, 1, 7, 125, 255] {
            assert_eq!(i32::from(Outcome::Exited(ExitStatus::Code(code)).code()), code);
        }
        assert_eq!(Outcome::Exited(ExitStatus::Signal(libc::SIGKILL)).code(), 137);
        assert_eq!(Outcome::Exited(ExitStatus::Signal(libc::SIGTERM)).code(), 143);
        assert_eq!(Outcome::TimedOut.code(), 124);
        assert_eq!(Outcome::NotStarted("no such file".into()).code(), 127);
        assert_eq!(HostError::Interrupted(libc::SIGINT).exit_code(), 130);
        assert_eq!(HostError::Channel("x".into()).exit_code(), 125);
    }

    #[test]
    fn environment_goes_along_but_for_what_is_not_there() {
        let ours = [
            ("PATH", "/bin"),
            ("DISPLAY", ":0"),
            ("TMPDIR", "/x"),
            ("DAXVISOR_HOST", "other"),
        ];
        let env = environment(
            ours.iter().map(|(k, v)| (k.into(), v.into())),
            &[("A".into(), "b".into())],
        );
        let env: Vec<_> = env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(
            env,
            [
                ("PATH", "/bin"),
                ("DAXVISOR_HOST", "other"),
                ("DAXVISOR_HOST", "nested"),
                ("A", "b")
            ]
        );
    }
}
