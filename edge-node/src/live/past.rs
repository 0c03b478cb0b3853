//! The earlier broadcasts of a stream. Their media playlists have ended and are still answered under their own names, for players
//! that hold one and have not read its end yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_state::SharedState;
use millrace_wire::ids::{Airing, StreamId};

use crate::live::checkpoint;
use crate::live::playlists::{Following, Presence, StreamPlaylists};

/// Broadcasts of one stream that are held, the newest ones: a player that has missed the end of one is seldom more than one behind.
const MAX_HELD: usize = 4;

type Playlists = Option<Arc<StreamPlaylists>>;

/// The playlists of a stream's earlier broadcasts, as far as they have been asked for.
#[derive(Debug, Default)]
pub struct PastBroadcasts {
    /// The lock is held while the state store is read: each stream has one read under way at most. A broadcast without a checkpoint
    /// holds `None`.
    held: tokio::sync::Mutex<BTreeMap<Airing, Playlists>>,
}

impl PastBroadcasts {
    /// Holds the playlists of a broadcast that another one follows. Those without their end are left to the state store.
    pub fn keep(&self, airing: Airing, playlists: Arc<StreamPlaylists>) {
        // A read that is under way finds the same broadcast in the state store.
        if let Ok(mut held) = self.held.try_lock() {
            held.insert(airing, Some(playlists));
            bound(&mut held);
        }
    }

    /// Returns the playlists of an earlier broadcast: those that were shown, or those of its checkpoint. `None` if its checkpoint is
    /// gone, or the state store does not answer.
    pub async fn get(&self, state: &SharedState, stream: StreamId, airing: Airing) -> Playlists {
        let mut held = self.held.lock().await;
        if let Some(found) = held.get(&airing) {
            return found.clone();
        }
        let read = checkpoint::read_past(state, stream, airing).await?;
        let playlists = read.map(|past| {
            Arc::new(StreamPlaylists::new(Arc::new(past), Following::NoLog, Presence::NoPublisher))
        });
        held.insert(airing, playlists.clone());
        bound(&mut held);
        playlists
    }
}

fn bound(held: &mut BTreeMap<Airing, Playlists>) {
    while held.len() > MAX_HELD {
        held.pop_first();
    }
}
