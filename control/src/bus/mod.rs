//! Requests of ingest nodes and log writers over the bus, shared by all controls through a queue group. This module
//! receives the request, calls the command and sends the answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_runtime::ActorContext;
use millrace_wire::message::alias::{AliasReply, AliasRequest};
use millrace_wire::message::control::{
    ClaimReply, ClaimRequest, LeaseReply, RefusalReport, ReleaseRequest, RenewRequest, SealReport,
};
use millrace_wire::topic::{Message, RequestTopic};
use millrace_wire::topics;
use tokio::sync::Semaphore;

use crate::livestreams::{Caller, CommandError, Livestreams, Principal};

/// Requests that may wait in one subscription: a burst of reconnects of a large cluster. The requester repeats a request
/// that is dropped.
const CAPACITY: usize = 4_096;

/// Requests answered at the same time; each is a few round trips to the state store.
const CONCURRENCY: usize = 64;

/// Answers claims of stream keys until the actor is stopped.
pub(crate) async fn serve_claims(commands: Arc<Livestreams>, actor: ActorContext) -> anyhow::Result<()> {
    serve(&commands, &topics::claim(), actor, claim).await
}

/// Answers renewals of leases until the actor is stopped.
pub(crate) async fn serve_renewals(commands: Arc<Livestreams>, actor: ActorContext) -> anyhow::Result<()> {
    serve(&commands, &topics::renew(), actor, renew).await
}

/// Answers releases of leases until the actor is stopped.
pub(crate) async fn serve_releases(commands: Arc<Livestreams>, actor: ActorContext) -> anyhow::Result<()> {
    serve(&commands, &topics::release(), actor, release).await
}

/// Takes the reports of refused publishers until the actor is stopped.
pub(crate) async fn serve_refusals(commands: Arc<Livestreams>, actor: ActorContext) -> anyhow::Result<()> {
    serve(&commands, &topics::refused(), actor, refused).await
}

/// Answers the seal reports of log writers until the actor is stopped.
pub(crate) async fn serve_seals(commands: Arc<Livestreams>, actor: ActorContext) -> anyhow::Result<()> {
    serve(&commands, &topics::sealed(), actor, sealed).await
}

/// Answers edges' questions for the public ids behind stream keys until the actor is stopped.
pub(crate) async fn serve_aliases(commands: Arc<Livestreams>, actor: ActorContext) -> anyhow::Result<()> {
    serve(&commands, &topics::alias(), actor, alias).await
}

async fn claim(commands: Arc<Livestreams>, request: ClaimRequest) -> Result<ClaimReply, CommandError> {
    let who = Principal::Ingest(request.node.clone(), request.session);
    commands.claim(&Caller { who, from: request.addr }, &request).await
}

async fn renew(commands: Arc<Livestreams>, request: RenewRequest) -> Result<LeaseReply, CommandError> {
    let caller = Caller::internal(Principal::Session(request.session));
    commands.renew(&caller, &request).await
}

async fn release(commands: Arc<Livestreams>, request: ReleaseRequest) -> Result<LeaseReply, CommandError> {
    let caller = Caller::internal(Principal::Session(request.session));
    commands.release(&caller, &request).await
}

async fn refused(commands: Arc<Livestreams>, report: RefusalReport) -> Result<LeaseReply, CommandError> {
    let caller = Caller { who: Principal::Refuser(report.node.clone()), from: report.addr };
    commands.refused(&caller, &report).await
}

async fn alias(commands: Arc<Livestreams>, request: AliasRequest) -> Result<AliasReply, CommandError> {
    Ok(AliasReply { playback: commands.playback_of(&request.key_hash).await? })
}

async fn sealed(commands: Arc<Livestreams>, report: SealReport) -> Result<LeaseReply, CommandError> {
    let caller = Caller::internal(Principal::LogWriter(report.epoch, report.generation));
    commands.sealed(&caller, &report).await
}

/// Serves one topic. A request whose command fails at the state store gets no answer: an error is no evidence, so the
/// requester asks again and goes on meanwhile.
async fn serve<Q, A, F>(
    commands: &Arc<Livestreams>,
    topic: &RequestTopic<Q, A>,
    actor: ActorContext,
    handle: impl Fn(Arc<Livestreams>, Q) -> F,
) -> anyhow::Result<()>
where
    Q: Message + Clone,
    A: Message,
    F: Future<Output = Result<A, CommandError>> + Send + 'static,
{
    let services = commands.shared_services();
    let mut requests = services.link.serve(topic, topics::CONTROL_QUEUE, CAPACITY).await?;
    actor.ready.report();
    let permits = Arc::new(Semaphore::new(CONCURRENCY));
    loop {
        let request = tokio::select! {
            request = requests.recv() => request,
            () = actor.stop.cancelled() => return Ok(()),
        };
        let Some(request) = request else {
            anyhow::bail!("the bus ended the subscription to {}", topic.name())
        };
        let permit = permits.clone().acquire_owned().await?;
        actor.status.set_queue(CONCURRENCY - permits.available_permits(), Duration::ZERO);
        let answer = handle(commands.clone(), request.message.clone());
        let services = services.clone();
        tokio::spawn(async move {
            let start = Instant::now();
            let answered = answer.await;
            services.metrics.answer_time.observe(start.elapsed().as_secs_f64());
            if let Ok(answer) = answered {
                request.respond(&answer);
            }
            drop(permit);
        });
    }
}
