//! The actor system of the process: one actix `System` on one multi-threaded tokio runtime, made at
//! first use. Actors share one thread; their loops run on the runtime's threads.

use std::io;
use std::sync::{Mutex, PoisonError, mpsc};

use actix::{Actor, Addr, Context};
use actix_rt::{ArbiterHandle, System};
use tokio::runtime::{Builder, Handle, Runtime};

use crate::pacing;

/// Messages in a mailbox at most: enough for the small messages of supervision; senders wait, with a time limit, when it
/// is full.
const MAILBOX_CAPACITY: usize = 64;

#[derive(Clone)]
struct Running {
    arbiter: ArbiterHandle,
    runtime: Handle,
}

static RUNNING: Mutex<Option<Running>> = Mutex::new(None);

/// The pacing of a runtime's worker threads: batching of wake-ups while they are busy (ADR 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pacing {
    /// A busy thread sleeps for up to 10 ms and then handles all that has arrived: less CPU for many streams.
    On,
    /// Threads never sleep while there are events: for loads that need answers within less than 10 ms.
    Off,
}

impl From<bool> for Pacing {
    fn from(on: bool) -> Self {
        if on { Self::On } else { Self::Off }
    }
}

/// Starts the process's runtime with the given pacing, once, before anything else uses it.
///
/// # Errors
/// When the runtime is up already, or its threads cannot be started.
pub fn start_runtime(pacing: Pacing) -> io::Result<()> {
    let mut slot = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    if slot.is_some() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "the runtime of this process is up already",
        ));
    }
    *slot = Some(launch(pacing)?);
    Ok(())
}

/// Runs a future on the process's runtime, on the calling thread, until it is done. Starts the runtime, with pacing, if
/// [`start_runtime`] has not.
pub fn block_on<F: Future>(future: F) -> io::Result<F::Output> {
    Ok(running()?.runtime.block_on(future))
}

/// Starts an actor on the actor thread. Callable from any thread, inside or outside of a runtime.
pub(crate) fn start<A>(make: impl FnOnce(&mut Context<A>) -> A + Send + 'static) -> io::Result<Addr<A>>
where
    A: Actor<Context = Context<A>>,
{
    let running = running()?;
    Ok(A::start_in_arbiter(&running.arbiter, |context| {
        context.set_mailbox_capacity(MAILBOX_CAPACITY);
        make(context)
    }))
}

/// Returns half the number of cores: a stream's tasks wake each other with every picture, and a wake-up across threads
/// costs more than the work it starts. The other half serves HTTP, files and child processes, which have their own threads.
fn worker_threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (cores / 2).max(1)
}

fn running() -> io::Result<Running> {
    let mut slot = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(running) = slot.as_ref() {
        return Ok(running.clone());
    }
    let running = launch(Pacing::On)?;
    *slot = Some(running.clone());
    Ok(running)
}

fn build(pacing: Pacing) -> io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(worker_threads()).enable_all().thread_name("millrace");
    if pacing == Pacing::On {
        builder.on_thread_park(pacing::before_park).on_thread_unpark(pacing::after_unpark);
    }
    builder.build()
}

/// Starts the runtime and, on a thread of its own, the actor system.
fn launch(pacing: Pacing) -> io::Result<Running> {
    let runtime = build(pacing)?;
    let (sender, receiver) = mpsc::channel();
    std::thread::Builder::new().name("actors".to_owned()).spawn(move || {
        let handle = runtime.handle().clone();
        let system = System::with_tokio_rt(move || runtime);
        let running = Running { arbiter: System::current().arbiter().clone(), runtime: handle };
        if sender.send(running).is_ok() {
            // Returns only when the system is stopped, which does not happen: it ends with the process.
            let _ = system.run();
        }
    })?;
    receiver.recv().map_err(|_| io::Error::other("the actor system did not start"))
}

#[cfg(test)]
mod tests {
    use actix::{Handler, Message};

    use super::*;

    struct Adder(u32);
    struct Add(u32);
    impl Message for Add {
        type Result = u32;
    }
    impl Actor for Adder {
        type Context = Context<Self>;
    }
    impl Handler<Add> for Adder {
        type Result = u32;
        fn handle(&mut self, add: Add, _: &mut Context<Self>) -> u32 {
            self.0 += add.0;
            self.0
        }
    }

    #[tokio::test]
    async fn actor_starts_from_a_foreign_runtime() {
        let adder = start(|_| Adder(1)).unwrap();
        assert_eq!(adder.send(Add(2)).await.unwrap(), 3);
    }

    #[test]
    fn actor_starts_from_within_the_process_runtime() {
        let sum = block_on(async {
            tokio::spawn(async { start(|_| Adder(40)).unwrap().send(Add(2)).await.unwrap() }).await.unwrap()
        });
        assert_eq!(sum.unwrap(), 42);
    }

    /// Sends events to a runtime, closer together than a short wait, until one was batched or `most` were sent.
    /// Returns how often its threads have slept to batch them.
    fn batches_under_load(pacing: Pacing, most: u32) -> u64 {
        let runtime = build(pacing).unwrap();
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<()>(1);
        let counted = runtime.spawn(async move {
            let mut batches = 0;
            while batches == 0 && receiver.recv().await.is_some() {
                batches = pacing::batches_of_this_thread();
            }
            batches
        });
        for _ in 0..most {
            if sender.blocking_send(()).is_err() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
        drop(sender);
        runtime.block_on(counted).unwrap()
    }

    #[test]
    fn runtime_sleeps_before_park_only_with_pacing_on() {
        // A loaded machine may spread the events out; the streak comes within far fewer than these.
        assert!(batches_under_load(Pacing::On, 100_000) > 0);
        assert_eq!(batches_under_load(Pacing::Off, 1_000), 0);
    }

    #[test]
    fn start_runtime_refuses_when_the_runtime_is_up() {
        block_on(async {}).unwrap();
        assert_eq!(start_runtime(Pacing::Off).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }
}
