//! Counting viewers: signed sessions beat, the state store keeps them in a set that expires, and the count
//! goes over all edges.

use std::collections::HashMap;
use std::fmt::Write;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hmac::{Hmac, Mac};
use millrace_runtime::{Clock, Secret};
use millrace_state::SharedState;
use millrace_wire::ids::StreamId;
use millrace_wire::state_keys;
use rand::RngCore;
use sha2::Sha256;
use tokio_util::sync::CancellationToken;

use crate::crowd::Crowd;
use crate::stream::LiveStream;

/// How often a player beats, seconds.
pub const BEAT_S: u64 = 10;
/// A session not heard of for two and a half beats is gone.
const SESSION_TTL: Duration = Duration::from_secs(25);
/// Beats are written together this often, so the store sees edges and not viewers.
const FLUSH: Duration = Duration::from_secs(1);
/// Sessions held between two flushes; more are not counted until the next beat.
const MAX_PENDING: usize = 200_000;
/// Bytes of a session's random part.
const SESSION_BYTES: usize = 16;
/// Bytes of the signature: 64 bits are enough against inventing sessions one request at a time.
const SIGNATURE_BYTES: usize = 8;

/// Issues and checks session ids.
#[derive(Debug)]
pub struct Signer(Secret<Vec<u8>>);

impl Signer {
    /// Signs with `secret`, or with a random one when it is empty.
    pub fn new(secret: &Secret<String>) -> Self {
        // Exposed to key the MAC only.
        let mut key = secret.expose().clone().into_bytes();
        if key.is_empty() {
            key = vec![0; 32];
            rand::rng().fill_bytes(&mut key);
        }
        Self(Secret::new(key))
    }

    fn sign(&self, stream: StreamId, id: &str) -> String {
        // Exposed to key the MAC; HMAC takes keys of any length (RFC 2104 §2).
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.0.expose()) else { return String::new() };
        mac.update(b"millrace viewer session\0");
        mac.update(stream.to_string().as_bytes());
        mac.update(id.as_bytes());
        hex(&mac.finalize().into_bytes()[..SIGNATURE_BYTES])
    }

    /// A new session.
    pub fn issue(&self, stream: StreamId) -> String {
        let mut bytes = [0; SESSION_BYTES];
        rand::rng().fill_bytes(&mut bytes);
        let id = hex(&bytes);
        let signature = self.sign(stream, &id);
        format!("{id}.{signature}")
    }

    /// The id of a session issued for this stream.
    pub fn check<'a>(&self, stream: StreamId, session: &'a str) -> Option<&'a str> {
        let (id, signature) = session.split_once('.')?;
        if id.len() != 2 * SESSION_BYTES || signature.len() != 2 * SIGNATURE_BYTES {
            return None;
        }
        let right = self.sign(stream, id);
        // Compared whole, so that time tells nothing of where they differ.
        let differ = right.bytes().zip(signature.bytes()).fold(0, |d, (a, b)| d | (a ^ b));
        (differ == 0 && !right.is_empty()).then_some(id)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, b| {
        let _ = write!(text, "{b:02x}");
        text
    })
}

/// A stream's sessions since the last flush, and whether each still watches.
type Beats = (Arc<LiveStream>, HashMap<String, bool>);

/// Collects beats and writes them.
pub struct Viewers {
    crowd: Crowd,
    clock: Arc<dyn Clock>,
    pending: Mutex<HashMap<StreamId, Beats>>,
}

impl Viewers {
    /// At most `per_address` viewers of one address are counted; 0: any number.
    pub fn new(per_address: u32, clock: Arc<dyn Clock>) -> Self {
        Self { crowd: Crowd::new(per_address), clock, pending: Mutex::default() }
    }

    /// A session watches, or has left; false when it is not counted.
    pub fn beat(&self, stream: &Arc<LiveStream>, address: IpAddr, session: &str, watching: bool) -> bool {
        if !self.crowd.admit(address, self.clock.now_ms()) {
            return false;
        }
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let held: usize = pending.values().map(|(_, s)| s.len()).sum();
        if held >= MAX_PENDING {
            return false;
        }
        let (_, sessions) = pending.entry(stream.id).or_insert_with(|| (stream.clone(), HashMap::new()));
        sessions.insert(session.to_owned(), watching);
        true
    }

    /// Writes what was collected and refreshes the counts, until told to stop.
    pub async fn run(self: Arc<Self>, state: SharedState, stop: CancellationToken) {
        while !stop.is_cancelled() {
            tokio::select! {
                () = tokio::time::sleep(FLUSH) => self.flush(&state).await,
                () = stop.cancelled() => {}
            }
        }
    }

    async fn flush(&self, state: &SharedState) {
        self.crowd.forget(self.clock.now_ms());
        let pending = std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner));
        for (id, (stream, sessions)) in pending {
            let set = state_keys::viewers(id);
            let (here, left): (Vec<_>, Vec<_>) = sessions.into_iter().partition(|(_, watching)| *watching);
            let here: Vec<String> = here.into_iter().map(|(s, _)| s).collect();
            let left: Vec<String> = left.into_iter().map(|(s, _)| s).collect();
            let written = async {
                if !here.is_empty() {
                    state.set_add(&set, &here, SESSION_TTL).await?;
                }
                if !left.is_empty() {
                    state.set_remove(&set, &left).await?;
                }
                state.set_count(&set).await
            };
            match written.await {
                Ok(count) => stream.set_viewers(count),
                Err(error) => tracing::warn!(stream = %id, %error, "viewers could not be counted"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_issued_sessions_count_and_only_for_their_stream() {
        let signer = Signer::new(&Secret::default());
        let (a, b) = (StreamId::from_u128(1), StreamId::from_u128(2));
        let session = signer.issue(a);
        assert_eq!(signer.check(a, &session), session.split('.').next());
        assert_eq!(signer.check(b, &session), None);
        assert_eq!(Signer::new(&Secret::default()).check(a, &session), None);
        for bad in ["", ".", "x.y", "00112233445566778899aabbccddeeff.0011223344556677"] {
            assert_eq!(signer.check(a, bad), None, "{bad:?}");
        }
        let shared = Secret::new("s".to_owned());
        assert!(Signer::new(&shared).check(a, &Signer::new(&shared).issue(a)).is_some());
    }
}
