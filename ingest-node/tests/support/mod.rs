//! The surroundings of the node under test: a control that answers on the bus, publishers, and a consumer of media.
#![allow(dead_code, unused_imports, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test helper fails its test by panicking")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use millrace_bus::{Bus, MemBus, SharedBus, Subscription};
use millrace_ingest::{Backends, Config, Deps, Node};
use millrace_media::container::flv::file::{Reader, Tag, TagKind};
use millrace_media::container::flv::{FlvAudio, FlvVideo};
use millrace_rtmp::{ClientConfig, ClientEvent, ClientSession, Value};
use millrace_runtime::{ActorRegistry, Drain, ManualClock, Metrics, Process, Secret};
use millrace_testkit::{Clip, ClipSpec};
use millrace_wire::close_reason::CloseReason;
use millrace_wire::ids::{
    BroadcastId, DiscontinuitySeq, Epoch, KeyHash, Msn, SessionId, StreamId, StreamKey,
};
use millrace_wire::message::control::{
    ClaimGrant, ClaimReply, ClaimRequest, Kick, LeaseReply, OutsideCheck, PublishLimits, RefusalReport,
    ReleaseRequest, RenewRequest, StreamSettings,
};
use millrace_wire::message::media::{MediaMessage, MediaReader, MediaUnit, Track};
use millrace_wire::{topic, topics};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

pub const SECRET: &[u8] = b"a secret of the cluster";
/// Longest wait for an expected event on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(30);

/// The records of a test's control, and the requests it has received.
#[derive(Default)]
pub struct Seen {
    pub claims: Vec<ClaimRequest>,
    pub renewals: Vec<RenewRequest>,
    pub releases: Vec<ReleaseRequest>,
    pub refusals: Vec<RefusalReport>,
    pub streams: HashMap<KeyHash, (StreamId, Result<PublishLimits, CloseReason>)>,
    pub holders: HashMap<StreamId, SessionId>,
}

/// A control of a few lines: every known key is granted, the newer publisher wins.
pub struct FakeControl {
    pub seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

static NEXT: AtomicU64 = AtomicU64::new(1);

impl FakeControl {
    pub async fn start(bus: &SharedBus) -> Self {
        Self::with(bus, Arc::default()).await
    }

    pub async fn with(bus: &SharedBus, seen: Arc<Mutex<Seen>>) -> Self {
        let mut requests = bus.queue_subscribe("control.>", "control", 256).await.unwrap();
        let (bus, state) = (bus.clone(), seen.clone());
        let task = tokio::spawn(async move {
            while let Some(message) = requests.recv().await {
                let answer = answer(&bus, &state, &message.subject, &message.payload);
                if let (Some(answer), Some(reply)) = (answer, &message.reply) {
                    bus.respond(reply, answer).unwrap();
                }
            }
        });
        Self { seen, task }
    }

    /// Creates a stream; returns its id and key.
    pub fn stream(&self) -> (StreamId, StreamKey) {
        self.stream_with(Ok(PublishLimits::default()))
    }

    pub fn stream_with(&self, verdict: Result<PublishLimits, CloseReason>) -> (StreamId, StreamKey) {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let key: StreamKey = format!("{number:032x}").parse().unwrap();
        let stream = StreamId::from_u128(u128::from(number));
        self.seen.lock().unwrap().streams.insert(KeyHash::of(SECRET, &key), (stream, verdict));
        (stream, key)
    }

    pub fn stop(self) -> Arc<Mutex<Seen>> {
        self.task.abort();
        self.seen
    }

    pub async fn released(&self, stream: StreamId) -> ReleaseRequest {
        let seen = &self.seen;
        eventually("a release", async || {
            seen.lock().unwrap().releases.iter().find(|r| r.stream == stream).cloned()
        })
        .await
    }
}

fn answer(bus: &SharedBus, state: &Mutex<Seen>, subject: &str, payload: &Bytes) -> Option<Bytes> {
    let mut seen = state.lock().unwrap();
    let encoded = match subject {
        _ if subject == topics::claim().subject() => {
            let request: ClaimRequest = topic::decode(payload).unwrap();
            let found = seen.streams.get(&request.key_hash).cloned();
            let reply = match found {
                None if request.outside == OutsideCheck::Available => ClaimReply::CheckKey,
                None if request.outside == OutsideCheck::Absent => {
                    ClaimReply::Refused { reason: CloseReason::UnknownKey }
                }
                None => {
                    let stream = StreamId::from_u128(u128::from(NEXT.fetch_add(1, Ordering::Relaxed)));
                    let epoch = Epoch(1_000 + seen.claims.len() as u64);
                    ClaimReply::Granted(Box::new(grant(stream, epoch, PublishLimits::default())))
                }
                Some((_, Err(reason))) => ClaimReply::Refused { reason },
                Some((stream, Ok(limits)))
                    if !request.takes_over
                        && seen.holders.get(&stream).is_some_and(|holder| *holder != request.session) =>
                {
                    ClaimReply::Held { stream, limits }
                }
                Some((stream, Ok(limits))) => {
                    if let Some(session) = seen.holders.insert(stream, request.session) {
                        let kick = topic::encode(&Kick { session, reason: CloseReason::TakenOver }).unwrap();
                        bus.publish(topics::kick(session).subject(), kick).unwrap();
                    }
                    let epoch = Epoch(1_000 + seen.claims.len() as u64);
                    ClaimReply::Granted(Box::new(grant(stream, epoch, limits)))
                }
            };
            seen.claims.push(request);
            topic::encode(&reply)
        }
        _ if subject == topics::renew().subject() => {
            let request: RenewRequest = topic::decode(payload).unwrap();
            seen.renewals.push(request);
            topic::encode(&LeaseReply::Ok)
        }
        _ if subject == topics::refused().subject() => {
            seen.refusals.push(topic::decode(payload).unwrap());
            topic::encode(&LeaseReply::Ok)
        }
        _ if subject == topics::release().subject() => {
            let request: ReleaseRequest = topic::decode(payload).unwrap();
            if seen.holders.get(&request.stream) == Some(&request.session) {
                seen.holders.remove(&request.stream);
            }
            seen.releases.push(request);
            topic::encode(&LeaseReply::Ok)
        }
        _ => return None,
    };
    Some(encoded.unwrap())
}

fn grant(stream: StreamId, epoch: Epoch, limits: PublishLimits) -> ClaimGrant {
    ClaimGrant {
        stream,
        playback: "00112233445566778899aabbccddeeff".parse().unwrap(),
        broadcast: BroadcastId::from_u128(9),
        airing: millrace_wire::ids::Airing::FIRST,
        epoch,
        first_msn: Msn(100),
        discontinuity_sequence: DiscontinuitySeq(7),
        continues: false,
        follows: None,
        lease_ms: 5_000,
        limits,
        settings: StreamSettings::default(),
    }
}

/// A node on a bus, with the control it asks.
pub struct World {
    pub bus: SharedBus,
    pub control: FakeControl,
    pub node: Node,
    pub metrics: Metrics,
    pub drain: Drain,
    pub actors: ActorRegistry,
}

pub fn config() -> Config {
    Config { rtmp: ([127, 0, 0, 1], 0).into(), drain_s: 1, ..Config::default() }
}

/// Starts a node on `bus`; returns it with the services of its process.
pub async fn node(bus: &SharedBus, config: Config) -> (Node, Process) {
    node_in(bus, config, Process::default()).await
}

/// As [`node`], in this process.
pub async fn node_in(bus: &SharedBus, config: Config, process: Process) -> (Node, Process) {
    let key_secret = Some(Secret::new(SECRET.to_vec()));
    let deps = Deps::new(Backends { bus: bus.clone(), key_secret }, process.clone());
    (millrace_ingest::start(config, deps).await.unwrap(), process)
}

impl World {
    pub async fn start() -> Self {
        Self::with(config(), Arc::new(MemBus::new())).await
    }

    pub async fn with(config: Config, bus: SharedBus) -> Self {
        let control = FakeControl::start(&bus).await;
        let (node, process) = node(&bus, config).await;
        let Process { metrics, drain, actors, .. } = process;
        Self { bus, control, node, metrics, drain, actors }
    }

    /// A node whose clock the test moves.
    pub async fn with_clock(clock: ManualClock) -> Self {
        let bus: SharedBus = Arc::new(MemBus::new());
        let control = FakeControl::start(&bus).await;
        let (node, process) = node_in(&bus, config(), Process::new(Arc::new(clock))).await;
        let Process { metrics, drain, actors, .. } = process;
        Self { bus, control, node, metrics, drain, actors }
    }

    pub fn url(&self, key: &StreamKey) -> String {
        format!("rtmp://{}/live/{}", self.node.rtmp_addr(), key.reveal())
    }

    /// Returns the value of a metric, named with its labels; 0 if it is not there.
    pub fn metric(&self, name: &str) -> i64 {
        let text = self.metrics.render();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse::<f64>().unwrap() as i64)
    }
}

/// Waits until `look` finds something.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Makes a clip; returns it with its audio and video tags.
pub async fn tags(spec: ClipSpec) -> (Clip, Vec<Tag>) {
    let clip = Clip::flv(spec).await.unwrap();
    let bytes = Bytes::from(std::fs::read(&clip.path).unwrap());
    let tags = Reader::new(bytes).unwrap().map(Result::unwrap).filter(|tag| tag.kind != TagKind::Script);
    (clip, tags.collect())
}

/// A publisher whose every message the test sends.
pub struct Pusher {
    socket: TcpStream,
    session: ClientSession,
    buf: BytesMut,
    started: Instant,
}

impl Pusher {
    /// Connects and publishes; an error is the status code of the refusal.
    pub async fn publish(url: &str, chunk_bytes: u32) -> Result<Self, String> {
        Self::publish_or_refusal(url, chunk_bytes).await.map_err(|(code, _)| code)
    }

    /// Connects and publishes; an error is the status code and the description of the refusal.
    pub async fn publish_or_refusal(url: &str, chunk_bytes: u32) -> Result<Self, (String, String)> {
        let mut config = ClientConfig::from_url(url).unwrap();
        config.chunk_bytes = chunk_bytes;
        Self::publish_as(config).await
    }

    /// Connects and publishes with this application and stream name; an error is as above.
    pub async fn publish_as(config: ClientConfig) -> Result<Self, (String, String)> {
        let addr: SocketAddr = format!("{}:{}", config.host, config.port).parse().unwrap();
        let socket = TcpStream::connect(addr).await.map_err(|error| (error.to_string(), String::new()))?;
        let session = ClientSession::new(config, Duration::ZERO).unwrap();
        let mut pusher = Self { socket, session, buf: BytesMut::new(), started: Instant::now() };
        loop {
            match pusher.event().await {
                Some(ClientEvent::PublishStarted) => return Ok(pusher),
                Some(ClientEvent::Refused { code, description }) => return Err((code, description)),
                Some(_) => {}
                None => return Err(("closed".to_owned(), String::new())),
            }
        }
    }

    /// Returns the chunk size that the server has announced.
    pub fn server_chunk_bytes(&self) -> usize {
        self.session.server_chunk_bytes()
    }

    /// Returns the server's next event; `None` once it has closed.
    pub async fn event(&mut self) -> Option<ClientEvent> {
        loop {
            let event = self.session.next_event(self.started.elapsed(), &mut self.buf).unwrap();
            self.flush().await.ok()?;
            if event.is_some() {
                return event;
            }
            self.session.prepare_read(&mut self.buf);
            let read = tokio::time::timeout(LIMIT, self.socket.read_buf(&mut self.buf)).await;
            if !matches!(read.expect("the server sends nothing"), Ok(count) if count > 0) {
                return None;
            }
        }
    }

    /// Returns the status code that the server refused or ended the publish with.
    pub async fn refusal(&mut self) -> Option<String> {
        Some(self.refused().await?.0)
    }

    /// Returns the status code and the description that the server refused or ended the publish with.
    pub async fn refused(&mut self) -> Option<(String, String)> {
        loop {
            if let ClientEvent::Refused { code, description } = self.event().await? {
                return Some((code, description));
            }
        }
    }

    async fn flush(&mut self) -> std::io::Result<()> {
        while let Some(bytes) = self.session.poll_transmit() {
            self.socket.write_all(&bytes).await?;
        }
        Ok(())
    }

    /// Sends `onMetaData` with these properties.
    pub async fn metadata(&mut self, properties: &[(&str, Value)]) {
        let properties = properties.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        self.session.push_metadata(0, properties.collect()).unwrap();
        self.flush().await.unwrap();
    }

    /// Sends one tag as a media message.
    pub async fn tag(&mut self, tag: &Tag) -> std::io::Result<()> {
        match tag.kind {
            TagKind::Video => self.session.push_video(tag.timestamp_ms, tag.body.clone()).unwrap(),
            _ => self.session.push_audio(tag.timestamp_ms, tag.body.clone()).unwrap(),
        }
        self.flush().await
    }

    pub async fn push(&mut self, tags: &[Tag]) -> std::io::Result<()> {
        for tag in tags {
            self.tag(tag).await?;
        }
        Ok(())
    }

    /// Unpublishes and keeps the connection.
    pub async fn unpublish(&mut self) {
        self.session.unpublish().unwrap();
        self.flush().await.unwrap();
    }
}

/// Reads the media of one stream.
pub struct Consumer {
    subscription: Subscription,
    reader: MediaReader,
    pub messages: Vec<MediaMessage>,
}

impl Consumer {
    pub async fn of(bus: &SharedBus, stream: StreamId) -> Self {
        let subscription = bus.subscribe(&format!("media.{stream}.*"), 100_000).await.unwrap();
        Self { subscription, reader: MediaReader::default(), messages: Vec::new() }
    }

    /// Reads until `enough` holds for the messages.
    pub async fn until(&mut self, enough: impl Fn(&[MediaMessage]) -> bool) {
        while !enough(&self.messages) {
            let message = tokio::time::timeout(LIMIT, self.subscription.recv()).await.expect("media stopped");
            let frame = message.expect("the bus is open").payload;
            self.messages.extend(self.reader.push(frame).unwrap());
        }
    }

    /// Reads to the epoch's end.
    pub async fn read_to_end(&mut self) -> &[MediaMessage] {
        self.until(|messages| messages.last().is_some_and(|last| last.end)).await;
        &self.messages
    }
}

/// Returns the coded bytes of a track's frames in order.
pub fn frames(messages: &[MediaMessage], track: Track) -> Vec<Bytes> {
    let units = messages.iter().flat_map(|message| &message.units);
    let frames = units.filter_map(MediaUnit::frame).filter(|frame| frame.track == track);
    frames.map(|frame| frame.data.contiguous()).collect()
}

/// Returns the frames of a track in pushed tags, as they must be published.
pub fn pushed(tags: &[Tag], track: Track) -> Vec<Bytes> {
    let bodies = tags.iter().filter_map(|tag| match (tag.kind, track) {
        (TagKind::Video, Track::Video) => match FlvVideo::parse(tag.body.clone()).unwrap() {
            Some(FlvVideo::Nalus { data, .. }) => Some(data.contiguous()),
            _ => None,
        },
        (TagKind::Audio, Track::Audio) => match FlvAudio::parse(tag.body.clone()).unwrap() {
            Some(FlvAudio::Raw(data)) => Some(data.contiguous()),
            _ => None,
        },
        _ => None,
    });
    bodies.collect()
}

/// Checks that numbers have no hole, segments only grow, and every segment begins with its configurations.
pub fn check_order(messages: &[MediaMessage]) {
    let mut msn = None;
    for (number, message) in messages.iter().enumerate() {
        assert_eq!(message.seq.0, number as u64, "a hole in the numbers");
        assert_eq!(message.end, number + 1 == messages.len(), "the end is the last message");
        let Some(at) = message.units.iter().position(MediaUnit::is_boundary) else { continue };
        let unit = &message.units[at];
        let configs = message.units[..at].iter().filter(|unit| unit.config().is_some()).count();
        assert_eq!(configs, at, "segment {} does not begin with its configurations", unit.msn());
        assert!(configs > 0, "segment {} has no configuration", unit.msn());
        assert_eq!(unit.msn(), msn.map_or(Msn(100), |msn: Msn| msn.next()));
        msn = Some(unit.msn());
    }
    assert!(msn.is_some(), "no segment began");
}
