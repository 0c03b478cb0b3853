//! A publisher's session: the claim of its key, its media on their way to the bus, and the supervision of the worker
//! that packages them. It knows no protocol: the publisher is a [`source::Source`].
//!
//! The session outlives its publisher: until all that was received is stored, it answers repairs and supervises workers.

mod acceptance;
mod actor;
mod bandwidth;
mod bitrate;
mod claim;
mod config_changes;
mod disconnect;
mod discontinuities;
mod health;
mod media;
mod message_builder;
mod newcomer;
mod publisher;
mod refusal;
mod relay;
pub(crate) mod source;

use std::sync::Arc;

use millrace_wire::close_reason::CloseReason;

use crate::admission::ConnectionPermit;
use crate::context::Context;
use newcomer::{Newcomer, Proven};
use publisher::{Opening, Publisher};
use refusal::RefusedBy;
pub(crate) use refusal::refused;
use relay::Relay;
use source::{Identity, PublishEnd, Source};

/// Runs one publish from its claim to its end; returns how it ended. The source has been closed then.
pub(crate) async fn publish<S: Source>(
    context: &Arc<Context>,
    source: &mut S,
    permit: &mut ConnectionPermit,
) -> PublishEnd {
    let identity = source.identity();
    let end = match open(context, &identity, source).await {
        Ok((publisher, proven)) => {
            let grant = publisher.grant();
            publisher.span().in_scope(|| {
                let (address, protocol) = (identity.address, identity.protocol);
                tracing::info!(%address, protocol, first_msn = grant.first_msn.0, "publish started");
            });
            permit.set_publishing(true);
            let mut relay = Relay::new(context, publisher);
            let end = relay.run(source, proven).await;
            permit.set_publishing(false);
            relay.end(&end);
            end
        }
        Err(refused_by) => {
            let (end, by_control) = match refused_by {
                RefusedBy::Control(reason) => (reason.into(), true),
                RefusedBy::Node(end) => (end, false),
            };
            if end.reason.is_guess() {
                tokio::time::sleep(permit.refusal_delay(context.now())).await;
            }
            let end = refused(context, end);
            if !by_control {
                refusal::report(context, &identity, &end);
            }
            end
        }
    };
    source.close(&end).await;
    end
}

/// Claims the source's key. A source whose livestream another session publishes is accepted first: it takes the livestream
/// over when its media have been found usable, and they are returned with it.
async fn open<S: Source>(
    context: &Arc<Context>,
    identity: &Identity,
    source: &mut S,
) -> Result<(Publisher, Option<Proven>), RefusedBy> {
    if context.drain.is_draining() {
        return Err(CloseReason::Draining.into());
    }
    match Publisher::open(context, identity).await? {
        Opening::Granted(publisher) => Ok((publisher, None)),
        Opening::Held { claim, stream, limits } => {
            tracing::info!(%stream, "another publisher is on the air; this one takes over with its first usable media");
            let proven = Newcomer::new(context, limits).prove(source).await.map_err(RefusedBy::Node)?;
            if context.drain.is_draining() {
                return Err(CloseReason::Draining.into());
            }
            Ok((claim.take_over().await?, Some(proven)))
        }
    }
}
