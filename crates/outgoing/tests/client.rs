//! The client against servers that answer, redirect, hang, flood and refuse.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use millrace_outgoing::{Client, Destinations, Limits, Request, RequestError, Target};
use millrace_runtime::Secret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

const LIMITS: Limits =
    Limits { connect: Duration::from_secs(1), total: Duration::from_millis(400), answer_bytes: 1_000 };

/// Serves `answer` to every connection and hands out the requests it read. An empty answer leaves the connection open.
async fn server(answer: impl Into<Vec<u8>>) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let (listener, answer) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), answer.into());
    let addr = listener.local_addr().unwrap();
    let (requests, seen) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let (answer, requests) = (answer.clone(), requests.clone());
            tokio::spawn(async move {
                let mut request = vec![0; 4_096];
                let read = socket.read(&mut request).await.unwrap_or(0);
                drop(requests.send(String::from_utf8_lossy(&request[..read]).into_owned()));
                drop(socket.write_all(&answer).await);
                if answer.is_empty() {
                    drop(socket.read(&mut request).await);
                }
            });
        }
    });
    (addr, seen)
}

fn target(addr: SocketAddr) -> Target {
    format!("http://{addr}/hook/SECRETKEY?token=SECRETKEY").parse().unwrap()
}

async fn get(addr: SocketAddr) -> Result<millrace_outgoing::Response, RequestError> {
    Client::new(LIMITS, Destinations::Any).unwrap().send(Request::get(target(addr))).await
}

#[tokio::test]
async fn client_sends_headers_and_body_and_returns_any_status() {
    let (addr, mut seen) = server("HTTP/1.1 503 Busy\r\nretry-after: 7\r\ncontent-length: 2\r\n\r\nno").await;
    let request = Request::post_json(target(addr), "{\"a\":1}")
        .bearer(&Secret::new("hush".into()))
        .header("x-signature", "t=1,v1=00");
    assert!(!format!("{request:?}").contains("SECRETKEY"));
    let response = Client::new(LIMITS, Destinations::Any).unwrap().send(request).await.unwrap();
    assert_eq!((response.status, response.is_success(), &response.body[..]), (503, false, &b"no"[..]));
    assert_eq!(response.header("Retry-After"), Some("7"));
    let sent = seen.recv().await.unwrap().to_lowercase();
    for part in [
        "post /hook/secretkey?token=secretkey http/1.1",
        "authorization: bearer hush",
        "x-signature: t=1,v1=00",
        "content-type: application/json",
        "content-length: 7",
        "user-agent: millrace/",
    ] {
        assert!(sent.contains(part), "{part}: {sent}");
    }
}

#[tokio::test]
async fn client_follows_no_redirect() {
    let (addr, mut seen) =
        server("HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(get(addr).await.unwrap().status, 302);
    seen.recv().await.unwrap();
    assert!(seen.try_recv().is_err());
}

#[tokio::test]
async fn each_fault_of_a_service_has_its_code_and_no_text_shows_the_path() {
    let long = format!("HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n{}", "x".repeat(1_001));
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let started = Instant::now();
    let cases = [
        (closed, "unreachable"),
        (server("").await.0, "slow"),
        // The head comes, the body does not.
        (server("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nbroken").await.0, "broken_answer"),
        (server("SSH-2.0-OpenSSH\r\n").await.0, "broken_answer"),
        (server(long).await.0, "answer_too_long"),
    ];
    for (addr, code) in cases {
        let error = get(addr).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(!format!("{error} {error:?}").contains("SECRETKEY"), "{error:?}");
        assert!(error.to_string().contains(&addr.to_string()), "{error}");
    }
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn client_for_public_addresses_refuses_private_ones_before_it_connects() {
    let (addr, mut seen) = server("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let client = Client::new(LIMITS, Destinations::Public).unwrap();
    for host in ["127.0.0.1", "localhost", "[::1]", "0x7f.1", "[::ffff:127.0.0.1]"] {
        let target: Target = format!("http://{host}:{}/", addr.port()).parse().unwrap();
        let error = client.send(Request::get(target)).await.unwrap_err();
        assert_eq!(error.code(), "forbidden_address", "{host}: {error}");
    }
    assert!(seen.try_recv().is_err());
}

#[tokio::test]
async fn service_that_speaks_no_tls_under_https_is_unreachable() {
    let (addr, _seen) = server("HTTP/1.1 400 No TLS here\r\n\r\n").await;
    let target: Target = format!("https://localhost:{}/", addr.port()).parse().unwrap();
    let error = Client::new(LIMITS, Destinations::Any).unwrap().send(Request::get(target)).await.unwrap_err();
    assert_eq!(error.code(), "unreachable", "{error}");
}
