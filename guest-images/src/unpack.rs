//! The kernel inside a bzImage.

use anyhow::{Context, Result, bail};
use std::io::Read;

fn field(image: &[u8], at: usize) -> Result<usize> {
    let bytes = image
        .get(at..at + 4)
        .context("the kernel image ends inside its header")?;
    Ok(u32::from_le_bytes(bytes.try_into()?).try_into()?)
}

fn read_all(mut from: impl Read, to: &mut Vec<u8>) -> Result<()> {
    from.read_to_end(to)?;
    Ok(())
}

/// The vmlinux in a bzImage.
pub fn vmlinux(image: &[u8]) -> Result<Vec<u8>> {
    // Linux Documentation/arch/x86/boot.rst: "HdrS", setup_sects, payload_offset, payload_length.
    if image.get(0x202..0x206) != Some(b"HdrS") {
        bail!("this is no bzImage");
    }
    let setup = match image.get(0x1f1) {
        Some(0) | None => 4,
        Some(n) => usize::from(*n),
    };
    let start = (setup + 1) * 512 + field(image, 0x248)?;
    let len = field(image, 0x24c)?;
    let payload = image
        .get(start..start.saturating_add(len))
        .context("the kernel image is shorter than its payload")?;
    let mut kernel = Vec::new();
    match payload {
        [0x1f, 0x8b, ..] => read_all(flate2::read::GzDecoder::new(payload), &mut kernel)?,
        [0xfd, b'7', b'z', ..] => read_all(lzma_rust2::XzReader::new(payload, false), &mut kernel)?,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(payload).map_err(|e| anyhow::anyhow!("zstd: {e}"))?;
            read_all(decoder, &mut kernel)?;
        }
        [0x02, 0x21, 0x4c, 0x18, blocks @ ..] => lz4_legacy(blocks, &mut kernel)?,
        _ => bail!("the kernel is packed in a way that is not known here"),
    }
    if !kernel.starts_with(b"\x7fELF") {
        bail!("what is inside the kernel image is no ELF file");
    }
    Ok(kernel)
}

/// Blocks of the legacy frame, each with its packed length; the kernel appends its own four bytes of unpacked length.
fn lz4_legacy(mut blocks: &[u8], kernel: &mut Vec<u8>) -> Result<()> {
    const BLOCK: usize = 8 << 20;
    while blocks.len() > 4 {
        let len = field(blocks, 0)?;
        let Some(block) = blocks.get(4..4 + len) else { break };
        let mut out = vec![0; BLOCK];
        let n = lz4_flex::block::decompress_into(block, &mut out).context("lz4")?;
        kernel.extend_from_slice(&out[..n]);
        blocks = &blocks[4 + len..];
    }
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
