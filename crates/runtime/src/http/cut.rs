//! The reasons why a server ends a connection.

/// The reason why a server ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Cut {
    /// The head of a request was not finished in time.
    SlowHead = 1,
    /// The client took its answer at less than the minimum rate.
    SlowReader = 2,
    /// Nothing came and nothing went for longer than connections are kept open.
    Idle = 3,
    /// Unfinished answers held more memory than they may, and this was the oldest of them.
    Memory = 4,
    /// A request was answered before its body had come, and the rest did not come in time.
    SlowBody = 5,
}

impl Cut {
    /// All reasons.
    pub const ALL: [Self; 5] = [Self::SlowHead, Self::SlowReader, Self::Idle, Self::Memory, Self::SlowBody];

    /// Returns the reason as metrics name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SlowHead => "slow_head",
            Self::SlowReader => "slow_reader",
            Self::Idle => "idle",
            Self::Memory => "memory",
            Self::SlowBody => "slow_body",
        }
    }

    pub(super) fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|cut| *cut as u8 == number)
    }
}
