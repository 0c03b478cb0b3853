//! The actor of a publisher: runs the session's task, shows its state, and carries out orders to it.

use std::time::Duration;

use millrace_link::publisher_session::{SessionReport, SessionTask};
use millrace_runtime::actors::{ActorContext, Order, ReceivedOrder, StatusHandle};
use millrace_wire::close_reason::CloseReason;

use super::disconnect::DisconnectSignal;
use super::source::PublishEnd;

/// Runs a session to its end. `Kick` and `Drain` end the publish; the session goes on until its media are stored.
pub(super) async fn run_session(task: SessionTask, actor: ActorContext, disconnect: DisconnectSignal) {
    let mut orders = actor.orders();
    let mut display = Display { status: actor.status, shown: None, disconnect: disconnect.clone() };
    let session = task.run(actor.stop, move |report| display.update(report));
    tokio::pin!(session);
    loop {
        tokio::select! {
            biased;
            () = &mut session => return,
            received = orders.recv() => carry_out(received, &disconnect),
        }
    }
}

/// The state that operators see.
struct Display {
    status: StatusHandle,
    /// The phase shown last: whether the publish has ended, and whether the session lacks a worker.
    shown: Option<(bool, bool)>,
    disconnect: DisconnectSignal,
}

impl Display {
    fn update(&mut self, report: SessionReport) {
        self.status.set_queue(report.executing, Duration::ZERO);
        let phase = (self.disconnect.has_fired(), report.lacks_worker);
        if self.shown.replace(phase) == Some(phase) {
            return;
        }
        match phase {
            (false, false) => self.status.set_state("publishing"),
            (false, true) => self.status.set_state("publishing; waiting for worker"),
            (true, lacks_worker) => {
                let next = if lacks_worker { "waiting for worker" } else { "storing its media" };
                self.status.set_state(format!("publish ended ({}); {next}", self.disconnect.end().reason));
            }
        }
    }
}

fn carry_out(received: ReceivedOrder, disconnect: &DisconnectSignal) {
    let end = match received.order() {
        Order::Kick { reason } if reason.is_empty() => CloseReason::Kicked.into(),
        Order::Kick { reason } => PublishEnd { reason: CloseReason::Kicked, text: reason.clone() },
        // The encoder connects again, and reaches a node that does not drain.
        Order::Drain => CloseReason::Draining.into(),
        // The dropped order answers that it is not supported.
        Order::Reload => return,
    };
    let (order, text) = (received.order().name(), end.text.clone());
    if disconnect.close(end) {
        tracing::info!(order, text, "publish ended by order");
        received.accept();
    } else {
        received.refuse("the publish has ended already; its media are being stored");
    }
}
