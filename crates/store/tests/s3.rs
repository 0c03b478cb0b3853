//! A real S3: the conformance suite on MinIO, wrong settings, and a store that is away or slow.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing test panics")]

mod conformance;

use std::sync::Arc;
use std::time::{Duration, Instant};

use conformance::read;
use millrace_store::{
    Meta, ObjectStore, S3Config, S3Store, SharedStore, StoreError, Uploader, UploaderConfig, list_all,
};
use millrace_testkit::disk::{ReadOnly, SmallDisk};
use millrace_testkit::{MinioServer, wait};

const SOON: Duration = Duration::from_secs(30);

fn config(server: &MinioServer) -> S3Config {
    S3Config::new(server.url(), "media", MinioServer::ACCESS_KEY, MinioServer::SECRET_KEY)
}

async fn open(server: &MinioServer) -> SharedStore {
    let mut config = config(server);
    config.attempt_timeout = Duration::from_secs(3);
    let store = S3Store::new(&config);
    store.create_bucket().await.unwrap();
    store.create_bucket().await.unwrap();
    Arc::new(store)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    let server = MinioServer::start_real().await;
    conformance::all(open(&server).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_settings_are_told_apart() {
    let server = MinioServer::start_real().await;
    open(&server).await;
    let mut wrong = config(&server);
    wrong.secret_key = "wrong-secret".into();
    let denied = S3Store::new(&wrong).put("a", "x".into(), Meta::default()).await;
    assert!(matches!(denied, Err(StoreError::Denied { .. })), "{denied:?}");
    let mut wrong = config(&server);
    wrong.bucket = "none".into();
    let store = S3Store::new(&wrong);
    assert!(matches!(store.ready().await, Err(StoreError::Invalid { .. })));
    let put = store.put("a", "x".into(), Meta::default()).await;
    assert!(matches!(put, Err(StoreError::Invalid { .. })), "{put:?}");
    let mut wrong = config(&server);
    wrong.endpoint = format!("http://127.0.0.1:{}", millrace_testkit::ports::free());
    let away = S3Store::new(&wrong).get("a", None).await;
    assert!(matches!(away, Err(StoreError::Unavailable { .. })), "{away:?}");
}

/// The store dies, objects wait, it comes back, and every one is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_uploaded_after_the_return() {
    let mut server = MinioServer::start().await;
    let store = open(&server).await;
    let uploader = Uploader::start(&store, UploaderConfig::default());
    uploader.submit("up/first", "x".into(), Meta::default(), false).unwrap().done().await.unwrap();
    server.process().kill();
    let start = Instant::now();
    let tickets: Vec<_> = (0..60)
        .map(|number| {
            let body = format!("body {number}").into_bytes();
            uploader.submit(format!("up/{number:03}.m4s"), body.into(), Meta::default(), false).unwrap()
        })
        .collect();
    assert!(start.elapsed() < Duration::from_millis(500), "submitting never waits");
    wait::until(SOON, || async { uploader.stats().failed_attempts >= 16 }).await;
    assert_eq!(uploader.stats().objects, 60);
    server.restart().await;
    for ticket in tickets {
        ticket.done().await.unwrap();
    }
    assert!(uploader.drain(SOON).await);
    assert_eq!(list_all(store.as_ref(), "up/", 100).await.unwrap().len(), 61);
    assert_eq!(read(&store, "up/042.m4s").await.as_ref(), b"body 42");
}

/// A store that hangs is away: attempts end, and go through once it answers again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hanging_store_is_given_up_and_tried_again() {
    let mut server = MinioServer::start().await;
    let store = open(&server).await;
    server.process().pause();
    let start = Instant::now();
    let hung = store.put("a", "x".into(), Meta::default()).await;
    assert!(matches!(hung, Err(StoreError::Unavailable { .. })), "{hung:?}");
    assert!(start.elapsed() < Duration::from_secs(5));
    let uploader = Uploader::start(&store, UploaderConfig::default());
    let ticket = uploader.submit("slow", "x".into(), Meta::default(), false).unwrap();
    server.process().resume();
    tokio::time::timeout(SOON, ticket.done()).await.unwrap().unwrap();
}

/// Waits until the uploader tells of a store that takes nothing, and returns the error.
async fn trouble(uploader: &Uploader) -> String {
    let mut error = String::new();
    wait::until(SOON, || {
        error = uploader.trouble().map(|trouble| trouble.error).unwrap_or_default();
        let found = !error.is_empty();
        async move { found }
    })
    .await;
    error
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_wait_while_the_disk_of_minio_is_full_or_read_only_and_are_stored_after() {
    let mut server = MinioServer::start_real().await;
    server.process().kill();
    let disk = SmallDisk::over(&server.data(), 128 << 10);
    server.restart().await;
    let store = open(&server).await;
    let uploader = Uploader::start(&store, UploaderConfig::default());
    let submit = |key: &str| {
        let body = vec![7; 512 << 10];
        uploader.submit(key.to_owned(), body.into(), Meta::default(), false).unwrap()
    };
    submit("before").done().await.unwrap();
    assert_eq!(uploader.trouble(), None);

    disk.fill();
    let full = submit("while-full");
    let error = trouble(&uploader).await;
    // By the time at which MinIO notices.
    let words = ["XMinioStorageFull", "no space left on device"];
    assert!(words.iter().any(|words| error.contains(words)), "{error}");
    disk.make_room();
    full.done().await.unwrap();
    assert_eq!(uploader.trouble(), None);

    let read_only = ReadOnly::over(disk.path());
    let waiting = submit("while-read-only");
    trouble(&uploader).await;
    // Longer than a denied object used to be tried.
    wait::until(SOON, || async { uploader.stats().failed_attempts >= 8 }).await;
    assert_eq!(read(&store, "before").await.len(), 512 << 10, "reads go on");
    drop(read_only);
    waiting.done().await.unwrap();
    let stats = uploader.stats();
    assert_eq!((stats.stored, stats.refused, stats.dropped), (3, 0, 0));
    assert_eq!(uploader.trouble(), None);
    server.process().kill();
}
