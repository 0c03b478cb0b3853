//! Counting viewers by their heartbeats: the state store keeps each session in a set whose members expire, and the count goes
//! over all edges.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millrace_runtime::{ActorContext, Clock, StatusHandle};
use millrace_state::SharedState;
use millrace_wire::ids::StreamId;
use millrace_wire::state_keys;

use crate::audience::limit::PerAddressLimit;

/// Seconds between two heartbeats of a player.
pub const HEARTBEAT_S: u64 = 10;
/// A session expires two and a half heartbeats after its last one.
const SESSION_TTL: Duration = Duration::from_secs(25);
/// Time between two writes of the collected heartbeats: the load on the state store grows with edges, not with viewers.
const FLUSH: Duration = Duration::from_secs(1);
/// Heartbeats held between two writes; a viewer beyond them is not counted before the next heartbeat.
const MAX_PENDING: usize = 200_000;

/// The number of viewers of one stream over all edges, as it was last counted.
#[derive(Debug, Default)]
pub struct ViewerCount(AtomicU64);

impl ViewerCount {
    /// Returns the number of viewers.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, viewers: u64) {
        self.0.store(viewers, Ordering::Relaxed);
    }
}

/// A heartbeat of one session.
#[derive(Debug)]
pub struct Heartbeat<'a> {
    /// The stream that the session watches.
    pub stream: StreamId,
    /// The random part of the session id in hex digits, whose signature the caller has checked.
    pub session: &'a str,
    /// The address that the heartbeat came from.
    pub address: IpAddr,
    /// False for the last heartbeat of a session.
    pub watching: bool,
}

/// The sessions of one stream since the last write, and whether each still watches.
type Sessions = (Arc<ViewerCount>, HashMap<String, bool>);

/// Collects heartbeats and writes them to the state store.
pub struct Heartbeats {
    limit: PerAddressLimit,
    clock: Arc<dyn Clock>,
    pending: Mutex<HashMap<StreamId, Sessions>>,
}

impl Heartbeats {
    /// Creates a collector that counts at most `per_address` viewers of one address; 0 stands for any number.
    pub fn new(per_address: u32, clock: Arc<dyn Clock>) -> Self {
        Self { limit: PerAddressLimit::new(per_address, SESSION_TTL), clock, pending: Mutex::default() }
    }

    /// Takes a heartbeat; the next write also refreshes `count`. False when it is not counted because a limit is reached.
    pub fn heartbeat(&self, heartbeat: &Heartbeat<'_>, count: &Arc<ViewerCount>) -> bool {
        let Ok(number) = u128::from_str_radix(heartbeat.session, 16) else { return false };
        let counts = if heartbeat.watching {
            self.limit.admit(heartbeat.address, number, self.clock.now_ms())
        } else {
            self.limit.leave(heartbeat.address, number)
        };
        if !counts {
            return false;
        }
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let held: usize = pending.values().map(|(_, sessions)| sessions.len()).sum();
        if held >= MAX_PENDING {
            return false;
        }
        let new = || (count.clone(), HashMap::new());
        let (_, sessions) = pending.entry(heartbeat.stream).or_insert_with(new);
        sessions.insert(heartbeat.session.to_owned(), heartbeat.watching);
        true
    }

    /// Writes the collected heartbeats once a second and refreshes the counts, until the actor is stopped. The actor's queue
    /// is the streams whose heartbeats wait to be written.
    pub async fn run(self: Arc<Self>, state: SharedState, actor: ActorContext) -> anyhow::Result<()> {
        actor.status.set_state("counting viewers");
        loop {
            tokio::select! {
                () = tokio::time::sleep(FLUSH) => self.flush(&state, &actor.status).await,
                () = actor.stop.cancelled() => return Ok(()),
            }
        }
    }

    async fn flush(&self, state: &SharedState, status: &StatusHandle) {
        self.limit.evict_expired(self.clock.now_ms());
        let pending = std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner));
        status.set_queue(pending.len(), FLUSH);
        for (stream, (count, sessions)) in pending {
            let set = state_keys::viewers(stream);
            let mut present = Vec::new();
            let mut gone = Vec::new();
            for (session, watching) in sessions {
                if watching { present.push(session) } else { gone.push(session) }
            }
            let written = async {
                if !present.is_empty() {
                    state.set_add(&set, &present, SESSION_TTL).await?;
                }
                if !gone.is_empty() {
                    state.set_remove(&set, &gone).await?;
                }
                state.set_count(&set).await
            };
            match written.await {
                Ok(viewers) => count.set(viewers),
                Err(error) => {
                    tracing::warn!(%stream, %error, "heartbeats could not be written; the viewers' next ones count");
                }
            }
        }
        status.set_queue(0, Duration::ZERO);
    }
}
