//! Every command, called directly and sent through the API or the bus, on two livestreams in the same state.

use std::collections::BTreeSet;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use millrace_bus::{MemBus, ReaderConfig, SharedBus};
use millrace_node::{Backends, LadderTemplates};
use millrace_runtime::http::HttpHandle;
use millrace_runtime::{ActorId, ManualClock, Policy, Process, Secret, Supervisor};
use millrace_state::RedbState;
use millrace_store::{DirStore, SyncPolicy};
use millrace_wire::ids::{DiscontinuitySeq, Epoch, Generation, KeyHash, KeyId, Msn, SessionId, UnixMillis};
use millrace_wire::message::control::{
    ClaimReply, ClaimRequest, LeaseReply, LifecycleEvent, OutsideCheck, RefusalReport, ReleaseRequest,
    RenewRequest, SealReport,
};
use millrace_wire::topic::{Message, RequestTopic};
use millrace_wire::{state_keys, topics};
use serde_json::{Value, json};

use super::*;
use crate::auth::{Authenticator, Tokens};
use crate::context::Deps;
use crate::domain::access::Identity;
use crate::domain::validate::NewKey;
use crate::repo::Repo;
use crate::webhooks::{Configured, Sender, Webhooks};
use crate::{Config, bus, http};

const TOKEN: &str = "test-admin-token-0123456789";
const NOW: UnixMillis = UnixMillis(1_700_000_000_000);
/// Long enough for an event that is in the journal to be read.
const QUIET: Duration = Duration::from_millis(200);
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
const SESSION: SessionId = SessionId::from_u128(7);
static CALLER: LazyLock<Caller> =
    LazyLock::new(|| Caller::internal(Principal::Api(Arc::new(Identity::bootstrap_admin()))));

/// An audit entry, with the caller's identity as text.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    who: String,
    command: Command,
    stream: Option<StreamId>,
    outcome: AuditOutcome,
}

#[derive(Default)]
struct RecordedAudit(Mutex<Vec<Entry>>);

impl RecordedAudit {
    fn take(&self) -> Vec<Entry> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Audit for RecordedAudit {
    fn record(&self, entry: &AuditEntry<'_>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Entry {
            who: entry.caller.who.to_string(),
            command: entry.command,
            stream: entry.stream,
            outcome: entry.outcome.clone(),
        });
    }
}

struct World {
    livestreams: Arc<Livestreams>,
    audit: Arc<RecordedAudit>,
    bus: SharedBus,
    http: HttpHandle,
    client: reqwest::Client,
    _dir: tempfile::TempDir,
    _supervisor: Supervisor,
}

impl World {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = ManualClock::at_unix_ms(NOW.0);
        let backends = Backends {
            bus: Arc::new(MemBus::new()),
            state: Arc::new(RedbState::open(dir.path().join("state.redb")).await.unwrap()),
            store: Arc::new(DirStore::open(dir.path().join("media"), SyncPolicy::default()).await.unwrap()),
        };
        let deps = Deps::new(backends, Process::new(Arc::new(clock)));
        let repo = Repo::open(deps.backends.state.clone(), &Secret::default()).await.unwrap();
        let services = Arc::new(Services::new(repo, LadderTemplates::default(), &deps));
        let audit = Arc::new(RecordedAudit::default());
        let livestreams = Arc::new(Livestreams::new(services.clone(), audit.clone()));
        let Process { metrics, drain, actors, .. } = &deps.process;
        let supervisor = Supervisor::start("test", metrics, drain, actors).unwrap();
        let (claims, renewals, releases) = (livestreams.clone(), livestreams.clone(), livestreams.clone());
        let (refusals, seals) = (livestreams.clone(), livestreams.clone());
        let (id, vital) = (|topic: &str| ActorId::new("bus_service", topic), Policy::vital);
        let spawned = supervisor
            .spawn_ready(id("claim"), vital(), move |actor| bus::serve_claims(claims.clone(), actor))
            .await
            .and(
                supervisor
                    .spawn_ready(id("renew"), vital(), move |actor| {
                        bus::serve_renewals(renewals.clone(), actor)
                    })
                    .await,
            )
            .and(
                supervisor
                    .spawn_ready(id("release"), vital(), move |actor| {
                        bus::serve_releases(releases.clone(), actor)
                    })
                    .await,
            )
            .and(
                supervisor
                    .spawn_ready(id("refused"), vital(), move |actor| {
                        bus::serve_refusals(refusals.clone(), actor)
                    })
                    .await,
            )
            .and(
                supervisor
                    .spawn_ready(id("sealed"), vital(), move |actor| bus::serve_seals(seals.clone(), actor))
                    .await,
            );
        spawned.unwrap();
        let config = Config {
            listen: ([127, 0, 0, 1], 0).into(),
            admin_token: Secret::new(TOKEN.to_owned()),
            ..Config::default()
        };
        let sender = Sender::new(services.repo.sealer().unwrap()).unwrap();
        let configured = Configured::new(&config);
        let parts = http::Parts {
            livestreams: livestreams.clone(),
            webhooks: Arc::new(Webhooks::new(services.clone(), audit.clone(), sender, configured)),
            events: http::EventClients::default(),
            tokens: Tokens::new(services.clone(), audit.clone()),
            authenticator: Authenticator::new(&config, services).unwrap(),
        };
        let http = http::serve(&config, parts, deps.process.observability()).unwrap();
        let client = millrace_testkit::http::client();
        Self { livestreams, audit, bus: deps.backends.bus, http, client, _dir: dir, _supervisor: supervisor }
    }

    async fn post(&self, path: &str, body: Option<Value>) -> (u16, Value) {
        let url = format!("http://{}/api/v1/livestreams{path}", self.http.addr());
        let request = self.client.post(url).bearer_auth(TOKEN);
        let request = body.map_or(request.try_clone().unwrap(), |body| {
            request.header("content-type", "application/json").body(body.to_string())
        });
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null))
    }

    async fn patch(&self, id: StreamId, body: &Value) -> (u16, Value) {
        let url = format!("http://{}/api/v1/livestreams/{id}", self.http.addr());
        let request = self.client.patch(url).bearer_auth(TOKEN);
        let request = request.header("content-type", "application/json").body(body.to_string());
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null))
    }

    async fn request<Q: Message, A: Message>(&self, topic: RequestTopic<Q, A>, request: &Q) -> A {
        self.livestreams.services().link.request(&topic, request, ANSWER_LIMIT).await.unwrap()
    }

    /// The stream's record, its claim and its lifecycle events, without the ids that differ between streams.
    async fn result(&self, id: StreamId) -> Value {
        let state = self.livestreams.services().repo.state();
        let mut records = Vec::new();
        for key in [state_keys::stream(id), state_keys::claim(id), state_keys::retention(id)] {
            let record = state.get(&key).await.unwrap();
            records.push(record.map(|record| serde_json::from_slice::<Value>(&record.value).unwrap()));
        }
        let consumer = format!("test-{id}");
        let reader = ReaderConfig::new(&*consumer, topics::events(id).into_subject());
        self.livestreams.services().announcer.flush(ANSWER_LIMIT).await;
        let mut events: Vec<LifecycleEvent> = Vec::new();
        if self.bus.journal_reader(topics::EVENTS_STREAM, &reader).await.is_ok() {
            while let Some(fact) =
                self.bus.journal_next(topics::EVENTS_STREAM, &consumer, QUIET).await.unwrap()
            {
                fact.ack().await.unwrap();
                events.push(topics::events(id).decode(&fact.payload).unwrap());
            }
        }
        let mut result = json!({ "records": records, "events": events });
        blank_ids(&mut result);
        result
    }
}

fn blank_ids(value: &mut Value) {
    const IDS: &[&str] = &[
        "id",
        "stream",
        "playback",
        "playback_id",
        "key_hash",
        "broadcast",
        "session",
        "created_at",
        "key",
        "hash",
    ];
    match value {
        Value::Object(fields) => fields.iter_mut().for_each(|(name, value)| {
            if IDS.contains(&name.as_str()) && value.is_string() {
                *value = json!("id");
            }
            blank_ids(value);
        }),
        Value::Array(values) => values.iter_mut().for_each(blank_ids),
        _ => {}
    }
}

/// The state a livestream is brought into before the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Scheduled,
    Live,
    Ended,
    /// Live, with a claim of [`SESSION`].
    Claimed,
}

/// A livestream brought into the state before the command.
struct Fixture {
    id: StreamId,
    hash: KeyHash,
    epoch: Epoch,
}

impl Fixture {
    async fn new(world: &World, before: Before) -> Self {
        let commands = &world.livestreams;
        let create: Create = serde_json::from_value(json!({ "title": "Match" })).unwrap();
        let (created, key) = commands.create(&CALLER, &create).await.unwrap();
        let id = created.stream.id;
        let mut fixture = Self { id, hash: commands.services().repo.hash(&key), epoch: Epoch(0) };
        match before {
            Before::Scheduled => {}
            Before::Live => {
                fixture.go_live(world).await;
                let repo = &commands.services().repo;
                let claim = repo.claim(id).await.unwrap().unwrap();
                repo.forget_claim(&claim.value, claim.version, NOW).await.unwrap();
                fixture.epoch = Epoch(0);
            }
            Before::Ended => {
                fixture.go_live(world).await;
                commands.stop(&CALLER, id, CloseReason::Stopped).await.unwrap();
                fixture.epoch = Epoch(0);
            }
            Before::Claimed => fixture.go_live(world).await,
        }
        world.audit.take();
        fixture
    }

    /// Publishes the first media.
    async fn go_live(&mut self, world: &World) {
        let reply = world.livestreams.claim(&CALLER, &self.claim()).await.unwrap();
        let ClaimReply::Granted(grant) = reply else { panic!("granted") };
        self.epoch = grant.epoch;
        let first = RenewRequest { open_msn: Some(grant.first_msn), ..self.renewal() };
        world.livestreams.renew(&CALLER, &first).await.unwrap();
    }

    fn claim(&self) -> ClaimRequest {
        ClaimRequest {
            key_hash: self.hash,
            session: SESSION,
            node: "ingest-1".parse().unwrap(),
            addr: None,
            protocol: "rtmp".to_owned(),
            takes_over: true,
            outside: OutsideCheck::Absent,
        }
    }

    fn renewal(&self) -> RenewRequest {
        RenewRequest {
            stream: self.id,
            session: SESSION,
            epoch: self.epoch,
            open_msn: Some(Msn(1_700_000_009)),
            discontinuity_sequence: DiscontinuitySeq(0),
            degraded: None,
            notes: Vec::new(),
            ladder: None,
        }
    }

    fn release(&self) -> ReleaseRequest {
        ReleaseRequest {
            stream: self.id,
            session: SESSION,
            epoch: self.epoch,
            open_msn: None,
            discontinuity_sequence: DiscontinuitySeq(0),
            reason: CloseReason::PublisherLeft,
            text: String::new(),
        }
    }

    fn refusal(&self) -> RefusalReport {
        RefusalReport {
            key_hash: self.hash,
            node: "ingest-1".parse().unwrap(),
            addr: None,
            protocol: "rtmp".to_owned(),
            reason: CloseReason::Draining,
            text: String::new(),
        }
    }

    fn seal(&self) -> SealReport {
        SealReport {
            stream: self.id,
            epoch: self.epoch,
            generation: Generation(1),
            last: Some(Msn(1_700_000_003)),
            discontinuity_sequence: DiscontinuitySeq(0),
            ended: false,
        }
    }

    /// Calls the command itself; returns the livestream it concerned.
    async fn call(&self, world: &World, command: Command) -> Option<StreamId> {
        let commands = &world.livestreams;
        let id = self.id;
        let changed = match command {
            Command::Create => {
                let create: Create = serde_json::from_value(json!({ "title": "Other" })).unwrap();
                commands.create(&CALLER, &create).await.map(|(changed, _)| changed)
            }
            Command::Update => {
                let update: Update = serde_json::from_value(change()).unwrap();
                commands.update(&CALLER, id, &update, |_| true).await.map(|(changed, _)| changed)
            }
            Command::Start => commands.start(&CALLER, id).await,
            Command::Stop => commands.stop(&CALLER, id, CloseReason::Stopped).await,
            Command::Reopen => commands.reopen(&CALLER, id).await,
            Command::AddKey => commands.add_key(&CALLER, id, &new_key()).await.map(|(changed, ..)| changed),
            Command::RevokeKey => commands.revoke_key(&CALLER, id, first_key(id)).await,
            Command::Cancel => commands.cancel(&CALLER, id).await,
            Command::Archive => commands.archive(&CALLER, id).await,
            Command::RotateKey => commands.rotate_key(&CALLER, id).await.map(|(changed, _)| changed),
            Command::Delete => commands.delete(&CALLER, id).await,
            Command::Claim => return commands.claim(&CALLER, &self.claim()).await.ok().map(|_| id),
            Command::Renew => return commands.renew(&CALLER, &self.renewal()).await.ok().map(|_| id),
            Command::Release => return commands.release(&CALLER, &self.release()).await.ok().map(|_| id),
            Command::Refused => return commands.refused(&CALLER, &self.refusal()).await.ok().map(|_| id),
            Command::Sealed => return commands.sealed(&CALLER, &self.seal()).await.ok().map(|_| id),
            Command::CreateToken
            | Command::RevokeToken
            | Command::CreateWebhook
            | Command::UpdateWebhook
            | Command::RotateWebhookSecret
            | Command::DeleteWebhook
            | Command::TestWebhook
            | Command::ReplayDelivery => panic!("no command of livestreams"),
        };
        changed.ok().map(|changed| changed.stream.id)
    }

    /// Sends the command through the API or the bus; returns the livestream it concerned.
    async fn send(&self, world: &World, command: Command) -> Option<StreamId> {
        let verb = match command {
            Command::Create => {
                let (status, created) = world.post("", Some(json!({ "title": "Other" }))).await;
                return (status == 201).then(|| created["id"].as_str().unwrap().parse().unwrap());
            }
            Command::Update => {
                return (world.patch(self.id, &change()).await.0 == 200).then_some(self.id);
            }
            Command::Delete => {
                let url = format!("http://{}/api/v1/livestreams/{}", world.http.addr(), self.id);
                let answer = world.client.delete(url).bearer_auth(TOKEN).send().await.unwrap();
                return (answer.status() == 204).then_some(self.id);
            }
            Command::Claim => {
                let reply: ClaimReply = world.request(topics::claim(), &self.claim()).await;
                return matches!(reply, ClaimReply::Granted(_)).then_some(self.id);
            }
            Command::Renew => {
                let reply: LeaseReply = world.request(topics::renew(), &self.renewal()).await;
                return (reply == LeaseReply::Ok).then_some(self.id);
            }
            Command::Release => {
                let reply: LeaseReply = world.request(topics::release(), &self.release()).await;
                return (reply == LeaseReply::Ok).then_some(self.id);
            }
            Command::Refused => {
                let reply: LeaseReply = world.request(topics::refused(), &self.refusal()).await;
                return (reply == LeaseReply::Ok).then_some(self.id);
            }
            Command::Sealed => {
                let reply: LeaseReply = world.request(topics::sealed(), &self.seal()).await;
                return (reply == LeaseReply::Ok).then_some(self.id);
            }
            Command::Start => "start",
            Command::Stop => "stop",
            Command::Reopen => "reopen",
            Command::AddKey => {
                let body = serde_json::to_value(new_key()).unwrap();
                let (status, _) = world.post(&format!("/{}/keys", self.id), Some(body)).await;
                return (status == 201).then_some(self.id);
            }
            Command::RevokeKey => {
                let url =
                    format!("http://{}/api/v1/livestreams/{}/keys/{}", world.http.addr(), self.id, self.id);
                let answer = world.client.delete(url).bearer_auth(TOKEN).send().await.unwrap();
                return (answer.status() == 204).then_some(self.id);
            }
            Command::Cancel => "cancel",
            Command::Archive => "archive",
            Command::RotateKey => "rotate-key",
            Command::CreateToken
            | Command::RevokeToken
            | Command::CreateWebhook
            | Command::UpdateWebhook
            | Command::RotateWebhookSecret
            | Command::DeleteWebhook
            | Command::TestWebhook
            | Command::ReplayDelivery => panic!("no command of livestreams"),
        };
        let (status, _) = world.post(&format!("/{}/{verb}", self.id), None).await;
        (status == 200).then_some(self.id)
    }
}

/// The key that the tests add.
fn new_key() -> NewKey {
    serde_json::from_value(json!({ "name": "backup", "priority": 10, "expires_at": "2040-01-01T00:00:00Z" }))
        .unwrap()
}

/// The id of the key that a livestream is created with.
fn first_key(id: StreamId) -> KeyId {
    KeyId::from_u128(id.to_u128())
}

/// The body of the change that the tests make.
fn change() -> Value {
    json!({ "title": "Final", "ladder": "standard" })
}

const ALLOWED: &[(Command, Before, &str)] = &[
    (Command::Create, Before::Scheduled, "admin"),
    (Command::Update, Before::Live, "admin"),
    (Command::Start, Before::Scheduled, "admin"),
    (Command::Stop, Before::Claimed, "admin"),
    (Command::Cancel, Before::Scheduled, "admin"),
    (Command::Archive, Before::Ended, "admin"),
    (Command::RotateKey, Before::Claimed, "admin"),
    (Command::Reopen, Before::Ended, "admin"),
    (Command::AddKey, Before::Scheduled, "admin"),
    (Command::RevokeKey, Before::Claimed, "admin"),
    (Command::Delete, Before::Ended, "admin"),
    (Command::Claim, Before::Live, "ingest ingest-1 session 00000000000000000000000007"),
    (Command::Renew, Before::Claimed, "session 00000000000000000000000007"),
    (Command::Release, Before::Claimed, "session 00000000000000000000000007"),
    (Command::Refused, Before::Scheduled, "ingest ingest-1"),
    (Command::Sealed, Before::Claimed, "log writer 1700000000000.1"),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_command_sent_to_the_api_or_the_bus_leaves_the_records_and_events_of_a_direct_call_and_one_audit_entry()
 {
    let world = World::start().await;
    for (command, before, who) in ALLOWED {
        let (called, sent) = (Fixture::new(&world, *before).await, Fixture::new(&world, *before).await);
        let called = called.call(&world, *command).await.expect("allowed");
        let expected = world.result(called).await;
        world.audit.take();
        let sent = sent.send(&world, *command).await;
        let sent = sent.unwrap_or_else(|| panic!("{command:?} refused: {:?}", world.audit.take()));
        assert_eq!(world.result(sent).await, expected, "{command:?}");
        let entry = Entry {
            who: (*who).to_owned(),
            command: *command,
            stream: Some(sent),
            outcome: AuditOutcome::Done,
        };
        assert_eq!(world.audit.take(), [entry]);
    }
    let covered: BTreeSet<&str> = ALLOWED.iter().map(|(command, ..)| command.as_str()).collect();
    assert_eq!(covered.len(), 16, "every command has a row");
}

/// The records of a livestream without the note of its last refusal.
async fn records_but_refusal(world: &World, id: StreamId) -> Value {
    let mut records = world.result(id).await["records"].clone();
    records[0].as_object_mut().unwrap().remove("last_disconnect");
    records
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refused_command_changes_nothing_and_its_audit_entry_has_the_reason() {
    let world = World::start().await;
    for (command, before, reason) in [
        (Command::Update, Before::Ended, "cannot change a livestream that is ended"),
        (Command::Start, Before::Ended, "cannot start a livestream that is ended"),
        (Command::Stop, Before::Scheduled, "cannot stop a livestream that is scheduled"),
        (Command::Cancel, Before::Live, "cannot cancel a livestream that is live"),
        (Command::Archive, Before::Live, "cannot archive a livestream that is live"),
        (Command::Delete, Before::Live, "cannot delete a livestream that is live"),
        (Command::Claim, Before::Ended, "stream_ended"),
        (Command::Renew, Before::Ended, "stream_ended"),
        (Command::Release, Before::Live, "repeated, or not about the current claim"),
        (Command::Sealed, Before::Live, "repeated, or not about the current claim"),
    ] {
        let fixture = Fixture::new(&world, before).await;
        let records = records_but_refusal(&world, fixture.id).await;
        fixture.send(&world, command).await;
        let entries = world.audit.take();
        assert_eq!(entries.len(), 1, "{command:?}: {entries:?}");
        assert_eq!(entries[0].outcome, AuditOutcome::Refused(reason.to_owned()), "{command:?}");
        assert_eq!(records_but_refusal(&world, fixture.id).await, records, "{command:?}");
    }
    let (status, _) = world.post("", Some(json!({ "title": " " }))).await;
    assert_eq!(status, 422);
    let (status, _) = world.post("/01ARZ3NDEKTSV4RRFFQ69G5FAV/rotate-key", None).await;
    assert_eq!(status, 404);
    let outcomes: Vec<_> = world.audit.take().into_iter().map(|entry| entry.outcome).collect();
    let refused = |reason: &str| AuditOutcome::Refused(reason.to_owned());
    let title = refused("invalid: title must have 1 to 200 printable characters");
    assert_eq!(outcomes, [title, refused("there is no such livestream")]);
}
