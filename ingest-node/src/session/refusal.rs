//! Refusals of publishers that control does not know of: they are reported to it, for the livestream's status.

use std::sync::Arc;
use std::time::Duration;

use millrace_wire::close_reason::CloseReason;
use millrace_wire::message::control::{RefusalReport, bounded_text};
use millrace_wire::topics;

use super::source::{Identity, PublishEnd};
use crate::context::Context;

/// Time that control has to take a report. It is not repeated: the encoder connects again, and is refused again.
const REPORT_TIMEOUT: Duration = Duration::from_secs(2);

/// The part that refused a publisher: control keeps the refusals that it answered itself.
pub(super) enum RefusedBy {
    Control(CloseReason),
    Node(PublishEnd),
}

impl From<CloseReason> for RefusedBy {
    fn from(reason: CloseReason) -> Self {
        match reason {
            CloseReason::Draining | CloseReason::Unavailable | CloseReason::Internal => {
                Self::Node(reason.into())
            }
            reason => Self::Control(reason),
        }
    }
}

/// Counts and logs a publisher that is refused.
pub(crate) fn refused(context: &Context, end: impl Into<PublishEnd>) -> PublishEnd {
    let end = end.into();
    context.metrics.refused.with(&[end.reason.code()]).inc();
    tracing::info!(reason = end.reason.code(), detail = end.text, "publisher refused");
    end
}

/// Reports a refusal that this node decided on its own to control, in the background and once. The report is left out while
/// too many are on their way.
pub(super) fn report(context: &Arc<Context>, identity: &Identity, end: &PublishEnd) {
    let Some(key_hash) = identity.credential.any_key_hash(context.key_secret.expose()) else { return };
    let Ok(permit) = context.refusal_reports.clone().try_acquire_owned() else { return };
    let report = RefusalReport {
        key_hash,
        node: context.node.clone(),
        addr: Some(identity.address),
        protocol: identity.protocol.to_owned(),
        reason: end.reason,
        text: bounded_text(&end.text),
    };
    let context = context.clone();
    tokio::spawn(async move {
        if let Err(error) = context.link.request(&topics::refused(), &report, REPORT_TIMEOUT).await {
            tracing::debug!(%error, "refusal not reported to control; the livestream's status does not show it");
        }
        drop(permit);
    });
}
