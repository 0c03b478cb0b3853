//! Who may publish a livestream now: the claim on its key, the lease that keeps it, and the numbers a new
//! publisher session begins with.

mod due;

use std::net::IpAddr;

use millrace_wire::close_reason::CloseReason;
use millrace_wire::ids::{
    BroadcastId, DiscontinuitySeq, Epoch, Msn, NodeId, PlaybackId, SessionId, StreamId, UnixMillis,
};
use millrace_wire::message::announce::{Degraded, EpochAnnouncement, EpochPhase};
use millrace_wire::message::control::{
    ClaimGrant, ClaimRequest, LifecycleEvent, LifecycleKind, PublishLimits, ReleaseRequest, RenewRequest,
    SealReport, StreamSettings, Takeover,
};
use serde::{Deserialize, Serialize};

use super::stream::{Move, Status, Stream};
pub use due::{Due, due};

/// A lease is renewed every second; three misses are more than a pause of a busy machine.
pub const LEASE_MS: u32 = 3_000;

/// An unchanged lease is written again only after this time, so that quiet streams do not cost a write a
/// second each. Below [`LEASE_MS`] by more than a renewal.
pub const PERSIST_EVERY_MS: u64 = 1_500;

/// No segment is shorter, so a session that is not heard of opens at most one in this time.
pub const MIN_SEGMENT_MS: u64 = 2_000;

/// An author hears of the end within a second and seals within three more ([`millrace_protocol::job`]); one that
/// has not reported it by then is looked for.
pub const END_REPORTED_MS: u64 = 5_000;

/// While the publisher is away its author is looked for at this interval, first after the time it has to seal.
pub const AUTHOR_LOOK_MS: u64 = END_REPORTED_MS;

/// An author that answers but does not end its log in this time is superseded: ENDLIST is owed to the viewers.
pub const AUTHOR_LIMIT_MS: u64 = 30_000;

/// How long the end is announced and told to readers that come late or were cut off.
pub const END_ANNOUNCED_MS: u64 = 60_000;

/// Whether the publisher is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Presence {
    /// Its lease is kept.
    Publishing,
    /// It left or its lease ran out; the reconnect window counts from here.
    Away {
        /// Since when.
        since: UnixMillis,
    },
    /// The broadcast is over.
    Ended {
        /// Since when.
        since: UnixMillis,
        /// The author reported that ENDLIST is announced.
        confirmed: bool,
    },
}

/// The newest publisher session of a stream, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The stream.
    pub stream: StreamId,
    /// Its public id.
    pub playback: PlaybackId,
    /// Its settings when the epoch was granted; they hold for the epoch.
    pub settings: StreamSettings,
    /// The publisher's connection.
    pub session: SessionId,
    /// The ingest node that holds it.
    pub node: NodeId,
    /// The publisher's address, for operators.
    pub addr: Option<IpAddr>,
    /// `rtmp`, `rtmps`, …
    pub protocol: String,
    /// The airing it belongs to.
    pub broadcast: BroadcastId,
    /// Its fencing number.
    pub epoch: Epoch,
    /// The first segment number it was given.
    pub first_msn: Msn,
    /// Whether the broadcast has earlier epochs.
    pub continues: bool,
    /// The newest of those.
    #[serde(default)]
    pub follows: Option<Epoch>,
    /// The highest segment number it reported as open; the first one until it reports.
    pub open_msn: Msn,
    /// The last segment number used, once its author sealed the epoch.
    pub sealed_msn: Option<Msn>,
    /// Its session said that it is gone: the open number is exact.
    #[serde(default)]
    pub released: bool,
    /// The highest number its author may use for a GAP while the publisher is away.
    pub gaps_through: Option<Msn>,
    /// The highest discontinuity sequence number reported.
    pub discontinuity: DiscontinuitySeq,
    /// When the epoch was granted.
    pub granted_at: UnixMillis,
    /// When the lease was last written.
    pub renewed_at: UnixMillis,
    /// Whether the publisher is there.
    pub presence: Presence,
    /// What the session says is wrong.
    pub degraded: Option<Degraded>,
    /// The epoch is control's own: the publisher left, or the broadcast ended, with no author alive to say so.
    #[serde(default)]
    pub by_control: bool,
    /// The newest event of the stream's life, written with what it tells of; so it outlives the control that was to say it.
    #[serde(default)]
    pub event: Option<LifecycleEvent>,
}

/// What a granted request changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The stream's record: live now.
    pub stream: Stream,
    /// The new claim.
    pub claim: Claim,
    /// The session to disconnect, when the stream was taken over.
    pub kick: Option<SessionId>,
    /// The same session asked again: nothing changes, the answer is repeated.
    pub repeated: bool,
}

/// Decides on a request. `fresh` is the id used if this begins an airing.
pub fn decide(
    now: UnixMillis,
    stream: &Stream,
    current: Option<&Claim>,
    request: &ClaimRequest,
    fresh: BroadcastId,
) -> Result<Decision, CloseReason> {
    if !matches!(stream.status, Status::Scheduled | Status::Live) {
        return Err(CloseReason::StreamEnded);
    }
    if let Some(claim) = current.filter(|claim| claim.session == request.session && !claim.by_control) {
        let (stream, claim) = (stream.clone(), claim.clone());
        return Ok(Decision { stream, claim, kick: None, repeated: true });
    }
    if current.is_some_and(|claim| claim.is_held(now)) && stream.settings.takeover == Takeover::Refuse {
        return Err(CloseReason::AlreadyLive);
    }
    let mut stream = stream.clone();
    if stream.status == Status::Scheduled {
        // `Start` is legal in `Scheduled`.
        let _ = stream.apply(Move::Start, now);
    }
    let broadcast = *stream.broadcast.get_or_insert(fresh);
    let claim = Claim::grant(now, &stream, broadcast, current, request);
    // A session whose lease ran out may still run behind a broken link: it is told, too.
    let kick = current.filter(|claim| claim.sealed_msn.is_none()).map(|claim| claim.session);
    Ok(Decision { stream, claim, kick, repeated: false })
}

/// The answer to a renewal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lease {
    /// Kept; with a claim when it must be written.
    Kept(Option<Box<Claim>>),
    /// Positive evidence that the session is to stop.
    Lost(CloseReason),
    /// This control does not know the session; it says nothing about anybody else, so the session goes on.
    Unknown,
}

/// Renews a lease. One that ran out is taken up again as long as nobody else has the stream and its author has
/// not sealed the epoch.
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
        // Nobody would package what it still sends; the publisher may connect again for a new epoch.
        return Lease::Lost(CloseReason::ConnectionLost);
    }
    let back =
        (claim.presence != Presence::Publishing).then(|| event(now, claim.stream, LifecycleKind::Resumed));
    let renewed = Claim {
        event: back.or(claim.event.clone()),
        open_msn: request.open_msn.map_or(claim.open_msn, |open| open.max(claim.open_msn)),
        discontinuity: claim.discontinuity.max(request.discontinuity_sequence),
        degraded: request.degraded,
        presence: Presence::Publishing,
        ..claim.clone()
    };
    let due = now.0.saturating_sub(claim.renewed_at.0) >= PERSIST_EVERY_MS;
    if renewed == *claim && !due {
        return Lease::Kept(None);
    }
    Lease::Kept(Some(Box::new(Claim { renewed_at: now, ..renewed })))
}

impl Claim {
    fn grant(
        now: UnixMillis,
        stream: &Stream,
        broadcast: BroadcastId,
        last: Option<&Self>,
        request: &ClaimRequest,
    ) -> Self {
        let continues = last.is_some_and(|claim| claim.broadcast == broadcast);
        let unused = last.map_or(Msn(0), |claim| claim.used_through(now).next());
        // A broadcast's first number is the time: lost state restarts above everything (segments are >= 2 s), and
        // the GAPs that lead its window have room.
        let first_msn = if continues { unused } else { unused.max(Msn(now.as_secs())) };
        Self {
            stream: stream.id,
            playback: stream.playback_id,
            settings: stream.settings.clone(),
            session: request.session,
            node: request.node.clone(),
            addr: request.addr,
            protocol: request.protocol.clone(),
            broadcast,
            // Epochs only grow, also when the clock was set back.
            epoch: last.map_or(Epoch(now.0), |claim| claim.epoch.next().max(Epoch(now.0))),
            first_msn,
            continues,
            follows: last.filter(|_| continues).map(|claim| claim.epoch),
            open_msn: first_msn,
            sealed_msn: None,
            released: false,
            gaps_through: None,
            discontinuity: last.map_or(DiscontinuitySeq(0), |claim| claim.discontinuity.next()),
            granted_at: now,
            renewed_at: now,
            presence: Presence::Publishing,
            degraded: None,
            by_control: false,
            event: Some(event(
                now,
                stream.id,
                if continues { LifecycleKind::Resumed } else { LifecycleKind::Started { broadcast } },
            )),
        }
    }

    /// What the session is told.
    pub fn to_grant(&self) -> ClaimGrant {
        ClaimGrant {
            stream: self.stream,
            playback: self.playback,
            broadcast: self.broadcast,
            epoch: self.epoch,
            first_msn: self.first_msn,
            discontinuity_sequence: self.discontinuity,
            continues: self.continues,
            follows: self.follows,
            lease_ms: LEASE_MS,
            limits: PublishLimits::default(),
            settings: self.settings.clone(),
        }
    }

    /// What readers and authors are told on `epoch.{stream}`.
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

    /// Whether a publisher is there, as far as its lease says.
    pub fn is_held(&self, now: UnixMillis) -> bool {
        self.presence == Presence::Publishing && now.0.saturating_sub(self.renewed_at.0) < u64::from(LEASE_MS)
    }

    /// The highest segment number that may be in use, now or before everybody has heard of the next epoch. `sealed`
    /// alone is not trusted: an author that missed media seals below what its session has stamped.
    pub fn used_through(&self, now: UnixMillis) -> Msn {
        let open = match (self.released, self.sealed_msn) {
            (true, _) => self.open_msn,
            // The last renewal may be a boundary old.
            (false, Some(_)) => self.open_msn.next(),
            // It may still be stamping.
            (false, None) => self.open_msn.plus(2 + now.0.saturating_sub(self.renewed_at.0) / MIN_SEGMENT_MS),
        };
        [self.sealed_msn, self.gaps_through].into_iter().flatten().fold(open, Msn::max)
    }

    /// The claim after its session left; `None` when it is not the one that holds it.
    pub fn released(&self, now: UnixMillis, request: &ReleaseRequest) -> Option<Self> {
        if self.session != request.session
            || self.epoch != request.epoch
            || self.presence != Presence::Publishing
        {
            return None;
        }
        Some(Self {
            open_msn: request.open_msn.map_or(self.open_msn, |open| open.max(self.open_msn)),
            discontinuity: self.discontinuity.max(request.discontinuity_sequence),
            released: true,
            ..self.away(now)
        })
    }

    /// The claim after its author's report; `None` when that changes nothing.
    pub fn sealed(&self, report: &SealReport) -> Option<Self> {
        if self.epoch != report.epoch {
            return None;
        }
        let mut claim = self.clone();
        // "None used" leaves the first number free again.
        let last = report.last.unwrap_or(Msn(self.first_msn.0.saturating_sub(1)));
        claim.sealed_msn = Some(claim.sealed_msn.map_or(last, |sealed| sealed.max(last)));
        claim.discontinuity = claim.discontinuity.max(report.discontinuity_sequence);
        if let Presence::Ended { since, .. } = claim.presence {
            claim.presence = Presence::Ended { since, confirmed: report.ended };
        }
        (claim != *self).then_some(claim)
    }

    /// The claim after the broadcast ended.
    #[must_use]
    pub fn ended(&self, now: UnixMillis) -> Self {
        let presence = Presence::Ended { since: now, confirmed: false };
        let event = event(now, self.stream, LifecycleKind::Ended { broadcast: self.broadcast });
        Self { presence, degraded: None, event: Some(event), ..self.clone() }
    }

    /// The claim after its publisher went away.
    fn away(&self, now: UnixMillis) -> Self {
        let event = event(now, self.stream, LifecycleKind::Interrupted);
        Self { presence: Presence::Away { since: now }, degraded: None, event: Some(event), ..self.clone() }
    }

    /// The claim with a new epoch that control authors itself in place of a dead author: to say the end, or to seal what
    /// was used and to append GAPs while the publisher is away.
    #[must_use]
    pub fn taken_up(&self, now: UnixMillis) -> Self {
        let presence = match self.presence {
            Presence::Ended { .. } => Presence::Ended { since: now, confirmed: false },
            away => away,
        };
        let last = self.used_through(now);
        Self {
            epoch: self.epoch.next().max(Epoch(now.0)),
            presence,
            by_control: true,
            granted_at: now,
            open_msn: last,
            sealed_msn: Some(last),
            released: true,
            ..self.clone()
        }
    }

    /// Whether the publisher is away.
    pub fn is_away(&self) -> bool {
        matches!(self.presence, Presence::Away { .. })
    }

    /// For how long the broadcast has been over; 0 while it is not.
    pub fn over_for_ms(&self, now: UnixMillis) -> u64 {
        match self.presence {
            Presence::Ended { since, .. } => now.0.saturating_sub(since.0),
            Presence::Publishing | Presence::Away { .. } => 0,
        }
    }
}

fn event(at: UnixMillis, stream: StreamId, kind: LifecycleKind) -> LifecycleEvent {
    LifecycleEvent { stream, at, kind }
}

#[cfg(test)]
mod tests;
