//! `ctl raw`: the connection to the machine on standard streams.

use std::{
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::mpsc,
    thread,
};

/// Bytes passed on at once.
const CHUNK: usize = 64 << 10;
/// Chunks that wait for the machine to read them; one more ends the connection. Whoever feeds us is never held up, so that
/// others who are fed by the same hand are not.
const QUEUE: usize = 32;

/// Why bytes cannot be passed on.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("cannot talk to the machine")]
    Io(#[source] io::Error),
    #[error("the machine does not read what it is sent")]
    Overrun,
}

/// Standard input to the machine and its replies to standard output, until the machine closes the connection. The end
/// of standard input is passed on.
pub(super) fn pass_through(mut stream: UnixStream) -> Result<(), LinkError> {
    let mut to = stream.try_clone().map_err(LinkError::Io)?;
    let (sender, queue) = mpsc::sync_channel::<Vec<u8>>(QUEUE);
    let spawn = |body: Box<dyn FnOnce() + Send>| thread::Builder::new().spawn(body).map_err(LinkError::Io);
    spawn(Box::new(move || {
        for chunk in queue {
            if to.write_all(&chunk).is_err() {
                return;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    }))?;
    let (overrun, overran) = mpsc::channel();
    let end = stream.try_clone().map_err(LinkError::Io)?;
    spawn(Box::new(move || {
        let mut chunk = vec![0; CHUNK];
        while let Ok(n @ 1..) = io::stdin().lock().read(&mut chunk) {
            let bytes = chunk.get(..n).unwrap_or_default().to_vec();
            match sender.try_send(bytes) {
                Ok(()) => {}
                Err(mpsc::TrySendError::Disconnected(_)) => return,
                Err(mpsc::TrySendError::Full(_)) => {
                    let _ = overrun.send(());
                    let _ = end.shutdown(Shutdown::Both);
                    return;
                }
            }
        }
    }))?;
    let mut chunk = vec![0; CHUNK];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => {
                let mut out = io::stdout().lock();
                let written = out.write_all(chunk.get(..n).unwrap_or_default());
                if written.and_then(|()| out.flush()).is_err() {
                    break;
                }
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    match overran.try_recv() {
        Ok(()) => Err(LinkError::Overrun),
        Err(_) => Ok(()),
    }
}
