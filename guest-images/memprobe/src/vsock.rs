//! Streams between guest and host.

use super::{fail, number, wrong};
use std::{
    fs::File,
    io::{self, Read, Write},
    mem,
    os::fd::{AsRawFd, FromRawFd},
    thread,
};

/// Clients that may wait to be let in.
const WAITING: i32 = 128;

fn socket() -> File {
    // SAFETY: a system call without pointers.
    let fd = unsafe { libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        fail("socket", &io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new, and nobody else's.
    unsafe { File::from_raw_fd(fd) }
}

fn address(cid: u32, port: u32) -> libc::sockaddr_vm {
    // SAFETY: all-zero bytes are an address.
    let mut address: libc::sockaddr_vm = unsafe { mem::zeroed() };
    address.svm_family = libc::sa_family_t::try_from(libc::AF_VSOCK).unwrap_or(0);
    (address.svm_cid, address.svm_port) = (cid, port);
    address
}

fn done(what: &str, result: i32) {
    if result < 0 {
        fail(what, &io::Error::last_os_error());
    }
}

type Named = unsafe extern "C" fn(i32, *const libc::sockaddr, libc::socklen_t) -> i32;

/// `bind` or `connect`.
fn named(what: &str, call: Named, socket: &File, cid: u32, port: u32) {
    let address = address(cid, port);
    let len = libc::socklen_t::try_from(mem::size_of_val(&address)).unwrap_or(0);
    // SAFETY: the address is one, of that length.
    let result = unsafe { call(socket.as_raw_fd(), (&raw const address).cast(), len) };
    done(what, result);
}

/// Copies all there is, then says that this was all.
fn copy(mut from: impl Read, to: &mut File) -> io::Result<u64> {
    let copied = io::copy(&mut from, to)?;
    // SAFETY: a system call without pointers. What is not connected any more has heard all.
    unsafe { libc::shutdown(to.as_raw_fd(), libc::SHUT_WR) };
    Ok(copied)
}

fn twin(of: &File) -> File {
    of.try_clone().unwrap_or_else(|error| fail("dup", &error))
}

/// Standard input to the stream, the stream to standard output.
fn connect(cid: u32, port: u32) {
    let stream = socket();
    named("connect", libc::connect, &stream, cid, port);
    let mut to = twin(&stream);
    let sender = thread::spawn(move || copy(io::stdin().lock(), &mut to));
    let mut from = stream;
    let mut out = io::stdout().lock();
    if let Err(error) = io::copy(&mut from, &mut out).and_then(|_| out.flush()) {
        fail("receive", &error);
    }
    match sender.join() {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => fail("send", &error),
        Err(_) => wrong(),
    }
}

/// Says to each client what it says, until it has said all.
fn echo(port: u32, clients: usize) {
    let listener = socket();
    named("bind", libc::bind, &listener, libc::VMADDR_CID_ANY, port);
    // SAFETY: a system call without pointers.
    done("listen", unsafe { libc::listen(listener.as_raw_fd(), WAITING) });
    println!("listening");
    let _ = io::stdout().flush();
    let serve = |_| {
        // SAFETY: the client's address is not asked for.
        let fd = unsafe { libc::accept(listener.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut()) };
        done("accept", fd);
        // SAFETY: the descriptor is new, and nobody else's.
        let client = unsafe { File::from_raw_fd(fd) };
        thread::spawn(move || copy(twin(&client), &mut twin(&client)))
    };
    let all: Vec<_> = (0..clients).map(serve).collect();
    let copied = all
        .into_iter()
        .map(|one| one.join().ok().and_then(Result::ok).unwrap_or(0));
    println!("echoed {} bytes", copied.sum::<u64>());
}

/// What the command line says behind `vsock`.
pub fn run(words: &[&str]) {
    let word = |text: &str| u32::try_from(number(text)).unwrap_or_else(|_| wrong());
    match words {
        ["connect", cid, port] => connect(word(cid), word(port)),
        ["echo", port, clients] => echo(word(port), number(clients)),
        _ => wrong(),
    }
}
