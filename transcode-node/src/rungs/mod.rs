//! The rungs of a job's ladder: each turns the published media into the parts and segments of its own renditions.
//!
//! A job hands every media message to each of its rungs and announces what they make. It does not know how a rung works:
//! the [`copy`] rung packages the publisher's bits at once, in the job's own task; a rung that encodes in a child process
//! answers later, and wakes the job when it does.

mod built_in;
pub mod copy;
mod facts;
pub(crate) mod ladder;
mod set;

use std::fmt::Debug;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use millrace_media::repair::RepairCounts;
use millrace_protocol::job::Packaged;
use millrace_wire::fact::{EpochOpen, StreamState};
use millrace_wire::ids::RungId;
use millrace_wire::message::announce::Degraded;
use millrace_wire::message::control::StreamSettings;
use millrace_wire::message::ladder_health::LadderHealth;
use millrace_wire::message::media::{MediaMessage, MediaUnit};

pub use self::built_in::BuiltInRungs;
pub(crate) use self::set::RungSet;
use crate::encoders::EncoderFactory;
pub use crate::metrics::RungFigures;
pub use crate::pictures::Sheet;

/// One rung at work on one epoch.
pub trait Rung: Debug + Send {
    /// The rung's name within its job.
    fn id(&self) -> &RungId;

    /// Takes media from before the first segment that the rung packages, in order. A rung that decodes begins with them, so that
    /// it goes on as its predecessor would have; none of them is packaged.
    fn pre_roll(&mut self, _: &[MediaUnit]) {}

    /// Takes the next media message in order; media bytes are shared with the other rungs. Never waits: a rung that
    /// cannot keep up leaves a segment out and reports it as a gap of its renditions.
    fn push(&mut self, message: MediaMessage);

    /// Closes the open segments as they are. The rung gives [`Packaged::Flushed`] after everything that was pushed
    /// before, at once or later.
    fn finish(&mut self);

    /// Gives the next thing made. When there is none yet it arranges for `context`'s waker to be woken, unless the rung
    /// makes things only within `push` and `finish`, after which the job polls anyway.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Packaged>;

    /// Returns the reason why the rung does not make all of its renditions now; `None` if it does.
    fn trouble(&self) -> Option<Degraded> {
        None
    }

    /// Returns what the rung has moved, dropped or made up since it started.
    fn repairs(&self) -> RepairCounts {
        RepairCounts::new()
    }

    /// Returns news of the encoded rungs, if there are any since the last call.
    fn take_news(&mut self) -> Option<LadderNews> {
        None
    }

    /// Returns the newest sheet of the storyboard, if there is one since the last call.
    fn take_sheet(&mut self) -> Option<Sheet> {
        None
    }

    /// Returns the newest picture of the source as a JPEG file, if there is one since the last call.
    fn take_thumbnail(&mut self) -> Option<Bytes> {
        None
    }
}

/// News of the encoded rungs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LadderNews {
    /// The health, for the session.
    pub health: LadderHealth,
    /// The figures of the reports that have come, for metrics.
    pub figures: Vec<RungFigures>,
}

/// Starts the rungs that a stream's settings ask for.
pub trait RungFactory: Debug + Send + Sync {
    /// Returns the ids of the rungs that a stream with these settings has; they do not change during a job.
    fn rungs(&self, settings: &StreamSettings) -> Vec<RungId>;

    /// Returns the encoders that the rungs use, if there are any: pictures of copied streams are made with them, too.
    fn encoders(&self) -> Option<Arc<dyn EncoderFactory>> {
        None
    }

    /// Starts a rung with these settings for the epoch that `open` describes. `base` is the stream's state so far, whose
    /// PART-TARGETs the rung must keep.
    fn start(
        &self,
        id: &RungId,
        settings: &StreamSettings,
        open: &EpochOpen,
        base: &StreamState,
    ) -> Box<dyn Rung>;
}
