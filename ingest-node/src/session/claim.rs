//! The claim of a stream key at control, which issues the epoch.

use std::time::Duration;

use millrace_link::Link;
use millrace_wire::close_reason::CloseReason;
use millrace_wire::ids::StreamId;
use millrace_wire::message::control::{ClaimGrant, ClaimReply, ClaimRequest, PublishLimits};
use millrace_wire::topics;
use tokio::time::Instant;

use crate::limits;

/// The answer to a claim that is not refused.
pub(crate) enum Claimed {
    /// The session has an epoch.
    Granted(Box<ClaimGrant>),
    /// Another session publishes; the claim is to be repeated with usable media.
    Held(StreamId, PublishLimits),
    /// The key is none of the cluster's own: the service outside is to be asked.
    CheckKey,
}

/// Claims the key within `limit`. While control does not answer, the request is repeated: an encoder waits rather than
/// fails while control restarts. Control answers repetitions of one session alike.
pub(crate) async fn claim(
    link: &Link,
    request: &ClaimRequest,
    limit: Duration,
) -> Result<Claimed, CloseReason> {
    let topic = topics::claim();
    let deadline = Instant::now() + limit;
    loop {
        let attempt = limits::CLAIM_ATTEMPT.min(deadline.saturating_duration_since(Instant::now()));
        match link.request(&topic, request, attempt).await {
            Ok(ClaimReply::Granted(grant)) => return Ok(Claimed::Granted(grant)),
            Ok(ClaimReply::Held { stream, limits }) => return Ok(Claimed::Held(stream, limits)),
            Ok(ClaimReply::CheckKey) => return Ok(Claimed::CheckKey),
            Ok(ClaimReply::Refused { reason }) => return Err(reason),
            Err(error) if error.is_retryable() => {
                tracing::debug!(%error, "control did not answer the claim; it is sent again");
            }
            Err(error) => {
                tracing::error!(%error, "claim failed; the publisher is refused");
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
