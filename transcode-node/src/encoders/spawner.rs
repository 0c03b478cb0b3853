//! Starts child processes from a thread that lives as long as this process.
//!
//! The signal that ends a child with its parent is bound to the thread that started it, not to the process: a child that a
//! thread of a pool had started would be killed when the pool lets that thread go. Starting also blocks until the child has
//! its program, which is no work for a thread that media pass through.

use std::io;
use std::sync::{LazyLock, mpsc};

use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

struct Request {
    command: Command,
    runtime: Handle,
    reply: oneshot::Sender<io::Result<Child>>,
}

impl Request {
    fn serve(mut self) {
        let _runtime = self.runtime.enter();
        if let Err(error) = millrace_codec::withhold_descriptors() {
            tracing::debug!(%error, "descriptors not withheld; the encoders' process cannot use them either");
        }
        // A caller that has left does not want the child: it is killed on drop.
        let _ = self.reply.send(self.command.spawn());
    }
}

static SPAWNER: LazyLock<io::Result<mpsc::Sender<Request>>> = LazyLock::new(|| {
    let (requests, receiver) = mpsc::channel::<Request>();
    let serve = move || receiver.into_iter().for_each(Request::serve);
    std::thread::Builder::new().name("encoders".to_owned()).spawn(serve)?;
    Ok(requests)
});

/// Starts a process, which is killed when the returned handle is dropped.
///
/// # Errors
/// Those of the start, or when the starting thread is not there.
pub(super) async fn spawn(mut command: Command) -> io::Result<Child> {
    command.kill_on_drop(true);
    let (reply, child) = oneshot::channel();
    let gone = || io::Error::other("the thread that starts encoders has ended");
    let spawner = SPAWNER.as_ref().map_err(|error| io::Error::new(error.kind(), error.to_string()))?;
    let request = Request { command, runtime: Handle::current(), reply };
    spawner.send(request).map_err(|_| gone())?;
    child.await.map_err(|_| gone())?
}
