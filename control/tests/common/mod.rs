//! A control node on the embedded backends or on NATS and Redis, and a client of its API and its requests.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::large_enum_variant,
    reason = "test helpers, of which each test file uses its part"
)]

use std::sync::Arc;
use std::time::Duration;

use millrace_bus::{MemBus, NatsBus, NatsConfig, SharedBus};
use millrace_control::{Config, Deps, Node};
use millrace_link::Link;
use millrace_runtime::{Metrics, Process, Secret};
use millrace_state::{RedbState, RedisConfig, RedisState, SharedState};
use millrace_store::{DirStore, SharedStore, SyncPolicy};
use millrace_testkit::servers::{NatsServer, RedisServer};
use millrace_wire::close_reason::CloseReason;
use millrace_wire::ids::{KeyHash, SessionId};
use millrace_wire::message::control::{
    ClaimGrant, ClaimReply, ClaimRequest, LeaseReply, OutsideCheck, ReleaseRequest, RenewRequest,
};
use millrace_wire::topic::{Message, RequestTopic};
use millrace_wire::topics;
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::Value;

pub(crate) const TOKEN: &str = "test-admin-token-0123456789";

/// Owns the files and servers of the backends.
enum Keep {
    Dir(tempfile::TempDir),
    Servers(
        #[allow(dead_code)] NatsServer,
        #[allow(dead_code)] RedisServer,
        #[allow(dead_code)] tempfile::TempDir,
    ),
}

pub(crate) struct Backends {
    pub(crate) bus: SharedBus,
    pub(crate) state: Option<SharedState>,
    pub(crate) store: SharedStore,
    keep: Keep,
}

impl Backends {
    pub(crate) async fn embedded() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state: SharedState = Arc::new(RedbState::open(dir.path().join("state.redb")).await.unwrap());
        let store = objects(&dir).await;
        Self { bus: Arc::new(MemBus::new()), state: Some(state), store, keep: Keep::Dir(dir) }
    }

    pub(crate) async fn real() -> Self {
        let (nats, redis) = (NatsServer::start_any().await, RedisServer::start().await);
        let bus: SharedBus = Arc::new(NatsBus::connect(NatsConfig::new([nats.url()])).await.unwrap());
        let state: SharedState = Arc::new(RedisState::connect(&RedisConfig::new(redis.url())).await.unwrap());
        let dir = tempfile::tempdir().unwrap();
        let store = objects(&dir).await;
        Self { bus, state: Some(state), store, keep: Keep::Servers(nats, redis, dir) }
    }

    /// Opens the embedded state store again from its file, as after a restart of the process, with a new bus.
    pub(crate) async fn reopen(&mut self) {
        let Keep::Dir(dir) = &self.keep else { panic!("embedded backends") };
        self.state = None;
        let path = dir.path().join("state.redb");
        let state =
            millrace_testkit::wait::some(Duration::from_secs(20), async || RedbState::open(&path).await.ok());
        self.state = Some(Arc::new(state.await));
        self.bus = Arc::new(MemBus::new());
    }
}

async fn objects(dir: &tempfile::TempDir) -> SharedStore {
    Arc::new(DirStore::open(dir.path().join("media"), SyncPolicy::default()).await.unwrap())
}

pub(crate) struct Control {
    pub(crate) node: Node,
    base: String,
    pub(crate) link: Link,
    secret: Vec<u8>,
    client: Client,
}

impl Control {
    pub(crate) async fn start(backends: &Backends) -> Self {
        Self::start_with(backends, Config::default()).await
    }

    /// Starts a control with these settings, on a free port and with [`TOKEN`] as its admin token.
    pub(crate) async fn start_with(backends: &Backends, config: Config) -> Self {
        let state = backends.state.clone().unwrap();
        let config = Config {
            listen: ([127, 0, 0, 1], 0).into(),
            admin_token: Secret::new(TOKEN.to_owned()),
            ..config
        };
        let connected = millrace_node::Backends {
            bus: backends.bus.clone(),
            state: state.clone(),
            store: backends.store.clone(),
        };
        let deps = Deps::new(connected, Process::default());
        let node = millrace_control::start(config, deps).await.unwrap();
        let secret = millrace_node::key_secret(&Secret::default(), &*state).await.unwrap().expose().clone();
        let base = format!("http://{}", node.addr());
        let link = Link::new(backends.bus.clone(), &Metrics::new());
        Self { node, base, link, secret, client: millrace_testkit::http::client() }
    }

    pub(crate) async fn raw(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<&str>,
    ) -> Response {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_owned());
        }
        request.send().await.unwrap()
    }

    /// Sends a request of the admin with further headers.
    pub(crate) async fn raw_with(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&str>,
    ) -> Response {
        let mut request = self.client.request(method, format!("{}{path}", self.base)).bearer_auth(TOKEN);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_owned());
        }
        request.send().await.unwrap()
    }

    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        self.call_as(Some(TOKEN), method, path, body).await
    }

    /// Sends a request as a proxy does for the client `from`.
    pub(crate) async fn raw_from(
        &self,
        from: &str,
        method: Method,
        path: &str,
        token: Option<&str>,
    ) -> Response {
        let request = self.client.request(method, format!("{}{path}", self.base));
        let request = request.header("x-forwarded-for", from);
        token.into_iter().fold(request, reqwest::RequestBuilder::bearer_auth).send().await.unwrap()
    }

    /// Makes an API token; returns its text and its id.
    pub(crate) async fn token(&self, body: Value) -> (String, String) {
        let (status, made) = self.call(Method::POST, "/api/v1/tokens", Some(body)).await;
        assert_eq!(status, StatusCode::CREATED, "{made}");
        (made["token"].as_str().unwrap().to_owned(), made["id"].as_str().unwrap().to_owned())
    }

    pub(crate) async fn call_as(
        &self,
        token: Option<&str>,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        let body = body.map(|body| body.to_string());
        let answer = self.raw(method, path, token, body.as_deref()).await;
        let status = answer.status();
        (status, answer.json().await.unwrap_or(Value::Null))
    }

    pub(crate) async fn create(&self, body: Value) -> Value {
        let (status, created) = self.call(Method::POST, "/api/v1/livestreams", Some(body)).await;
        assert_eq!(status, StatusCode::CREATED, "{created}");
        created
    }

    pub(crate) async fn post(&self, id: &str, verb: &str) -> (StatusCode, Value) {
        self.call(Method::POST, &format!("/api/v1/livestreams/{id}/{verb}"), None).await
    }

    pub(crate) async fn status(&self, id: &str) -> Value {
        self.call(Method::GET, &format!("/api/v1/livestreams/{id}/status"), None).await.1
    }

    pub(crate) async fn ask<Q: Message, A: Message>(&self, topic: RequestTopic<Q, A>, request: &Q) -> A {
        self.link.request(&topic, request, Duration::from_secs(20)).await.unwrap()
    }

    /// Returns the secret of the key hashes.
    pub(crate) fn secret(&self) -> &[u8] {
        &self.secret
    }

    /// Claims a key as an ingest node does, and reports the first media.
    pub(crate) async fn claim(&self, key: &str, session: u128) -> ClaimReply {
        let reply = self.claim_without_media(key, session).await;
        if let ClaimReply::Granted(grant) = &reply {
            let renewal = RenewRequest {
                stream: grant.stream,
                session: SessionId::from_u128(session),
                epoch: grant.epoch,
                open_msn: Some(grant.first_msn),
                discontinuity_sequence: grant.discontinuity_sequence,
                degraded: None,
                notes: Vec::new(),
                ladder: None,
            };
            let _: LeaseReply = self.ask(topics::renew(), &renewal).await;
        }
        reply
    }

    /// Sends a claim request as an ingest node does that has usable media.
    pub(crate) async fn claim_without_media(&self, key: &str, session: u128) -> ClaimReply {
        self.send_claim(key, session, true).await
    }

    /// Sends the first claim request of a publisher, which takes no livestream over.
    pub(crate) async fn ask_for_claim(&self, key: &str, session: u128) -> ClaimReply {
        self.send_claim(key, session, false).await
    }

    async fn send_claim(&self, key: &str, session: u128, takes_over: bool) -> ClaimReply {
        let request = ClaimRequest {
            key_hash: KeyHash::of(&self.secret, &key.parse().unwrap()),
            session: SessionId::from_u128(session),
            node: "ingest-1".parse().unwrap(),
            addr: Some([127, 0, 0, 1].into()),
            protocol: "rtmp".to_owned(),
            takes_over,
            outside: OutsideCheck::Absent,
        };
        self.ask(topics::claim(), &request).await
    }
}

/// Returns the renewal of a session that has no open segment and nothing to report.
pub(crate) fn renewal(grant: &ClaimGrant, session: u128) -> RenewRequest {
    RenewRequest {
        stream: grant.stream,
        session: SessionId::from_u128(session),
        epoch: grant.epoch,
        open_msn: None,
        discontinuity_sequence: grant.discontinuity_sequence,
        degraded: None,
        notes: Vec::new(),
        ladder: None,
    }
}

/// Returns the release of a session that has no open segment.
pub(crate) fn release(grant: &ClaimGrant, session: u128, reason: CloseReason, text: &str) -> ReleaseRequest {
    ReleaseRequest {
        stream: grant.stream,
        session: SessionId::from_u128(session),
        epoch: grant.epoch,
        open_msn: None,
        discontinuity_sequence: grant.discontinuity_sequence,
        reason,
        text: text.to_owned(),
    }
}

/// Returns the grant of a reply.
pub(crate) fn granted(reply: ClaimReply) -> ClaimGrant {
    let ClaimReply::Granted(grant) = reply else { panic!("{reply:?}") };
    *grant
}
