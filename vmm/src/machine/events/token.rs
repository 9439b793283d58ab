//! What the machine's loop waits for, by name.

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
    Doorbell(u32),
}

/// Tokens before the first doorbell's.
const FIXED: [Token; 11] = [
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
];

/// The first doorbell's, behind those.
const FIRST_BELL: u32 = 11;

impl Token {
    /// As it is carried.
    pub fn data(self) -> u32 {
        match self {
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
        FIXED
            .get(data as usize)
            .copied()
            .unwrap_or(Self::Doorbell(data.saturating_sub(FIRST_BELL)))
    }
}
