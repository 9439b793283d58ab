//! The last bytes of the console, for whoever has not watched it.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};

/// The last bytes that were written.
#[derive(Debug, Default)]
pub struct Tail(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    bytes: VecDeque<u8>,
    written: u64,
}

impl Tail {
    /// At most `most` of the last bytes, and how many were written before them.
    pub fn last(&self, most: usize) -> (Vec<u8>, u64) {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let skip = kept.bytes.len().saturating_sub(most);
        let bytes: Vec<u8> = kept.bytes.iter().skip(skip).copied().collect();
        let told = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        (bytes, kept.written.saturating_sub(told))
    }

    fn push(&self, bytes: &[u8], most: usize) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.written = kept.written.saturating_add(bytes.len() as u64);
        let bytes = bytes.get(bytes.len().saturating_sub(most)..).unwrap_or_default();
        let excess = (kept.bytes.len() + bytes.len()).saturating_sub(most);
        kept.bytes.drain(..excess);
        kept.bytes.extend(bytes);
    }
}

/// Output that is kept as well as written.
pub struct Tee {
    /// Where it goes.
    pub output: Box<dyn Write + Send>,
    /// Where the last of it is kept.
    pub tail: Arc<Tail>,
    /// How much of it.
    pub most: usize,
}

impl Write for Tee {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.output.write(bytes)?;
        self.tail.push(bytes.get(..written).unwrap_or_default(), self.most);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_bytes_are_kept_and_all_are_counted() {
        let tail = Arc::new(Tail::default());
        let mut tee = Tee {
            output: Box::new(io::sink()),
            tail: tail.clone(),
            most: 8,
        };
        tee.write_all(b"0123").unwrap();
        assert_eq!(tail.last(8), (b"0123".to_vec(), 0));
        tee.write_all(b"456789").unwrap();
        assert_eq!(tail.last(8), (b"23456789".to_vec(), 2));
        tee.write_all(b"abcdefghijkl").unwrap();
        assert_eq!(tail.last(3), (b"jkl".to_vec(), 19));
    }
}
