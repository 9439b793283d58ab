//! Tap interfaces of the host: a descriptor from which frames are read, one a call, and to which they are written.

use devices::virtio::net::config::MAX_TAP_NAME;
use rustix::{
    fs::{Mode, OFlags, open},
    io::Errno,
};
use std::{ffi::CString, fs::File, io, mem, os::fd::AsRawFd};

/// Where taps come from.
const DEVICE: &str = "/dev/net/tun";
/// Why there is no tap.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The host's kernel has no such thing.
    #[error("this host has no {DEVICE}; hint: `modprobe tun` as root, or a --net link= instead")]
    Missing,
    /// Not for this user.
    #[error(
        "tap '{0}' is not this user's to open; hint: as root, `ip tuntap add dev {0} mode tap user $USER` and `ip link set {0} up`"
    )]
    Permission(String),
    /// Somebody has it.
    #[error("tap '{0}' is in use by another process; hint: choose another one")]
    InUse(String),
    /// It is an interface of another kind.
    #[error("'{0}' is no tap interface; hint: `ip tuntap show` lists those there are")]
    OtherKind(String),
    /// Any other failure.
    #[error("cannot open tap '{0}'")]
    Open(String, #[source] io::Error),
}

/// Opens the tap interface `name`, non-blocking; one that does not exist is made, and goes with the descriptor.
pub fn open_tap(name: &str) -> Result<File, TapError> {
    let failed = |e: io::Error| TapError::Open(name.to_owned(), e);
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = open(DEVICE, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::NOENT | Errno::NODEV | Errno::NXIO => TapError::Missing,
        Errno::ACCESS | Errno::PERM => TapError::Permission(name.to_owned()),
        other => failed(other.into()),
    })?;
    let file = File::from(file);
    let text = CString::new(name).map_err(|e| failed(e.into()))?;
    // SAFETY: all-zero bytes are an ifreq: it holds an array and a union of plain numbers.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    if name.len() > MAX_TAP_NAME {
        return Err(failed(io::ErrorKind::InvalidInput.into()));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(text.as_bytes()) {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    // Frames without a header before them.
    let flags = libc::IFF_TAP | libc::IFF_NO_PI;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).unwrap_or(libc::c_short::MAX);
    // SAFETY: TUNSETIFF reads and writes one ifreq, which `request` is.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if result == 0 {
        return Ok(file);
    }
    let error = io::Error::last_os_error();
    Err(match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => TapError::Permission(name.to_owned()),
        Some(libc::EBUSY) => TapError::InUse(name.to_owned()),
        Some(libc::EINVAL | libc::EEXIST) => TapError::OtherKind(name.to_owned()),
        _ => failed(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever this host has and whoever asks, the loopback interface is no tap.
    #[test]
    fn what_is_no_tap_is_refused_in_one_sentence() {
        let error = open_tap("lo").unwrap_err().to_string();
        assert!(error.contains("hint: "), "{error}");
        let long = open_tap("a-name-that-is-longer-than-any").unwrap_err();
        assert!(
            !long.to_string().is_empty() && !long.to_string().contains('\n'),
            "{long}"
        );
    }
}
