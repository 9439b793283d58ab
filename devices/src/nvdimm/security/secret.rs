//! Passphrases, and how one is recognised without being kept.
//!
//! A passphrase goes through argon2id (RFC 9106) with a salt of its own; from the result come, by HKDF (RFC 5869), the
//! *check*, which is kept and compared in constant time, and the *wrapping key*, which is not kept and opens the keys of an
//! encrypted DIMM. Neither can be computed from the other.

use argon2::{Algorithm, Argon2, Params, Version};
use hkdf::Hkdf;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Bytes of a passphrase. "NVDIMM DSM Interface", functions 20 to 28.
pub const PASSPHRASE: usize = 32;
/// Bytes of a salt.
pub const SALT: usize = 16;
/// Bytes of a check and of a wrapping key.
const DERIVED: usize = 32;

/// What the guest sends as a passphrase. All zeros is none.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Passphrase([u8; PASSPHRASE]);

impl Passphrase {
    /// From the guest's bytes.
    pub fn new(bytes: [u8; PASSPHRASE]) -> Self {
        Self(bytes)
    }

    /// Whether this is what stands for "no passphrase"; Linux sends it when it has no key.
    pub fn is_none(&self) -> bool {
        self.0.ct_eq(&[0; PASSPHRASE]).into()
    }
}

impl std::fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

/// Opens the keys of an encrypted DIMM. Whoever has it has had the passphrase.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct WrappingKey([u8; DERIVED]);

impl WrappingKey {
    /// The key's bytes.
    pub fn bytes(&self) -> &[u8; DERIVED] {
        &self.0
    }
}

/// What one guess costs. Comes from files, so it is bounded before it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct KdfCost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
}

impl Default for KdfCost {
    /// 19 MiB and two passes: much for who guesses, little for a guest that boots.
    fn default() -> Self {
        Self {
            memory_kib: 19 << 10,
            passes: 2,
        }
    }
}

impl KdfCost {
    /// Most that is accepted from a file: 1 GiB, 16 passes.
    const MOST: Self = Self {
        memory_kib: 1 << 20,
        passes: 16,
    };

    fn params(self) -> Option<Params> {
        let bounded = self.memory_kib <= Self::MOST.memory_kib && self.passes <= Self::MOST.passes;
        Params::new(self.memory_kib, self.passes, 1, Some(DERIVED))
            .ok()
            .filter(|_| bounded)
    }
}

/// Recognises one passphrase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Verifier {
    #[serde(with = "hex")]
    salt: [u8; SALT],
    cost: KdfCost,
    #[serde(with = "hex")]
    check: [u8; DERIVED],
}

impl Verifier {
    /// The verifier of `passphrase`, and the wrapping key that it stands for. `None`: `cost` is out of bounds.
    pub fn new(passphrase: &Passphrase, salt: [u8; SALT], cost: KdfCost) -> Option<(Self, WrappingKey)> {
        let (check, key) = derive(passphrase, &salt, cost)?;
        Some((
            Self {
                salt,
                cost,
                check: *check,
            },
            key,
        ))
    }

    /// The wrapping key, if `passphrase` is the one.
    pub fn verify(&self, passphrase: &Passphrase) -> Option<WrappingKey> {
        let (check, key) = derive(passphrase, &self.salt, self.cost)?;
        bool::from(check.ct_eq(&self.check)).then_some(key)
    }

    /// Whether what a file says can be used at all.
    pub fn is_sound(&self) -> bool {
        self.cost.params().is_some()
    }
}

fn derive(passphrase: &Passphrase, salt: &[u8], cost: KdfCost) -> Option<(Zeroizing<[u8; DERIVED]>, WrappingKey)> {
    let mut root = Zeroizing::new([0; DERIVED]);
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, cost.params()?);
    argon2.hash_password_into(&passphrase.0, salt, &mut *root).ok()?;
    let expand = Hkdf::<Sha256>::new(None, &*root);
    let (mut check, mut key) = (Zeroizing::new([0; DERIVED]), WrappingKey([0; DERIVED]));
    expand.expand(b"daxvisor nvdimm passphrase check", &mut *check).ok()?;
    expand.expand(b"daxvisor nvdimm wrapping key", &mut key.0).ok()?;
    Some((check, key))
}

/// Byte arrays as hexadecimal text, for `#[serde(with)]`.
pub mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Text of `bytes`.
    pub fn serialize<S: Serializer, const N: usize>(bytes: &[u8; N], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&bytes.iter().map(|b| format!("{b:02x}")).collect::<String>())
    }

    /// Exactly `N` bytes.
    pub fn deserialize<'de, D: Deserializer<'de>, const N: usize>(deserializer: D) -> Result<[u8; N], D::Error> {
        let text = String::deserialize(deserializer)?;
        let bad = || D::Error::custom(format!("expected {} hexadecimal digits, got {}", 2 * N, text.len()));
        let digits = text.as_bytes();
        if digits.len() != 2 * N {
            return Err(bad());
        }
        let mut bytes = [0; N];
        for (byte, pair) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
            let pair = pair.map(|d| char::from(d).to_digit(16).and_then(|d| u8::try_from(d).ok()));
            let [Some(high), Some(low)] = pair else {
                return Err(bad());
            };
            *byte = high << 4 | low;
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As cheap as argon2 goes.
    const CHEAP: KdfCost = KdfCost {
        memory_kib: 8,
        passes: 1,
    };

    fn passphrase(byte: u8) -> Passphrase {
        Passphrase::new([byte; PASSPHRASE])
    }

    #[test]
    fn only_the_right_passphrase_yields_the_key() {
        let (verifier, key) = Verifier::new(&passphrase(7), [1; SALT], CHEAP).unwrap();
        assert_eq!(verifier.verify(&passphrase(7)).unwrap().bytes(), key.bytes());
        for wrong in [0, 6, 8, 0xff] {
            assert!(verifier.verify(&passphrase(wrong)).is_none(), "{wrong}");
        }
        assert_ne!(&verifier.check, key.bytes(), "what is kept must not open anything");
    }

    #[test]
    fn salt_and_cost_change_everything() {
        let first = Verifier::new(&passphrase(7), [1; SALT], CHEAP).unwrap();
        let salted = Verifier::new(&passphrase(7), [2; SALT], CHEAP).unwrap();
        let dearer = Verifier::new(&passphrase(7), [1; SALT], KdfCost { passes: 2, ..CHEAP }).unwrap();
        for other in [salted, dearer] {
            assert_ne!(first.0.check, other.0.check);
            assert_ne!(first.1.bytes(), other.1.bytes());
        }
    }

    #[test]
    fn senseless_costs_are_refused_before_they_cost_anything() {
        for (memory_kib, passes) in [(0, 1), (8, 0), ((1 << 20) + 1, 1), (8, 17), (u32::MAX, u32::MAX)] {
            let cost = KdfCost { memory_kib, passes };
            assert!(Verifier::new(&passphrase(7), [1; SALT], cost).is_none(), "{cost:?}");
            let text = format!(
                r#"{{"salt":"{}","cost":{{"memory-kib":{memory_kib},"passes":{passes}}},"check":"{}"}}"#,
                "00".repeat(SALT),
                "00".repeat(DERIVED)
            );
            let read: Verifier = serde_json::from_str(&text).unwrap();
            assert!(!read.is_sound() && read.verify(&passphrase(7)).is_none());
        }
    }

    #[test]
    fn verifiers_survive_being_written_down() {
        let (verifier, _) = Verifier::new(&passphrase(9), [0xab; SALT], CHEAP).unwrap();
        let text = serde_json::to_string(&verifier).unwrap();
        assert!(text.contains(&"ab".repeat(SALT)), "{text}");
        assert_eq!(serde_json::from_str::<Verifier>(&text).unwrap(), verifier);
        for bad in ["ab", "zz".repeat(SALT).as_str(), "é".repeat(SALT).as_str()] {
            assert!(
                serde_json::from_str::<Verifier>(&text.replace(&"ab".repeat(SALT), bad)).is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn passphrases_are_not_printed() {
        assert_eq!(format!("{:?}", passphrase(0x41)), "Passphrase(..)");
        assert!(passphrase(0).is_none() && !passphrase(1).is_none());
    }
}
