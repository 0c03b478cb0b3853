//! The rungs of one job as one.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use millrace_media::repair::RepairCounts;
use millrace_protocol::job::Packaged;
use millrace_wire::fact::{EpochOpen, StreamState};
use millrace_wire::ids::RungId;
use millrace_wire::message::announce::Degraded;
use millrace_wire::message::control::StreamSettings;
use millrace_wire::message::media::{MediaMessage, MediaUnit};

use super::{LadderNews, Rung, RungFactory, Sheet};

/// The rungs of one job.
#[derive(Debug)]
pub(crate) struct RungSet {
    factory: Arc<dyn RungFactory>,
    rungs: Vec<Box<dyn Rung>>,
    /// The repairs of rungs that were replaced.
    replaced: RepairCounts,
}

impl RungSet {
    /// Starts the rungs that `settings` ask for.
    pub(crate) fn start(
        factory: Arc<dyn RungFactory>,
        settings: &StreamSettings,
        open: &EpochOpen,
        base: &StreamState,
    ) -> Self {
        let rungs =
            factory.rungs(settings).iter().map(|id| factory.start(id, settings, open, base)).collect();
        Self { factory, rungs, replaced: RepairCounts::new() }
    }

    /// Returns the ids of the job's rungs.
    pub(crate) fn ids(&self) -> impl Iterator<Item = RungId> {
        self.rungs.iter().map(|rung| rung.id().clone())
    }

    /// Hands media from before the first segment to every rung.
    pub(crate) fn pre_roll(&mut self, units: &[MediaUnit]) {
        self.rungs.iter_mut().for_each(|rung| rung.pre_roll(units));
    }

    /// Hands a message to every rung. Media bytes are shared, not copied.
    pub(crate) fn push(&mut self, message: MediaMessage) {
        let Some((last, others)) = self.rungs.split_last_mut() else { return };
        for rung in others {
            rung.push(message.clone());
        }
        last.push(message);
    }

    /// Asks the rung to close its open segments.
    pub(crate) fn finish(&mut self, id: &RungId) {
        if let Some(rung) = self.rungs.iter_mut().find(|rung| rung.id() == id) {
            rung.finish();
        }
    }

    /// Replaces the rung by a new one that starts with the next message; segments that the old one had begun are dropped.
    pub(crate) fn restart(
        &mut self,
        id: &RungId,
        settings: &StreamSettings,
        open: &EpochOpen,
        base: &StreamState,
    ) {
        if let Some(rung) = self.rungs.iter_mut().find(|rung| rung.id() == id) {
            self.replaced.merge(&rung.repairs());
            *rung = self.factory.start(id, settings, open, base);
        }
    }

    /// Returns what all rungs have moved, dropped or made up.
    pub(crate) fn repairs(&self) -> RepairCounts {
        let mut repairs = self.replaced;
        self.rungs.iter().for_each(|rung| repairs.merge(&rung.repairs()));
        repairs
    }

    /// Returns news of the encoded rungs, if there are any since the last call.
    pub(crate) fn take_news(&mut self) -> Option<LadderNews> {
        self.rungs.iter_mut().find_map(|rung| rung.take_news())
    }

    /// Returns the newest sheet of the storyboard, if there is one since the last call.
    pub(crate) fn take_sheet(&mut self) -> Option<Sheet> {
        self.rungs.iter_mut().find_map(|rung| rung.take_sheet())
    }

    /// Returns the newest picture of the source, if there is one since the last call.
    pub(crate) fn take_thumbnail(&mut self) -> Option<Bytes> {
        self.rungs.iter_mut().find_map(|rung| rung.take_thumbnail())
    }

    /// Returns the reason why a rung does not make all of its renditions.
    pub(crate) fn trouble(&self) -> Option<Degraded> {
        self.rungs.iter().find_map(|rung| rung.trouble())
    }

    /// Returns the next thing that a rung has made already.
    pub(crate) fn try_next(&mut self) -> Option<(RungId, Packaged)> {
        match self.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(made) => Some(made),
            Poll::Pending => None,
        }
    }

    /// Waits for the next thing that a rung makes. Cancel safe.
    pub(crate) async fn next(&mut self) -> (RungId, Packaged) {
        poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<(RungId, Packaged)> {
        for rung in &mut self.rungs {
            if let Poll::Ready(made) = rung.poll(context) {
                return Poll::Ready((rung.id().clone(), made));
            }
        }
        Poll::Pending
    }
}
