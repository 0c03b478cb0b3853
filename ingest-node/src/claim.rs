//! Asking control for an epoch.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use millrace_bus::SharedBus;
use millrace_rtmp::StreamName;
use millrace_wire::close_reason::CloseReason;
use millrace_wire::ids::{KeyHash, NodeId, SessionId, StreamKey};
use millrace_wire::message::control::{self, ClaimGrant, ClaimReply, ClaimRequest};
use millrace_wire::subjects;
use tokio::time::Instant;

use crate::limits;

/// Who asks.
#[derive(Debug)]
pub(crate) struct Applicant<'a> {
    pub(crate) session: SessionId,
    pub(crate) node: &'a NodeId,
    pub(crate) addr: IpAddr,
    pub(crate) protocol: &'static str,
}

/// The hash control knows the presented key by; `None`: it is no key at all.
pub(crate) fn key_hash(secret: &[u8], name: &StreamName) -> Option<KeyHash> {
    // A key pasted with a space or a line end is still the key.
    let key: StreamKey = name.expose().trim().parse().ok()?;
    Some(KeyHash::of(secret, &key))
}

/// Claims the key within `limit`. Control away is asked again until then: an encoder waits rather than fails while
/// control restarts. The same session asking twice gets the same answer.
pub(crate) async fn claim(
    bus: &SharedBus,
    applicant: &Applicant<'_>,
    key_hash: KeyHash,
    limit: Duration,
) -> Result<ClaimGrant, CloseReason> {
    let request = ClaimRequest {
        key_hash,
        session: applicant.session,
        node: applicant.node.clone(),
        addr: Some(applicant.addr),
        protocol: applicant.protocol.to_owned(),
    };
    let payload = Bytes::from(control::encode(&request).map_err(|error| {
        tracing::error!(%error, "claim could not be written");
        CloseReason::Internal
    })?);
    let deadline = Instant::now() + limit;
    loop {
        let attempt = limits::CLAIM_ATTEMPT.min(deadline.saturating_duration_since(Instant::now()));
        match bus.request(subjects::CONTROL_CLAIM, payload.clone(), attempt).await {
            Ok(reply) => return read(&reply),
            Err(error) if error.is_retryable() => tracing::debug!(%error, "control did not answer the claim"),
            Err(error) => {
                tracing::error!(%error, "claim could not be sent");
                return Err(CloseReason::Internal);
            }
        }
        if Instant::now() + limits::CLAIM_RETRY >= deadline {
            tracing::warn!(waited = ?limit, "control did not answer the claim: the publisher is refused");
            return Err(CloseReason::Unavailable);
        }
        tokio::time::sleep(limits::CLAIM_RETRY).await;
    }
}

fn read(reply: &[u8]) -> Result<ClaimGrant, CloseReason> {
    match control::decode(reply) {
        Ok(ClaimReply::Granted(grant)) => Ok(*grant),
        Ok(ClaimReply::Refused { reason }) => Err(reason),
        Err(error) => {
            tracing::error!(%error, "control's answer to a claim cannot be read");
            Err(CloseReason::Internal)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_hashed_and_anything_else_is_none() {
        let key = "000102030405060708090a0b0c0d0e0f";
        let hash = key_hash(b"s", &StreamName::new(key)).unwrap();
        assert_eq!(key_hash(b"s", &StreamName::new(format!(" {key}\n"))), Some(hash));
        assert_ne!(key_hash(b"t", &StreamName::new(key)), Some(hash));
        for bad in ["", "stream", "000102030405060708090A0B0C0D0E0F", "000102030405060708090a0b0c0d0e0f0"] {
            assert_eq!(key_hash(b"s", &StreamName::new(bad)), None, "{bad}");
        }
    }
}
