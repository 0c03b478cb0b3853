//! The last disconnect of a livestream: when and why its newest publisher was refused or closed.

use std::net::IpAddr;

use millrace_wire::close_reason::CloseReason;
use millrace_wire::ids::UnixMillis;
use millrace_wire::message::control::bounded_text;
use serde::{Deserialize, Serialize};

/// A refusal that repeats the one before is written again only after this time, so that an encoder that connects again and
/// again costs few writes.
pub const REPEAT_MS: u64 = 10_000;

/// The refusal or the end of one publish, as operators see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disconnect {
    /// The code of the close reason. It is stored as text, so that an older control reads a newer one's record.
    pub code: String,
    /// The reason in words, as the publisher was told.
    pub text: String,
    /// The time of the refusal or of the end.
    pub at: UnixMillis,
    /// The protocol of the publisher.
    pub protocol: String,
    /// The publisher's address.
    pub addr: Option<IpAddr>,
    /// True if the publisher was refused before its publish began; false if its publish was ended.
    pub refused: bool,
}

impl Disconnect {
    /// Creates the record of a publish that ended or was refused for `reason`; an empty `text` stands for the reason's own.
    pub fn new(
        now: UnixMillis,
        (reason, text): (CloseReason, &str),
        (protocol, addr): (&str, Option<IpAddr>),
        refused: bool,
    ) -> Self {
        let text = if text.is_empty() { reason.text() } else { text };
        Self {
            code: reason.code().to_owned(),
            text: bounded_text(text),
            at: now,
            protocol: bounded_text(protocol),
            addr,
            refused,
        }
    }

    /// True if this record tells nothing that `earlier` does not tell, and follows it closely.
    pub fn repeats(&self, earlier: &Self) -> bool {
        self.at.0.saturating_sub(earlier.at.0) < REPEAT_MS && *self == Self { at: self.at, ..earlier.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disconnect_repeats_an_equal_one_within_ten_seconds_only() {
        let at = |ms, text: &str| {
            let peer = ("rtmp", Some([192, 0, 2, 1].into()));
            Disconnect::new(UnixMillis(ms), (CloseReason::StreamEnded, text), peer, true)
        };
        let first = at(1_000, "");
        assert_eq!((first.code.as_str(), first.text.as_str()), ("stream_ended", "The stream has ended."));
        assert!(at(1_000 + REPEAT_MS - 1, "").repeats(&first));
        assert!(!at(1_000 + REPEAT_MS, "").repeats(&first));
        assert!(!at(1_001, "Another reason.\n").repeats(&first));
        assert_eq!(at(1, "Two\nlines").text, "Twolines", "control characters are left out");
    }
}
