//! Supervision of actors: a loop that failed is restarted with jittered back-off, within a budget, and with an
//! escalation when the budget is spent. actix's own `Supervisor` restarts at once and not after a panic.
//!
//! Each child is an actor of its own with a name (see [`crate::actors`]); its loop is a tokio task made by a factory. A
//! panic in the loop is caught, counted and treated as a failure. A panic in an actor aborts the process, because nothing
//! is left then that acts on failures.

mod child;
mod panic;
mod policy;
mod root;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use actix::Addr;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::child::Group;
pub use self::panic::panic_message;
pub use self::policy::{Escalation, Exit, Policy, Restart};
use self::root::{Root, Start};
use crate::actors::{ActorContext, ActorId, ActorRegistry, Ready, Record, RegisterError};
use crate::metrics::Unit;
use crate::{Backoff, Drain, Metrics, system};

/// The supervisor's mailbox carries only starts, which it handles at once; one that is not taken in this time means that
/// the actor thread is stuck.
const SEND_LIMIT: Duration = Duration::from_secs(5);

/// A stopping supervisor waits so long for its children to return.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Supervises the actors of one node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Supervisor {
    addr: Addr<Root>,
    group: Arc<Group>,
    cancel: CancellationToken,
}

/// A supervised actor, as seen by the code that started it.
#[derive(Debug, Clone)]
pub struct Child {
    id: ActorId,
    cancel: CancellationToken,
    last: watch::Receiver<Option<Exit>>,
}

impl Child {
    /// Returns the name of the actor.
    pub fn id(&self) -> &ActorId {
        &self.id
    }

    /// Requests the loop to return; it is not restarted.
    pub fn stop(&self) {
        self.cancel.cancel();
    }

    /// Waits until the actor is down for good and returns the way its loop ended last.
    pub async fn ended(&mut self) -> Exit {
        match self.last.wait_for(Option::is_some).await {
            Ok(exit) => exit.clone().unwrap_or(Exit::Finished),
            Err(_) => Exit::Finished,
        }
    }
}

/// The reason why an actor could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// The actor system did not start.
    #[error("actor system: {0}")]
    System(#[from] io::Error),
    /// The supervisor was stopped, or did not answer in time.
    #[error("supervisor is not available: {0}")]
    Unavailable(#[from] actix::MailboxError),
    /// The name is taken, or there are too many actors.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// An actor that was waited for is down for good.
    #[error("{id} ended before it was ready: {exit}")]
    NotReady {
        /// The name of the actor.
        id: ActorId,
        /// The way its loop ended last.
        exit: Exit,
    },
}

impl Supervisor {
    /// Starts a supervisor whose actors stand in `registry`; `name`, the role of the node, appears in logs and metrics.
    /// An actor that spends its budget begins `drain` if its policy escalates so.
    pub fn start(
        name: &str,
        metrics: &Metrics,
        drain: &Drain,
        registry: &ActorRegistry,
    ) -> Result<Self, SupervisorError> {
        let exits = metrics.scope(name).counters(
            "child_exits",
            Unit::Count,
            "Ends of actors' loops by kind of actor and way of ending",
            &["child", "exit"],
        );
        let group = Arc::new(Group {
            name: name.into(),
            drain: drain.clone(),
            exits,
            registry: registry.clone(),
            children: AtomicUsize::new(0),
        });
        let root = group.clone();
        let addr = system::start(move |_| Root::new(root))?;
        Ok(Self { addr, group, cancel: CancellationToken::new() })
    }

    /// Starts an actor. `make` is called for the first start and for each restart of its loop.
    ///
    /// # Errors
    /// When an actor of that name is up, the process has too many actors, or the supervisor cannot be reached.
    pub async fn spawn<F, W>(&self, id: ActorId, policy: Policy, make: F) -> Result<Child, SupervisorError>
    where
        F: FnMut(ActorContext) -> W + Send + 'static,
        W: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.launch(id, policy, Ready::channel().0, false, make).await
    }

    /// Starts an actor as [`Supervisor::spawn`] does, and takes the name of an actor that is still up: that one is
    /// requested to stop and leaves the registry at once. For successors, whose predecessor is on its way out.
    pub async fn replace<F, W>(&self, id: ActorId, policy: Policy, make: F) -> Result<Child, SupervisorError>
    where
        F: FnMut(ActorContext) -> W + Send + 'static,
        W: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.launch(id, policy, Ready::channel().0, true, make).await
    }

    /// Starts an actor as [`Supervisor::spawn`] does, and returns when its loop has reported through [`Ready`] that it is
    /// at work.
    pub async fn spawn_ready<F, W>(
        &self,
        id: ActorId,
        policy: Policy,
        make: F,
    ) -> Result<Child, SupervisorError>
    where
        F: FnMut(ActorContext) -> W + Send + 'static,
        W: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let (ready, mut reported) = Ready::channel();
        let mut child = self.launch(id, policy, ready, false, make).await?;
        tokio::select! {
            biased;
            Ok(_) = reported.wait_for(|ready| *ready) => Ok(child),
            exit = child.ended() => Err(SupervisorError::NotReady { id: child.id, exit }),
        }
    }

    async fn launch<F, W>(
        &self,
        id: ActorId,
        policy: Policy,
        ready: Ready,
        replace: bool,
        mut make: F,
    ) -> Result<Child, SupervisorError>
    where
        F: FnMut(ActorContext) -> W + Send + 'static,
        W: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let (sender, last) = watch::channel(None);
        let cancel = self.cancel.child_token();
        let child = child::Child {
            record: Arc::new(Record::new(id.clone(), self.group.name.clone(), cancel.clone())),
            policy,
            factory: Box::new(move |context| Box::pin(make(context))),
            ready,
            last: sender,
            runtime: tokio::runtime::Handle::current(),
        };
        self.addr.send(Start { child, replace }).timeout(SEND_LIMIT).await??;
        Ok(Child { id, cancel, last })
    }

    /// Returns the number of actors that are up or wait for their restart.
    pub fn children(&self) -> usize {
        self.group.children.load(Ordering::Relaxed)
    }

    /// Requests all actors to stop and waits for them within a limit. Returns `false` when some are still up.
    pub async fn stop(&self) -> bool {
        self.cancel.cancel();
        let deadline = Instant::now() + STOP_LIMIT;
        let mut wait = Backoff::new(Duration::from_millis(2), Duration::from_millis(50));
        while Instant::now() < deadline {
            if self.children() == 0 {
                return true;
            }
            wait.wait().await;
        }
        false
    }
}
