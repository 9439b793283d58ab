//! The command server over any byte stream, one call per connection.
//!
//! ```text
//! serve: reader (this thread): requests -> commands / files -> outbox -> writer thread
//!        ends at end of stream, a broken frame or a failed channel; the connection's commands are killed then
//! ```

use crate::{
    command::{self, Running},
    files,
    outbox::{Outbox, Sender},
    reaper::Reaper,
};
use agent_protocol::{Exec, FrameError, FromAgent, Hello, ToAgent, VERSION, receive};
use rustix::{
    system::uname,
    time::{ClockId, clock_gettime},
};
use std::{
    collections::HashMap,
    io::{self, Read, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

/// How the machine is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// Turn off.
    Off,
    /// Reset.
    Reboot,
}

/// What a server needs besides its stream.
#[derive(Debug, Clone)]
pub struct Service {
    /// Who waits for processes.
    pub reaper: Arc<Reaper>,
    /// What [`Hello`] confesses.
    pub problems: Vec<String>,
    /// Ends the machine.
    pub power: fn(Power) -> !,
}

impl Service {
    /// Who we are, now.
    pub fn hello(&self) -> FromAgent {
        let up = clock_gettime(ClockId::Boottime);
        let micros = u64::try_from(up.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(up.tv_nsec).unwrap_or(0) / 1000;
        let kernel = uname().release().to_string_lossy().into_owned();
        FromAgent::Hello(Hello {
            version: VERSION,
            kernel,
            uptime_us: micros,
            problems: self.problems.clone(),
        })
    }
}

type Commands = Arc<Mutex<HashMap<u32, Running>>>;

fn lock(commands: &Commands) -> MutexGuard<'_, HashMap<u32, Running>> {
    commands.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Session<'a> {
    service: &'a Service,
    outbox: Arc<Outbox>,
    out: Sender,
    commands: Commands,
}

impl<'a> Session<'a> {
    fn new(service: &'a Service, outbox: Arc<Outbox>) -> Self {
        Self {
            service,
            out: outbox.sender(),
            outbox,
            commands: Commands::default(),
        }
    }

    fn kill_commands(&self) {
        lock(&self.commands).values().for_each(Running::kill);
    }

    /// A host introduces itself: a port does not tell when one host left and another came at once, so commands that still
    /// run are a former host's, and neither they nor their words concern this one.
    fn greet(&mut self) {
        self.kill_commands();
        self.outbox.renew();
        *self = Self::new(self.service, Arc::clone(&self.outbox));
        self.out.answer(self.service.hello());
    }

    fn exec(&self, exec: &Exec) {
        let id = exec.id;
        let ours = Arc::clone(&self.commands);
        // Held until the command is in the table: its end must find it there.
        let mut commands = lock(&self.commands);
        if commands.contains_key(&id) {
            let error = format!("command {id} is still running");
            return self.out.answer(FromAgent::Failed { id, error });
        }
        let on_end = move || drop(lock(&ours).remove(&id));
        match command::start(exec, &self.service.reaper, self.out.clone(), on_end) {
            Ok(running) => drop(commands.insert(id, running)),
            Err(error) => self.out.answer(FromAgent::Failed { id, error }),
        }
    }

    fn stdin(&self, id: u32, data: Vec<u8>) {
        // Cloned so that a full pipe does not hold the table.
        let stdin = lock(&self.commands).get(&id).and_then(|c| c.stdin.clone());
        if let Some(stdin) = stdin {
            let _ = stdin.send(data);
        }
    }

    fn signal(&self, id: u32, signal: i32) {
        // A command that is gone needs no signal: its `Exited` is under way.
        let sent = lock(&self.commands).get(&id).map_or(Ok(()), |c| c.signal(signal));
        if let Err(e) = sent
            && e.kind() == io::ErrorKind::InvalidInput
        {
            self.out.answer(FromAgent::Failed {
                id,
                error: format!("there is no signal {signal}"),
            });
        }
    }

    fn file(&self, id: u32, path: &str, done: io::Result<FromAgent>) {
        self.out.answer(done.unwrap_or_else(|e| FromAgent::Failed {
            id,
            error: format!("{path}: {e}"),
        }));
    }

    fn handle(&mut self, request: ToAgent) {
        match request {
            ToAgent::Hello => self.greet(),
            ToAgent::Ping(number) => self.out.answer(FromAgent::Pong(number)),
            ToAgent::Exec(exec) => self.exec(&exec),
            ToAgent::Stdin { id, data } => self.stdin(id, data),
            ToAgent::StdinEof { id } => {
                if let Some(command) = lock(&self.commands).get_mut(&id) {
                    command.stdin = None;
                }
            }
            ToAgent::Signal { id, signal } => self.signal(id, signal),
            ToAgent::PutFile {
                id,
                path,
                mode,
                offset,
                data,
            } => {
                self.file(
                    id,
                    &path,
                    files::put(&path, mode, offset, &data).map(|()| FromAgent::FileDone { id }),
                );
            }
            ToAgent::GetFile { id, path, offset } => {
                self.file(
                    id,
                    &path,
                    files::get(&path, offset).map(|data| FromAgent::FileData { id, data }),
                );
            }
            ToAgent::PowerOff => (self.service.power)(Power::Off),
            ToAgent::Reboot => (self.service.power)(Power::Reboot),
        }
    }
}

/// Serves one connection until it ends; the caller has said `Hello`. `stop` must make a blocked write on `to` fail.
pub fn serve(
    service: &Service,
    mut from: impl Read,
    to: impl Write + Send + 'static,
    stop: impl FnOnce(),
) -> Result<(), FrameError> {
    let out = Arc::new(Outbox::default());
    let writing = Arc::clone(&out);
    let writer = thread::spawn(move || writing.write_all(to));
    let mut session = Session::new(service, Arc::clone(&out));
    let ended = loop {
        match receive(&mut from) {
            Ok(Some(request)) => session.handle(request),
            Ok(None) => break Ok(()),
            Err(e) => break Err(e),
        }
    };
    session.kill_commands();
    out.close();
    stop();
    let _ = writer.join();
    ended
}
