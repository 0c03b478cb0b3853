//! The actor of a publisher: runs the session's task, shows its state, and carries out orders to it.

use millrace_runtime::actors::{Order, Orders, ReceivedOrder, StatusHandle};
use millrace_wire::close_reason::CloseReason;

use super::disconnect::DisconnectSignal;
use super::source::PublishEnd;

/// Runs `session` to its end. `Kick` and `Drain` end the publish; the session goes on until its media are stored.
pub(super) async fn run_session(
    session: impl Future<Output = ()>,
    mut orders: Orders,
    status: StatusHandle,
    disconnect: DisconnectSignal,
) {
    let mut ended = disconnect.fired();
    let mut publishing = true;
    status.set_state("publishing");
    tokio::pin!(session);
    loop {
        tokio::select! {
            biased;
            () = &mut session => return,
            () = &mut ended, if publishing => {
                publishing = false;
                status.set_state(format!("publish ended ({}); storing its media", disconnect.end().reason));
            }
            received = orders.recv() => carry_out(received, &disconnect),
        }
    }
}

fn carry_out(received: ReceivedOrder, disconnect: &DisconnectSignal) {
    let end = match received.order() {
        Order::Kick { reason } if reason.is_empty() => CloseReason::Kicked.into(),
        Order::Kick { reason } => PublishEnd { reason: CloseReason::Kicked, text: reason.clone() },
        // The encoder connects again, and reaches a node that does not drain.
        Order::Drain => CloseReason::Draining.into(),
        // Not supported; so the dropped order answers.
        Order::Reload => return,
    };
    tracing::info!(order = received.order().name(), text = end.text, "publish ended by order");
    if disconnect.close(end) {
        received.accept();
    } else {
        received.refuse("the publish has ended already; its media are being stored");
    }
}
