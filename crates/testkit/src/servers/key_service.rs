//! A stand-in for a service that decides on stream keys. It is written from the descriptions of two such services: one asked by
//! `POST /api/v1/streaming/validate` with `{"stream_key": "…"}`, one by `GET /api/streams/{stream_key}`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// One request as the service received it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Method and path.
    pub line: String,
    /// The headers, names in lower case.
    pub headers: HashMap<String, String>,
    /// The body as text.
    pub body: String,
}

/// The state of a service for tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mood {
    /// It answers by its records.
    Works,
    /// It answers everything with this status, content type and body.
    Says(u16, &'static str, &'static str),
    /// It takes requests and never answers.
    Hangs,
}

#[derive(Debug)]
struct Records {
    keys: HashMap<String, (u16, String)>,
    mood: Mood,
    asked: Vec<Asked>,
}

/// A running service; dropping it closes its port and all its connections.
#[derive(Debug)]
pub struct KeyService {
    addr: SocketAddr,
    records: Arc<Mutex<Records>>,
    task: JoinHandle<()>,
}

impl KeyService {
    /// Starts the service without any record.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_at(([127, 0, 0, 1], 0).into()).await
    }

    /// Starts it at an address, such as the one of a service that was dropped.
    pub async fn start_at(addr: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(addr).await.with_context(|| format!("key service on {addr}"))?;
        let addr = listener.local_addr()?;
        let records = Records { keys: HashMap::new(), mood: Mood::Works, asked: Vec::new() };
        let records = Arc::new(Mutex::new(records));
        let shared = records.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                connections.spawn(serve(socket, shared.clone()));
            }
        });
        Ok(Self { addr, records, task })
    }

    /// Returns the service's address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the base URL for the configuration.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Answers a key with this status and JSON body.
    pub fn answer(&self, key: &str, status: u16, body: &str) {
        self.lock().keys.insert(key.to_owned(), (status, body.to_owned()));
    }

    /// Changes the state of the service.
    pub fn mood(&self, mood: Mood) {
        self.lock().mood = mood;
    }

    /// Returns all requests received so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.lock().asked.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for KeyService {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Answers the requests of one connection, which is kept alive.
async fn serve(mut socket: TcpStream, records: Arc<Mutex<Records>>) {
    let mut buffer = Vec::new();
    while let Some(request) = read(&mut socket, &mut buffer).await {
        let (mood, (status, kind, body)) = {
            let mut records = records.lock().unwrap_or_else(PoisonError::into_inner);
            let answer = match records.mood {
                Mood::Says(status, kind, body) => (status, kind, body.to_owned()),
                Mood::Works | Mood::Hangs => {
                    let (status, body) = decide(&records.keys, &request);
                    (status, "application/json; charset=utf-8", body)
                }
            };
            records.asked.push(request);
            (records.mood.clone(), answer)
        };
        if mood == Mood::Hangs {
            tokio::time::sleep(Duration::from_mins(1)).await;
            return;
        }
        let head = format!(
            "HTTP/1.1 {status} Answer\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        if socket.write_all((head + &body).as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Reads one request; `None` at the end of the connection.
async fn read(socket: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Asked> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            let mut lines = head.lines();
            let line = lines.next()?.trim_end_matches(" HTTP/1.1").to_owned();
            let headers: HashMap<String, String> = lines
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
                .collect();
            let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
            if buffer.len() >= end + 4 + length {
                let body = String::from_utf8_lossy(&buffer[end + 4..end + 4 + length]).into_owned();
                buffer.drain(..end + 4 + length);
                return Some(Asked { line, headers, body });
            }
        }
        if !matches!(socket.read_buf(buffer).await, Ok(1..)) {
            return None;
        }
    }
}

fn decide(keys: &HashMap<String, (u16, String)>, request: &Asked) -> (u16, String) {
    let key = if request.line == "POST /api/v1/streaming/validate" {
        let body: serde_json::Value = serde_json::from_str(&request.body).unwrap_or_default();
        body["stream_key"].as_str().map(str::to_owned)
    } else {
        request.line.strip_prefix("GET /api/streams/").map(str::to_owned)
    };
    let found = key.and_then(|key| keys.get(&key).cloned());
    found.unwrap_or_else(|| (404, r#"{"error":"not found"}"#.to_owned()))
}
