//! The health of a stream's encoded rungs: from the worker in its heartbeats to the session, and from there to control in the
//! renewals of the lease.

use serde::{Deserialize, Serialize};

use crate::ids::Rendition;
use crate::ladder::MAX_RUNGS;

/// The health of a stream's encoded rungs, as its worker reports it about once a second.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LadderHealth {
    /// The rungs of the plan, highest first; at most [`MAX_RUNGS`] count.
    pub rungs: Vec<RungHealth>,
    /// The conditions of the decoded media that last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<MediaCondition>,
    /// Milliseconds of media that wait for the decoder.
    #[serde(default)]
    pub decoder_waiting_ms: u32,
}

/// The health of one encoded rung.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RungHealth {
    /// The rendition that the rung makes.
    pub rendition: Rendition,
    /// The state of the rung.
    pub state: RungState,
    /// The encoder that was opened, such as `x264`; `None` until one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoder: Option<String>,
    /// Thousandths of pictures per second of media.
    pub fps_milli: u32,
    /// Bits per second of media.
    pub bitrate: u64,
    /// Seconds of media that the encoder makes in a second of CPU time, in percent: 100 takes a whole core.
    pub speed_percent: u32,
    /// Milliseconds of media that wait for the encoder.
    pub waiting_ms: u32,
}

/// The state of an encoded rung.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RungState {
    /// No picture has been encoded yet.
    Starting,
    /// The rung is encoded.
    Encoding,
    /// The rung is left out because the worker is too slow for all rungs.
    Shed,
    /// The rung is not made of this source, because it is larger than the source or cannot be made of it.
    Dropped,
    /// The rung is left out because its encoder has failed several times.
    Failed,
}

impl RungState {
    /// True if the rung is missing against its stream's settings.
    pub const fn is_left_out(self) -> bool {
        matches!(self, Self::Shed | Self::Failed)
    }
}

/// A condition of the decoded media that viewers notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MediaCondition {
    /// All pictures are black.
    Black,
    /// All pictures are equal.
    Frozen,
    /// The sound is silence.
    Silent,
    /// The decoder reports errors.
    DecodeErrors,
}

impl MediaCondition {
    /// Returns the code of the health note.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Black => "black",
            Self::Frozen => "frozen",
            Self::Silent => "silent",
            Self::DecodeErrors => "decode_errors",
        }
    }

    /// Returns the words of the health note.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Black => "The picture is black: is the right scene or input selected?",
            Self::Frozen => "The picture does not change: the source may have stopped.",
            Self::Silent => "The sound is silent: is the microphone or the mixer muted?",
            Self::DecodeErrors => {
                "Pictures of the source cannot be decoded: data are lost or damaged on their way."
            }
        }
    }
}

impl LadderHealth {
    /// Returns the report with no more entries than a stream can have.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        self.rungs.truncate(MAX_RUNGS);
        for rung in &mut self.rungs {
            rung.encoder = rung.encoder.take().filter(|name| name.len() <= crate::ids::MAX_NAME);
        }
        self.conditions.sort_unstable();
        self.conditions.dedup();
        self
    }

    /// Returns the number of rungs that are missing against the stream's settings.
    pub fn left_out(&self) -> usize {
        self.rungs.iter().filter(|rung| rung.state.is_left_out()).count()
    }

    /// True if the states of the rungs and the conditions are the same; the figures always differ.
    pub fn is_alike(&self, other: &Self) -> bool {
        let states = |health: &Self| -> Vec<_> {
            health.rungs.iter().map(|rung| (rung.rendition.clone(), rung.state)).collect()
        };
        self.conditions == other.conditions && states(self) == states(other)
    }

    /// Returns the rungs that are left out, and the reason, in words; `None` if all are there.
    pub fn words(&self) -> Option<String> {
        let names = |state: RungState| -> Vec<&str> {
            let rungs = self.rungs.iter().filter(|rung| rung.state == state);
            rungs.map(|rung| rung.rendition.as_str()).collect()
        };
        let (failed, shed) = (names(RungState::Failed), names(RungState::Shed));
        let failed =
            (!failed.is_empty()).then(|| format!("the encoder failed: {} left out", failed.join(", ")));
        let shed = (!shed.is_empty()).then(|| format!("overloaded: {} left out", shed.join(", ")));
        let words: Vec<String> = failed.into_iter().chain(shed).collect();
        (!words.is_empty()).then(|| words.join("; "))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn rung(name: &str, state: RungState) -> RungHealth {
        RungHealth {
            rendition: name.parse().unwrap(),
            state,
            encoder: Some("x264".to_owned()),
            fps_milli: 30_000,
            bitrate: 2_800_000,
            speed_percent: 420,
            waiting_ms: 40,
        }
    }

    #[test]
    fn words_name_the_rungs_that_are_left_out_and_the_reason() {
        use RungState::{Dropped, Encoding, Failed, Shed};

        let health = |states: [RungState; 3]| LadderHealth {
            rungs: ["720p", "480p", "360p"]
                .into_iter()
                .zip(states)
                .map(|(name, state)| rung(name, state))
                .collect(),
            ..LadderHealth::default()
        };
        assert_eq!(health([Dropped, Encoding, Encoding]).words(), None);
        let shed = health([Shed, Encoding, Encoding]);
        assert_eq!(shed.words().as_deref(), Some("overloaded: 720p left out"));
        assert_eq!((shed.left_out(), shed.is_alike(&health([Encoding; 3]))), (1, false));
        let failed = health([Failed, Failed, Shed]).words();
        assert_eq!(
            failed.as_deref(),
            Some("the encoder failed: 720p, 480p left out; overloaded: 360p left out")
        );
    }

    #[test]
    fn bounded_report_has_no_more_than_a_stream_can_have() {
        let long = LadderHealth {
            rungs: vec![
                RungHealth { encoder: Some("x".repeat(500)), ..rung("720p", RungState::Encoding) };
                20
            ],
            conditions: vec![MediaCondition::Silent, MediaCondition::Black, MediaCondition::Silent],
            decoder_waiting_ms: 0,
        };
        let bounded = long.bounded();
        assert_eq!((bounded.rungs.len(), bounded.rungs[0].encoder.as_deref()), (MAX_RUNGS, None));
        assert_eq!(bounded.conditions, [MediaCondition::Black, MediaCondition::Silent]);
    }
}
