//! The supervisor through its public interface.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

fn supervisor(metrics: &Metrics, drain: &Drain) -> Supervisor {
    Supervisor::start("test", metrics, drain, &ActorRegistry::new(metrics)).unwrap()
}

fn flaky() -> ActorId {
    ActorId::new("flaky", 1)
}

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
async fn supervisor_restarts_a_panicking_or_failing_loop_until_it_finishes() {
    let (metrics, drain) = (Metrics::new(), Drain::new());
    let supervisor = supervisor(&metrics, &drain);
    let starts = Arc::new(AtomicU32::new(0));
    let seen = starts.clone();
    let mut child = supervisor
        .spawn(flaky(), quick(5), move |_| {
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
async fn supervisor_drains_the_node_when_a_budget_of_restarts_is_spent() {
    let drain = Drain::new();
    let supervisor = supervisor(&Metrics::new(), &drain);
    let mut child = supervisor
        .spawn(ActorId::new("broken", 1), quick(2), |_| async { anyhow::bail!("no luck") })
        .await
        .unwrap();
    drain.draining().await;
    assert_eq!(drain.reason(), Some("broken of test spent its budget of restarts"));
    assert_eq!(child.ended().await, Exit::Failed("no luck".to_owned()));
}

#[tokio::test]
async fn supervisor_stop_ends_every_actor() {
    let supervisor = supervisor(&Metrics::new(), &Drain::new());
    let mut children = Vec::new();
    for number in 0..3 {
        let child = supervisor.spawn(ActorId::new("waiter", number), Policy::vital(), |context| async move {
            context.stop.cancelled().await;
            Ok(())
        });
        children.push(child.await.unwrap());
    }
    assert_eq!(supervisor.children(), 3);
    children[0].stop();
    assert_eq!(children[0].ended().await, Exit::Finished);
    assert!(supervisor.stop().await);
    assert_eq!(supervisor.children(), 0);
}

#[tokio::test]
async fn spawn_ready_returns_when_the_loop_reports_ready_or_is_down_for_good() {
    let supervisor = supervisor(&Metrics::new(), &Drain::new());
    let starts = Arc::new(AtomicU32::new(0));
    let seen = starts.clone();
    let mut child = supervisor
        .spawn_ready(ActorId::new("slow", 1), quick(5), move |context| {
            let n = seen.fetch_add(1, Ordering::SeqCst);
            async move {
                anyhow::ensure!(n > 0, "the first start fails before it is ready");
                context.ready.report();
                context.stop.cancelled().await;
                Ok(())
            }
        })
        .await
        .unwrap();
    assert_eq!(starts.load(Ordering::SeqCst), 2);
    child.stop();
    assert_eq!(child.ended().await, Exit::Finished);
    let failed = supervisor
        .spawn_ready(ActorId::new("never", 1), Policy::once(), |_| async { anyhow::bail!("no luck") })
        .await
        .unwrap_err();
    assert_eq!(failed.to_string(), "never/1 ended before it was ready: no luck");
}
