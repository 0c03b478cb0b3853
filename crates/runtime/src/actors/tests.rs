//! Actors through the registry: asked, ordered, listed, named twice.

use std::time::Duration;

use tokio::sync::mpsc;

use super::*;
use crate::metrics::Metrics;
use crate::supervisor::{Exit, Policy, Restart, Supervisor, SupervisorError};
use crate::{Backoff, Process};

struct World {
    process: Process,
    supervisor: Supervisor,
}

impl World {
    fn new() -> Self {
        let process = Process::default();
        let Process { metrics, drain, actors, .. } = &process;
        let supervisor = Supervisor::start("test", metrics, drain, actors).unwrap();
        Self { process, supervisor }
    }

    fn actors(&self) -> &ActorRegistry {
        &self.process.actors
    }

    /// Spawns an actor that does nothing until it is stopped.
    async fn spawn_idle(&self, id: ActorId) -> crate::supervisor::Child {
        let idle = |context: ActorContext| async move {
            context.stop.cancelled().await;
            Ok(())
        };
        self.supervisor.spawn(id, Policy::once(), idle).await.unwrap()
    }
}

async fn wait_until(mut holds: impl AsyncFnMut() -> bool) {
    let mut pause = Backoff::new(Duration::from_millis(1), Duration::from_millis(20));
    let waiting = async {
        while !holds().await {
            pause.wait().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap();
}

#[tokio::test]
async fn actor_accepts_refuses_and_does_not_support_orders_as_its_loop_answers() {
    let world = World::new();
    let (seen, mut taken) = mpsc::channel(8);
    let work = move |context: ActorContext| {
        let seen = seen.clone();
        let mut orders = context.orders();
        async move {
            loop {
                let received = tokio::select! {
                    received = orders.recv() => received,
                    () = context.stop.cancelled() => return Ok(()),
                };
                seen.send(received.order().clone()).await?;
                match received.order() {
                    Order::Kick { .. } => received.accept(),
                    Order::Reload => received.refuse("nothing to reload"),
                    Order::Drain => drop(received),
                }
            }
        }
    };
    world.supervisor.spawn(ActorId::new("publisher", "01J"), Policy::once(), work).await.unwrap();
    let kick = Order::Kick { reason: "test".to_owned() };
    let actors = world.actors();
    assert_eq!(actors.order("publisher", "01J", kick.clone()).await, Ok(()));
    let refused = OrderError::Refused("nothing to reload".to_owned());
    assert_eq!(actors.order("publisher", "01J", Order::Reload).await, Err(refused));
    assert_eq!(actors.order("publisher", "01J", Order::Drain).await, Err(OrderError::NotSupported));
    for order in [kick, Order::Reload, Order::Drain] {
        assert_eq!(taken.recv().await, Some(order));
    }
    let missing = actors.order("publisher", "02K", Order::Drain).await.unwrap_err();
    assert_eq!(missing.to_string(), "no actor publisher/02K");
}

#[tokio::test]
async fn actor_without_an_order_queue_answers_not_supported_at_once() {
    let world = World::new();
    world.spawn_idle(ActorId::new("probe", "edge")).await;
    assert_eq!(world.actors().order("probe", "edge", Order::Reload).await, Err(OrderError::NotSupported));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_to_an_actor_whose_loop_has_not_begun_waits_for_it() {
    let world = World::new();
    let (began, go_on) = std::sync::mpsc::channel::<()>();
    let mut go_on = Some(go_on);
    let slow_start = move |context: ActorContext| {
        let go_on = go_on.take().unwrap();
        async move {
            // The loop runs, and is not yet where it opens its queue.
            tokio::task::block_in_place(|| go_on.recv()).unwrap();
            context.orders().recv().await.accept();
            Ok(())
        }
    };
    world.supervisor.spawn(ActorId::new("certificate", "rtmps"), Policy::once(), slow_start).await.unwrap();
    let actors = world.actors();
    let mut order = std::pin::pin!(actors.order("certificate", "rtmps", Order::Reload));
    let sent = std::future::poll_fn(|context| std::task::Poll::Ready(order.as_mut().poll(context))).await;
    assert!(sent.is_pending(), "{sent:?}");
    // The mailbox is a queue: the order was handled before this question.
    actors.status("certificate", "rtmps").await.unwrap();
    began.send(()).unwrap();
    assert_eq!(order.await, Ok(()));
}

#[tokio::test]
async fn actor_whose_loop_ignores_its_orders_times_out_then_is_busy() {
    let world = World::new();
    let work = |context: ActorContext| {
        let orders = context.orders();
        async move {
            context.stop.cancelled().await;
            drop(orders);
            Ok(())
        }
    };
    world.supervisor.spawn(ActorId::new("job", 1), Policy::once(), work).await.unwrap();
    let asked: Vec<_> = (0..order::ORDERS_CAPACITY)
        .map(|_| {
            let actors = world.actors().clone();
            tokio::spawn(async move { actors.order("job", "1", Order::Reload).await })
        })
        .collect();
    for one in asked {
        assert_eq!(one.await.unwrap(), Err(OrderError::TimedOut));
    }
    assert_eq!(world.actors().order("job", "1", Order::Reload).await, Err(OrderError::Busy));
    let status = world.actors().status("job", "1").await.unwrap();
    assert_eq!(status.mailbox, order::ORDERS_CAPACITY as u64);
    let text = world.process.metrics.render();
    assert!(text.contains("millrace_actor_orders_timed_out_total{kind=\"job\"} 8"), "{text}");
    assert!(world.supervisor.stop().await);
}

#[tokio::test]
async fn status_shows_state_queue_restarts_and_last_failure() {
    let world = World::new();
    let policy =
        Policy { restart: Restart::OnFailure, backoff_first: Duration::from_millis(1), ..Policy::vital() };
    let mut starts = 0;
    let work = move |context: ActorContext| {
        starts += 1;
        let first = starts == 1;
        async move {
            anyhow::ensure!(!first, "the bus is away");
            context.status.set_state(format!("{}…", "é".repeat(200)));
            context.status.set_queue(3, Duration::from_mins(1));
            context.stop.cancelled().await;
            Ok(())
        }
    };
    let mut child = world.supervisor.spawn(ActorId::new("feed", "01J"), policy, work).await.unwrap();
    let working = async || world.actors().status("feed", "01J").await.is_ok_and(|status| status.queue == 3);
    wait_until(working).await;
    let status = world.actors().status("feed", "01J").await.unwrap();
    assert_eq!((status.kind, status.id.as_str(), status.supervisor.as_str()), ("feed", "01J", "test"));
    assert_eq!(status.state, "é".repeat(80));
    assert_eq!((status.restarts, status.last_failure.as_deref()), (1, Some("the bus is away")));
    // The oldest entry cannot be older than the actor.
    assert!(status.queue_age_ms <= status.age_ms, "{status:?}");
    let text = world.process.metrics.render();
    assert!(text.contains("millrace_actor_restarts_total{kind=\"feed\"} 1"), "{text}");
    child.stop();
    assert_eq!(child.ended().await, Exit::Finished);
    assert!(world.actors().is_empty());
}

#[tokio::test]
async fn queue_age_grows_while_the_loop_does_not_report() {
    let world = World::new();
    let work = |context: ActorContext| async move {
        context.status.set_queue(1, Duration::ZERO);
        context.stop.cancelled().await;
        Ok(())
    };
    world.supervisor.spawn(ActorId::new("uploader", 1), Policy::once(), work).await.unwrap();
    wait_until(async || world.actors().status("uploader", "1").await.unwrap().queue_age_ms >= 5).await;
}

#[tokio::test]
async fn a_second_actor_of_a_name_is_refused_or_replaces_the_first() {
    let world = World::new();
    let id = || ActorId::new("feed", "01J");
    let mut first = world.spawn_idle(id()).await;
    let again = world.supervisor.spawn(id(), Policy::once(), |_| async { Ok(()) }).await;
    assert!(matches!(again, Err(SupervisorError::Register(RegisterError::Duplicate(_)))), "{again:?}");
    let second = world.supervisor.replace(id(), Policy::once(), |context| async move {
        context.stop.cancelled().await;
        Ok(())
    });
    let mut second = second.await.unwrap();
    assert_eq!(first.ended().await, Exit::Finished);
    let list = world.actors().list(ActorFilter::default(), 10);
    assert_eq!((list.total, list.actors[0].state.as_str()), (1, "running"));
    second.stop();
    assert_eq!(second.ended().await, Exit::Finished);
    assert_eq!(world.actors().len(), 0);
}

#[tokio::test]
async fn list_filters_by_kind_and_supervisor_and_counts_what_it_leaves_out() {
    let world = World::new();
    let Process { drain, actors, .. } = &world.process;
    let other = Supervisor::start("other", &Metrics::new(), drain, actors).unwrap();
    for number in 0..5 {
        world.spawn_idle(ActorId::new("job", number)).await;
    }
    other.spawn(ActorId::new("job", "x"), Policy::once(), |_| std::future::pending()).await.unwrap();
    let of_kind = |kind| actors.list(ActorFilter { kind: Some(kind), ..ActorFilter::default() }, 2);
    assert_eq!((of_kind("job").total, of_kind("job").actors.len()), (6, 2));
    assert_eq!(of_kind("feed").total, 0);
    let filter = ActorFilter { supervisor: Some("other"), ..ActorFilter::default() };
    let of_other = actors.list(filter, 10);
    assert_eq!((of_other.total, of_other.actors[0].id.as_str()), (1, "x"));
    let text = world.process.metrics.render();
    assert!(text.contains("millrace_actors{kind=\"job\"} 6"), "{text}");
}

#[tokio::test]
async fn a_factory_that_panics_is_a_failure_of_its_child() {
    let world = World::new();
    let broken = |_| -> std::future::Ready<anyhow::Result<()>> { panic!("no loop") };
    let mut child = world.supervisor.spawn(ActorId::new("job", 1), Policy::once(), broken).await.unwrap();
    assert_eq!(child.ended().await, Exit::Panicked("no loop".to_owned()));
    assert!(world.actors().is_empty());
}
