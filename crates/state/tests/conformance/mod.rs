//! The conformance suite of the state store trait. Each implementation's test runs `all` on its own store.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::time::Duration;

use bytes::Bytes;
use millrace_state::{
    MAX_SIGHTINGS, MAX_TX_BYTES, MAX_TX_KEYS, MAX_VIEWER_TTL, SharedState, Sighting, StateError, Tx, Version,
    scan_all,
};
use millrace_testkit::wait;

const SOON: Duration = Duration::from_secs(5);

pub fn name(what: &str) -> String {
    format!("{what}{}/", rand::random::<u32>())
}

pub async fn value(state: &SharedState, key: &str) -> Option<Bytes> {
    state.get(key).await.unwrap().map(|found| found.value)
}

fn conflict(key: &str) -> Result<Version, StateError> {
    Err(StateError::Conflict { key: key.to_owned() })
}

/// Runs every check of the suite.
pub async fn all(state: SharedState) {
    records(&state).await;
    checks(&state).await;
    several_together(&state).await;
    versions_never_come_again(&state).await;
    scans(&state).await;
    ttl(&state).await;
    audiences(&state).await;
    limits(&state).await;
    writers_do_not_lose_updates(&state).await;
    state.ready().await.unwrap();
}

async fn records(state: &SharedState) {
    let n = name("rec");
    let (a, b) = (format!("{n}a"), format!("{n}b"));
    assert_eq!(state.get(&a).await.unwrap(), None);
    let v1 = state.commit(Tx::new().put(&a, "1")).await.unwrap();
    let found = state.get(&a).await.unwrap().unwrap();
    assert_eq!((found.value.as_ref(), found.version), (&b"1"[..], v1));
    let v2 = state.commit(Tx::new().put(&a, vec![0, 255, 10, 13]).put(&b, "")).await.unwrap();
    assert!(v2 > v1);
    assert_eq!(value(state, &a).await.unwrap().as_ref(), [0, 255, 10, 13]);
    assert_eq!(value(state, &b).await.unwrap().len(), 0);
    state.commit(Tx::new().delete(&a).delete(format!("{n}none"))).await.unwrap();
    assert_eq!(value(state, &a).await, None);
}

async fn checks(state: &SharedState) {
    let n = name("check");
    let a = format!("{n}a");
    let version = state.commit(Tx::new().check(&a, None).put(&a, "1")).await.unwrap();
    assert_eq!(state.commit(Tx::new().check(&a, None).put(&a, "2")).await, conflict(&a));
    assert_eq!(
        state.commit(Tx::new().check(&a, Some(Version(version.0 + 1))).put(&a, "2")).await,
        conflict(&a)
    );
    assert_eq!(value(state, &a).await.unwrap().as_ref(), b"1");
    let next = state.commit(Tx::new().check(&a, Some(version)).put(&a, "2")).await.unwrap();
    assert_eq!(state.commit(Tx::new().check(&a, Some(version)).delete(&a)).await, conflict(&a));
    state.commit(Tx::new().check(&a, Some(next)).delete(&a)).await.unwrap();
    // A check on a record that is not changed.
    let b = format!("{n}b");
    assert_eq!(state.commit(Tx::new().check(&a, Some(next)).put(&b, "x")).await, conflict(&a));
    state.commit(Tx::new().check(&a, None).put(&b, "x")).await.unwrap();
}

async fn several_together(state: &SharedState) {
    let n = name("multi");
    let key = |number: u32| format!("{n}{number}");
    let tx = (0..50).fold(Tx::new(), |tx, number| tx.put(key(number), number.to_string()));
    let version = state.commit(tx).await.unwrap();
    for number in 0..50 {
        assert_eq!(state.get(&key(number)).await.unwrap().unwrap().version, version);
    }
    // One check that fails: nothing of it happens.
    let tx = Tx::new().check(key(0), Some(version)).check(key(1), None).put(key(2), "x").delete(key(3));
    assert_eq!(state.commit(tx).await, conflict(&key(1)));
    assert_eq!(value(state, &key(2)).await.unwrap().as_ref(), b"2");
    assert!(value(state, &key(3)).await.is_some());
}

async fn versions_never_come_again(state: &SharedState) {
    let a = format!("{}a", name("aba"));
    let old = state.commit(Tx::new().put(&a, "same")).await.unwrap();
    state.commit(Tx::new().delete(&a)).await.unwrap();
    state.commit(Tx::new().put(&a, "same")).await.unwrap();
    assert_eq!(state.commit(Tx::new().check(&a, Some(old)).put(&a, "x")).await, conflict(&a));
}

async fn scans(state: &SharedState) {
    let n = name("scan");
    let keys = ["a", "a/1", "a/10", "a/2", "a0", "b/1"].map(|key| format!("{n}{key}"));
    for key in keys.iter().rev() {
        state.commit(Tx::new().put(key, key.clone())).await.unwrap();
    }
    let found = |records: Vec<millrace_state::Record>| {
        records
            .into_iter()
            .map(|record| {
                assert_eq!(record.key.as_bytes(), record.value);
                record.key
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(found(state.scan(&n, None, 100).await.unwrap()), keys);
    assert_eq!(found(state.scan(&format!("{n}a/"), None, 100).await.unwrap()), keys[1..4]);
    assert_eq!(found(state.scan(&n, None, 2).await.unwrap()), keys[..2]);
    assert_eq!(found(state.scan(&n, Some(&keys[1]), 2).await.unwrap()), keys[2..4]);
    assert_eq!(found(state.scan(&n, Some(&format!("{n}a/15")), 9).await.unwrap()), keys[3..]);
    assert_eq!(found(state.scan(&n, Some("!"), 100).await.unwrap()), keys);
    assert!(state.scan(&n, Some("~~~"), 100).await.unwrap().is_empty());
    assert!(state.scan(&n, None, 0).await.unwrap().is_empty());
    assert_eq!(found(scan_all(state.as_ref(), &n, 5).await.unwrap()), keys[..5]);
}

async fn ttl(state: &SharedState) {
    let n = name("ttl");
    let (short, long, renewed) = (format!("{n}a"), format!("{n}b"), format!("{n}c"));
    let brief = Duration::from_millis(200);
    let version = state
        .commit(
            Tx::new()
                .put_ttl(&short, "1", brief)
                .put_ttl(&long, "1", SOON * 10)
                .put_ttl(&renewed, "1", brief),
        )
        .await
        .unwrap();
    state.commit(Tx::new().put(&renewed, "2")).await.unwrap();
    assert!(value(state, &long).await.is_some());
    wait::until(SOON, || async { value(state, &short).await.is_none() }).await;
    assert!(value(state, &renewed).await.is_some(), "written again, it stays");
    assert_eq!(state.commit(Tx::new().check(&short, Some(version)).put(&short, "2")).await, conflict(&short));
    // A page that holds an expired record is no shorter for it.
    let left = state.scan(&n, None, 2).await.unwrap();
    assert_eq!(left.iter().map(|record| record.key.clone()).collect::<Vec<_>>(), [long, renewed]);
    state.commit(Tx::new().check(&short, None).put(&short, "3")).await.unwrap();
}

fn seen(viewer: &str, group: &str, ttl: Duration) -> Sighting {
    Sighting { viewer: viewer.to_owned(), group: group.to_owned(), ttl }
}

async fn audiences(state: &SharedState) {
    let audience = format!("{}viewers", name("audience"));
    let unique = format!("{audience}/unique");
    let note = async |sightings: &[Sighting]| {
        state.audience_note(&audience, Some(&unique), sightings).await.unwrap()
    };
    let long = SOON * 10;
    assert_eq!(state.audience_count(&audience).await.unwrap(), 0);
    assert_eq!(state.audience_uniques(&unique).await.unwrap(), 0);
    // The requests of a player, the heartbeats of its page and its WebSocket, in any order and repeated, are one viewer.
    assert_eq!(note(&[seen("r1", "home", long), seen("b1", "home", long)]).await, 1);
    assert_eq!(note(&[seen("w1", "home", long), seen("b1", "home", long)]).await, 1);
    // Two pages behind one address are two, wherever else someone watches.
    assert_eq!(note(&[seen("b2", "home", long)]).await, 2);
    assert_eq!(note(&[seen("r2", "office", long)]).await, 3);
    assert_eq!(state.audience_uniques(&unique).await.unwrap(), 3);
    // One that leaves stays unique, and one that comes back does not count there again.
    assert_eq!(note(&[seen("b2", "home", Duration::ZERO), seen("r0", "home", Duration::ZERO)]).await, 2);
    assert_eq!(note(&[seen("b3", "home", long)]).await, 3);
    assert_eq!(state.audience_uniques(&unique).await.unwrap(), 3);
    // An id whose group changes is the same viewer; the one who stays behind counts by its requests.
    assert_eq!(note(&[seen("b3", "train", long), seen("b1", "train", long)]).await, 4);
    assert_eq!(note(&[seen("w1", "home", Duration::ZERO), seen("r1", "home", Duration::ZERO)]).await, 3);
    let brief = Duration::from_millis(150);
    assert_eq!(note(&[seen("r8", "eight", brief), seen("r9", "nine", brief)]).await, 5);
    // Seen again in time it stays.
    note(&[seen("r9", "nine", long)]).await;
    wait::until(SOON, || async { state.audience_count(&audience).await.unwrap() == 4 }).await;
    assert_eq!(note(&[]).await, 4);
    let many: Vec<Sighting> =
        (0..MAX_SIGHTINGS).map(|n| seen(&format!("c{n}"), &format!("g{n}"), long)).collect();
    assert_eq!(note(&many).await, 4 + MAX_SIGHTINGS as u64);
    let estimate = state.audience_uniques(&unique).await.unwrap() as f64;
    assert!((estimate / (MAX_SIGHTINGS + 8) as f64 - 1.0).abs() < 0.05, "{estimate}");
    for bad in [
        seen("", "g", long),
        seen("b 1", "g", long),
        seen("x1", "g", long),
        seen("b1", "a#b", long),
        seen("b1", "g", MAX_VIEWER_TTL * 2),
    ] {
        let refused = state.audience_note(&audience, None, std::slice::from_ref(&bad)).await;
        assert!(matches!(refused, Err(StateError::Invalid { .. })), "{bad:?}");
    }
}

async fn limits(state: &SharedState) {
    let invalid = |result: Result<Version, StateError>| matches!(result, Err(StateError::Invalid { .. }));
    for bad in ["", "a b", "é", "a\n", &"x".repeat(600)] {
        assert!(invalid(state.commit(Tx::new().put(bad, "1")).await), "{bad:?}");
        assert!(matches!(state.get(bad).await, Err(StateError::Invalid { .. })), "{bad:?}");
    }
    assert!(invalid(state.commit(Tx::new().put("a", "1").delete("a")).await));
    assert!(invalid(state.commit(Tx::new().put("a", vec![0; MAX_TX_BYTES + 1])).await));
    assert!(invalid(state.commit(Tx::new().put_ttl("a", "1", Duration::ZERO)).await));
    let many = (0..=MAX_TX_KEYS).fold(Tx::new(), |tx, number| tx.put(number.to_string(), ""));
    assert!(invalid(state.commit(many).await));
    let n = name("full");
    let most = (0..MAX_TX_KEYS).fold(Tx::new(), |tx, number| tx.put(format!("{n}{number}"), vec![1; 16_000]));
    state.commit(most).await.unwrap();
    assert_eq!(scan_all(state.as_ref(), &n, 1000).await.unwrap().len(), MAX_TX_KEYS);
}

async fn writers_do_not_lose_updates(state: &SharedState) {
    let key = format!("{}counter", name("race"));
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (state, key) = (state.clone(), key.clone());
            tokio::spawn(async move {
                let mut done = 0;
                while done < 20 {
                    let found = state.get(&key).await.unwrap();
                    let number = found.as_ref().map_or(0, |found| {
                        String::from_utf8(found.value.to_vec()).unwrap().parse::<u32>().unwrap()
                    });
                    let tx = Tx::new().check(&key, found.map(|found| found.version));
                    match state.commit(tx.put(&key, (number + 1).to_string())).await {
                        Ok(_) => done += 1,
                        Err(StateError::Conflict { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(value(state, &key).await.unwrap().as_ref(), b"160");
}
