//! The actor system of the process: one actix `System` on one multi-threaded tokio runtime, made at
//! first use. Actors share its thread; work runs on the runtime's threads, never in a mailbox.

use std::io;
use std::sync::{Mutex, PoisonError, mpsc};

use actix::{Actor, Addr, Context};
use actix_rt::{ArbiterHandle, System};
use tokio::runtime::{Builder, Handle};

/// Enough for the small messages of supervision; senders wait (with a time limit) when it is full.
pub const MAILBOX_CAPACITY: usize = 64;

#[derive(Clone)]
struct Running {
    arbiter: ArbiterHandle,
    runtime: Handle,
}

static RUNNING: Mutex<Option<Running>> = Mutex::new(None);

/// Runs a future on the process's runtime, on the calling thread, until it is done.
pub fn block_on<F: Future>(future: F) -> io::Result<F::Output> {
    Ok(running()?.runtime.block_on(future))
}

/// Starts an actor on the actor thread. Callable from any thread, inside or outside of a runtime.
pub fn start<A>(make: impl FnOnce(&mut Context<A>) -> A + Send + 'static) -> io::Result<Addr<A>>
where
    A: Actor<Context = Context<A>>,
{
    let running = running()?;
    Ok(A::start_in_arbiter(&running.arbiter, |context| {
        context.set_mailbox_capacity(MAILBOX_CAPACITY);
        make(context)
    }))
}

/// Half of the cores: a stream's tasks wake each other with every picture, and a wake-up across threads costs more than
/// what the task then does. The other half serves HTTP, files and child processes, which have threads of their own.
fn worker_threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (cores / 2).max(1)
}

fn running() -> io::Result<Running> {
    let mut slot = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(running) = slot.as_ref() {
        return Ok(running.clone());
    }
    let runtime = Builder::new_multi_thread()
        .worker_threads(worker_threads())
        .enable_all()
        .thread_name("millrace")
        .on_thread_park(crate::pacing::before_park)
        .on_thread_unpark(crate::pacing::after_unpark)
        .build()?;
    let (sender, receiver) = mpsc::channel();
    std::thread::Builder::new().name("actors".to_owned()).spawn(move || {
        let handle = runtime.handle().clone();
        let system = System::with_tokio_rt(move || runtime);
        let running = Running { arbiter: System::current().arbiter().clone(), runtime: handle };
        if sender.send(running).is_ok() {
            // Returns only when the system is stopped, which nobody does: it ends with the process.
            let _ = system.run();
        }
    })?;
    let running = receiver.recv().map_err(|_| io::Error::other("the actor system did not start"))?;
    *slot = Some(running.clone());
    Ok(running)
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
    async fn an_actor_starts_from_a_foreign_runtime() {
        let adder = start(|_| Adder(1)).unwrap();
        assert_eq!(adder.send(Add(2)).await.unwrap(), 3);
    }

    #[test]
    fn an_actor_starts_from_within_the_process_runtime() {
        let sum = block_on(async {
            tokio::spawn(async { start(|_| Adder(40)).unwrap().send(Add(2)).await.unwrap() }).await.unwrap()
        });
        assert_eq!(sum.unwrap(), 42);
    }
}
