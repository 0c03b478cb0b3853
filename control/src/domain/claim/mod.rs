//! The claim: which publisher session may publish a livestream now, the lease that keeps it, and the numbers that a new
//! session begins with.

mod due;
mod told;

use std::net::IpAddr;

use millrace_wire::close_reason::CloseReason;
use millrace_wire::ids::{
    Airing, BroadcastId, DiscontinuitySeq, Epoch, KeyId, Msn, NodeId, PlaybackId, SessionId, StreamId,
    UnixMillis,
};
use millrace_wire::message::announce::{Degraded, EpochAnnouncement, EpochPhase};
use millrace_wire::message::control::{
    ClaimGrant, ClaimRequest, HealthNote, LadderPlan, LifecycleKind, PublishLimits, ReleaseRequest,
    RenewRequest, SealReport, StreamSettings, Takeover,
};
use millrace_wire::message::ladder_health::LadderHealth;
use serde::{Deserialize, Serialize};

pub use self::told::Told;
use super::airings::{Broadcast, Numbers};
use super::disconnect::Disconnect;
use super::keys::{DEFAULT_PRIORITY, Key};
use super::stream::{Status, Stream};
pub use due::{Due, due};

/// Duration of a lease. A session renews it every second; three missed renewals are more than a pause of a busy machine.
pub const LEASE_MS: u32 = 3_000;

/// An unchanged lease is written again only after this time, so that a quiet stream does not cost a write each second. It
/// is below [`LEASE_MS`] by more than the interval of renewals.
pub const PERSIST_EVERY_MS: u64 = 1_500;

/// Shortest segment on average: a session whose renewals are missing opens at most one segment in this time. Segments aim at
/// 2 s, and where keyframes are a little further apart than TARGETDURATION allows, their interval is halved.
pub const MIN_SEGMENT_MS: u64 = 1_000;

/// A log writer receives the end within a second and seals within three more ([`millrace_protocol::job`]). After this time
/// without its report, control checks whether the writer is alive.
pub const END_REPORTED_MS: u64 = 5_000;

/// Interval at which control checks the log writer of a stream whose publisher is away; the first check comes after the time
/// the writer has to seal.
pub const AUTHOR_LOOK_MS: u64 = END_REPORTED_MS;

/// A log writer that answers but does not end its log within this time is superseded: viewers wait for ENDLIST.
pub const AUTHOR_LIMIT_MS: u64 = 30_000;

/// Time for which the end is announced, for readers that come late or were cut off.
pub const END_ANNOUNCED_MS: u64 = 60_000;

/// The presence of a claim's publisher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Presence {
    /// The session renews its lease.
    Publishing,
    /// The publisher left, or its lease lapsed.
    Away {
        /// The time from which the reconnect window counts.
        since: UnixMillis,
    },
    /// The broadcast is over, by a stop or by an expired reconnect window.
    Ended {
        /// The time of the end.
        since: UnixMillis,
        /// True once the log writer reported that ENDLIST is announced.
        confirmed: bool,
    },
}

/// The newest publisher session of a stream, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts of the session")]
pub struct Claim {
    /// The livestream that is claimed.
    pub stream: StreamId,
    /// The playback id of the livestream.
    pub playback: PlaybackId,
    /// The livestream's settings when the epoch was granted; they hold for the epoch.
    pub settings: StreamSettings,
    /// The publisher session that holds or held the claim.
    pub session: SessionId,
    /// The ingest node of that session.
    pub node: NodeId,
    /// The publisher's address, shown to operators.
    pub addr: Option<IpAddr>,
    /// The protocol of the publisher: `rtmp`, `rtmps`, …
    pub protocol: String,
    /// The key that the publisher presented; `None` in a claim of an earlier version.
    #[serde(default)]
    pub key: Option<KeyId>,
    /// The priority of that key.
    #[serde(default = "default_priority")]
    pub priority: u8,
    /// The broadcast that the epoch belongs to.
    pub broadcast: BroadcastId,
    /// The number of that broadcast among those of the livestream.
    #[serde(default)]
    pub airing: Airing,
    /// The epoch of the session, which fences off earlier sessions.
    pub epoch: Epoch,
    /// The first media sequence number of the epoch.
    pub first_msn: Msn,
    /// True if the broadcast has earlier epochs.
    pub continues: bool,
    /// The newest of the earlier epochs.
    #[serde(default)]
    pub follows: Option<Epoch>,
    /// The highest media sequence number the session reported as open; the first one until it reports.
    pub open_msn: Msn,
    /// The last media sequence number used, once the log writer sealed the epoch.
    pub sealed_msn: Option<Msn>,
    /// True once the session released the claim: then the open number is exact.
    #[serde(default)]
    pub released: bool,
    /// The highest number the log writer may use for a GAP segment while the publisher is away.
    pub gaps_through: Option<Msn>,
    /// The highest discontinuity sequence number reported.
    pub discontinuity: DiscontinuitySeq,
    /// The time the epoch was granted.
    pub granted_at: UnixMillis,
    /// The time the lease was last written.
    pub renewed_at: UnixMillis,
    /// The presence of the publisher.
    pub presence: Presence,
    /// True once the broadcast has begun: media of it were published. A claim that ends before leaves no trace.
    #[serde(default = "begun")]
    pub begun: bool,
    /// The time since which the publisher had been away when this epoch was granted, until media of the epoch come: a publish
    /// without usable media does not lengthen the reconnect window.
    #[serde(default)]
    pub away_since: Option<UnixMillis>,
    /// The reason the session reports for running degraded.
    pub degraded: Option<Degraded>,
    /// The conditions of the media that last, as the session reports them.
    #[serde(default)]
    pub notes: Vec<HealthNote>,
    /// The health of the encoded rungs, as the session reported it last.
    #[serde(default)]
    pub ladder: Option<Box<LadderHealth>>,
    /// The conditions and the number of missing rungs that lifecycle events have told of.
    #[serde(default)]
    pub told: Told,
    /// True if control writes the epoch's log itself: the publisher left or the broadcast ended, and no log writer was alive.
    #[serde(default)]
    pub by_control: bool,
    /// The lifecycle events of the change that made this value of the claim. They are not part of the record: the commit of
    /// the change puts them into the outbox.
    #[serde(skip)]
    pub events: Vec<LifecycleKind>,
}

/// The claims of a control that did not know the field had all begun.
const fn begun() -> bool {
    true
}

const fn default_priority() -> u8 {
    DEFAULT_PRIORITY
}

/// The changes that a granted request makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The record of the livestream. Its status changes only once media come.
    pub stream: Stream,
    /// The claim of the new session.
    pub claim: Claim,
    /// The session to kick, when the new session took the stream over.
    pub kick: Option<SessionId>,
    /// The reason for the kick. An encoder with a key of lower priority tries again, to be there when the new session leaves.
    pub kick_for: CloseReason,
    /// True if the same session repeated its request: nothing changes and the answer is the same.
    pub repeated: bool,
    /// True if another session publishes the livestream now, and the request does not take it over: nothing changes.
    pub waits: bool,
}

/// Decides on a claim request. `fresh` is the id of the broadcast if the request begins one.
pub fn decide(
    now: UnixMillis,
    stream: &Stream,
    current: Option<&Claim>,
    request: &ClaimRequest,
    fresh: BroadcastId,
) -> Result<Decision, CloseReason> {
    let key = stream.usable_key(&request.key_hash, now)?;
    if !matches!(stream.status, Status::Scheduled | Status::Live) && !stream.airs_again() {
        return Err(CloseReason::StreamEnded);
    }
    let kick_for = match current {
        Some(claim) if key.priority > claim.priority => CloseReason::HigherPriorityLive,
        _ => CloseReason::TakenOver,
    };
    let is_over = |claim: &Claim| matches!(claim.presence, Presence::Ended { .. });
    let repeats = |claim: &&Claim| claim.session == request.session && !claim.by_control && !is_over(claim);
    if let Some(claim) = current.filter(repeats) {
        let (stream, claim) = (stream.clone(), claim.clone());
        return Ok(Decision { stream, claim, kick: None, kick_for, repeated: true, waits: false });
    }
    if current.is_some_and(|claim| claim.is_still_ending(now)) {
        return Err(CloseReason::StillEnding);
    }
    if let Some(holder) = current.filter(|claim| claim.is_held(now)) {
        refuse_beside(holder, &key, stream.settings.takeover)?;
    }
    let mut stream = stream.clone();
    let broadcast = stream.current_broadcast().unwrap_or(fresh);
    let claim = Claim::grant(now, &stream, broadcast, current, (&key, request));
    if let Some(older) = current.filter(|claim| claim.broadcast != broadcast) {
        stream.airings.note(older.numbers(now));
    }
    if let Some(older) = current.filter(|claim| claim.is_held(now)) {
        stream.last_disconnect = Some(older.disconnect(now, kick_for, ""));
    }
    // A session whose lease lapsed may still run behind a broken link: it is kicked too.
    let kick = current.filter(|claim| claim.sealed_msn.is_none()).map(|claim| claim.session);
    let waits = !request.takes_over && current.is_some_and(|claim| claim.is_held(now));
    Ok(Decision { stream, claim, kick, kick_for, repeated: false, waits })
}

/// Refuses a publisher with `key` beside the one that holds the livestream: one of a lower priority always, one of the same by
/// the livestream's setting. One of a higher priority takes over whatever the setting.
fn refuse_beside(holder: &Claim, key: &Key, takeover: Takeover) -> Result<(), CloseReason> {
    match key.priority.cmp(&holder.priority) {
        std::cmp::Ordering::Less => Err(CloseReason::HigherPriorityLive),
        std::cmp::Ordering::Equal if takeover == Takeover::Refuse => Err(CloseReason::AlreadyLive),
        _ => Ok(()),
    }
}

/// The decision on a renewal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lease {
    /// The lease is kept; with the new claim if it has to be written.
    Kept(Option<Box<Claim>>),
    /// There is positive evidence that the session has to stop, for this reason.
    Lost(CloseReason),
    /// The claim is not of this session and is no evidence against it: the session goes on.
    Unknown,
}

/// Renews a lease. A lapsed lease is restored while no other session holds the claim and the log writer has not sealed the
/// epoch.
pub fn renew(now: UnixMillis, claim: &Claim, request: &RenewRequest) -> Lease {
    if claim.epoch > request.epoch {
        return Lease::Lost(match claim.presence {
            Presence::Ended { .. } => CloseReason::StreamEnded,
            // It may connect again.
            _ if claim.by_control => CloseReason::ConnectionLost,
            _ => CloseReason::TakenOver,
        });
    }
    if claim.session != request.session || claim.epoch != request.epoch {
        return Lease::Unknown;
    }
    if matches!(claim.presence, Presence::Ended { .. }) {
        return Lease::Lost(CloseReason::StreamEnded);
    }
    if claim.sealed_msn.is_some() {
        // No worker packages media of a sealed epoch; the publisher may connect again for a new one.
        return Lease::Lost(CloseReason::ConnectionLost);
    }
    let has_media = request.open_msn.is_some();
    let event = match claim.presence {
        _ if has_media && !claim.begun => Some(LifecycleKind::Started { broadcast: claim.broadcast }),
        _ if has_media && claim.away_since.is_some() => Some(LifecycleKind::Resumed),
        Presence::Publishing => None,
        _ => (claim.begun && claim.away_since.is_none()).then_some(LifecycleKind::Resumed),
    };
    let ladder = request.ladder.clone().map(|ladder| Box::new(ladder.bounded()));
    let mut told = claim.told.clone();
    let mut events: Vec<LifecycleKind> = event.into_iter().collect();
    told.follow(request.degraded, ladder.as_deref(), &mut events);
    let renewed = Claim {
        ladder: ladder.clone(),
        told,
        events,
        begun: claim.begun || has_media,
        away_since: claim.away_since.filter(|_| !has_media),
        notes: request.notes.iter().take(HealthNote::MAX).cloned().collect(),
        open_msn: request.open_msn.map_or(claim.open_msn, |open| open.max(claim.open_msn)),
        discontinuity: claim.discontinuity.max(request.discontinuity_sequence),
        degraded: request.degraded,
        presence: Presence::Publishing,
        ..claim.clone()
    };
    let due = now.0.saturating_sub(claim.renewed_at.0) >= PERSIST_EVERY_MS;
    // The figures of the rungs change all the time: they wait until the claim is due.
    let is_alike = match (&ladder, &claim.ladder) {
        (Some(ladder), Some(before)) => ladder.is_alike(before),
        (ladder, before) => ladder == before,
    };
    let is_same = || {
        let (ladder, events) = (claim.ladder.clone(), claim.events.clone());
        renewed.events.is_empty() && *claim == Claim { ladder, events, ..renewed.clone() }
    };
    if is_alike && !due && is_same() {
        return Lease::Kept(None);
    }
    Lease::Kept(Some(Box::new(Claim { renewed_at: now, ..renewed })))
}

/// Returns the limits of a publisher of a livestream that is delivered by `plan`.
pub fn limits(plan: &LadderPlan) -> PublishLimits {
    PublishLimits { encodes: plan.encodes(), ..PublishLimits::default() }
}

impl Claim {
    fn grant(
        now: UnixMillis,
        stream: &Stream,
        broadcast: BroadcastId,
        last: Option<&Self>,
        (key, request): (&Key, &ClaimRequest),
    ) -> Self {
        let continues = last.is_some_and(|claim| claim.broadcast == broadcast);
        let of_claim = last.map(|claim| claim.numbers(now));
        let numbers = [of_claim, stream.airings.numbers].into_iter().flatten().reduce(Numbers::max);
        let unused = numbers.map_or(Msn(0), |numbers| numbers.used.next());
        // A broadcast's first number is the time in seconds: after a loss of state numbers restart above all used ones
        // (segments last at least 2 s), and the GAP segment that leads the first window has room.
        let first_msn = if continues { unused } else { unused.next().max(Msn(now.as_secs())) };
        Self {
            stream: stream.id,
            playback: stream.playback_id,
            settings: stream.settings.clone(),
            session: request.session,
            node: request.node.clone(),
            addr: request.addr,
            protocol: request.protocol.clone(),
            key: Some(key.id),
            priority: key.priority,
            broadcast,
            airing: stream.airing(),
            // Epochs only grow, also when the clock was set back.
            epoch: numbers.map_or(Epoch(now.0), |numbers| numbers.epoch.next().max(Epoch(now.0))),
            first_msn,
            continues,
            follows: last.filter(|_| continues).map(|claim| claim.epoch),
            open_msn: first_msn,
            sealed_msn: None,
            released: false,
            gaps_through: None,
            discontinuity: numbers.map_or(DiscontinuitySeq(0), |numbers| numbers.discontinuity.next()),
            granted_at: now,
            renewed_at: now,
            presence: Presence::Publishing,
            begun: continues,
            away_since: last.filter(|_| continues).and_then(Self::away_since),
            degraded: None,
            notes: Vec::new(),
            ladder: None,
            told: Told::default(),
            by_control: false,
            // A publisher that was away is back with its first media.
            events: last
                .filter(|last| continues && last.away_since().is_none())
                .map(|_| LifecycleKind::Resumed)
                .into_iter()
                .collect(),
        }
    }

    /// Returns the grant that the session receives.
    pub fn to_grant(&self) -> ClaimGrant {
        ClaimGrant {
            stream: self.stream,
            playback: self.playback,
            broadcast: self.broadcast,
            airing: self.airing,
            epoch: self.epoch,
            first_msn: self.first_msn,
            discontinuity_sequence: self.discontinuity,
            continues: self.continues,
            follows: self.follows,
            lease_ms: LEASE_MS,
            limits: limits(&self.settings.plan),
            settings: self.settings.clone(),
        }
    }

    /// Returns the announcement to readers and log writers on `epoch.{stream}`.
    pub fn announcement(&self) -> EpochAnnouncement {
        let phase = match self.presence {
            Presence::Publishing => EpochPhase::Open,
            Presence::Away { .. } => EpochPhase::Away {
                gaps_through: self.gaps_through,
                discontinuity_sequence: self.discontinuity,
            },
            Presence::Ended { .. } => EpochPhase::Ended,
        };
        EpochAnnouncement {
            stream: self.stream,
            playback: self.playback,
            broadcast: self.broadcast,
            epoch: self.epoch,
            session: (!self.by_control).then_some(self.session),
            phase,
        }
    }

    /// Returns true while viewers may not have been shown the end of the claim's broadcast: its log writer has not reported it, or
    /// control wrote it a moment ago.
    pub fn is_still_ending(&self, now: UnixMillis) -> bool {
        match self.presence {
            Presence::Ended { confirmed: false, .. } => {
                !self.by_control || self.over_for_ms(now) < END_REPORTED_MS
            }
            Presence::Ended { confirmed: true, .. } | Presence::Publishing | Presence::Away { .. } => false,
        }
    }

    /// Returns true while the publisher keeps its lease.
    pub fn is_held(&self, now: UnixMillis) -> bool {
        self.presence == Presence::Publishing && now.0.saturating_sub(self.renewed_at.0) < u64::from(LEASE_MS)
    }

    /// Returns the numbers that the session may have used until `now`.
    pub fn numbers(&self, now: UnixMillis) -> Numbers {
        Numbers { epoch: self.epoch, used: self.used_through(now), discontinuity: self.discontinuity }
    }

    /// Returns the record of the claim's broadcast, which has just begun.
    pub fn begun_broadcast(&self, now: UnixMillis) -> Broadcast {
        Broadcast {
            id: self.broadcast,
            stream: self.stream,
            airing: self.airing,
            started_at: now,
            ended_at: None,
            reason: None,
        }
    }

    /// Returns the highest media sequence number that may be in use, now or until every reader knows the next epoch. The
    /// sealed number alone is not trusted: a log writer that missed media seals below the numbers its session assigned.
    pub fn used_through(&self, now: UnixMillis) -> Msn {
        let open = match (self.released, self.sealed_msn) {
            (true, _) => self.open_msn,
            // The session may have crossed one boundary since its last renewal.
            (false, Some(_)) => self.open_msn.next(),
            // The session may still assign numbers.
            (false, None) => self.open_msn.plus(2 + now.0.saturating_sub(self.renewed_at.0) / MIN_SEGMENT_MS),
        };
        [self.sealed_msn, self.gaps_through].into_iter().flatten().fold(open, Msn::max)
    }

    /// Returns the claim after its session released it; `None` if the request is of another session.
    pub fn released(&self, now: UnixMillis, request: &ReleaseRequest) -> Option<Self> {
        if self.session != request.session
            || self.epoch != request.epoch
            || self.presence != Presence::Publishing
        {
            return None;
        }
        let has_media = request.open_msn.is_some();
        let mut away = self.away(now, has_media);
        // The renewal that would have told of the first media was lost.
        if has_media && !self.begun {
            away.events.insert(0, LifecycleKind::Started { broadcast: self.broadcast });
        } else if has_media && self.away_since.is_some() {
            away.events.insert(0, LifecycleKind::Resumed);
        }
        Some(Self {
            begun: self.begun || has_media,
            away_since: self.away_since.filter(|_| !has_media),
            open_msn: request.open_msn.map_or(self.open_msn, |open| open.max(self.open_msn)),
            discontinuity: self.discontinuity.max(request.discontinuity_sequence),
            released: true,
            ..away
        })
    }

    /// True if the request releases this claim before any media of its broadcast came: then no trace of it stays.
    pub fn is_withdrawn_by(&self, request: &ReleaseRequest) -> bool {
        !self.begun
            && request.open_msn.is_none()
            && self.session == request.session
            && self.epoch == request.epoch
            && !matches!(self.presence, Presence::Ended { .. })
    }

    /// Returns the record of this claim's publish that ended for `reason`.
    pub fn disconnect(&self, now: UnixMillis, reason: CloseReason, text: &str) -> Disconnect {
        Disconnect::new(now, (reason, text), (&self.protocol, self.addr), false)
    }

    /// Returns the claim after the report of its log writer; `None` if the report changes nothing.
    pub fn sealed(&self, report: &SealReport) -> Option<Self> {
        if self.epoch != report.epoch {
            return None;
        }
        let mut claim = Self { events: Vec::new(), ..self.clone() };
        // A report without a used number leaves the first one free.
        let last = report.last.unwrap_or(Msn(self.first_msn.0.saturating_sub(1)));
        claim.sealed_msn = Some(claim.sealed_msn.map_or(last, |sealed| sealed.max(last)));
        claim.discontinuity = claim.discontinuity.max(report.discontinuity_sequence);
        if report.last.is_some() && !claim.begun {
            claim.begun = true;
            claim.events.push(LifecycleKind::Started { broadcast: claim.broadcast });
        }
        if let Presence::Ended { since, .. } = claim.presence {
            claim.presence = Presence::Ended { since, confirmed: report.ended };
        }
        (claim != *self).then_some(claim)
    }

    /// Returns the claim after the end of the broadcast.
    #[must_use]
    pub fn ended(&self, now: UnixMillis) -> Self {
        let presence = Presence::Ended { since: now, confirmed: false };
        let events = vec![LifecycleKind::Ended { broadcast: self.broadcast }];
        Self { events, ..self.without_media(presence) }
    }

    /// Returns the claim of a publisher that sends nothing: what lasted in its media is over.
    fn without_media(&self, presence: Presence) -> Self {
        let (notes, told) = (Vec::new(), Told::default());
        Self { presence, degraded: None, notes, ladder: None, told, ..self.clone() }
    }

    /// Returns the claim after its publisher went away. If no media of the epoch came, the publisher counts as away since
    /// before the epoch.
    fn away(&self, now: UnixMillis, has_media: bool) -> Self {
        let before = self.away_since.filter(|_| !has_media);
        let events = match before {
            None if self.begun || has_media => vec![LifecycleKind::Interrupted],
            _ => Vec::new(),
        };
        let presence = Presence::Away { since: before.unwrap_or(now) };
        Self { events, ..self.without_media(presence) }
    }

    /// Returns the time since which the publisher is away, or was before this epoch if the epoch has no media.
    fn away_since(&self) -> Option<UnixMillis> {
        match self.presence {
            Presence::Away { since } => Some(since),
            Presence::Publishing | Presence::Ended { .. } => self.away_since,
        }
    }

    /// Returns the claim with a new epoch, whose log control writes itself in place of a dead writer: to append ENDLIST, or to
    /// seal the used numbers and append GAP segments while the publisher is away.
    #[must_use]
    pub fn claimed_by_control(&self, now: UnixMillis) -> Self {
        let presence = match self.presence {
            Presence::Ended { .. } => Presence::Ended { since: now, confirmed: false },
            away => away,
        };
        let last = self.used_through(now);
        Self {
            epoch: self.epoch.next().max(Epoch(now.0)),
            presence,
            by_control: true,
            events: Vec::new(),
            granted_at: now,
            open_msn: last,
            sealed_msn: Some(last),
            released: true,
            ..self.clone()
        }
    }

    /// Returns true if the publisher is away.
    pub fn is_away(&self) -> bool {
        matches!(self.presence, Presence::Away { .. })
    }

    /// Returns the milliseconds since the end of the broadcast; 0 before it.
    pub fn over_for_ms(&self, now: UnixMillis) -> u64 {
        match self.presence {
            Presence::Ended { since, .. } => now.0.saturating_sub(since.0),
            Presence::Publishing | Presence::Away { .. } => 0,
        }
    }
}

#[cfg(test)]
mod tests;
