//! What a job leaves for those who come when it is gone: the stream's last state and, if the stream wants them, the
//! playlists in the bucket. Both follow what is in the store, and nothing is written once another author has taken over.

use std::collections::BTreeSet;

use millrace_protocol::job::WorkerJob;
use millrace_protocol::state::checkpoint::at_rest;
use millrace_wire::fact::StreamState;
use millrace_wire::ids::{Msn, Rendition};
use millrace_wire::message::job::Grant;

use crate::job::Deps;
use crate::keeper::Keeper;
use crate::playlists::Playlists;

/// What a state at rest depends on: cheap to compare after every input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    first: Msn,
    last_gap: Option<Msn>,
    sealed: bool,
    ended: bool,
    /// Segments stored or lost.
    settled: u64,
}

impl Mark {
    fn of(view: &StreamState, settled: u64) -> Self {
        let last_gap = view.slots.back().filter(|s| s.gap.is_some()).map(|s| s.msn);
        Self { first: view.first_msn, last_gap, sealed: view.sealed, ended: view.ended, settled }
    }
}

/// Whether a state at rest has anything to name. A new author's has, before it has stored anything itself: what its log
/// opens with, and where its window begins, is shown.
fn names_stored(view: &StreamState) -> bool {
    view.slots.iter().flat_map(|slot| slot.tracks.values()).any(|track| track.stored)
}

/// See the module.
pub(crate) struct Rest {
    keeper: Keeper,
    playlists: Option<Playlists>,
    lost: BTreeSet<(Rendition, Msn)>,
    settled: u64,
    /// Init segments that are not in the store yet: nothing of their epoch plays without them.
    inits: u32,
    noted: Option<(Mark, u32)>,
}

impl Rest {
    pub(crate) fn new(deps: &Deps, grant: &Grant) -> Self {
        let keeper = Keeper::start(deps.state.clone(), grant.stream);
        let wanted = grant.settings.publish_playlist;
        let playlists = wanted.then(|| Playlists::start(deps.store.clone(), grant.playback));
        Self { keeper, playlists, lost: BTreeSet::new(), settled: 0, inits: 0, noted: None }
    }

    /// An init segment is on its way to the store.
    pub(crate) fn init_waits(&mut self) {
        self.inits += 1;
    }

    /// It is there, or never will be.
    pub(crate) fn init_stored(&mut self, there: bool) {
        self.inits -= u32::from(there);
    }

    /// A segment is in the store.
    pub(crate) fn stored(&mut self) {
        self.settled += 1;
    }

    /// A segment will not be in the store.
    pub(crate) fn lost(&mut self, rendition: Rendition, msn: Msn) {
        self.lost.insert((rendition, msn));
        self.settled += 1;
    }

    /// Writes what has changed.
    pub(crate) fn note(&mut self, job: &WorkerJob) {
        let Some(view) = job.snapshot() else {
            // Before the session has announced this author there is nothing to stop.
            if let Some(playlists) = self.playlists.as_ref().filter(|_| self.noted.is_some()) {
                playlists.stop();
            }
            return;
        };
        let mark = (Mark::of(view, self.settled), self.inits);
        if self.noted == Some(mark) || !view.ended && self.settled == 0 && !names_stored(view) {
            return;
        }
        self.noted = Some(mark);
        self.lost.retain(|(_, msn)| *msn >= view.first_msn);
        if self.inits > 0 {
            return;
        }
        let rest = at_rest(view, &self.lost, job.grant().settings.window);
        if let Some(playlists) = &self.playlists {
            playlists.publish(&rest);
        }
        self.keeper.keep(rest);
    }

    /// Waits for what is still to be written.
    pub(crate) async fn close(self) {
        if let Some(playlists) = self.playlists {
            playlists.close().await;
        }
        self.keeper.close().await;
    }
}
