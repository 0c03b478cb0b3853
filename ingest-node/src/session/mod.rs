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
mod publisher;
mod refusal;
mod relay;
pub(crate) mod source;

use std::sync::Arc;

use millrace_wire::close_reason::CloseReason;

use crate::admission::ConnectionPermit;
use crate::context::Context;
use publisher::Publisher;
pub(crate) use refusal::refused;
use relay::Relay;
use source::{PublishEnd, Source};

/// Runs one publish from its claim to its end; returns how it ended. The source has been closed then.
pub(crate) async fn publish<S: Source>(
    context: &Arc<Context>,
    source: &mut S,
    permit: &mut ConnectionPermit,
) -> PublishEnd {
    let identity = source.identity();
    let opened = if context.drain.is_draining() {
        Err(CloseReason::Draining)
    } else {
        Publisher::open(context, &identity).await
    };
    let end = match opened {
        Ok(publisher) => {
            let grant = publisher.grant();
            publisher.span().in_scope(|| {
                let (address, protocol) = (identity.address, identity.protocol);
                tracing::info!(%address, protocol, first_msn = grant.first_msn.0, "publish started");
            });
            permit.set_publishing(true);
            let mut relay = Relay::new(context, publisher);
            let end = relay.run(source).await;
            permit.set_publishing(false);
            relay.end(&end);
            end
        }
        Err(reason) => {
            if reason.is_guess() {
                tokio::time::sleep(permit.refusal_delay(context.now())).await;
            }
            let end = refused(context, reason);
            refusal::report(context, &identity, &end);
            end
        }
    };
    source.close(&end).await;
    end
}
