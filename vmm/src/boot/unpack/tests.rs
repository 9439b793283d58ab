//! Streams of every kind: made here, or by the programs the kernel build runs.

use super::{super::testing::*, *};
use proptest::prelude::*;
use std::io::Write;

/// [`calls`], through `xz --check=crc32 --x86 --lzma2=dict=32MiB`.
const XZ_X86: &str = "fd377a585a0000016922de360201040021011a0001c980b3e007e4002d5d003f9145847069a8ad0c57742851e0d7c1b566620d8a82ef\
    74ef29ba51a5113cee8a29aa59621756cbc78140f100000000001f50ffb6000145e50f000000fb1797243e300d8b020000000001595a";
/// [`lines`], through `cat | zstd -22 --ultra`: without the size the window is 128 MiB.
const ZSTD: &str = "28b52ffd0488bc010004027f454c466c696e652030206f6620746865206b65726e656c3b2031323334353608209063eb5fff9d1c20f7b14f\
    7ef7b1bc305b3b06540000000100fdfff1ffb90602440000000100fdff390002450000000100c1361d0001f56b9f1d";

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(char::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(&String::from_iter(pair), 16).unwrap())
        .collect()
}

/// Calls from 400 places to one: what the x86 filter is for.
fn calls() -> Vec<u8> {
    let mut code = b"\x7fELF".to_vec();
    for n in 0..400i32 {
        code.push(0xe8);
        code.extend_from_slice(&(0x1000 - (4 + 5 * n + 5)).to_le_bytes());
    }
    code.extend_from_slice(b"end of the kernel");
    code
}

fn lines() -> Vec<u8> {
    let mut text = b"\x7fELF".to_vec();
    (0..20_000).for_each(|n| write!(text, "line {} of the kernel; ", n % 7).unwrap());
    text
}

/// The legacy frame: 8 MiB blocks.
fn lz4(plain: &[u8]) -> Vec<u8> {
    let mut frame = lz4::MAGIC.to_vec();
    for chunk in plain.chunks(8 << 20) {
        let block = lz4_flex::block::compress(chunk);
        frame.extend_from_slice(&u32::try_from(block.len()).unwrap().to_le_bytes());
        frame.extend_from_slice(&block);
    }
    frame
}

#[test]
fn every_supported_compression_unpacks_to_the_kernel() {
    let cases = [
        (Compression::Gzip, gzip(&lines()), lines()),
        (Compression::Lz4, lz4(&lines()), lines()),
        (Compression::Xz, unhex(XZ_X86), calls()),
        (Compression::Zstd, unhex(ZSTD), lines()),
    ];
    for (expected, stream, plain) in cases {
        for payload in [with_size(stream.clone(), &plain), stream] {
            let image = bzimage(&payload);
            assert_eq!(compression(&image), Some(expected));
            assert!(unpack(&image).unwrap() == plain, "{expected}");
        }
    }
}

#[test]
fn an_lz4_kernel_of_several_blocks_is_put_together() {
    let mut plain = lines();
    plain.resize(17 << 20, 3);
    let frame = lz4(&plain);
    assert!(unpack(&bzimage(&with_size(frame, &plain))).unwrap() == plain);
}

#[test]
fn a_wrong_size_at_the_end_does_no_harm() {
    for claim in [0, 1, u32::MAX] {
        let mut payload = gzip(&lines());
        payload.extend_from_slice(&claim.to_le_bytes());
        assert!(unpack(&bzimage(&payload)).unwrap() == lines());
    }
}

#[test]
fn other_compressions_are_named() {
    for (magic, name) in [
        (&b"BZh91AY"[..], "bzip2"),
        (&[0x5d, 0, 0, 4], "lzma"),
        (b"\x89LZO\0\r\n", "lzo"),
    ] {
        let error = unpack(&bzimage(magic)).unwrap_err();
        assert!(
            matches!(error, UnpackError::Unsupported(_)) && error.to_string().contains(name),
            "{error}"
        );
        assert!(compression(&bzimage(magic)).is_some_and(|c| !c.is_supported()));
    }
    assert!(matches!(unpack(&bzimage(b"nothing")).unwrap_err(), UnpackError::Unknown(head) if head == b"nothing"));
    assert_eq!(compression(&bzimage(b"nothing")), None);
    assert!(matches!(unpack(b"\x7fELF").unwrap_err(), UnpackError::Header(_)));
}

#[test]
fn damage_is_found_in_every_stream() {
    for stream in [gzip(&lines()), lz4(&lines()), unhex(XZ_X86), unhex(ZSTD)] {
        let cut = &stream[..stream.len() / 2];
        assert!(matches!(
            unpack(&bzimage(cut)).unwrap_err(),
            UnpackError::Damaged { .. }
        ));
    }
    // The last byte of the block's CRC32 in the xz fixture.
    let mut stream = unhex(XZ_X86);
    let at = stream.len() - 12 - 12 - 1; // footer and index follow
    stream[at] ^= 1;
    let Err(UnpackError::Damaged { source, .. }) = unpack(&bzimage(&stream)) else {
        panic!("the CRC32 must be checked")
    };
    assert!(source.to_string().contains("CRC32"), "{source}");
}

#[test]
fn what_is_no_elf_file_is_refused() {
    assert!(
        matches!(unpack(&bzimage(&gzip(b"#!/bin/sh"))).unwrap_err(), UnpackError::NotElf(head) if head == b"#!/bin/s")
    );
    assert!(matches!(unpack(&bzimage(&gzip(b""))).unwrap_err(), UnpackError::NotElf(head) if head.is_empty()));
}

#[test]
fn a_window_or_dictionary_beyond_any_kernel_is_refused() {
    let mut stream = unhex(ZSTD);
    stream[5] = 0x90; // 256 MiB
    assert!(matches!(
        unpack(&bzimage(&stream)).unwrap_err(),
        UnpackError::Damaged { .. }
    ));
    let mut stream = unhex(XZ_X86);
    // Block header at 12: size, flags, x86 (04 00), LZMA2 (21 01 bits), padding, CRC32.
    stream[18] = 0x20; // 256 MiB
    let crc = xz::crc32(&stream[12..20]);
    stream[20..24].copy_from_slice(&crc.to_le_bytes());
    let Err(UnpackError::Damaged { source, .. }) = unpack(&bzimage(&stream)) else {
        panic!("the dictionary must be bounded")
    };
    assert!(source.to_string().contains("dictionary"), "{source}");
}

#[test]
fn a_stream_without_end_stops_at_the_limit() {
    /// As much as is asked for.
    struct Endless;
    impl Read for Endless {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            Ok(buf.len())
        }
    }
    let mut output = Output(Vec::new());
    assert!(matches!(output.fill(Endless), Err(Failure::TooLarge)));
    assert!(output.0.len() <= MAX_UNPACKED + 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_mutated_stream_unpacks_or_is_refused(
        which in 0usize..4,
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut stream = match which {
            0 => gzip(&calls()),
            1 => lz4(&calls()),
            2 => unhex(XZ_X86),
            _ => unhex(ZSTD),
        };
        for (at, byte) in edits {
            let at = at.index(stream.len());
            stream[at] = byte;
        }
        let _ = unpack(&bzimage(&stream));
    }

    #[test]
    fn arbitrary_bytes_after_a_magic_unpack_or_are_refused(which in 0usize..4, tail in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut stream = [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0][..], xz::MAGIC, lz4::MAGIC, zstd::MAGIC][which].to_vec();
        stream.extend_from_slice(&tail);
        let _ = unpack(&bzimage(&stream));
    }

    #[test]
    fn xz_blocks_with_right_checksums_and_wrong_data_are_refused(data in proptest::collection::vec(any::<u8>(), 0..200), x86: bool) {
        let mut header = if x86 { vec![2, 1, 4, 0, 0x21, 1, 0x10, 0] } else { vec![2, 0, 0x21, 1, 0x10, 0, 0, 0] };
        header.extend_from_slice(&xz::crc32(&header).to_le_bytes());
        let mut stream = [xz::MAGIC, &[0, 1, 0x69, 0x22, 0xde, 0x36]].concat();
        stream.extend_from_slice(&header);
        stream.extend_from_slice(&data);
        let _ = unpack(&bzimage(&stream));
    }
}
