//! The supervisor as its users see it.

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

#[tokio::test]
async fn a_start_returns_when_the_child_says_so() {
    let supervisor = Supervisor::start("test", &Metrics::new(), &Drain::new()).unwrap();
    let starts = Arc::new(AtomicU32::new(0));
    let seen = starts.clone();
    let mut child = supervisor
        .spawn_ready("slow", quick(5), move |stop, ready| {
            let n = seen.fetch_add(1, Ordering::SeqCst);
            async move {
                anyhow::ensure!(n > 0, "the first start fails before it is ready");
                ready.tell();
                stop.cancelled().await;
                Ok(())
            }
        })
        .await
        .unwrap();
    assert_eq!(starts.load(Ordering::SeqCst), 2);
    child.stop();
    assert_eq!(child.ended().await, Exit::Finished);
    let failed = supervisor
        .spawn_ready("never", Policy::once(), |_, _ready| async { anyhow::bail!("no luck") })
        .await
        .unwrap_err();
    assert_eq!(failed.to_string(), "never ended before it was ready: no luck");
}
