//! What the machine's loop waits for, by name.

use crate::layout::MAX_VIRTIO;

/// What an event is about; carried as the epoll data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    Wake,
    Terminate,
    Tick,
    Typed,
    SerialRoom,
    OutputWaits,
    OutputReady,
    AgentListener,
    AgentClient,
    AgentRoom,
    Calls,
    DomainTyped,
    Streams,
    Wire(u32),
    Doorbell(u32),
}

/// Tokens before the first doorbell's.
const FIXED: [Token; 13] = [
    Token::Wake,
    Token::Terminate,
    Token::Tick,
    Token::Typed,
    Token::SerialRoom,
    Token::OutputWaits,
    Token::OutputReady,
    Token::AgentListener,
    Token::AgentClient,
    Token::AgentRoom,
    Token::Calls,
    Token::DomainTyped,
    Token::Streams,
];

/// The first network device's, behind those; there are fewer than transports.
const FIRST_WIRE: u32 = 13;
/// The first doorbell's.
const FIRST_BELL: u32 = FIRST_WIRE + 16;
const _: () = assert!(MAX_VIRTIO == 16, "there is a place for each device's wire");

impl Token {
    /// As it is carried.
    pub fn data(self) -> u32 {
        match self {
            Self::Wire(n) => FIRST_WIRE + n,
            Self::Doorbell(n) => FIRST_BELL + n,
            fixed => FIXED
                .iter()
                .zip(0..)
                .find(|(t, _)| **t == fixed)
                .map_or(u32::MAX, |(_, n)| n),
        }
    }

    /// What was carried.
    pub fn of(data: u32) -> Self {
        let fixed = FIXED.get(data as usize).copied();
        fixed.unwrap_or_else(|| match data.checked_sub(FIRST_BELL) {
            Some(n) => Self::Doorbell(n),
            None => Self::Wire(data.saturating_sub(FIRST_WIRE)),
        })
    }
}
