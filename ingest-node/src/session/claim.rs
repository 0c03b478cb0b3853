//! The claim of a stream key at control, which issues the epoch.

use std::time::Duration;

use millrace_bus::SharedBus;
use millrace_wire::close_reason::CloseReason;
use millrace_wire::message::control::{self, ClaimGrant, ClaimReply, ClaimRequest};
use millrace_wire::subjects;
use tokio::time::Instant;

use crate::limits;

/// Claims the key within `limit`. While control does not answer, the request is repeated: an encoder waits rather than
/// fails while control restarts. Control answers repetitions of one session alike.
pub(crate) async fn claim(
    bus: &SharedBus,
    request: &ClaimRequest,
    limit: Duration,
) -> Result<ClaimGrant, CloseReason> {
    let payload = control::encode(request).map_err(|error| {
        tracing::error!(%error, "the claim cannot be encoded; the publisher is refused");
        CloseReason::Internal
    })?;
    let deadline = Instant::now() + limit;
    loop {
        let attempt = limits::CLAIM_ATTEMPT.min(deadline.saturating_duration_since(Instant::now()));
        match bus.request(subjects::CONTROL_CLAIM, payload.clone(), attempt).await {
            Ok(reply) => return decode(&reply),
            Err(error) if error.is_retryable() => {
                tracing::debug!(%error, "control did not answer the claim; it is sent again");
            }
            Err(error) => {
                tracing::error!(%error, "the claim cannot be sent; the publisher is refused");
                return Err(CloseReason::Internal);
            }
        }
        if Instant::now() + limits::CLAIM_RETRY >= deadline {
            tracing::warn!(waited = ?limit, "control did not answer the claim; the publisher is refused");
            return Err(CloseReason::Unavailable);
        }
        tokio::time::sleep(limits::CLAIM_RETRY).await;
    }
}

fn decode(reply: &[u8]) -> Result<ClaimGrant, CloseReason> {
    match control::decode(reply) {
        Ok(ClaimReply::Granted(grant)) => Ok(*grant),
        Ok(ClaimReply::Refused { reason }) => Err(reason),
        Err(error) => {
            tracing::error!(%error, "control's answer to the claim cannot be decoded; the publisher is refused");
            Err(CloseReason::Internal)
        }
    }
}
