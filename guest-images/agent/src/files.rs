//! Files to and from the guest.

use agent_protocol::CHUNK;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileExt, OpenOptionsExt},
};

/// Writes `data` at `offset`; offset 0 starts the file afresh.
pub fn put(path: &str, mode: u32, offset: u64, data: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(offset == 0).mode(mode);
    let file = options.open(path)?;
    if offset == 0 {
        // The umask and an older file's mode do not count.
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    }
    file.write_all_at(data, offset)
}

/// Up to [`CHUNK`] bytes at `offset`; empty at the end. Files without offsets (pipes, some of /proc) are refused by the kernel.
pub fn get(path: &str, offset: u64) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() && offset == 0 {
        let mut data = Vec::new();
        file.take(CHUNK as u64).read_to_end(&mut data)?;
        return Ok(data);
    }
    let mut data = vec![0; CHUNK];
    let mut have = 0;
    while let Some(rest) = data.get_mut(have..).filter(|r| !r.is_empty()) {
        match file.read_at(rest, offset.saturating_add(have as u64)) {
            Ok(0) => break,
            Ok(n) => have += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    data.truncate(have);
    Ok(data)
}
