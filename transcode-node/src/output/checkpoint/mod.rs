//! A job's checkpoints: the stream's last state in the state store and, for streams that ask for them, the playlists in
//! the bucket. Both name only segments that are in the object store, and neither is written once another author has
//! taken over.
//!
//! [`responder`] answers snapshot requests from the checkpoints of streams that have no author.

pub(crate) mod responder;
mod writer;

use std::collections::BTreeSet;

use millrace_protocol::job::WorkerJob;
use millrace_protocol::state::checkpoint::checkpoint_of;
use millrace_wire::fact::StreamState;
use millrace_wire::ids::{Msn, Rendition};
use millrace_wire::message::job::Grant;

use self::writer::CheckpointWriter;
use super::playlists::PlaylistWriter;
use crate::context::NodeContext;

/// The features of a state that its checkpoint depends on: they are cheap to compare after every input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fingerprint {
    first: Msn,
    last_gap: Option<Msn>,
    sealed: bool,
    ended: bool,
    /// Segments that were stored or lost since the job began.
    settled: u64,
    /// Init segments that are not in the store yet.
    waiting_inits: u32,
}

impl Fingerprint {
    fn new(state: &StreamState, settled: u64, waiting_inits: u32) -> Self {
        let last_gap = state.slots.back().filter(|slot| slot.gap.is_some()).map(|slot| slot.msn);
        let StreamState { first_msn, sealed, ended, .. } = *state;
        Self { first: first_msn, last_gap, sealed, ended, settled, waiting_inits }
    }
}

/// Returns true if the state names a stored segment. A successor's state does before the successor has stored anything:
/// its log opens with its predecessor's segments, and viewers were shown where its window begins.
fn names_stored(state: &StreamState) -> bool {
    state.slots.iter().flat_map(|slot| slot.tracks.values()).any(|track| track.stored)
}

/// The publisher of one job's checkpoints and playlists.
pub(crate) struct CheckpointPublisher {
    writer: CheckpointWriter,
    playlists: Option<PlaylistWriter>,
    lost: BTreeSet<(Rendition, Msn)>,
    settled: u64,
    /// Init segments that are not in the store yet: no segment of their epoch plays without them.
    waiting_inits: u32,
    published: Option<Fingerprint>,
}

impl CheckpointPublisher {
    pub(crate) fn new(context: &NodeContext, grant: &Grant) -> Self {
        let writer = CheckpointWriter::start(context.state.clone(), grant.stream);
        let wanted = grant.settings.publish_playlist;
        let playlists = wanted.then(|| PlaylistWriter::start(context.store.clone(), grant.playback));
        Self { writer, playlists, lost: BTreeSet::new(), settled: 0, waiting_inits: 0, published: None }
    }

    /// Notes that an init segment was submitted to the store.
    pub(crate) fn init_submitted(&mut self) {
        self.waiting_inits += 1;
    }

    /// Notes that the upload of an init segment ended; one that failed keeps checkpoints from being written.
    pub(crate) fn init_settled(&mut self, stored: bool) {
        self.waiting_inits -= u32::from(stored);
    }

    /// Notes that a segment is in the store.
    pub(crate) fn segment_stored(&mut self) {
        self.settled += 1;
    }

    /// Notes that a segment will never be in the store.
    pub(crate) fn segment_lost(&mut self, rendition: Rendition, msn: Msn) {
        self.lost.insert((rendition, msn));
        self.settled += 1;
    }

    /// Writes a checkpoint and playlists if the job's state has changed in what they depend on.
    pub(crate) fn update(&mut self, job: &WorkerJob) {
        let Some(state) = job.snapshot() else {
            // Before the session has announced this author nothing is published, so there is nothing to stop.
            if let Some(playlists) = self.playlists.as_ref().filter(|_| self.published.is_some()) {
                playlists.stop();
            }
            return;
        };
        let fingerprint = Fingerprint::new(state, self.settled, self.waiting_inits);
        let nothing_to_name = !state.ended && self.settled == 0 && !names_stored(state);
        if self.published == Some(fingerprint) || nothing_to_name {
            return;
        }
        self.published = Some(fingerprint);
        self.lost.retain(|(_, msn)| *msn >= state.first_msn);
        if self.waiting_inits > 0 {
            return;
        }
        let checkpoint = checkpoint_of(state, &self.lost, job.grant().settings.window_s());
        if let Some(playlists) = &self.playlists {
            playlists.publish(&checkpoint);
        }
        self.writer.write(checkpoint);
    }

    /// Waits, within time limits, until the last checkpoint and playlists are written.
    pub(crate) async fn close(self) {
        if let Some(playlists) = self.playlists {
            playlists.close().await;
        }
        self.writer.close().await;
    }
}
