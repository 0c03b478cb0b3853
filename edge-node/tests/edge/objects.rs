//! Init sections, segments and parts over HTTP, and the pages beside them.

use bytes::Bytes;
use millrace_store::Meta;

use crate::client::request;
use crate::log_writer::FIRST;
use crate::world::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_requests_for_a_stored_segment_make_one_store_read() {
    let world = World::new().await;
    let node = world.edge().await;
    let key = format!("live/{}/video/17/55.3.m4s", world.playback);
    let body = Bytes::from(vec![9; 100_000]);
    world.store.put(&key, body.clone().into(), Meta::default()).await.unwrap();
    let path = format!("/{key}");
    let asked: Vec<_> = (0..20)
        .map(|_| {
            let (addr, path) = (node.addr(), path.clone());
            tokio::spawn(async move { request(addr, "GET", &path, &[], b"").await })
        })
        .collect();
    for answer in asked {
        assert_eq!(answer.await.unwrap().body, body);
    }
    assert_eq!(metric(&node, "millrace_edge_store_reads_total").await.as_deref(), Some("1"));
    assert_eq!(
        metric(&node, "millrace_edge_feeds").await.as_deref(),
        Some("0"),
        "a stored object takes no feed"
    );
    assert_eq!(node.cache().cached_bytes(), body.len());
    assert_eq!(get(&node, &world.path("video/17/56.3.m4s")).await.status, 404);
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn media_answers_follow_methods_ranges_and_conditional_headers() {
    let world = World::new().await;
    let (node, writer) = (world.edge().await, world.writer().await);
    let playlist = world.path("video/index.m3u8");
    append_segment(&writer, FIRST);
    until(&node, &playlist, |answer| answer.status == 200).await;
    let path = uri(&world, &writer, "video", &format!("{FIRST}.1.m4s"));
    let whole = until(&node, &path, |answer| answer.status == 200).await;
    let size = whole.body.len();
    let etag = whole.header("etag").unwrap().to_owned();
    assert_eq!(whole.header("access-control-allow-origin"), Some("*"));
    assert!(whole.header("cache-control").unwrap().contains("immutable"));
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));
    for (method, headers, status, length) in [
        ("GET", vec![], 200, size),
        ("GET", vec![("range", "bytes=0-9")], 206, 10),
        ("GET", vec![("range", "bytes=-5")], 206, 5),
        ("GET", vec![("range", "bytes=5-")], 206, size - 5),
        ("GET", vec![("range", "bytes=99999999-")], 416, 0),
        ("GET", vec![("range", "bytes=0-1,3-4")], 200, size),
        ("GET", vec![("range", "bytes=0-9"), ("if-range", "\"other\"")], 200, size),
        ("GET", vec![("if-none-match", etag.as_str())], 304, 0),
        ("HEAD", vec![], 200, 0),
        ("OPTIONS", vec![("access-control-request-method", "GET")], 204, 0),
        ("DELETE", vec![], 405, 19),
    ] {
        let answer = request(node.addr(), method, &path, &headers, b"").await;
        assert_eq!((answer.status, answer.body.len()), (status, length), "{method} {headers:?}");
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{method} {headers:?}");
    }
    let head = request(node.addr(), "HEAD", &path, &[], b"").await;
    assert_eq!(head.header("content-length"), Some(size.to_string().as_str()));
    let part = request(node.addr(), "GET", &path, &[("range", "bytes=2-4")], b"").await;
    assert_eq!(part.header("content-range"), Some(format!("bytes 2-4/{size}").as_str()));
    assert_eq!(part.body, whole.body.slice(2..5));
    let zipped = request(node.addr(), "GET", &playlist, &[("accept-encoding", "gzip")], b"").await;
    assert_eq!(zipped.header("content-encoding"), Some("gzip"));
    assert_eq!(zipped.header("content-type"), Some("application/vnd.apple.mpegurl"));
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_and_health_endpoints_answer() {
    let world = World::new().await;
    let node = world.edge().await;
    for path in ["/", &format!("/watch/{}", world.playback)] {
        let page = get(&node, path).await;
        assert_eq!(page.status, 200);
        assert!(page.header("content-type").unwrap().starts_with("text/html"));
    }
    assert_eq!(get(&node, "/assets/nothing.js").await.status, 404);
    assert_eq!(get(&node, "/healthz").await.status, 200);
    until(&node, "/readyz", |answer| answer.status == 200).await;
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thumbnail_is_served_for_ten_seconds_and_is_the_watch_page_s_poster() {
    let world = World::new().await;
    let node = world.edge().await;
    let key = millrace_wire::object_names::thumbnail(world.playback);
    let picture = Bytes::from_static(b"\xff\xd8 a picture");
    world.store.put(&key, picture.clone().into(), Meta::of_type("image/jpeg")).await.unwrap();
    let answer = get(&node, &format!("/{key}")).await;
    assert_eq!((answer.status, answer.body.clone()), (200, picture));
    assert_eq!(answer.header("cache-control"), Some("public, max-age=10"));
    assert_eq!(answer.header("content-type"), Some("image/jpeg"));
    let tag = answer.header("etag").unwrap();
    let same = request(node.addr(), "GET", &format!("/{key}"), &[("if-none-match", tag)], b"").await;
    assert_eq!(same.status, 304);
    assert_eq!(metric(&node, "millrace_edge_store_reads_total").await.as_deref(), Some("1"));
    for (tail, content_type, cache) in [
        ("storyboard.vtt", "text/vtt; charset=utf-8", "public, max-age=10"),
        ("storyboard/17/2-0-3.jpg", "image/jpeg", "public, max-age=31536000, immutable"),
    ] {
        let key = format!("live/{}/{tail}", world.playback);
        world.store.put(&key, Bytes::from(tail).into(), Meta::default()).await.unwrap();
        let answer = get(&node, &format!("/{key}")).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, tail));
        assert_eq!(answer.header("content-type"), Some(content_type));
        assert_eq!(answer.header("cache-control"), Some(cache));
    }
    assert_eq!(get(&node, &world.path("storyboard/17/2-0-4.jpg")).await.status, 404);
    assert_eq!(get(&node, &world.path("storyboard/17/x.jpg")).await.status, 404);
    let page = get(&node, &format!("/watch/{}", world.playback)).await.text();
    assert!(page.contains(&format!("src=\"/{key}\"")) || page.contains("has no watch page"), "{page}");
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thumbnail_of_a_stream_without_pictures_is_404_in_words_and_the_watch_page_names_none() {
    let world = World::new().await;
    let node = world.edge().await;
    let answer = get(&node, &world.path("thumbnail.jpg")).await;
    assert_eq!((answer.status, answer.text()), (404, "the stream has no picture yet\n".to_owned()));
    let unknown = get(&node, "/live/ffeeddccbbaa99887766554433221100/thumbnail.jpg").await;
    assert_eq!((unknown.status, unknown.text()), (404, "not found\n".to_owned()));
    let page = get(&node, &format!("/watch/{}", world.playback)).await.text();
    assert!(!page.contains("thumbnail.jpg") && !page.contains("{{"), "{page}");
    node.drain().await;
}
