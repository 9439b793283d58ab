//! Module files, packed as distributions like it.

use anyhow::Result;
use std::io::Read;

fn read_all(mut from: impl Read, to: &mut Vec<u8>) -> Result<()> {
    from.read_to_end(to)?;
    Ok(())
}

/// A module file as the kernel loads it.
pub fn module(name: &str, bytes: Vec<u8>) -> Result<Vec<u8>> {
    let mut plain = Vec::new();
    match name.rsplit('.').next() {
        Some("xz") => read_all(lzma_rust2::XzReader::new(&*bytes, true), &mut plain)?,
        Some("gz") => read_all(flate2::read::GzDecoder::new(&*bytes), &mut plain)?,
        Some("zst") => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(&*bytes).map_err(|e| anyhow::anyhow!("zstd: {e}"))?;
            read_all(decoder, &mut plain)?;
        }
        _ => return Ok(bytes),
    }
    Ok(plain)
}
