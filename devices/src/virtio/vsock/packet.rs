//! Headers of packets (virtio 1.2 section 5.10.6).

/// Bytes of a header.
pub const HEADER: usize = 44;
/// A stream (5.10.6.2).
pub const STREAM: u16 = 1;
/// Flags of a shutdown (5.10.6.6.1): who sends it receives no more, sends no more.
pub const NO_RECEIVE: u32 = 1;
pub const NO_SEND: u32 = 2;

/// What a packet is for.
pub mod op {
    pub const REQUEST: u16 = 1;
    pub const RESPONSE: u16 = 2;
    pub const RST: u16 = 3;
    pub const SHUTDOWN: u16 = 4;
    pub const RW: u16 = 5;
    pub const CREDIT_UPDATE: u16 = 6;
    pub const CREDIT_REQUEST: u16 = 7;
}

/// A header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Header {
    pub from_cid: u64,
    pub to_cid: u64,
    pub from_port: u32,
    pub to_port: u32,
    /// Bytes behind it.
    pub len: u32,
    pub kind: u16,
    pub op: u16,
    pub flags: u32,
    /// Bytes that the sender has room for in all.
    pub room: u32,
    /// Bytes that it has passed on so far, wrapping.
    pub passed: u32,
}

impl Header {
    /// From its bytes.
    pub fn read(bytes: &[u8; HEADER]) -> Self {
        let word = |at: usize| {
            let mut word = [0; 4];
            word.iter_mut()
                .zip(bytes.iter().skip(at))
                .for_each(|(to, from)| *to = *from);
            u32::from_le_bytes(word)
        };
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let halves = |at: usize| {
            let [a, b, c, d] = word(at).to_le_bytes();
            (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]))
        };
        let (kind, op) = halves(28);
        Self {
            from_cid: long(0),
            to_cid: long(8),
            from_port: word(16),
            to_port: word(20),
            len: word(24),
            kind,
            op,
            flags: word(32),
            room: word(36),
            passed: word(40),
        }
    }

    /// As bytes.
    pub fn bytes(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let all = [
            &self.from_cid.to_le_bytes()[..],
            &self.to_cid.to_le_bytes(),
            &self.from_port.to_le_bytes(),
            &self.to_port.to_le_bytes(),
            &self.len.to_le_bytes(),
            &self.kind.to_le_bytes(),
            &self.op.to_le_bytes(),
            &self.flags.to_le_bytes(),
            &self.room.to_le_bytes(),
            &self.passed.to_le_bytes(),
        ];
        let all = all.into_iter().flatten();
        bytes.iter_mut().zip(all).for_each(|(to, from)| *to = *from);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn headers_are_their_bytes(bytes: [u8; 32], more: [u8; 12]) {
            let bytes: [u8; HEADER] = [&bytes[..], &more].concat().try_into().unwrap();
            prop_assert_eq!(Header::read(&bytes).bytes(), bytes);
        }
    }

    #[test]
    fn fields_are_where_the_specification_has_them() {
        let mut bytes = [0; HEADER];
        bytes[8] = 2;
        bytes[16] = 3;
        bytes[20] = 4;
        bytes[24] = 5;
        bytes[28] = 1;
        bytes[30] = 7;
        bytes[36] = 8;
        bytes[40] = 9;
        let expected = Header {
            to_cid: 2,
            from_port: 3,
            to_port: 4,
            len: 5,
            kind: STREAM,
            op: op::CREDIT_REQUEST,
            room: 8,
            passed: 9,
            ..Header::default()
        };
        assert_eq!(Header::read(&bytes), expected);
    }
}
