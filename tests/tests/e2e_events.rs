//! Lifecycle events in a real cluster: webhooks to a receiver that fails, hangs and loses answers while control is killed, their
//! signature checked by the code of `docs/events.md`, and the event stream resumed behind its last event.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace_testkit::http::shared_client;
use millrace_testkit::wait;
use millrace_tests::cluster::{Cluster, Node};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Bound of a failure: the tests wait for conditions, not for this time.
const LIMIT: Duration = Duration::from_mins(1);

/// The receiver's answer to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Ok,
    /// 200 after a while, longer than the other requests of the test take.
    Slow,
    Error,
    /// The event is taken, and the connection breaks before the answer.
    Lost,
    /// Nothing at all, until the sender gives up.
    Hang,
}

/// One request that the receiver got.
#[derive(Debug, Clone)]
struct Got {
    path: String,
    headers: BTreeMap<String, String>,
    body: String,
    answer: Answer,
}

impl Got {
    fn event(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// A receiver of webhooks whose answers follow a script, then are all 200.
#[derive(Clone)]
struct Receiver {
    url: String,
    got: Arc<Mutex<Vec<Got>>>,
    script: Arc<Mutex<Vec<Answer>>>,
}

impl Receiver {
    async fn start(script: &[Answer]) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/hook", listener.local_addr()?);
        let script = script.iter().rev().copied().collect();
        let receiver = Self { url, got: Arc::default(), script: Arc::new(Mutex::new(script)) };
        let serving = receiver.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serving.clone().serve(socket));
            }
        });
        Ok(receiver)
    }

    async fn serve(self, mut socket: TcpStream) {
        let mut bytes = Vec::new();
        loop {
            let Some((path, headers, body)) = read_request(&mut socket, &mut bytes).await else { return };
            let answer = self.script.lock().unwrap().pop().unwrap_or(Answer::Ok);
            self.got.lock().unwrap().push(Got { path, headers, body, answer });
            let status = match answer {
                Answer::Ok => "200 OK",
                Answer::Slow => {
                    tokio::time::sleep(Duration::from_millis(800)).await;
                    "204 No Content"
                }
                Answer::Error => "503 Service Unavailable",
                Answer::Lost => return,
                Answer::Hang => {
                    let _ = socket.read(&mut [0]).await;
                    return;
                }
            };
            let text = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
            if socket.write_all(text.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    /// The sequences of one livestream's events in the order in which each was taken first.
    fn taken(&self, stream: &str) -> Vec<u64> {
        let mut taken = Vec::new();
        let is_taken = |got: &&Got| matches!(got.answer, Answer::Ok | Answer::Slow | Answer::Lost);
        for event in self.got().iter().filter(is_taken).map(Got::event) {
            let sequence = event["sequence"].as_u64().unwrap_or(0);
            if event["stream"] == stream && !taken.contains(&sequence) {
                taken.push(sequence);
            }
        }
        taken
    }
}

async fn read_request(
    socket: &mut TcpStream,
    bytes: &mut Vec<u8>,
) -> Option<(String, BTreeMap<String, String>, String)> {
    loop {
        let text = String::from_utf8_lossy(bytes).into_owned();
        if let Some((head, rest)) = text.split_once("\r\n\r\n") {
            let mut lines = head.lines();
            let path = lines.next()?.split(' ').nth(1)?.to_owned();
            let header = |line: &str| {
                line.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            };
            let headers: BTreeMap<String, String> = lines.filter_map(header).collect();
            let length: usize = headers.get("content-length")?.parse().ok()?;
            if rest.len() >= length {
                let (body, next) = rest.split_at(length);
                *bytes = next.as_bytes().to_vec();
                return Some((path, headers, body.to_owned()));
            }
        }
        let mut buffer = [0; 4096];
        match socket.read(&mut buffer).await {
            Ok(0) | Err(_) => return None,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}

/// Checks a signature with the program that `docs/events.md` shows.
fn verify(secret: &str, header: &str, body: &str) -> Result<bool> {
    let page = std::fs::read_to_string("../docs/events.md")?;
    let code = page.split("```python\n").nth(1).and_then(|rest| rest.split("```").next());
    let code = code.context("docs/events.md shows a program")?;
    let mut child = Command::new("python3")
        .args([
            "-c",
            &format!("{code}\nimport sys\nprint(verify({secret:?}, {header:?}, sys.stdin.buffer.read()))"),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("python3")?;
    child.stdin.take().context("input")?.write_all(body.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "the program of docs/events.md fails");
    Ok(String::from_utf8(output.stdout)?.trim() == "True")
}

/// A client of the event stream.
struct Events {
    response: reqwest::Response,
    text: String,
}

impl Events {
    async fn open(cluster: &Cluster, last: Option<&str>) -> Result<Self> {
        let (base, token) = cluster.control();
        let mut request = shared_client().get(format!("{base}/api/v1/events")).bearer_auth(token);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await?;
        ensure!(response.status() == StatusCode::OK, "{}", response.status());
        let mut events = Self { response, text: String::new() };
        // The stream has begun at its place in the journal once its first line is here.
        ensure!(events.block().await?.starts_with("retry:"), "{}", events.text);
        Ok(events)
    }

    async fn block(&mut self) -> Result<String> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                return Ok(block);
            }
            let chunk = tokio::time::timeout(LIMIT, self.response.chunk()).await.context("an event")??;
            self.text.push_str(std::str::from_utf8(&chunk.context("the stream has ended")?)?);
        }
    }

    /// The next event: its id in the stream, and the event.
    async fn next(&mut self) -> Result<(String, Value)> {
        loop {
            let block = self.block().await?;
            let field =
                |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
            if let (Some(id), Some(data)) = (field("id: "), field("data: ")) {
                return Ok((id, serde_json::from_str(&data)?));
            }
            ensure!(block.starts_with(':'), "{block}");
        }
    }
}

/// Checks the headers of the requests, and the signature of the last.
fn check_requests(got: &[Got], secret: &str) -> Result<()> {
    use Answer::{Error, Hang};
    ensure!(got.iter().any(|got| got.answer == Error) && got.iter().any(|got| got.answer == Hang), "{got:?}");
    for got in got {
        ensure!(got.path == "/hook" && got.headers["content-type"] == "application/json", "{got:?}");
        let event = got.event();
        ensure!(got.headers["millrace-event-id"] == event["id"].as_str().unwrap(), "{got:?}");
        ensure!(got.headers["millrace-event"] == event["type"].as_str().unwrap(), "{got:?}");
    }
    let signed = got.last().unwrap();
    let header = &signed.headers["millrace-signature"];
    ensure!(verify(secret, header, &signed.body)?, "{signed:?}");
    ensure!(!verify(secret, header, &format!("{} ", signed.body))?, "a changed body");
    ensure!(!verify("whsec_other", header, &signed.body)?, "another secret");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn events_reach_webhooks_in_order_and_the_event_stream_goes_on_while_receivers_fail_and_control_is_killed()
-> Result<()> {
    use Answer::{Error, Hang, Lost, Ok as Taken, Slow};
    let mut cluster = Cluster::start_with(&[Node::Control]).await?;
    let api = cluster.api();
    let receiver = Receiver::start(&[Error, Lost, Slow, Slow, Error, Taken, Hang, Error]).await?;
    let post = async |path: &str, body: Value| api.call(Method::POST, path, Some(&body)).await;

    let (status, webhook) = post("/webhooks", json!({"url": receiver.url})).await?;
    ensure!(status == StatusCode::CREATED, "{webhook}");
    let (id, secret) = (webhook["id"].as_str().unwrap(), webhook["secret"].as_str().unwrap());
    let shown = api.call(Method::GET, &format!("/webhooks/{id}"), None).await?.1;
    ensure!(!shown.to_string().contains(secret), "the secret is shown once: {shown}");
    let (status, refused) = post("/webhooks", json!({"url": "ftp://x", "events": ["none"]})).await?;
    ensure!(status == StatusCode::UNPROCESSABLE_ENTITY, "{refused}");

    let mut events = Events::open(&cluster, None).await?;
    let streams = [api.create("One").await?, api.create("Two").await?];
    let rename = async |count: usize| -> Result<()> {
        for number in 0..count {
            for stream in &streams {
                let body = json!({"title": format!("Title {number}")});
                let (status, answer) =
                    api.call(Method::PATCH, &format!("/livestreams/{}", stream.id), Some(&body)).await?;
                ensure!(status == StatusCode::OK, "{answer}");
            }
        }
        Ok(())
    };
    rename(2).await?;
    wait::until(LIMIT, || async { receiver.got().len() >= 3 }).await;
    let (last, first) = events.next().await?;
    ensure!(first["type"] == "stream.created" && first["sequence"] == 1, "{first}");

    // Control dies in the middle, with deliveries under way and events in every place between change and receiver.
    rename(3).await?;
    cluster.kill(Node::Control)?;
    cluster.start_node(Node::Control).await?;
    rename(2).await?;
    for stream in &streams {
        let (status, answer) = post(&format!("/livestreams/{}/cancel", stream.id), json!({})).await?;
        ensure!(status == StatusCode::OK, "{answer}");
    }
    let expected: Vec<u64> = (1..=9).collect();
    wait::until(LIMIT, || async {
        streams.iter().all(|stream| receiver.taken(&stream.id).len() == expected.len())
    })
    .await;
    for stream in &streams {
        ensure!(receiver.taken(&stream.id) == expected, "{:?}", receiver.taken(&stream.id));
    }
    check_requests(&receiver.got(), secret)?;

    // The event stream goes on behind the last event, without a gap, and tells of a place that is not kept.
    let mut resumed = Events::open(&cluster, Some(&last)).await?;
    let mut heard: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    heard.entry(first["stream"].as_str().unwrap().to_owned()).or_default().insert(1);
    while heard.values().map(BTreeSet::len).sum::<usize>() < 2 * expected.len() {
        let (_, event) = resumed.next().await?;
        let lane = heard.entry(event["stream"].as_str().unwrap().to_owned()).or_default();
        let sequence = event["sequence"].as_u64().unwrap();
        ensure!(lane.insert(sequence) && lane.last() == Some(&sequence), "out of order: {event}");
    }

    // A rotated secret signs beside the old one; the test button tells what came of it.
    let (_, rotated) = post(&format!("/webhooks/{id}/rotate-secret"), json!({})).await?;
    let (_, tested) = post(&format!("/webhooks/{id}/test"), json!({})).await?;
    ensure!(tested["delivered"] == true && tested["status"] == 200, "{tested}");
    let test = receiver.got().last().unwrap().clone();
    ensure!(test.event()["type"] == "webhook.test", "{test:?}");
    for secret in [secret, rotated["secret"].as_str().unwrap()] {
        ensure!(verify(secret, &test.headers["millrace-signature"], &test.body)?, "{test:?}");
    }
    let path = format!("/webhooks/{id}/deliveries?state=pending");
    let (_, waiting) = api.call(Method::GET, &path, None).await?;
    ensure!(waiting["deliveries"] == json!([]), "{waiting}");
    Ok(())
}
