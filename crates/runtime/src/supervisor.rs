//! Restarting what failed: with jittered back-off, within a budget, and with an escalation when the
//! budget is spent. actix's own `Supervisor` restarts at once and not after a panic.
//!
//! A child is a tokio task made by a factory. A panic in it is caught, counted and treated as a failure.
//! The supervisor itself is an actor; a panic in the supervisor aborts the process, since nobody is left
//! to act on failures.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::pin::Pin;
use std::time::{Duration, Instant};

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::metrics::{Counters, Unit};
use crate::{Backoff, Drain, Metrics, actors};

/// A message to the supervisor that is not taken within this time fails: its mailbox only carries
/// starts and exits, so something is badly wrong.
const SEND_LIMIT: Duration = Duration::from_secs(5);

/// How long a stopping supervisor waits for its children after telling them.
const STOP_LIMIT: Duration = Duration::from_secs(10);

type Work = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;
type Factory = Box<dyn FnMut(CancellationToken) -> Work + Send>;

/// When a child is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// Never: a session or a job whose failure is its own end.
    Never,
    /// After an error or a panic.
    OnFailure,
    /// Whenever it ends without being told to.
    Always,
}

/// What happens when a child spent its budget of restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escalation {
    /// It stays down; the failure is logged and counted.
    GiveUp,
    /// The node drains: it cannot do its work.
    Drain,
}

/// How a child is supervised.
#[derive(Debug, Clone)]
pub struct Policy {
    /// When it is started again.
    pub restart: Restart,
    /// The longest first wait before a restart.
    pub backoff_first: Duration,
    /// The longest wait of all.
    pub backoff_max: Duration,
    /// So many restarts…
    pub budget: u32,
    /// …in this time; one more escalates.
    pub within: Duration,
    /// What one more does.
    pub escalation: Escalation,
}

impl Policy {
    /// For a part the node cannot do without: restarted on any end, and the node drains when it fails
    /// ten times in a minute.
    pub fn vital() -> Self {
        Self {
            restart: Restart::Always,
            backoff_first: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
            budget: 10,
            within: Duration::from_mins(1),
            escalation: Escalation::Drain,
        }
    }

    /// For a session or job: its end is its end.
    pub fn once() -> Self {
        Self { restart: Restart::Never, escalation: Escalation::GiveUp, ..Self::vital() }
    }
}

/// How a child ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// Its work was done, or it was told to stop.
    Finished,
    /// It returned an error.
    Failed(String),
    /// It panicked.
    Panicked(String),
}

/// Supervises children; cheap to clone.
#[derive(Debug, Clone)]
pub struct Supervisor {
    addr: Addr<Root>,
    cancel: CancellationToken,
}

/// A supervised child, from the outside.
#[derive(Debug, Clone)]
pub struct Child {
    cancel: CancellationToken,
    last: watch::Receiver<Option<Exit>>,
}

impl Child {
    /// Tells the child to stop; it is not started again.
    pub fn stop(&self) {
        self.cancel.cancel();
    }

    /// Waits until it is down for good; the way it ended last.
    pub async fn ended(&mut self) -> Exit {
        match self.last.wait_for(Option::is_some).await {
            Ok(exit) => exit.clone().unwrap_or(Exit::Finished),
            Err(_) => Exit::Finished,
        }
    }
}

/// The supervisor could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// The actor system did not start.
    #[error("actor system: {0}")]
    System(#[from] io::Error),
    /// It was stopped, or did not answer in time.
    #[error("supervisor is not available: {0}")]
    Unavailable(#[from] actix::MailboxError),
}

impl Supervisor {
    /// Starts a supervisor; `name` appears in logs and metrics.
    pub fn start(name: &str, metrics: &Metrics, drain: &Drain) -> Result<Self, SupervisorError> {
        let exits = metrics.scope(name).counters(
            "child_exits",
            Unit::Count,
            "Ends of supervised tasks by kind of child and way of ending",
            &["child", "exit"],
        );
        let (name, drain, cancel) = (name.to_owned(), drain.clone(), CancellationToken::new());
        let root_cancel = cancel.clone();
        let addr = actors::start(move |_| Root {
            name,
            drain,
            exits,
            cancel: root_cancel,
            next_id: 0,
            children: HashMap::new(),
        })?;
        Ok(Self { addr, cancel })
    }

    /// Starts a child. `make` is called for the first start and for each restart; the token it gets is
    /// cancelled when the child is to stop.
    pub async fn spawn<F, W>(
        &self,
        kind: &'static str,
        policy: Policy,
        mut make: F,
    ) -> Result<Child, SupervisorError>
    where
        F: FnMut(CancellationToken) -> W + Send + 'static,
        W: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let (sender, last) = watch::channel(None);
        let cancel = self.cancel.child_token();
        let start = Start {
            kind,
            policy,
            factory: Box::new(move |token| Box::pin(make(token))),
            cancel: cancel.clone(),
            last: sender,
            runtime: tokio::runtime::Handle::current(),
        };
        self.addr.send(start).timeout(SEND_LIMIT).await?;
        Ok(Child { cancel, last })
    }

    /// How many children are up or waiting for their restart.
    pub async fn children(&self) -> Result<usize, SupervisorError> {
        Ok(self.addr.send(Count).timeout(SEND_LIMIT).await?)
    }

    /// Tells all children to stop and waits for them within a limit; `false` when some are still up.
    pub async fn stop(&self) -> bool {
        self.cancel.cancel();
        let deadline = Instant::now() + STOP_LIMIT;
        let mut wait = Backoff::new(Duration::from_millis(2), Duration::from_millis(50));
        while Instant::now() < deadline {
            match self.children().await {
                Ok(0) | Err(_) => return true,
                Ok(_) => wait.wait().await,
            }
        }
        false
    }
}

struct Root {
    name: String,
    drain: Drain,
    exits: Counters,
    cancel: CancellationToken,
    next_id: u64,
    children: HashMap<u64, Supervised>,
}

struct Supervised {
    start: Start,
    backoff: Backoff,
    restarts: VecDeque<Instant>,
}

struct Start {
    kind: &'static str,
    policy: Policy,
    factory: Factory,
    cancel: CancellationToken,
    last: watch::Sender<Option<Exit>>,
    runtime: tokio::runtime::Handle,
}

impl Message for Start {
    type Result = ();
}

struct Exited {
    id: u64,
    exit: Exit,
}

impl Message for Exited {
    type Result = ();
}

struct Count;

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

/// The text of a caught panic.
pub fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn quick(budget: u32) -> Policy {
        Policy {
            restart: Restart::OnFailure,
            backoff_first: Duration::from_millis(1),
            backoff_max: Duration::from_millis(2),
            budget,
            ..Policy::vital()
        }
    }

    #[tokio::test]
    async fn a_panicking_child_comes_back_until_it_finishes() {
        let (metrics, drain) = (Metrics::new(), Drain::new());
        let supervisor = Supervisor::start("test", &metrics, &drain).unwrap();
        let starts = Arc::new(AtomicU32::new(0));
        let seen = starts.clone();
        let mut child = supervisor
            .spawn("flaky", quick(5), move |_| {
                let n = seen.fetch_add(1, Ordering::SeqCst);
                async move {
                    assert!(n != 0, "first start");
                    anyhow::ensure!(n > 1, "second start");
                    Ok(())
                }
            })
            .await
            .unwrap();
        assert_eq!(child.ended().await, Exit::Finished);
        assert_eq!(starts.load(Ordering::SeqCst), 3);
        assert!(!drain.is_draining());
        let text = metrics.render();
        for exit in ["panicked", "failed", "finished"] {
            let line = format!("millrace_test_child_exits_total{{child=\"flaky\",exit=\"{exit}\"}} 1");
            assert!(text.contains(&line), "{text}");
        }
    }

    #[tokio::test]
    async fn a_spent_budget_drains_the_node() {
        let drain = Drain::new();
        let supervisor = Supervisor::start("test", &Metrics::new(), &drain).unwrap();
        let mut child =
            supervisor.spawn("broken", quick(2), |_| async { anyhow::bail!("no luck") }).await.unwrap();
        drain.draining().await;
        assert_eq!(drain.reason(), Some("broken of test spent its budget of restarts"));
        assert_eq!(child.ended().await, Exit::Failed("no luck".to_owned()));
    }

    #[tokio::test]
    async fn stop_reaches_every_child() {
        let supervisor = Supervisor::start("test", &Metrics::new(), &Drain::new()).unwrap();
        let mut children = Vec::new();
        for _ in 0..3 {
            let child = supervisor.spawn("waiter", Policy::vital(), |cancel| async move {
                cancel.cancelled().await;
                Ok(())
            });
            children.push(child.await.unwrap());
        }
        assert_eq!(supervisor.children().await.unwrap(), 3);
        children[0].stop();
        assert_eq!(children[0].ended().await, Exit::Finished);
        assert!(supervisor.stop().await);
        assert_eq!(supervisor.children().await.unwrap(), 0);
    }
}
