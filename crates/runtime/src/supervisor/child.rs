//! The actor of one child: runs its loop, starts it again by its policy, answers questions and passes orders on.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use actix::{Actor, ActorContext as _, AsyncContext, Context, Handler, Message, ResponseFuture};
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::panic::panic_message;
use super::policy::{Escalation, Exit, Policy, Restart};
use crate::actors::{ActorContext, ActorRegistry, Deliver, OrderError, Ready, Record, Status};
use crate::metrics::Counters;
use crate::{Backoff, Drain};

/// The loop of an actor, from one start to its end.
pub(super) type Loop = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;

/// Makes the loop, once for each start.
pub(super) type Factory = Box<dyn FnMut(ActorContext) -> Loop + Send>;

/// The handles that the children of one supervisor share.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) name: Arc<str>,
    pub(super) drain: Drain,
    pub(super) exits: Counters,
    pub(super) registry: ActorRegistry,
    /// Children that are up or wait for their restart.
    pub(super) children: AtomicUsize,
}

/// The record, policy and factory that a child is started with.
pub(super) struct Child {
    pub(super) record: Arc<Record>,
    pub(super) policy: Policy,
    pub(super) factory: Factory,
    pub(super) ready: Ready,
    pub(super) last: watch::Sender<Option<Exit>>,
    pub(super) runtime: tokio::runtime::Handle,
}

/// The actor of one child. A panic of its loop is caught; a panic of the actor itself aborts the process, since nothing
/// is left then that acts on the child's failures.
pub(super) struct ChildActor {
    child: Child,
    group: Arc<Group>,
    backoff: Backoff,
    restarts: VecDeque<Instant>,
}

/// Reports that the loop of a child has ended.
struct Exited(Exit);

impl Message for Exited {
    type Result = ();
}

impl ChildActor {
    pub(super) fn new(child: Child, group: Arc<Group>) -> Self {
        group.children.fetch_add(1, Ordering::Relaxed);
        let backoff = Backoff::new(child.policy.backoff_first, child.policy.backoff_max);
        Self { child, group, backoff, restarts: VecDeque::new() }
    }

    /// Starts the loop after `delay`, in a task that reports how it ended.
    fn run(&mut self, delay: Duration, context: &mut Context<Self>) {
        let record = self.child.record.clone();
        let stop = record.cancel().clone();
        let again = !delay.is_zero();
        let given = ActorContext::new(record.clone(), stop.child_token(), self.child.ready.clone());
        let work = catch_unwind(AssertUnwindSafe(|| (self.child.factory)(given)));
        let addr = context.address();
        self.child.runtime.spawn(async move {
            let stopped = again && stop.run_until_cancelled(tokio::time::sleep(delay)).await.is_none();
            let exit = match work {
                Err(panic) => Exit::Panicked(panic_message(&*panic)),
                Ok(_) if stopped => Exit::Finished,
                Ok(work) => {
                    if again {
                        record.loop_restarted();
                    }
                    outcome(work, &record).await
                }
            };
            // `send` waits for room in the mailbox; the actor outlives its loop.
            let _ = addr.send(Exited(exit)).await;
        });
    }

    fn verdict(&mut self, exit: &Exit) -> Verdict {
        let policy = &self.child.policy;
        let again = match policy.restart {
            Restart::Never => false,
            Restart::OnFailure => *exit != Exit::Finished,
            Restart::Always => true,
        };
        if !again || self.child.record.cancel().is_cancelled() {
            return Verdict::Down;
        }
        let now = Instant::now();
        while self.restarts.front().is_some_and(|at| now.duration_since(*at) > policy.within) {
            self.restarts.pop_front();
        }
        if self.restarts.is_empty() {
            self.backoff.reset();
        }
        if self.restarts.len() >= policy.budget as usize {
            return Verdict::Spent;
        }
        self.restarts.push_back(now);
        Verdict::Again(self.backoff.next_delay())
    }

    fn down(&mut self, exit: Exit, context: &mut Context<Self>) {
        self.group.registry.remove(&self.child.record);
        self.group.children.fetch_sub(1, Ordering::Relaxed);
        self.child.last.send_replace(Some(exit));
        context.stop();
    }

    fn count(&self, exit: &Exit) {
        let (kind, id) = (self.child.record.id().kind(), self.child.record.id().id());
        let supervisor = &*self.group.name;
        let name = match exit {
            Exit::Finished => "finished",
            Exit::Failed(error) => {
                warn!(supervisor, kind, id, error, "actor failed");
                "failed"
            }
            Exit::Panicked(message) => {
                error!(supervisor, kind, id, panic = message, "actor panicked");
                "panicked"
            }
        };
        self.group.exits.with(&[kind, name]).inc();
    }
}

impl Actor for ChildActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        self.run(Duration::ZERO, context);
    }
}

impl Drop for ChildActor {
    fn drop(&mut self) {
        if std::thread::panicking() {
            error!(actor = %self.child.record.id(), "the actor of a child panicked: aborting the process");
            std::process::abort();
        }
    }
}

impl Handler<Exited> for ChildActor {
    type Result = ();

    fn handle(&mut self, Exited(exit): Exited, context: &mut Context<Self>) {
        self.count(&exit);
        let (group, record) = (self.group.clone(), self.child.record.clone());
        let (supervisor, kind, id) = (&*group.name, record.id().kind(), record.id().id());
        match self.verdict(&exit) {
            Verdict::Down => self.down(exit, context),
            Verdict::Again(delay) => {
                info!(supervisor, kind, id, ?delay, "actor will be restarted");
                group.registry.count_restart(kind);
                record.loop_ended(exit.failure());
                self.run(delay, context);
            }
            Verdict::Spent => {
                error!(supervisor, kind, id, "actor spent its budget of restarts; it stays down");
                if self.child.policy.escalation == Escalation::Drain {
                    group.drain.start(&format!("{kind} of {supervisor} spent its budget of restarts"));
                }
                self.down(exit, context);
            }
        }
    }
}

impl Handler<Status> for ChildActor {
    type Result = actix::MessageResult<Status>;

    fn handle(&mut self, Status { waiting }: Status, _: &mut Context<Self>) -> Self::Result {
        drop(waiting);
        actix::MessageResult(self.child.record.status())
    }
}

impl Handler<Deliver> for ChildActor {
    type Result = ResponseFuture<Result<(), OrderError>>;

    fn handle(&mut self, Deliver { order, waiting }: Deliver, _: &mut Context<Self>) -> Self::Result {
        drop(waiting);
        let (limit, name) = (order.limit(), order.name());
        info!(actor = %self.child.record.id(), order = name, "actor is given an order");
        let record = self.child.record.clone();
        Box::pin(async move {
            let carried_out = async {
                record.has_begun().await;
                record.deliver(order)?.await.unwrap_or(Err(OrderError::Ended))
            };
            tokio::time::timeout(limit, carried_out).await.unwrap_or(Err(OrderError::TimedOut))
        })
    }
}

enum Verdict {
    Down,
    Again(Duration),
    Spent,
}

/// Drives the loop to its end and catches its panic, in the task that watches it: a task of its own would cost as much
/// again.
async fn outcome(mut work: Loop, record: &Record) -> Exit {
    let mut has_begun = false;
    let polled = std::future::poll_fn(|context| {
        let poll = match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => std::task::Poll::Ready(Err(panic)),
        };
        if !has_begun {
            has_begun = true;
            record.loop_began();
        }
        poll
    });
    match polled.await {
        Ok(Ok(())) => Exit::Finished,
        Ok(Err(error)) => Exit::Failed(format!("{error:#}")),
        Err(panic) => Exit::Panicked(panic_message(&*panic)),
    }
}

impl std::fmt::Debug for ChildActor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChildActor").field("id", self.child.record.id()).finish_non_exhaustive()
    }
}
