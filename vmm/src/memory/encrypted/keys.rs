//! The key file of an encrypted DIMM: `FILE.keys` beside the contents in `FILE`.
//!
//! It is JSON with a format name, a version and a checksum, and holds what security keeps of the DIMM and its two data keys
//! (data and labels): as they are while there is no passphrase, else sealed with XChaCha20-Poly1305 under the wrapping key of
//! the passphrase. The seal covers the DIMM's sizes and identity as well. Every change replaces the file at once, and then
//! overwrites the replaced one, so that keys that were destroyed are not found in free blocks.

use super::cipher::{KEY, XtsKey};
use chacha20poly1305::{
    Key, KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use devices::nvdimm::security::{SecurityState, WrappingKey, hex};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

const FORMAT: &str = "daxvisor-nvdimm-keys";
/// Newest version that is understood, and the one that is written.
const VERSION: u64 = 1;
/// Most bytes that a key file can have.
const MAX_LEN: u64 = 64 << 10;
const NONCE: usize = 24;
/// Two keys and the tag.
const SEALED: usize = 2 * KEY + 16;

/// Why a key file cannot be used. It has not been changed.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It cannot be read or written.
    #[error("cannot use key file {0}")]
    Io(PathBuf, #[source] io::Error),
    /// It is no key file, or was changed by somebody else.
    #[error(
        "key file {0} is damaged: {1}; hint: restore it from a copy; without it the contents cannot be read by anybody"
    )]
    Damaged(PathBuf, String),
    /// A later program made it.
    #[error(
        "key file {0} has version {1}, and this program knows version {VERSION}; hint: use the daxvisor that wrote it"
    )]
    Version(PathBuf, u64),
    /// It is that of another DIMM.
    #[error(
        "key file {0} is that of a DIMM of {1} bytes with {2} bytes of labels; hint: pass the size= and label= the DIMM was made with"
    )]
    Dimm(PathBuf, u64, u64),
}

/// The keys of a DIMM.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct DataKeys {
    /// Of the data.
    pub data: XtsKey,
    /// Of the label area, which survives a secure erase.
    pub labels: XtsKey,
}

impl DataKeys {
    /// Keys that nobody knows.
    pub fn random() -> io::Result<Self> {
        Ok(Self {
            data: XtsKey::random()?,
            labels: XtsKey::random()?,
        })
    }
}

/// How the keys are kept.
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
enum Slot {
    /// For whoever reads the file: there is no passphrase.
    Open {
        #[serde(with = "hex")]
        data: [u8; KEY],
        #[serde(with = "hex")]
        labels: [u8; KEY],
    },
    /// For whoever has the wrapping key.
    Sealed {
        #[serde(with = "hex")]
        nonce: [u8; NONCE],
        #[serde(with = "hex")]
        keys: [u8; SEALED],
    },
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Content {
    format: String,
    version: u64,
    #[serde(with = "hex")]
    id: [u8; 16],
    size: u64,
    label: u64,
    security: SecurityState,
    keys: Slot,
    /// SHA-256 of the same content with an empty checksum.
    checksum: String,
}

impl Content {
    fn sum(&self) -> String {
        let blank = Self {
            checksum: String::new(),
            ..self.clone()
        };
        let digest = Sha256::digest(&*blank.bytes());
        digest.iter().map(|b| format!("{b:02x}")).collect()
    }

    fn bytes(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(serde_json::to_vec_pretty(self).unwrap_or_default())
    }

    /// What the seal covers beside the keys.
    fn bound(&self) -> Vec<u8> {
        let mut bytes = format!("{FORMAT} {VERSION}").into_bytes();
        bytes.extend(self.id);
        bytes.extend(self.size.to_le_bytes());
        bytes.extend(self.label.to_le_bytes());
        bytes
    }

    fn seal(&self, keys: &DataKeys, key: Option<&WrappingKey>) -> io::Result<Slot> {
        let Some(key) = key else {
            return Ok(Slot::Open {
                data: keys.data.0,
                labels: keys.labels.0,
            });
        };
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(io::Error::other)?;
        let mut plain = Zeroizing::new(keys.data.0.to_vec());
        plain.extend(keys.labels.0);
        let payload = Payload {
            msg: &plain,
            aad: &self.bound(),
        };
        let sealed = cipher(key).encrypt(&XNonce::from(nonce), payload);
        let sealed = sealed.ok().and_then(|sealed| sealed.try_into().ok());
        Ok(Slot::Sealed {
            nonce,
            keys: sealed.ok_or_else(|| io::Error::other("the keys cannot be sealed"))?,
        })
    }

    fn unseal(&self, key: Option<&WrappingKey>) -> Option<DataKeys> {
        match (&self.keys, key) {
            (Slot::Open { data, labels }, _) => Some(DataKeys {
                data: XtsKey(*data),
                labels: XtsKey(*labels),
            }),
            (Slot::Sealed { .. }, None) => None,
            (Slot::Sealed { nonce, keys }, Some(key)) => {
                let payload = Payload {
                    msg: keys,
                    aad: &self.bound(),
                };
                let plain = Zeroizing::new(cipher(key).decrypt(&XNonce::from(*nonce), payload).ok()?);
                let (data, rest) = plain.split_first_chunk()?;
                Some(DataKeys {
                    data: XtsKey(*data),
                    labels: XtsKey(*rest.first_chunk()?),
                })
            }
        }
    }
}

fn cipher(key: &WrappingKey) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(&Key::from(*key.bytes()))
}

/// An opened key file.
pub struct KeyFile {
    path: PathBuf,
    content: Content,
}

impl KeyFile {
    /// Makes the key file of a new DIMM of `size` bytes, of which the last `label` are labels.
    pub fn create(path: &Path, size: u64, label: u64) -> Result<Self, KeyError> {
        let failed = |source| KeyError::Io(path.to_owned(), source);
        let keys = DataKeys::random().map_err(failed)?;
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|e| failed(io::Error::other(e)))?;
        let content = Content {
            format: FORMAT.to_owned(),
            version: VERSION,
            id,
            size,
            label,
            security: SecurityState::default(),
            keys: Slot::Open {
                data: keys.data.0,
                labels: keys.labels.0,
            },
            checksum: String::new(),
        };
        let mut file = Self {
            path: path.to_owned(),
            content: content.clone(),
        };
        let written = file.prepare(content).map_err(failed)?;
        written.file.persist_noclobber(path).map_err(|e| failed(e.error))?;
        file.content = written.content;
        Ok(file)
    }

    /// Reads the key file of a DIMM of `size` bytes, of which the last `label` are labels.
    pub fn open(path: &Path, size: u64, label: u64) -> Result<Self, KeyError> {
        let damaged = |what: String| KeyError::Damaged(path.to_owned(), what);
        let failed = |source| KeyError::Io(path.to_owned(), source);
        let mut bytes = Zeroizing::new(Vec::new());
        let file = File::open(path).map_err(failed)?;
        file.take(MAX_LEN + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > MAX_LEN {
            return Err(damaged(format!("it is longer than {MAX_LEN} bytes")));
        }
        let head: Head = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        if head.format != FORMAT {
            return Err(damaged(format!("expected format {FORMAT}, found '{}'", head.format)));
        }
        if head.version != VERSION {
            return Err(KeyError::Version(path.to_owned(), head.version));
        }
        let content: Content = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        if content.checksum != content.sum() || !content.security.is_sound() {
            return Err(damaged("its checksum is wrong".to_owned()));
        }
        if content.security.user.is_some() != matches!(content.keys, Slot::Sealed { .. }) {
            return Err(damaged("its keys do not fit its passphrase".to_owned()));
        }
        if (content.size, content.label) != (size, label) {
            return Err(KeyError::Dimm(path.to_owned(), content.size, content.label));
        }
        Ok(Self {
            path: path.to_owned(),
            content,
        })
    }

    /// What security keeps.
    pub fn security(&self) -> &SecurityState {
        &self.content.security
    }

    /// The keys, if `key` opens them or nothing has to.
    pub fn keys(&self, key: Option<&WrappingKey>) -> Option<DataKeys> {
        self.content.unseal(key)
    }

    /// Keeps `security` beside the keys.
    pub fn store(&mut self, security: &SecurityState) -> io::Result<()> {
        let content = Content {
            security: security.clone(),
            ..self.content.clone()
        };
        self.replace(content)
    }

    /// Keeps `security`, and `keys` under `key`.
    pub fn seal(&mut self, security: &SecurityState, keys: &DataKeys, key: Option<&WrappingKey>) -> io::Result<()> {
        let content = Content {
            security: security.clone(),
            keys: self.content.seal(keys, key)?,
            ..self.content.clone()
        };
        self.replace(content)
    }

    fn prepare(&self, mut content: Content) -> io::Result<Written> {
        content.checksum = content.sum();
        let folder = self.path.parent().filter(|p| !p.as_os_str().is_empty());
        let mut file = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
        file.write_all(&content.bytes())?;
        file.as_file().sync_all()?;
        Ok(Written { file, content })
    }

    fn replace(&mut self, content: Content) -> io::Result<()> {
        let written = self.prepare(content)?;
        let replaced = fs::OpenOptions::new().write(true).open(&self.path);
        written.file.persist(&self.path).map_err(|e| e.error)?;
        self.content = written.content;
        // From here on the new file counts; what fails now is no reason to tell the guest of a failure.
        if let Err(error) = self.settle(replaced) {
            tracing::warn!(%error, file = %self.path.display(), "the replaced key file may be found on the disk");
        }
        Ok(())
    }

    /// Puts the replacement on the disk and overwrites what it replaced.
    fn settle(&self, replaced: io::Result<File>) -> io::Result<()> {
        let folder = self.path.parent().filter(|p| !p.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
        let replaced = replaced?;
        let len = usize::try_from(replaced.metadata()?.len().min(MAX_LEN)).unwrap_or(0);
        replaced.write_all_at(&vec![0; len], 0)?;
        replaced.sync_all()
    }
}

/// A content in a file that has no name yet.
struct Written {
    file: tempfile::NamedTempFile,
    content: Content,
}

/// What every version begins with.
#[derive(Deserialize)]
struct Head {
    format: String,
    version: u64,
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
