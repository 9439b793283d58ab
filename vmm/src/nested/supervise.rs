//! The thread that owns QEMU: starts it, watches it, ends it.
//!
//! It is also the thread that must outlive QEMU, since the kernel kills QEMU when the thread that forked it ends.

use super::{
    HostError, HostOptions,
    host::{Fault, Shared, State},
    qemu::QemuPlan,
    serial::{SerialWatch, Trouble},
};
use crate::hv::spawn::die_with_parent;
use agent_protocol::{ToAgent, receive, send};
use std::{
    fs::File,
    io,
    net::Shutdown,
    os::unix::{
        net::{UnixListener, UnixStream},
        process::{CommandExt, ExitStatusExt},
    },
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, MutexGuard,
        mpsc::{Receiver, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

const TICK: Duration = Duration::from_millis(100);
/// While something is about to happen that only polling shows: QEMU's connection, QEMU's end.
const SHORT_TICK: Duration = Duration::from_millis(10);
const PING_EVERY: Duration = Duration::from_secs(3);
const LOOK_AT_LOG_EVERY: Duration = Duration::from_secs(1);
/// For the rest of an oops to come out of the serial port, so that the log that is kept has the trace.
const TRACE: Duration = Duration::from_millis(300);
/// When this thread itself slept so long (a stopped process), silence says nothing about the nested host.
const OWN_STALL: Duration = Duration::from_secs(5);
/// For the nested host to sync and turn itself off.
const CLOSE_LIMIT: Duration = Duration::from_secs(20);
/// Between the channel's end and QEMU's: beyond it, the channel is what failed.
const CHANNEL_GRACE: Duration = Duration::from_secs(3);

/// Starts QEMU and its supervisor; fails when QEMU cannot be executed.
pub(super) fn start(
    shared: Arc<Shared>,
    plan: QemuPlan,
    options: &HostOptions,
    listener: UnixListener,
    to_send: Receiver<ToAgent>,
    log: &File,
) -> Result<JoinHandle<()>, HostError> {
    let qemu = |source| HostError::Qemu {
        program: plan.program.clone(),
        source,
    };
    let (log_out, log_err) = (log.try_clone().map_err(qemu)?, log.try_clone().map_err(qemu)?);
    let mut command = Command::new(&plan.program);
    command.args(&plan.args).envs(plan.env.iter().cloned());
    // Its own process group: a Ctrl-C is for us, and the command gets it from us.
    command
        .stdin(Stdio::null())
        .stdout(log_out)
        .stderr(log_err)
        .process_group(0);
    die_with_parent(&mut command);
    listener
        .set_nonblocking(true)
        .map_err(HostError::io("cannot set up the agent's socket"))?;
    let mut watch = Watch {
        serial: SerialWatch::new(&shared.log),
        shared,
        start_timeout: options.start_timeout,
        silence: options.silence,
        ping_every: PING_EVERY.min(options.silence / 4),
        started: Instant::now(),
        last_tick: Instant::now(),
        last_ping: Instant::now(),
        last_look: Instant::now(),
        channel: Channel::Waiting(listener, to_send),
    };
    let (report, started) = channel();
    let thread = thread::Builder::new()
        .name("nested-host".into())
        .spawn(move || match command.spawn() {
            Err(e) => drop(report.send(Err(e))),
            Ok(mut child) => {
                drop(report.send(Ok(())));
                watch.run(&mut child);
            }
        });
    let thread = thread.map_err(HostError::io("cannot start a thread"))?;
    started
        .recv()
        .unwrap_or_else(|_| Err(io::Error::other("the supervisor ended")))
        .map_err(qemu)?;
    Ok(thread)
}

struct Watch {
    shared: Arc<Shared>,
    serial: SerialWatch,
    start_timeout: Duration,
    silence: Duration,
    ping_every: Duration,
    started: Instant,
    last_tick: Instant,
    last_ping: Instant,
    last_look: Instant,
    channel: Channel,
}

/// QEMU connects to us before it boots anything.
enum Channel {
    Waiting(UnixListener, Receiver<ToAgent>),
    Open(UnixStream, [JoinHandle<()>; 2]),
    Closed,
}

impl Watch {
    fn run(&mut self, child: &mut Child) {
        loop {
            if let Some(fault) = self.connect().err().map(|e| Fault::Channel(e.to_string())) {
                self.shared.fail(fault);
            }
            match child.try_wait() {
                Ok(None) => {}
                Ok(Some(status)) => {
                    // A panic resets the machine, which ends QEMU: the panic is the better news.
                    let fault = match self.serial.poll() {
                        Some(Trouble::Broken(report)) => Fault::Broken(report),
                        _ => Fault::Died(describe(status)),
                    };
                    self.shared.fail(fault);
                    break;
                }
                Err(e) => self.shared.fail(Fault::Died(e.to_string())),
            }
            let state = self.shared.lock();
            let closed_too_long = state.closing.is_some_and(|since| since.elapsed() > CLOSE_LIMIT);
            if state.stop || closed_too_long {
                break;
            }
            let tick = match self.channel {
                Channel::Open(..) if state.closing.is_none() => TICK,
                _ => SHORT_TICK,
            };
            drop(self.shared.pause(state, tick));
            if let Some(fault) = self.look() {
                self.shared.fail(fault);
            }
        }
        self.end(child);
    }

    /// Takes QEMU's connection when it is there.
    fn connect(&mut self) -> io::Result<()> {
        let Channel::Waiting(listener, _) = &self.channel else {
            return Ok(());
        };
        let stream = match listener.accept() {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            other => other?.0,
        };
        let (reading, writing) = (stream.try_clone()?, stream.try_clone()?);
        let Channel::Waiting(_, to_send) = std::mem::replace(&mut self.channel, Channel::Closed) else {
            return Ok(());
        };
        let shared = self.shared.clone();
        let reader = thread::Builder::new()
            .name("nested-read".into())
            .spawn(move || read(&shared, &reading))?;
        let writer = thread::Builder::new()
            .name("nested-write".into())
            .spawn(move || write(&to_send, &writing))?;
        self.channel = Channel::Open(stream, [reader, writer]);
        Ok(())
    }

    /// Looks for signs of life and of trouble.
    fn look(&mut self) -> Option<Fault> {
        let now = Instant::now();
        let stalled = now.duration_since(self.last_tick) > OWN_STALL;
        self.last_tick = now;
        let shared = self.shared.clone();
        let mut state = shared.lock();
        if stalled {
            state.last_heard = state.last_heard.map(|_| now);
        }
        if state.closing.is_some() {
            return None;
        }
        if let Some((why, _)) = state
            .channel_ended
            .as_ref()
            .filter(|(_, when)| when.elapsed() > CHANNEL_GRACE)
        {
            return Some(Fault::Channel(why.clone()));
        }
        if state.hello.is_none() {
            let late = now.duration_since(self.started) > self.start_timeout;
            return if late {
                Some(Fault::NotUp(self.start_timeout))
            } else {
                self.look_at_log(now, state)
            };
        }
        if now.duration_since(self.last_ping) >= self.ping_every {
            self.last_ping = now;
            self.shared.ping(&mut state);
        }
        if let Some(silent) = silence(&state, now).filter(|s| *s > self.silence) {
            return Some(Fault::Hung(silent));
        }
        self.look_at_log(now, state)
    }

    fn look_at_log(&mut self, now: Instant, mut state: MutexGuard<'_, State>) -> Option<Fault> {
        if now.duration_since(self.last_look) < LOOK_AT_LOG_EVERY {
            return None;
        }
        self.last_look = now;
        match self.serial.poll()? {
            Trouble::Broken(report) => {
                drop(state);
                thread::sleep(TRACE);
                Some(Fault::Broken(report))
            }
            Trouble::Stuck(report) => Some(Fault::LockedUp(report)),
            Trouble::Slow(report) => {
                state.slow.get_or_insert(report);
                None
            }
        }
    }

    fn end(&mut self, child: &mut Child) {
        // Either call fails only when QEMU is gone already.
        let _ = child.kill();
        let _ = child.wait();
        // From here on nobody gets anything; this also frees a reader that waits for a consumer.
        self.shared.finish();
        if let Channel::Open(stream, threads) = std::mem::replace(&mut self.channel, Channel::Closed) {
            let _ = stream.shutdown(Shutdown::Both);
            // The writer sleeps on its queue: any frame makes it notice.
            self.shared.send(ToAgent::Hello);
            let [reader, writer] = threads;
            // The reader may still wait for a slow consumer of the last output; it ends with that.
            drop(reader);
            let _ = writer.join();
        }
    }
}

/// How long the agent has been silent while it should have spoken.
fn silence(state: &State, now: Instant) -> Option<Duration> {
    let waits_for_others = state.delivering || state.stdin_ping > state.acknowledged;
    state
        .last_heard
        .filter(|_| !waits_for_others)
        .map(|heard| now.saturating_duration_since(heard))
}

fn describe(status: ExitStatus) -> String {
    match status.signal() {
        Some(signal) => format!("killed by signal {signal}"),
        None => format!("exit code {}", status.code().unwrap_or_default()),
    }
}

fn read(shared: &Shared, stream: &UnixStream) {
    let why = loop {
        match receive(stream) {
            Ok(Some(frame)) => shared.receive(frame),
            Ok(None) => break "the connection ended".to_owned(),
            Err(e) => {
                break format!(
                    "{e}: {}",
                    std::error::Error::source(&e)
                        .map(ToString::to_string)
                        .unwrap_or_default()
                );
            }
        }
    };
    shared.lock().channel_ended = Some((why, Instant::now()));
}

fn write(frames: &Receiver<ToAgent>, stream: &UnixStream) {
    while let Ok(frame) = frames.recv() {
        if send(stream, &frame).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_counts_only_while_nobody_else_is_waited_for() {
        let now = Instant::now();
        let mut state = State {
            last_heard: Some(now),
            ..Default::default()
        };
        let later = now + Duration::from_secs(90);
        assert_eq!(silence(&state, later), Some(Duration::from_secs(90)));
        state.delivering = true;
        assert_eq!(silence(&state, later), None);
        state.delivering = false;
        state.stdin_ping = 3;
        assert_eq!(silence(&state, later), None);
        state.acknowledged = 3;
        assert!(silence(&state, later).is_some());
        assert_eq!(silence(&State::default(), later), None);
    }
}
