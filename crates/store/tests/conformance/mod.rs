//! The conformance suite of the object store trait. Each implementation's test runs `all` on its own store.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]
#![allow(clippy::needless_pass_by_value, reason = "results are asserted on where they are made")]

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use millrace_buf::ByteChain;
use millrace_store::{ByteRange, Meta, SharedStore, StoreError, list_all};

pub fn name(what: &str) -> String {
    format!("{what}{}", rand::random::<u32>())
}

pub async fn put(store: &SharedStore, key: &str, body: &'static str) {
    store.put(key, body.into(), Meta::default()).await.unwrap();
}

pub async fn read(store: &SharedStore, key: &str) -> Bytes {
    store.get(key, None).await.unwrap().body
}

fn missing<T: std::fmt::Debug>(result: Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::NotFound { .. }))
}

fn invalid<T: std::fmt::Debug>(result: Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Invalid { .. }))
}

/// Runs every check of the suite.
pub async fn all(store: SharedStore) {
    store.ready().await.unwrap();
    objects(&store).await;
    metadata(&store).await;
    ranges(&store).await;
    deleting(&store).await;
    listing(&store).await;
    bad_requests(&store).await;
    many_at_once(&store).await;
}

async fn objects(store: &SharedStore) {
    for extension in ["m4s", "m3u8", "bin"] {
        let key = format!("live/{}/video/1.{extension}", name("obj"));
        assert!(missing(store.get(&key, None).await));
        assert!(missing(store.head(&key).await));
        let slices = vec![Bytes::from_static(b"moof"), Bytes::new(), Bytes::from_static(b"mdat")];
        store.put(&key, slices.into(), Meta::default()).await.unwrap();
        let object = store.get(&key, None).await.unwrap();
        assert_eq!((object.body.as_ref(), object.offset, object.info.size), (&b"moofmdat"[..], 0, 8));
        let info = store.head(&key).await.unwrap();
        assert_eq!(info.size, 8);
        let age = SystemTime::now().duration_since(info.modified).unwrap_or_default();
        assert!(age < Duration::from_mins(1));
        put(store, &key, "again").await;
        assert_eq!(read(store, &key).await.as_ref(), b"again");
        store.put(&key, ByteChain::new(), Meta::default()).await.unwrap();
        assert_eq!(store.get(&key, None).await.unwrap().body.len(), 0);
    }
    let key = name("large");
    let large = Bytes::from((0..3_000_000u32).map(|number| (number % 251) as u8).collect::<Vec<_>>());
    store.put(&key, large.clone().into(), Meta::default()).await.unwrap();
    assert!(read(store, &key).await == large);
}

async fn metadata(store: &SharedStore) {
    for extension in ["m4s", "m3u8", "bin"] {
        let key = format!("{}/x.{extension}", name("meta"));
        let meta = Meta::of_type("video/mp4")
            .cache("public, max-age=31536000, immutable")
            .with("msn", "1700000000")
            .with("pdt", "2026-01-01T00:00:00.000Z");
        store.put(&key, "body".into(), meta.clone()).await.unwrap();
        assert_eq!(store.head(&key).await.unwrap().meta, meta);
        let object = store.get(&key, Some(ByteRange::Between(0, 1))).await.unwrap();
        assert_eq!(object.info.meta, meta);
    }
    let key = format!("{}/index.m3u8", name("meta"));
    let meta = Meta::of_type("application/vnd.apple.mpegurl");
    store.put(&key, "#EXTM3U".into(), meta.clone().cache("no-cache")).await.unwrap();
    store.put(&key, "#EXTM3U".into(), meta.clone()).await.unwrap();
    assert_eq!(store.head(&key).await.unwrap().meta, meta);
}

async fn ranges(store: &SharedStore) {
    for extension in ["m4s", "bin"] {
        let key = format!("{}.{extension}", name("range"));
        put(store, &key, "0123456789").await;
        for (range, offset, expected) in [
            (ByteRange::From(7), 7, "789"),
            (ByteRange::Between(2, 5), 2, "234"),
            (ByteRange::Between(8, 100), 8, "89"),
            (ByteRange::Last(3), 7, "789"),
            (ByteRange::Last(100), 0, "0123456789"),
        ] {
            let object = store.get(&key, Some(range)).await.unwrap();
            let found = (object.offset, object.body.as_ref(), object.info.size);
            assert_eq!(found, (offset, expected.as_bytes(), 10), "{range:?}");
        }
        for bad in
            [ByteRange::From(10), ByteRange::Between(5, 5), ByteRange::Between(9, 2), ByteRange::Last(0)]
        {
            assert!(invalid(store.get(&key, Some(bad)).await), "{bad:?}");
        }
    }
}

async fn deleting(store: &SharedStore) {
    let n = name("del");
    let keys = ["a.m4s", "b/c.bin", "b/d.bin"].map(|key| format!("{n}/{key}"));
    for key in &keys {
        store.put(key, "x".into(), Meta::of_type("a/b").with("k", "v")).await.unwrap();
    }
    store.delete(&keys[0]).await.unwrap();
    assert!(missing(store.head(&keys[0]).await));
    store.delete(&keys[0]).await.unwrap();
    assert_eq!(read(store, &keys[1]).await.as_ref(), b"x");
    let mut all = keys.to_vec();
    all.push(format!("{n}/none"));
    store.delete_many(&all).await.unwrap();
    assert!(list_all(store.as_ref(), &n, 10).await.unwrap().is_empty());
    store.delete_many(&[]).await.unwrap();
}

async fn listing(store: &SharedStore) {
    let n = name("list");
    let keys = ["a.m4s", "a/1.m4s", "a/10.m4s", "a/2/x", "a0", "b"].map(|key| format!("{n}/{key}"));
    for key in keys.iter().rev() {
        put(store, key, "12345").await;
    }
    let names = |page: &millrace_store::ListPage| -> Vec<String> {
        page.entries.iter().map(|entry| entry.key.clone()).collect()
    };
    let page = store.list(&n, None, 100).await.unwrap();
    assert_eq!(names(&page), keys);
    assert!(!page.more && page.entries.iter().all(|entry| entry.size == 5));
    assert_eq!(names(&store.list(&format!("{n}/a/"), None, 100).await.unwrap()), keys[1..4]);
    assert_eq!(names(&store.list(&format!("{n}/a/1"), None, 100).await.unwrap()), keys[1..3]);
    let page = store.list(&n, None, 2).await.unwrap();
    assert_eq!((names(&page), page.more), (keys[..2].to_vec(), true));
    let page = store.list(&n, Some(&keys[1]), 4).await.unwrap();
    assert_eq!((names(&page), page.more), (keys[2..].to_vec(), false));
    let between = store.list(&n, Some(&format!("{n}/a/15")), 9).await.unwrap();
    assert_eq!(names(&between), keys[3..]);
    assert!(store.list(&name("none"), None, 9).await.unwrap().entries.is_empty());
    assert_eq!(list_all(store.as_ref(), &n, 5).await.unwrap().len(), 5);
}

async fn bad_requests(store: &SharedStore) {
    for bad in ["", "/etc/passwd", "../up", "a/../../up", "a//b", ".hidden", "a\0b"] {
        assert!(invalid(store.put(bad, "x".into(), Meta::default()).await), "{bad:?}");
        assert!(invalid(store.get(bad, None).await), "{bad:?}");
        assert!(invalid(store.head(bad).await), "{bad:?}");
        assert!(invalid(store.delete(bad).await), "{bad:?}");
        assert!(invalid(store.delete_many(&[bad.to_owned()]).await), "{bad:?}");
    }
    assert!(invalid(store.list("../", None, 1).await));
    for meta in [
        Meta::of_type("a\r\nb"),
        Meta::default().with("Upper", "x"),
        Meta::default().with("k", "é"),
        Meta::default().with("k", "x".repeat(3000)),
    ] {
        assert!(invalid(store.put("a", "x".into(), meta).await));
    }
}

async fn many_at_once(store: &SharedStore) {
    let n = name("many");
    let tasks: Vec<_> = (0..40)
        .map(|number| {
            let (store, key) = (store.clone(), format!("{n}/{number}/1.m4s"));
            tokio::spawn(async move {
                for _ in 0..5 {
                    store.put(&key, "x".into(), Meta::default()).await.unwrap();
                    store.delete(&key).await.unwrap();
                }
                store.put(&key, "x".into(), Meta::default()).await.unwrap();
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(list_all(store.as_ref(), &n, 100).await.unwrap().len(), 40);
}
