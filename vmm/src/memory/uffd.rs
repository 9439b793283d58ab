//! userfaultfd, as far as traps need it: pages that fail whoever touches them (`UFFDIO_POISON`, Linux 6.6).
//!
//! Everything but [`ready`] may be called by a signal handler. Sizes and numbers are those of `include/uapi/linux/userfaultfd.h`.

use std::{
    io,
    os::fd::IntoRawFd,
    ptr,
    sync::{
        OnceLock,
        atomic::{AtomicI32, Ordering::SeqCst},
    },
};

/// Bytes of a page.
pub const SIZE: usize = 4096;
const API: u64 = 0xaa;
/// `UFFD_USER_MODE_ONLY`: what an unprivileged process may have.
const USER_MODE_ONLY: u32 = 1;
/// `UFFD_FEATURE_POISON`.
const FEATURE_POISON: u64 = 1 << 14;
/// `UFFDIO_REGISTER_MODE_MISSING`.
const MISSING: u64 = 1;

const IOCTL_API: libc::Ioctl = read_write(0x3f, size_of::<Handshake>());
const IOCTL_REGISTER: libc::Ioctl = read_write(0x00, size_of::<Register>());
const IOCTL_UNREGISTER: libc::Ioctl = read(0x01, size_of::<Extent>());
const IOCTL_WAKE: libc::Ioctl = read(0x02, size_of::<Extent>());
const IOCTL_COPY: libc::Ioctl = read_write(0x03, size_of::<Copy>());
const IOCTL_POISON: libc::Ioctl = read_write(0x08, size_of::<Poison>());

const fn read(number: libc::Ioctl, size: usize) -> libc::Ioctl {
    2 << 30 | (size as libc::Ioctl) << 16 | 0xaa << 8 | number
}

const fn read_write(number: libc::Ioctl, size: usize) -> libc::Ioctl {
    3 << 30 | (size as libc::Ioctl) << 16 | 0xaa << 8 | number
}

#[repr(C)]
struct Handshake {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct Extent {
    start: u64,
    len: u64,
}

#[repr(C)]
struct Register {
    range: Extent,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct Copy {
    to: u64,
    from: u64,
    len: u64,
    mode: u64,
    copied: i64,
}

#[repr(C)]
struct Poison {
    range: Extent,
    mode: u64,
    updated: i64,
}

const _: () = {
    assert!(size_of::<Handshake>() == 24 && size_of::<Extent>() == 16 && size_of::<Register>() == 32);
    assert!(size_of::<Copy>() == 40 && size_of::<Poison>() == 32);
};

static FD: AtomicI32 = AtomicI32::new(-1);

/// Whether the host's kernel can do it. Asks it once.
pub fn ready() -> bool {
    static READY: OnceLock<bool> = OnceLock::new();
    *READY.get_or_init(|| match open() {
        Ok(()) => true,
        Err(error) => {
            tracing::debug!(%error, "the host's kernel has no userfaultfd that poisons");
            false
        }
    })
}

fn open() -> io::Result<()> {
    let flags = rustix::mm::UserfaultfdFlags::CLOEXEC | rustix::mm::UserfaultfdFlags::from_bits_retain(USER_MODE_ONLY);
    // SAFETY: nothing is registered with it yet, so it changes no memory.
    let fd = unsafe { rustix::mm::userfaultfd(flags)? }.into_raw_fd();
    let mut handshake = Handshake {
        api: API,
        features: FEATURE_POISON,
        ioctls: 0,
    };
    // SAFETY: the structure of this number. The descriptor is kept for as long as the process lives.
    if unsafe { libc::ioctl(fd, IOCTL_API, ptr::from_mut(&mut handshake)) } < 0 {
        let error = io::Error::last_os_error();
        // SAFETY: just opened here, and nobody else has it.
        unsafe { libc::close(fd) };
        return Err(error);
    }
    FD.store(fd, SeqCst);
    Ok(())
}

fn call<T>(number: libc::Ioctl, argument: &mut T) -> io::Result<()> {
    // SAFETY: private to this file, whose callers pass the structure of the number.
    match unsafe { libc::ioctl(FD.load(SeqCst), number, ptr::from_mut(argument)) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn extent(start: usize, len: usize) -> Extent {
    Extent {
        start: start as u64,
        len: len as u64,
    }
}

/// A thread that touches a page of these that is not there waits, and a system call fails, until it is or [`unregister`] is called.
pub fn register(start: usize, len: usize) -> io::Result<()> {
    let mut asked = Register {
        range: extent(start, len),
        mode: MISSING,
        ioctls: 0,
    };
    call(IOCTL_REGISTER, &mut asked)
}

/// Ends that. Pages that are poisoned stay so.
pub fn unregister(start: usize, len: usize) -> io::Result<()> {
    call(IOCTL_UNREGISTER, &mut extent(start, len))?;
    // The kernel wakes those that wait before it keeps others from beginning to.
    call(IOCTL_WAKE, &mut extent(start, len))
}

/// Makes a page that is not there fail whoever touches it. `AlreadyExists`: it is there. Registered memory alone.
pub fn poison(at: usize) -> io::Result<()> {
    loop {
        let mut asked = Poison {
            range: extent(at, SIZE),
            mode: 0,
            updated: 0,
        };
        match call(IOCTL_POISON, &mut asked) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return done,
        }
    }
}

/// Makes a page that is not there one that holds what the page at `from` does. Registered memory alone.
pub fn copy(at: usize, from: usize) -> io::Result<()> {
    loop {
        let mut asked = Copy {
            to: at as u64,
            from: from as u64,
            len: SIZE as u64,
            mode: 0,
            copied: 0,
        };
        match call(IOCTL_COPY, &mut asked) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return done,
        }
    }
}
