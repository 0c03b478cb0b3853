//! The supervisor's actor: keeps its children and decides what becomes of one that ended.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext, Context, Handler, Message};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::panic_message;
use super::policy::{Escalation, Exit, Policy, Restart};
use crate::metrics::Counters;
use crate::{Backoff, Drain};

type Work = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;
type Factory = Box<dyn FnMut(CancellationToken) -> Work + Send>;

pub(super) struct Root {
    name: String,
    drain: Drain,
    exits: Counters,
    cancel: CancellationToken,
    next_id: u64,
    children: HashMap<u64, Supervised>,
}

impl Root {
    pub(super) fn new(name: String, drain: Drain, exits: Counters, cancel: CancellationToken) -> Self {
        Self { name, drain, exits, cancel, next_id: 0, children: HashMap::new() }
    }
}

struct Supervised {
    start: Start,
    backoff: Backoff,
    restarts: VecDeque<Instant>,
}

/// Take a child in and start it.
pub(super) struct Start {
    pub(super) kind: &'static str,
    pub(super) policy: Policy,
    pub(super) factory: Factory,
    pub(super) cancel: CancellationToken,
    pub(super) last: watch::Sender<Option<Exit>>,
    pub(super) runtime: tokio::runtime::Handle,
}

impl Message for Start {
    type Result = ();
}

/// A child's task has ended.
struct Exited {
    id: u64,
    exit: Exit,
}

impl Message for Exited {
    type Result = ();
}

/// How many children are there?
pub(super) struct Count;

impl Message for Count {
    type Result = usize;
}

impl Actor for Root {
    type Context = Context<Self>;
}

impl Drop for Root {
    fn drop(&mut self) {
        self.cancel.cancel();
        if std::thread::panicking() {
            error!(supervisor = self.name, "the supervisor panicked: nobody is left to act, aborting");
            std::process::abort();
        }
    }
}

impl Handler<Start> for Root {
    type Result = ();

    fn handle(&mut self, start: Start, context: &mut Context<Self>) {
        let id = self.next_id;
        self.next_id += 1;
        let backoff = Backoff::new(start.policy.backoff_first, start.policy.backoff_max);
        self.children.insert(id, Supervised { start, backoff, restarts: VecDeque::new() });
        self.run(id, Duration::ZERO, context);
    }
}

impl Handler<Count> for Root {
    type Result = usize;

    fn handle(&mut self, _: Count, _: &mut Context<Self>) -> usize {
        self.children.len()
    }
}

impl Handler<Exited> for Root {
    type Result = ();

    fn handle(&mut self, Exited { id, exit }: Exited, context: &mut Context<Self>) {
        let Some(child) = self.children.get_mut(&id) else { return };
        let kind = child.start.kind;
        let way = match &exit {
            Exit::Finished => "finished",
            Exit::Failed(_) => "failed",
            Exit::Panicked(_) => "panicked",
        };
        self.exits.with(&[kind, way]).inc();
        match &exit {
            Exit::Finished => {}
            Exit::Failed(error) => warn!(supervisor = self.name, child = kind, error, "child failed"),
            Exit::Panicked(message) => {
                error!(supervisor = self.name, child = kind, panic = message, "child panicked");
            }
        }
        match child.verdict(&exit) {
            Verdict::Down => self.forget(id, exit),
            Verdict::Again(delay) => {
                info!(supervisor = self.name, child = kind, ?delay, "child is started again");
                self.run(id, delay, context);
            }
            Verdict::Spent => {
                let reason = format!("{kind} of {} spent its budget of restarts", self.name);
                error!(supervisor = self.name, child = kind, "budget of restarts spent");
                if child.start.policy.escalation == Escalation::Drain {
                    self.drain.start(&reason);
                }
                self.forget(id, exit);
            }
        }
    }
}

enum Verdict {
    Down,
    Again(Duration),
    Spent,
}

impl Supervised {
    fn verdict(&mut self, exit: &Exit) -> Verdict {
        let policy = &self.start.policy;
        let again = match policy.restart {
            Restart::Never => false,
            Restart::OnFailure => *exit != Exit::Finished,
            Restart::Always => true,
        };
        if !again || self.start.cancel.is_cancelled() {
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
}

impl Root {
    fn forget(&mut self, id: u64, exit: Exit) {
        if let Some(child) = self.children.remove(&id) {
            child.start.last.send_replace(Some(exit));
        }
    }

    /// Starts the child's next task after `delay`, and a watcher that reports how it ended.
    fn run(&mut self, id: u64, delay: Duration, context: &mut Context<Self>) {
        let Some(child) = self.children.get_mut(&id) else { return };
        let cancel = child.start.cancel.clone();
        let work = (child.start.factory)(cancel.child_token());
        let runtime = child.start.runtime.clone();
        let addr = context.address();
        child.start.runtime.spawn(async move {
            let exit = tokio::select! {
                biased;
                () = cancel.cancelled(), if !delay.is_zero() => Exit::Finished,
                () = tokio::time::sleep(delay) => outcome(runtime.spawn(work).await),
            };
            // `send` waits for room in the mailbox; the supervisor is gone only with the process.
            let _ = addr.send(Exited { id, exit }).await;
        });
    }
}

fn outcome(result: Result<anyhow::Result<()>, tokio::task::JoinError>) -> Exit {
    match result {
        Ok(Ok(())) => Exit::Finished,
        Ok(Err(error)) => Exit::Failed(format!("{error:#}")),
        Err(error) if error.is_panic() => Exit::Panicked(panic_message(&*error.into_panic())),
        Err(error) => Exit::Failed(error.to_string()),
    }
}
