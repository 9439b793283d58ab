//! The virtio console port that carries the channel: finding it, and serving it through every disconnect.
//!
//! A port has one opener at a time, reads as ended while the host is away, and makes a *blocking* write wait until the host
//! is there: that is how a connection is awaited without polling. Everything else is done non-blocking, because a blocking
//! write spins inside the kernel until the host took the bytes.

use crate::{
    init::say,
    server::{Service, serve},
};
use agent_protocol::{FrameError, PORT_NAME, send};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// How long a console device may take to announce its ports (emulated machines are slow).
const DEADLINE: Duration = Duration::from_secs(30);
/// How often a blocked write looks whether the connection was given up.
const LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};
/// virtio device type of a console (virtio 1.2, 5.3.1).
const VIRTIO_CONSOLE: &str = "0x0003";

fn entries(folder: &str) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path())
}

fn reads(path: &Path, what: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.trim() == what)
}

/// The device file of our port. Waits for it as long as there is a console that may still announce it.
pub fn find() -> Option<PathBuf> {
    let start = Instant::now();
    let console = entries("/sys/bus/virtio/devices").any(|d| reads(&d.join("device"), VIRTIO_CONSOLE));
    while console && start.elapsed() < DEADLINE {
        let mut ports = entries("/sys/class/virtio-ports");
        if let Some(port) = ports.find(|p| reads(&p.join("name"), PORT_NAME)) {
            return Some(Path::new("/dev").join(port.file_name()?));
        }
        thread::sleep(Duration::from_millis(5));
    }
    None
}

/// One end of the port, non-blocking below and blocking above, until the host leaves or the connection is given up.
struct Stream {
    file: Arc<File>,
    given_up: Arc<AtomicBool>,
}

impl Stream {
    /// Waits until `what` is possible; an error when the host has left.
    fn wait(&self, what: PollFlags) -> io::Result<()> {
        loop {
            if self.given_up.load(Ordering::Relaxed) {
                return Err(ErrorKind::ConnectionAborted.into());
            }
            let mut fds = [PollFd::new(&*self.file, what)];
            let limit = (what == PollFlags::OUT).then_some(&LOOK);
            match poll(&mut fds, limit) {
                Ok(0) | Err(rustix::io::Errno::INTR) => continue,
                Ok(_) => {}
                Err(e) => return Err(e.into()),
            }
            let found = fds[0].revents();
            if found.intersects(what) {
                return Ok(());
            }
            // The host is gone (or the device is); what it sent before was readable first.
            return Err(ErrorKind::ConnectionReset.into());
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match (&*self.file).read(buffer) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.wait(PollFlags::IN)?,
                other => return other,
            }
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            // Asked first: without a host the driver would take the bytes and lose them.
            self.wait(PollFlags::OUT)?;
            match (&*self.file).write(bytes) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                other => return other,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn set_blocking(file: &File, blocking: bool) -> io::Result<()> {
    let mut flags = fcntl_getfl(file)?;
    flags.set(OFlags::NONBLOCK, !blocking);
    Ok(fcntl_setfl(file, flags)?)
}

/// Serves one connection from the host's arrival to its leaving.
fn serve_once(path: &Path, service: &Service) -> Result<(), FrameError> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    // Returns as soon as the host is there.
    send(&file, &service.hello())?;
    set_blocking(&file, false)?;
    let (file, given_up) = (Arc::new(file), Arc::new(AtomicBool::new(false)));
    let stream = || Stream {
        file: Arc::clone(&file),
        given_up: Arc::clone(&given_up),
    };
    serve(service, stream(), stream(), || given_up.store(true, Ordering::Relaxed))
}

/// Serves connection after connection.
pub fn serve_for_ever(path: &Path, mut service: Service) -> ! {
    loop {
        match serve_once(path, &service) {
            // Closing the port discards what is left of a broken stream, so the next one starts clean.
            Err(e @ (FrameError::TooLarge(_) | FrameError::Decode(_))) => {
                let problem = format!("the last connection was dropped: {e}");
                say(&problem);
                service.problems.retain(|p| *p != problem);
                service.problems.push(problem);
            }
            Ok(()) | Err(FrameError::Io(_)) => {}
        }
        thread::sleep(Duration::from_millis(50));
    }
}
