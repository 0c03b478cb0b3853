//! Keys of a service outside the cluster: the first publish that it accepts makes the livestream's record (ADR 12).

use millrace_wire::close_reason::CloseReason;
use millrace_wire::ids::{KeyHash, PlaybackId, StreamId};
use millrace_wire::message::control::{AcceptedKey, ClaimReply, ClaimRequest, OutsideCheck, StreamSettings};
use millrace_wire::state_keys;

use super::{Caller, Command, Livestreams};
use crate::domain::access::Owner;
use crate::domain::airings::Airings;
use crate::domain::stream::Stream;
use crate::domain::validate::broken_title_rule;
use crate::repo::{Changed, KeyRecord, RepoError};

/// The title of a livestream whose service gave none, or one that breaks the rules of titles.
const UNTITLED: &str = "Untitled";

/// Returns the answer to a claim whose key the service outside has to accept first; `None` if it has.
pub(super) fn not_accepted(request: &ClaimRequest) -> Option<ClaimReply> {
    match request.outside {
        OutsideCheck::Accepted(_) => None,
        OutsideCheck::Available => Some(ClaimReply::CheckKey),
        OutsideCheck::Absent => Some(ClaimReply::Refused { reason: CloseReason::UnknownKey }),
    }
}

impl Livestreams {
    /// Makes the record of a key that the service outside has accepted. Of several controls that do so at once, one succeeds; the
    /// others get a conflict, repeat their claim and find its record.
    pub(super) async fn record_accepted(
        &self,
        caller: &Caller,
        key_hash: KeyHash,
        accepted: &AcceptedKey,
    ) -> Result<KeyRecord, RepoError> {
        let services = &self.services;
        let now = services.wall_clock();
        let given =
            accepted.title.as_deref().map(str::trim).filter(|title| broken_title_rule(title).is_none());
        let stream = {
            let mut rng = rand::rng();
            let (id, playback_id) = (StreamId::generate(now, &mut rng), PlaybackId::generate(&mut rng));
            Stream {
                owner: accepted.owner.as_deref().and_then(owner_outside),
                outside_key: Some(key_hash),
                title: given.unwrap_or(UNTITLED).to_owned(),
                settings: StreamSettings {
                    reconnect_window: services.checked_reconnect_window_s,
                    ..StreamSettings::default()
                },
                // The service says each time whether the key may publish, so its broadcasts may be many.
                airings: Airings { reusable: true, ..Airings::default() },
                ..Stream::scheduled(id, playback_id, key_hash, now)
            }
        };
        services.repo.create(&stream).await?;
        let key = KeyRecord { stream: stream.id, revoked: false };
        // The record stands: its audit entry cannot fail.
        let created = async { Ok(Changed { stream, claim: None }) };
        drop(self.audited(caller, Command::Create, None, created).await);
        Ok(key)
    }

    /// Returns the public id of the livestream that a key belongs to, also after its broadcast; `None` for a key that is unknown or
    /// revoked.
    pub(crate) async fn playback_of(&self, key_hash: &KeyHash) -> Result<Option<PlaybackId>, RepoError> {
        let repo = &self.services.repo;
        let key = repo.load::<KeyRecord>(&state_keys::key_hash(key_hash)).await?;
        let Some(key) = key.map(|found| found.value).filter(|key| !key.revoked) else { return Ok(None) };
        match repo.stream(key.stream).await {
            Ok(stream) => Ok(Some(stream.value.playback_id)),
            Err(RepoError::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Returns the owner that the service named, unless the name breaks the rules of owners: operators alone see the livestream
/// then.
fn owner_outside(name: &str) -> Option<Owner> {
    let owner = name.parse().ok();
    if owner.is_none() {
        tracing::warn!(
            "the key check service named an owner that is no valid name; the livestream has no owner"
        );
    }
    owner
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use millrace_bus::MemBus;
    use millrace_node::{Backends, LadderTemplates};
    use millrace_runtime::{ManualClock, Process, Secret};
    use millrace_state::{RedbState, SharedState};
    use millrace_store::{DirStore, SyncPolicy};
    use millrace_wire::ids::{SessionId, UnixMillis};

    use super::*;
    use crate::audit::{Audit, AuditEntry, Principal};
    use crate::context::{Deps, Services};
    use crate::domain::stream::Status;
    use crate::repo::Repo;

    const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

    struct Unrecorded;

    impl Audit for Unrecorded {
        fn record(&self, _: &AuditEntry<'_>) {}
    }

    /// A control on this state.
    async fn control(state: &SharedState, dir: &std::path::Path) -> Livestreams {
        let backends = Backends {
            bus: Arc::new(MemBus::new()),
            state: state.clone(),
            store: Arc::new(DirStore::open(dir.join("media"), SyncPolicy::default()).await.unwrap()),
        };
        let deps = Deps::new(backends, Process::new(Arc::new(ManualClock::at_unix_ms(NOW.0))));
        let repo = Repo::open(state.clone(), &Secret::default()).await.unwrap();
        let services = Services::new(repo, LadderTemplates::default(), &deps);
        Livestreams::new(Arc::new(services), Arc::new(Unrecorded))
    }

    async fn world() -> (tempfile::TempDir, SharedState, Livestreams) {
        let dir = tempfile::tempdir().unwrap();
        let state: SharedState = Arc::new(RedbState::open(dir.path().join("state.redb")).await.unwrap());
        let control = control(&state, dir.path()).await;
        (dir, state, control)
    }

    fn request(session: u128, outside: OutsideCheck) -> ClaimRequest {
        ClaimRequest {
            key_hash: KeyHash::of_text(b"any", "artist-7").unwrap(),
            session: SessionId::from_u128(session),
            node: "ingest-1".parse().unwrap(),
            addr: None,
            protocol: "rtmp".to_owned(),
            takes_over: false,
            outside,
        }
    }

    fn accepted(title: &str, owner: &str) -> OutsideCheck {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        OutsideCheck::Accepted(AcceptedKey { title: text(title), owner: text(owner) })
    }

    async fn claim(control: &Livestreams, request: &ClaimRequest) -> ClaimReply {
        let who = Principal::Ingest(request.node.clone(), request.session);
        control.claim(&Caller { who, from: None }, request).await.unwrap()
    }

    #[tokio::test]
    async fn claim_of_an_accepted_key_makes_one_record_with_what_the_service_said() {
        let (_dir, _state, control) = world().await;
        let unknown = ClaimReply::Refused { reason: CloseReason::UnknownKey };
        assert_eq!(claim(&control, &request(1, OutsideCheck::Absent)).await, unknown);
        assert_eq!(claim(&control, &request(1, OutsideCheck::Available)).await, ClaimReply::CheckKey);
        assert!(control.services().repo.page(None, 10).await.unwrap().is_empty());
        let first = request(1, accepted(" Show ", "artist-7"));
        let ClaimReply::Granted(granted) = claim(&control, &first).await else { panic!("granted") };
        // The request again, as after a lost answer.
        let ClaimReply::Granted(again) = claim(&control, &first).await else { panic!("granted") };
        assert_eq!((granted.stream, granted.epoch), (again.stream, again.epoch));
        let streams = control.services().repo.page(None, 10).await.unwrap();
        let [stream] = &streams[..] else { panic!("{streams:?}") };
        assert_eq!(
            (stream.id, stream.title.as_str(), stream.status),
            (granted.stream, "Show", Status::Scheduled)
        );
        assert!(stream.airings.reusable, "the service decides on the next broadcast");
        assert_eq!(stream.owner.as_ref().map(Owner::as_str), Some("artist-7"));
        assert_eq!(stream.settings.reconnect_window, crate::config::CHECKED_RECONNECT_WINDOW_S);
        // Known by now, and still the service's to decide on.
        assert_eq!(claim(&control, &request(2, OutsideCheck::Available)).await, ClaimReply::CheckKey);
        assert_eq!(claim(&control, &request(2, OutsideCheck::Absent)).await, unknown);
        let held = claim(&control, &request(2, accepted("Other", ""))).await;
        assert!(matches!(held, ClaimReply::Held { stream, .. } if stream == granted.stream), "{held:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn controls_that_meet_an_accepted_key_at_once_make_one_record() {
        let (dir, state, first) = world().await;
        let (second, third) = (control(&state, dir.path()).await, control(&state, dir.path()).await);
        let controls = [first, second, third].map(Arc::new);
        let mut claims = tokio::task::JoinSet::new();
        for number in 0..12_u128 {
            let control = controls[number as usize % 3].clone();
            claims.spawn(async move { claim(&control, &request(number, accepted("Show", ""))).await });
        }
        let (first, replies) = (&controls[0], claims.join_all().await);
        let streams = first.services().repo.page(None, 10).await.unwrap();
        assert_eq!(streams.len(), 1);
        let of = |reply: &ClaimReply| match reply {
            ClaimReply::Granted(grant) => grant.stream,
            ClaimReply::Held { stream, .. } => *stream,
            other => panic!("{other:?}"),
        };
        assert!(replies.iter().all(|reply| of(reply) == streams[0].id));
        assert_eq!(replies.iter().filter(|reply| matches!(reply, ClaimReply::Granted(_))).count(), 1);
    }

    #[tokio::test]
    async fn title_or_owner_that_breaks_a_rule_is_replaced_and_a_deleted_record_leaves_the_key_free() {
        let (_dir, _state, control) = world().await;
        let bad = request(1, accepted("\u{202e}wohS", "\u{200b}"));
        assert_eq!(control.playback_of(&bad.key_hash).await.unwrap(), None);
        let ClaimReply::Granted(granted) = claim(&control, &bad).await else { panic!("granted") };
        assert_eq!(control.playback_of(&bad.key_hash).await.unwrap(), Some(granted.playback));
        let stream = control.services().repo.stream(granted.stream).await.unwrap().value;
        assert_eq!((stream.title.as_str(), stream.owner), (UNTITLED, None));
        let caller = Caller::internal(Principal::Reconciler("control-1".parse().unwrap()));
        control.delete(&caller, granted.stream).await.unwrap();
        assert_eq!(control.playback_of(&bad.key_hash).await.unwrap(), None);
        let ClaimReply::Granted(next) = claim(&control, &request(2, accepted("Show", ""))).await else {
            panic!("granted")
        };
        assert_ne!(next.stream, granted.stream);
    }
}
