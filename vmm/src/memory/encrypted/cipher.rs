//! The cipher of contents at rest: AES-256 in XTS mode (IEEE 1619), page by page.
//!
//! A page keeps its length, and its number goes in, so that equal pages differ. Nothing authenticates a page: whoever writes
//! to the file can turn one into noise or into an older version of itself, and nobody notices. A page of zero bytes in the
//! file stands for itself: that is what a hole reads as, and no page encrypts to it but by a chance of 2^-32768.

use aes::{
    Aes256,
    cipher::{Array, KeyInit},
};
use std::io;
use xts_mode::{Xts128, get_tweak_default};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes that are encrypted as a unit.
pub const PAGE: usize = 4096;
/// Bytes of a key: two AES-256 keys.
pub const KEY: usize = 64;

/// Key of one part of a DIMM.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct XtsKey(pub(super) [u8; KEY]);

impl XtsKey {
    /// A key that nobody knows.
    pub fn random() -> io::Result<Self> {
        let mut key = Self([0; KEY]);
        getrandom::fill(&mut key.0).map_err(io::Error::other)?;
        Ok(key)
    }
}

/// Encrypts and decrypts pages under one key.
pub struct PageCipher(Xts128<Aes256>);

impl PageCipher {
    /// The cipher of `key`.
    pub fn new(key: &XtsKey) -> Self {
        let (first, second) = key.0.split_at(KEY / 2);
        let half = |bytes: &[u8]| {
            let key: [u8; KEY / 2] = std::array::from_fn(|n| bytes.get(n).copied().unwrap_or(0));
            let mut key = Array(key);
            let cipher = Aes256::new(&key);
            key.0.zeroize();
            cipher
        };
        Self(Xts128::new(half(first), half(second)))
    }

    /// Encrypts whole pages, of which the first has the number `first`.
    pub fn encrypt(&self, pages: &mut [u8], first: u64) {
        for (number, page) in (first..).zip(pages.as_chunks_mut::<PAGE>().0) {
            self.0.encrypt_sector(page, get_tweak_default(number.into()));
        }
    }

    /// Decrypts whole pages; tells whether any of them is not one of zeros.
    pub fn decrypt(&self, pages: &mut [u8], first: u64) -> bool {
        let mut any = false;
        for (number, page) in (first..).zip(pages.as_chunks_mut::<PAGE>().0) {
            if page.iter().any(|byte| *byte != 0) {
                any = true;
                self.0.decrypt_sector(page, get_tweak_default(number.into()));
            }
        }
        any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> XtsKey {
        XtsKey(std::array::from_fn(|n| byte ^ u8::try_from(n).unwrap()))
    }

    #[test]
    fn pages_come_back_and_differ_by_their_number_and_key() {
        let cipher = PageCipher::new(&key(1));
        let plain = vec![0x5a; 2 * PAGE];
        let mut pages = plain.clone();
        cipher.encrypt(&mut pages, 7);
        assert_ne!(pages[..PAGE], pages[PAGE..]);
        let mut other = plain.clone();
        PageCipher::new(&key(2)).encrypt(&mut other, 7);
        assert_ne!(pages, other);
        assert!(cipher.decrypt(&mut pages, 7));
        assert_eq!(pages, plain);
        cipher.encrypt(&mut pages, 7);
        cipher.decrypt(&mut pages, 8);
        assert_ne!(pages, plain);
    }

    #[test]
    fn holes_read_as_zeros() {
        let cipher = PageCipher::new(&key(1));
        let mut pages = vec![0; 3 * PAGE];
        assert!(!cipher.decrypt(&mut pages, 0));
        assert!(pages.iter().all(|b| *b == 0));
        // Zeros that were stored are no hole.
        cipher.encrypt(&mut pages[..PAGE], 0);
        assert!(pages[..PAGE].iter().any(|b| *b != 0));
    }

    #[test]
    fn cipher_is_the_standards() {
        // Vector 10 of IEEE 1619-2007 annex B: XTS-AES-256, sequence number 0xff, a data unit of 512 bytes.
        let first: [u8; 32] = [
            0x27, 0x18, 0x28, 0x18, 0x28, 0x45, 0x90, 0x45, 0x23, 0x53, 0x60, 0x28, 0x74, 0x71, 0x35, 0x26, 0x62, 0x49,
            0x77, 0x57, 0x24, 0x70, 0x93, 0x69, 0x99, 0x59, 0x57, 0x49, 0x66, 0x96, 0x76, 0x27,
        ];
        let second: [u8; 32] = [
            0x31, 0x41, 0x59, 0x26, 0x53, 0x58, 0x97, 0x93, 0x23, 0x84, 0x62, 0x64, 0x33, 0x83, 0x27, 0x95, 0x02, 0x88,
            0x41, 0x97, 0x16, 0x93, 0x99, 0x37, 0x51, 0x05, 0x82, 0x09, 0x74, 0x94, 0x45, 0x92,
        ];
        let mut both = [0; KEY];
        both[..32].copy_from_slice(&first);
        both[32..].copy_from_slice(&second);
        let cipher = PageCipher::new(&XtsKey(both));
        let mut unit: Vec<u8> = (0..512u16).map(|n| (n & 0xff) as u8).collect();
        cipher.0.encrypt_sector(&mut unit, get_tweak_default(0xff));
        assert_eq!(
            unit[..16],
            [
                0x1c, 0x3b, 0x3a, 0x10, 0x2f, 0x77, 0x03, 0x86, 0xe4, 0x83, 0x6c, 0x99, 0xe3, 0x70, 0xcf, 0x9b
            ]
        );
    }
}
