//! The embedded store: the conformance suite, durability, and the wrapper that injects faults.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing test panics")]

mod conformance;

use std::sync::Arc;
use std::time::Duration;

use conformance::value;
use millrace_state::{
    FaultyState, RedbState, SharedState, StateError, StateFaults, StateStore, Tx, scan_all,
};
use millrace_testkit::disk::{ReadOnly, SmallDisk};
use millrace_testkit::{Process, wait};

const SOON: Duration = Duration::from_secs(20);

async fn open(dir: &tempfile::TempDir) -> RedbState {
    RedbState::open(dir.path().join("state.redb")).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    let dir = tempfile::tempdir().unwrap();
    conformance::all(Arc::new(open(&dir).await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_committed_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir).await;
    let brief = Duration::from_millis(50);
    let version = state.commit(Tx::new().put("keep", "1").put_ttl("gone", "1", brief)).await.unwrap();
    let locked = RedbState::open(dir.path().join("state.redb")).await;
    assert!(matches!(locked, Err(StateError::Unavailable { .. })), "one process at a time");
    state.close().await;
    tokio::time::sleep(brief).await;
    let state = open(&dir).await;
    assert_eq!(state.get("keep").await.unwrap().unwrap().version, version);
    assert_eq!(state.get("gone").await.unwrap(), None);
    assert!(state.commit(Tx::new().put("new", "1")).await.unwrap() > version, "versions go on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_is_readable_by_its_owner_alone_and_an_open_one_is_closed_to_others() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    open(&dir).await.close().await;
    assert_eq!(mode(), 0o600);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    open(&dir).await.close().await;
    assert_eq!(mode(), 0o600);
}

/// A value as large as a transaction may be.
fn large() -> Vec<u8> {
    vec![7; millrace_state::MAX_TX_BYTES]
}

/// Commits large records until the disk takes no more.
async fn fill_by_commits(state: &RedbState) -> StateError {
    for number in 0..16 {
        if let Err(error) = state.commit(Tx::new().put(format!("large/{number}"), large())).await {
            return error;
        }
    }
    panic!("the disk is larger than the test thinks");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disk_stops_no_small_commit_and_a_large_one_is_refused_until_there_is_room() {
    let disk = SmallDisk::of_kib(64 << 10);
    let path = disk.path().join("state.redb");
    let state = RedbState::open(&path).await.unwrap();
    let before = state.commit(Tx::new().put("k", "before")).await.unwrap();
    disk.fill();
    for number in 0..50 {
        state.commit(Tx::new().put(format!("small/{number}"), vec![1; 1_000])).await.unwrap();
    }
    state.ready().await.unwrap();
    let refused = fill_by_commits(&state).await;
    let StateError::NotWritable { reason } = &refused else { panic!("{refused:?}") };
    assert!(reason.contains("No space left on device"), "{reason}");
    assert!(refused.is_retryable());
    assert!(matches!(state.ready().await, Err(StateError::NotWritable { .. })));
    assert_eq!(state.get("k").await.unwrap().unwrap().version, before, "reads go on");
    disk.make_room();
    wait::until(SOON, || async { state.commit(Tx::new().put("large/last", large())).await.is_ok() }).await;
    state.ready().await.unwrap();
    let last = state.commit(Tx::new().put("k", "after")).await.unwrap();
    state.close().await;
    let state = RedbState::open(&path).await.unwrap();
    assert_eq!(state.get("k").await.unwrap().unwrap().version, last);
    assert_eq!(scan_all(&state, "small/", 100).await.unwrap().len(), 50);
    assert_eq!(state.get("large/last").await.unwrap().unwrap().value, large());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_on_a_read_only_or_full_disk_is_refused_at_the_start_with_the_cause() {
    let disk = SmallDisk::of_kib(64);
    let path = disk.path().join("state.redb");
    disk.fill();
    let full = RedbState::open(&path).await.err().unwrap().to_string();
    assert!(full.contains("No space left on device"), "{full}");
    disk.make_room();
    let read_only = ReadOnly::over(disk.path());
    let refused = RedbState::open(&path).await.err().unwrap().to_string();
    assert!(refused.contains("Read-only file system"), "{refused}");
    drop(read_only);
}

/// Names the folder into which the process that will be killed writes; without it that test does nothing.
const VICTIM_DIR: &str = "MILLRACE_TEST_VICTIM_DIR";

/// The test below runs this one as a process of its own: it commits and prints each commit until it is
/// killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn victim() {
    let Ok(dir) = std::env::var(VICTIM_DIR) else { return };
    let state = RedbState::open(std::path::Path::new(&dir).join("state.redb")).await.unwrap();
    let pid = std::process::id();
    for number in 0u32.. {
        state.commit(Tx::new().put(format!("k/{pid}/{number:06}"), "x")).await.unwrap();
        println!("done {number}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_loses_no_finished_commit() {
    let dir = tempfile::tempdir().unwrap();
    for round in 1..=3 {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "victim", "--nocapture"]).env(VICTIM_DIR, dir.path());
        let log = dir.path().join(format!("log{round}"));
        let mut process = Process::spawn(command, &log).unwrap();
        let finished = || process.output().lines().filter(|line| line.starts_with("done ")).count();
        wait::until(Duration::from_secs(20), || async { finished() >= 40 }).await;
        process.kill();
        let finished = process.output().lines().filter(|line| line.starts_with("done ")).count();
        let state = open(&dir).await;
        let found = scan_all(&state, &format!("k/{}/", process.pid()), 1_000_000).await.unwrap().len();
        state.close().await;
        assert!(found >= finished, "{found} of {finished}");
    }
}

#[tokio::test]
async fn a_file_of_another_kind_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    std::fs::write(&path, b"not a database").unwrap();
    assert!(RedbState::open(&path).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults() {
    let dir = tempfile::tempdir().unwrap();
    let inner: SharedState = Arc::new(open(&dir).await);
    let faulty = FaultyState::new(inner.clone(), 1);
    conformance::all(Arc::new(faulty.clone())).await;
    faulty.set(StateFaults { away: true, ..StateFaults::default() });
    assert!(matches!(faulty.get("a").await, Err(StateError::Unavailable { .. })));
    assert!(faulty.commit(Tx::new().put("a", "1")).await.is_err());
    assert_eq!(value(&inner, "a").await, None);
    faulty.set(StateFaults { fail: 1.0, lost_answer: 1.0, ..StateFaults::default() });
    assert!(faulty.commit(Tx::new().put("a", "1")).await.is_err());
    assert!(value(&inner, "a").await.is_some());
    faulty.set(StateFaults::default());
    assert!(faulty.get("a").await.unwrap().is_some());
}
