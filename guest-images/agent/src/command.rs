//! One command: its own process group, its pipes, and the thread that carries them.

use crate::{
    outbox::Sender,
    reaper::{Child, Reaper},
};
use agent_protocol::{CHUNK, Exec, FromAgent};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, Signal, kill_process_group},
};
use std::{
    io::{self, Read, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{ChildStderr, ChildStdin, ChildStdout, Command, Stdio},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

/// Environment under every command; `Exec::env` comes on top.
pub const BASE_ENV: &[(&str, &str)] = &[
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("HOME", "/root"),
    ("TERM", "linux"),
];
/// Frames of standard input that may wait for a slow command. Beyond that all requests of the host wait.
const STDIN_FRAMES: usize = 1024;
/// After the command ended, output is over when nothing came for this long: a daemon it left behind may hold its pipes open.
const SILENCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 250_000_000,
};

/// A running command as the server knows it.
#[derive(Debug)]
pub struct Running {
    group: Pid,
    /// Feeds standard input until dropped.
    pub stdin: Option<SyncSender<Vec<u8>>>,
}

impl Running {
    /// Signals the whole process group.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        let signal = Signal::from_named_raw(signal).ok_or(Errno::INVAL)?;
        Ok(kill_process_group(self.group, signal)?)
    }

    /// Kills the whole process group.
    pub fn kill(&self) {
        let _ = kill_process_group(self.group, Signal::KILL);
    }
}

fn prepare(exec: &Exec) -> Result<Command, String> {
    let (program, arguments) = exec.argv.split_first().ok_or("no program to run")?;
    let cwd = exec.cwd.as_deref().unwrap_or("/");
    if !Path::new(cwd).is_dir() {
        return Err(format!("the working directory {cwd} does not exist"));
    }
    let mut command = Command::new(program);
    command
        .args(arguments)
        .envs(BASE_ENV.iter().copied())
        .envs(exec.env.iter().map(|(k, v)| (k, v)));
    command
        .current_dir(cwd)
        .process_group(0)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.stdin(if exec.stdin { Stdio::piped() } else { Stdio::null() });
    Ok(command)
}

fn feed(mut stdin: ChildStdin, from: &Receiver<Vec<u8>>) {
    while let Ok(data) = from.recv() {
        if stdin.write_all(&data).is_err() {
            return;
        }
    }
}

/// The two output pipes and the child's end, pumped by one thread.
struct Pump<'a> {
    id: u32,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    out: &'a Sender,
}

/// Reads once; `None` at the end.
fn read_some(from: &mut impl Read) -> Option<Vec<u8>> {
    let mut data = vec![0; CHUNK];
    loop {
        match from.read(&mut data) {
            Ok(0) => return None,
            Ok(n) => {
                data.truncate(n);
                return Some(data);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

impl Pump<'_> {
    fn read_stdout(&mut self) {
        match self.stdout.as_mut().and_then(read_some) {
            Some(data) => self.out.output(FromAgent::Stdout { id: self.id, data }),
            None => self.stdout = None,
        }
    }

    fn read_stderr(&mut self) {
        match self.stderr.as_mut().and_then(read_some) {
            Some(data) => self.out.output(FromAgent::Stderr { id: self.id, data }),
            None => self.stderr = None,
        }
    }

    /// Carries output until the child ended and nothing more is to be expected.
    fn run(&mut self, child: &Child) {
        let mut ended = false;
        while !ended || self.stdout.is_some() || self.stderr.is_some() {
            let (mut ready_out, mut ready_err) = (false, false);
            {
                let mut fds = Vec::with_capacity(3);
                fds.extend(self.stdout.as_ref().map(|p| PollFd::new(p, PollFlags::IN)));
                fds.extend(self.stderr.as_ref().map(|p| PollFd::new(p, PollFlags::IN)));
                if !ended {
                    fds.push(PollFd::new(&child.ended, PollFlags::IN));
                }
                match poll(&mut fds, ended.then_some(&SILENCE)) {
                    Ok(0) => return,
                    Ok(_) => {}
                    Err(_) => continue,
                }
                let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
                if self.stdout.is_some() {
                    ready_out = ready.next().unwrap_or(false);
                }
                if self.stderr.is_some() {
                    ready_err = ready.next().unwrap_or(false);
                }
                ended |= ready.next().unwrap_or(false);
            }
            if ready_out {
                self.read_stdout();
            }
            if ready_err {
                self.read_stderr();
            }
        }
    }
}

/// Starts a command; `on_end` runs just before its exit status is queued.
pub fn start(
    exec: &Exec,
    reaper: &Reaper,
    out: Sender,
    on_end: impl FnOnce() + Send + 'static,
) -> Result<Running, String> {
    let mut command = prepare(exec)?;
    let program = exec.argv.first().map_or("", String::as_str);
    let mut child = reaper
        .spawn(&mut command)
        .map_err(|e| format!("cannot start '{program}': {e}"))?;
    let group = Pid::from_child(&child.process);
    let stdin = child.process.stdin.take().map(|pipe| {
        let (sender, receiver) = sync_channel(STDIN_FRAMES);
        thread::spawn(move || feed(pipe, &receiver));
        sender
    });
    let id = exec.id;
    thread::spawn(move || {
        let (stdout, stderr) = (child.process.stdout.take(), child.process.stderr.take());
        Pump {
            id,
            stdout,
            stderr,
            out: &out,
        }
        .run(&child);
        on_end();
        out.answer(FromAgent::Exited {
            id,
            status: child.status(),
        });
    });
    Ok(Running { group, stdin })
}
