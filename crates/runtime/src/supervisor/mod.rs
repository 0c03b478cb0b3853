//! Restarting what failed: with jittered back-off, within a budget, and with an escalation when the
//! budget is spent. actix's own `Supervisor` restarts at once and not after a panic.
//!
//! A child is a tokio task made by a factory. A panic in it is caught, counted and treated as a failure.
//! The supervisor itself is an actor; a panic in the supervisor aborts the process, since nobody is left
//! to act on failures.

mod policy;
mod root;
#[cfg(test)]
mod tests;

use std::io;
use std::time::{Duration, Instant};

use actix::Addr;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::policy::{Escalation, Exit, Policy, Restart};
use self::root::{Count, Root, Start};
use crate::metrics::Unit;
use crate::{Backoff, Drain, Metrics, actors};

/// A message to the supervisor that is not taken within this time fails: its mailbox only carries
/// starts and exits, so something is badly wrong.
const SEND_LIMIT: Duration = Duration::from_secs(5);

/// How long a stopping supervisor waits for its children after telling them.
const STOP_LIMIT: Duration = Duration::from_secs(10);

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
    /// A child that was waited for is down for good.
    #[error("{kind} ended before it was ready: {exit}")]
    NotReady {
        /// The child.
        kind: &'static str,
        /// How it ended last.
        exit: Exit,
    },
}

/// With it a child says that it is at work, the first time and after each restart.
#[derive(Debug, Clone)]
pub struct Ready(watch::Sender<bool>);

impl Ready {
    /// The child is at work.
    pub fn tell(&self) {
        self.0.send_replace(true);
    }
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
        let addr = actors::start(move |_| Root::new(name, drain, exits, root_cancel))?;
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

    /// As [`Supervisor::spawn`], returning when the child has said through its [`Ready`] that it is at work.
    pub async fn spawn_ready<F, W>(
        &self,
        kind: &'static str,
        policy: Policy,
        mut make: F,
    ) -> Result<Child, SupervisorError>
    where
        F: FnMut(CancellationToken, Ready) -> W + Send + 'static,
        W: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let (ready, mut told) = watch::channel(false);
        let ready = Ready(ready);
        let mut child = self.spawn(kind, policy, move |stop| make(stop, ready.clone())).await?;
        tokio::select! {
            biased;
            Ok(_) = told.wait_for(|told| *told) => Ok(child),
            exit = child.ended() => Err(SupervisorError::NotReady { kind, exit }),
        }
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

/// The text of a caught panic.
pub fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}
