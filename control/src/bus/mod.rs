//! Requests of ingest nodes and log writers over the bus, shared by all controls through a queue group. This module
//! reads the request, calls the command and writes the answer.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use millrace_bus::Message;
use millrace_runtime::Ready;
use millrace_wire::message::control::{self, ClaimRequest, ReleaseRequest, RenewRequest, SealReport};
use millrace_wire::{subjects, topic};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::livestreams::{Caller, CommandError, Livestreams, Principal};

/// Requests that may wait in one subscription: a burst of reconnects of a large cluster. The requester repeats a request
/// that is dropped.
const CAPACITY: usize = 4_096;

/// Requests answered at the same time; each is a few round trips to the state store.
const CONCURRENCY: usize = 64;

/// Answers the requests on `subject` until `stop` is cancelled.
pub(crate) async fn serve(
    livestreams: Arc<Livestreams>,
    subject: &'static str,
    ready: Ready,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let bus = livestreams.services().bus.clone();
    let mut requests = bus.queue_subscribe(subject, subjects::CONTROL_QUEUE, CAPACITY).await?;
    ready.report();
    let permits = Arc::new(Semaphore::new(CONCURRENCY));
    loop {
        let message = tokio::select! {
            message = requests.recv() => message,
            () = stop.cancelled() => return Ok(()),
        };
        let Some(message) = message else { anyhow::bail!("the bus closed the subscription to {subject}") };
        let permit = permits.clone().acquire_owned().await?;
        let livestreams = livestreams.clone();
        tokio::spawn(async move {
            answer(&livestreams, subject, &message).await;
            drop(permit);
        });
    }
}

async fn answer(livestreams: &Livestreams, subject: &str, message: &Message) {
    let start = Instant::now();
    let answer = match subject {
        subjects::CONTROL_CLAIM => {
            reply(message, |request: ClaimRequest| async move {
                let who = Principal::Ingest(request.node.clone(), request.session);
                livestreams.claim(&Caller { who, from: request.addr }, &request).await
            })
            .await
        }
        subjects::CONTROL_RENEW => {
            reply(message, |request: RenewRequest| async move {
                let caller = Caller::internal(Principal::Session(request.session));
                livestreams.renew(&caller, &request).await
            })
            .await
        }
        subjects::CONTROL_RELEASE => {
            reply(message, |request: ReleaseRequest| async move {
                let caller = Caller::internal(Principal::Session(request.session));
                livestreams.release(&caller, &request).await
            })
            .await
        }
        _ => {
            reply(message, |report: SealReport| async move {
                let caller = Caller::internal(Principal::LogWriter(report.epoch, report.generation));
                livestreams.sealed(&caller, &report).await
            })
            .await
        }
    };
    let services = livestreams.services();
    services.metrics.answer_time.observe(start.elapsed().as_secs_f64());
    if let (Some(answer), Some(reply)) = (answer, &message.reply)
        && let Err(error) = services.bus.respond(reply, answer)
    {
        debug!(subject, %error, "answer not sent; the requester asks again");
    }
}

/// Returns no answer when the request cannot be read or the state store is away: an error is no evidence, so the
/// requester asks again and goes on meanwhile.
async fn reply<Q, A, F>(message: &Message, handle: impl FnOnce(Q) -> F) -> Option<Bytes>
where
    Q: topic::Message,
    A: topic::Message,
    F: Future<Output = Result<A, CommandError>>,
{
    match control::decode::<Q>(&message.payload) {
        Ok(request) => {
            let answer = handle(request).await.ok()?;
            control::encode(&answer).ok()
        }
        Err(error) => {
            warn!(subject = &*message.subject, %error, "request malformed; no answer sent");
            None
        }
    }
}
