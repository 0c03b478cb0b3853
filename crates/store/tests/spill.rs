//! Tests of the uploader's spill: bounds, order, retries, which objects are dropped and how their tickets
//! resolve.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing test panics")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use millrace_buf::ByteChain;
use millrace_store::{
    DirStore, FaultyStore, GivenUp, Meta, ObjectStore, RetryPolicy, RetryStore, SharedStore, StoreError,
    StoreFaults, SyncPolicy, UploadError, Uploader, UploaderConfig, list_all,
};
use millrace_testkit::wait;

const SOON: Duration = Duration::from_secs(20);

async fn faulty() -> (tempfile::TempDir, FaultyStore, SharedStore) {
    let dir = tempfile::tempdir().unwrap();
    let inner: SharedStore = Arc::new(DirStore::open(dir.path(), SyncPolicy::default()).await.unwrap());
    let store = FaultyStore::new(inner.clone(), 1);
    (dir, store, inner)
}

fn shared(store: &FaultyStore) -> SharedStore {
    Arc::new(store.clone())
}

fn away() -> StoreFaults {
    StoreFaults { away: true, ..StoreFaults::default() }
}

fn body(len: usize) -> ByteChain {
    Bytes::from(vec![1; len]).into()
}

fn config() -> UploaderConfig {
    let retry = RetryPolicy {
        attempts: 4,
        first_delay: Duration::from_millis(5),
        max_delay: Duration::from_millis(50),
    };
    UploaderConfig { parallel: 4, retry, ..UploaderConfig::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_are_tried_again() {
    let (_dir, store, inner) = faulty().await;
    store.set(StoreFaults { fail_first: 3, ..StoreFaults::default() });
    let uploader = Uploader::start(&shared(&store), config());
    let done = uploader.submit("a", body(1), Meta::default(), false).unwrap().done().await.unwrap();
    assert_eq!(done.attempts, 4);
    assert!(inner.head("a").await.is_ok());
    assert_eq!(uploader.stats().failed_attempts, 3);
    assert_eq!((uploader.stats().objects, uploader.stats().bytes), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trouble_lasts_from_the_first_failure_to_the_next_success_and_names_what_was_given_up() {
    let (_dir, store, _inner) = faulty().await;
    store.set(away());
    let uploader = Uploader::start(&shared(&store), UploaderConfig { max_objects: 2, ..config() });
    assert_eq!(uploader.trouble(), None);
    for key in ["a", "b", "c"] {
        let _ = uploader.submit(key, body(1), Meta::default(), false).unwrap();
        wait::until(SOON, || async { uploader.trouble().is_some() }).await;
    }
    assert!(!uploader.trouble().unwrap().error.is_empty());
    let given_up = uploader.take_given_up();
    assert_eq!((given_up.keys.len(), given_up.more), (1, 0), "{given_up:?}");
    assert_eq!(uploader.take_given_up(), GivenUp::default(), "each is named once");
    store.set(StoreFaults::default());
    wait::until(SOON, || async { uploader.trouble().is_none() }).await;
    wait::until(SOON, || async { uploader.stats().stored == 2 }).await;
}

#[test]
fn given_up_objects_are_named_within_a_bound() {
    let mut all = GivenUp::default();
    for n in 0..40 {
        all.merge(GivenUp { keys: vec![format!("k{n}")], more: 0 });
    }
    all.merge(GivenUp { keys: Vec::new(), more: 3 });
    assert_eq!((all.keys.len(), all.more), (GivenUp::NAMED, 11));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_fails_by_chance_gets_everything() {
    let (_dir, store, inner) = faulty().await;
    store.set(StoreFaults { fail: 0.5, lost_answer: 0.5, ..StoreFaults::default() });
    let uploader = Uploader::start(&shared(&store), config());
    for number in 0..200 {
        drop(uploader.submit(format!("k/{number}"), body(100), Meta::default(), false).unwrap());
    }
    assert!(uploader.drain(SOON).await);
    assert_eq!(list_all(inner.as_ref(), "k/", 1000).await.unwrap().len(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_the_bounds_the_oldest_goes_and_its_owner_is_told() {
    let (_dir, store, inner) = faulty().await;
    store.set(StoreFaults { delay: SOON, ..away() });
    let uploader = Uploader::start(&shared(&store), UploaderConfig { max_bytes: 1000, ..config() });
    // Four being sent, so that what waits is certain.
    for number in 0..4 {
        drop(uploader.submit(format!("busy/{number}"), body(1), Meta::default(), false).unwrap());
    }
    wait::until(SOON, || async { store.calls() == 4 }).await;
    let essential = uploader.submit("init", body(96), Meta::default(), true).unwrap();
    let mut tickets: Vec<_> = (0..5)
        .map(|number| uploader.submit(format!("k/{number}"), body(300), Meta::default(), false).unwrap())
        .collect();
    assert_eq!(uploader.stats().dropped, 2);
    for ticket in tickets.drain(..2) {
        assert_eq!(ticket.done().await, Err(UploadError::Dropped));
    }
    assert_eq!(uploader.stats().bytes, 1000);
    let huge = uploader.submit("huge", body(1001), Meta::default(), false);
    assert_eq!(huge.err(), Some(UploadError::Full));
    assert!(matches!(uploader.submit("../x", body(1), Meta::default(), false), Err(UploadError::Refused(_))));
    drop((essential, tickets, inner));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_goes_out_after_the_return_oldest_first() {
    let (_dir, store, inner) = faulty().await;
    store.set(away());
    let uploader = Uploader::start(&shared(&store), UploaderConfig { parallel: 1, ..config() });
    let mut tickets = Vec::new();
    for number in 0..20 {
        tickets.push(uploader.submit(format!("k/{number:02}"), body(10), Meta::default(), false).unwrap());
    }
    wait::until(SOON, || async { uploader.stats().failed_attempts >= 5 }).await;
    assert_eq!(uploader.stats().objects, 20);
    store.set(StoreFaults::default());
    let mut last = Duration::ZERO;
    for ticket in tickets {
        let took = ticket.done().await.unwrap().took;
        assert!(took + Duration::from_millis(5) >= last.saturating_sub(Duration::from_millis(200)));
        last = took;
    }
    assert_eq!(list_all(inner.as_ref(), "k/", 100).await.unwrap().len(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_of_one_key_are_sent_in_order() {
    let (_dir, store, inner) = faulty().await;
    store.set(StoreFaults { fail: 0.3, delay: Duration::from_millis(1), ..StoreFaults::default() });
    let uploader = Uploader::start(&shared(&store), config());
    for number in 0..50u32 {
        let text = number.to_string().into_bytes();
        drop(uploader.submit("index.m3u8", text.into(), Meta::default(), true).unwrap());
    }
    assert!(uploader.drain(SOON).await);
    assert_eq!(inner.get("index.m3u8", None).await.unwrap().body.as_ref(), b"49");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_uploads_run_side_by_side() {
    let (_dir, store, _inner) = faulty().await;
    store.set(StoreFaults { delay: Duration::from_millis(200), ..StoreFaults::default() });
    let uploader = Uploader::start(&shared(&store), config());
    let start = Instant::now();
    for number in 0..8 {
        drop(uploader.submit(format!("k/{number}"), body(10), Meta::default(), false).unwrap());
    }
    assert!(uploader.drain(SOON).await);
    assert!(start.elapsed() < Duration::from_millis(1200), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_never_answers_is_away() {
    let (_dir, store, _inner) = faulty().await;
    store.set(StoreFaults { delay: SOON * 10, ..StoreFaults::default() });
    let quick = UploaderConfig { attempt_timeout: Duration::from_millis(50), ..config() };
    let uploader = Uploader::start(&shared(&store), quick);
    let ticket = uploader.submit("a", body(1), Meta::default(), false).unwrap();
    wait::until(SOON, || async { uploader.stats().failed_attempts >= 2 }).await;
    store.set(StoreFaults::default());
    ticket.done().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retrying_store() {
    let (_dir, store, _inner) = faulty().await;
    let retrying = RetryStore::new(Arc::new(store.clone()), config().retry);
    store.set(StoreFaults { fail_first: 3, ..StoreFaults::default() });
    retrying.put("a", body(1), Meta::default()).await.unwrap();
    store.set(StoreFaults { fail_first: 4, ..StoreFaults::default() });
    assert!(matches!(retrying.get("a", None).await, Err(StoreError::Unavailable { .. })));
    let calls = store.calls();
    store.set(StoreFaults::default());
    assert!(matches!(retrying.get("none", None).await, Err(StoreError::NotFound { .. })));
    assert_eq!(store.calls(), calls + 1, "what is final is not tried again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_tells_who_waits() {
    let (_dir, store, _inner) = faulty().await;
    store.set(away());
    let uploader = Uploader::start(&shared(&store), config());
    let ticket = uploader.submit("a", body(1), Meta::default(), false).unwrap();
    assert!(!uploader.drain(Duration::from_millis(20)).await);
    drop(uploader);
    assert_eq!(ticket.done().await, Err(UploadError::Closed));
}
