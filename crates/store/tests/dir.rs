//! The directory store: the conformance suite, and what a crash leaves.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing test panics")]

mod conformance;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millrace_store::{DirStore, Meta, ObjectStore, SharedStore, StoreError, SyncPolicy, list_all};
use millrace_testkit::disk::{ReadOnly, SmallDisk};
use millrace_testkit::{Process, wait};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    for sync in [SyncPolicy::ProcessCrash, SyncPolicy::PowerLoss] {
        let dir = tempfile::tempdir().unwrap();
        conformance::all(Arc::new(DirStore::open(dir.path(), sync).await.unwrap())).await;
    }
}

fn files(dir: &Path) -> Vec<String> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            out.extend(files(&path));
            out.push(format!("{}/", path.display()));
        } else {
            out.push(path.display().to_string());
        }
    }
    out
}

#[tokio::test]
async fn deleting_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let store = DirStore::open(dir.path(), SyncPolicy::default()).await.unwrap();
    let before = files(dir.path());
    for key in ["a/b/c/1.m4s", "a/b/2.bin"] {
        store.put(key, "x".into(), Meta::of_type("x/y").with("k", "v")).await.unwrap();
    }
    store.delete_many(&["a/b/c/1.m4s".into(), "a/b/2.bin".into()]).await.unwrap();
    assert_eq!(files(dir.path()), before);
}

#[tokio::test]
async fn a_file_put_there_by_hand_is_an_object() {
    let dir = tempfile::tempdir().unwrap();
    let store = DirStore::open(dir.path(), SyncPolicy::default()).await.unwrap();
    std::fs::write(dir.path().join("hand.m4s"), b"moofmdat").unwrap();
    assert_eq!(store.get("hand.m4s", None).await.unwrap().body.as_ref(), b"moofmdat");
    std::fs::create_dir(dir.path().join("d")).unwrap();
    assert!(store.get("d", None).await.is_err());
}

#[tokio::test]
async fn full_and_read_only_disks_are_unavailable_with_their_cause_and_leave_no_remains() {
    let disk = SmallDisk::of_kib(4 << 10);
    let root = disk.path().join("media");
    let store = DirStore::open(&root, SyncPolicy::default()).await.unwrap();
    let put = |key: &'static str| store.put(key, vec![7; 256 << 10].into(), Meta::default());
    let refused = async |words: &str| {
        let error = put("a/refused.m4s").await.unwrap_err();
        let told = matches!(&error, StoreError::Unavailable { reason } if reason.contains(words));
        assert!(told, "{error:?}");
        assert!(store.ready().await.is_err());
        assert_eq!(store.get("a/before.m4s", None).await.unwrap().body.len(), 256 << 10, "reads go on");
    };
    put("a/before.m4s").await.unwrap();
    disk.fill();
    refused("No space left on device").await;
    disk.make_room();
    let read_only = ReadOnly::over(&root);
    refused("Read-only file system").await;
    drop(read_only);
    assert_eq!(files(&root).iter().filter(|name| name.contains("refused")).count(), 0);
    put("a/after.m4s").await.unwrap();
    store.ready().await.unwrap();
}

const VICTIM_DIR: &str = "MILLRACE_TEST_VICTIM_DIR";
const PIECES: usize = 40;

/// Run as a process of its own by the test below: writes large objects, until killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn victim() {
    let Ok(dir) = std::env::var(VICTIM_DIR) else { return };
    let store = DirStore::open(dir, SyncPolicy::default()).await.unwrap();
    let piece = Bytes::from(vec![7u8; 100_000]);
    for number in 0u32.. {
        let meta = Meta::default().with("number", number.to_string());
        store.put(&format!("v/{number}.m4s"), vec![piece.clone(); PIECES].into(), meta).await.unwrap();
        println!("done {number}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_leaves_whole_objects_only() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "victim", "--nocapture"]).env(VICTIM_DIR, &root);
    let mut process = Process::spawn(command, dir.path().join("log")).unwrap();
    let finished = |process: &Process| process.output().matches("done ").count();
    wait::until(Duration::from_secs(20), || async { finished(&process) >= 20 }).await;
    process.kill();
    let finished = finished(&process);
    let store: SharedStore = Arc::new(DirStore::open(&root, SyncPolicy::default()).await.unwrap());
    let found = list_all(store.as_ref(), "v/", 100_000).await.unwrap();
    assert!(found.len() >= finished, "{} of {finished}", found.len());
    for entry in found {
        assert_eq!(entry.size, PIECES as u64 * 100_000, "{}", entry.key);
        assert_eq!(store.head(&entry.key).await.unwrap().meta.user.len(), 1);
    }
    assert!(files(&root.join(".tmp")).is_empty());
}
