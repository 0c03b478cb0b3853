//! The commands of publisher sessions and log writers: claim, renew, release, sealed.

use std::net::IpAddr;

use millrace_wire::close_reason::CloseReason;
use millrace_wire::ids::{BroadcastId, StreamId};
use millrace_wire::message::control::{
    ClaimReply, ClaimRequest, LadderPlan, LeaseReply, LifecycleKind, OutsideCheck, RefusalReport,
    ReleaseRequest, RenewRequest, SealReport,
};
use millrace_wire::state_keys;
use tracing::{info, warn};

use super::{Audited, Caller, Command, CommandError, Livestreams, outside};
use crate::domain::claim::{self, Claim, Lease, Presence};
use crate::domain::disconnect::Disconnect;
use crate::domain::stream::{Status, Stream};
use crate::repo::{KeyRecord, RepoError, Versioned, retry};

impl Audited for ClaimReply {
    fn stream(&self) -> Option<StreamId> {
        match self {
            Self::Granted(grant) => Some(grant.stream),
            Self::Held { stream, .. } => Some(*stream),
            Self::CheckKey | Self::Refused { .. } => None,
        }
    }

    fn refusal(&self) -> Option<&'static str> {
        match self {
            Self::Granted(_) | Self::Held { .. } | Self::CheckKey => None,
            Self::Refused { reason } => Some(reason.code()),
        }
    }
}

impl Audited for LeaseReply {
    fn refusal(&self) -> Option<&'static str> {
        match self {
            Self::Ok => None,
            Self::Superseded { reason } => Some(reason.code()),
        }
    }
}

/// The result of a release, a refusal or a seal report. All are answered with [`LeaseReply::Ok`] in any case, so that the caller
/// stops repeating them.
enum Report {
    Recorded(StreamId),
    ChangesNothing,
}

impl Audited for Report {
    fn stream(&self) -> Option<StreamId> {
        match self {
            Self::Recorded(stream) => Some(*stream),
            Self::ChangesNothing => None,
        }
    }

    fn refusal(&self) -> Option<&'static str> {
        match self {
            Self::Recorded(_) => None,
            Self::ChangesNothing => Some("repeated, or not about the current claim"),
        }
    }
}

/// Returns the event of a refusal, or of the end of a publish without usable media.
fn publish_refused(disconnect: &Disconnect) -> LifecycleKind {
    let Disconnect { code, text, protocol, .. } = disconnect.clone();
    LifecycleKind::PublishRefused { code, text, protocol }
}

impl Livestreams {
    /// Grants the presented key an epoch, or refuses it with the reason to give to the publisher.
    pub(crate) async fn claim(
        &self,
        caller: &Caller,
        request: &ClaimRequest,
    ) -> Result<ClaimReply, CommandError> {
        let claim = async {
            let reply = retry!({ self.try_claim(caller, request).await })?;
            let outcome = match &reply {
                ClaimReply::Granted(_) => "granted",
                ClaimReply::Held { .. } => "held",
                ClaimReply::CheckKey => "check_key",
                ClaimReply::Refused { reason } => reason.code(),
            };
            self.services.metrics.claims.with(&[outcome]).inc();
            Ok(reply)
        };
        self.audited(caller, Command::Claim, None, claim).await
    }

    async fn try_claim(&self, caller: &Caller, request: &ClaimRequest) -> Result<ClaimReply, RepoError> {
        let refused = |reason| Ok(ClaimReply::Refused { reason });
        let peer = (request.protocol.as_str(), request.addr);
        let services = &self.services;
        let key_record = state_keys::key_hash(&request.key_hash);
        let key = match (services.repo.load::<KeyRecord>(&key_record).await?, &request.outside) {
            (Some(key), _) => key.value,
            (None, OutsideCheck::Accepted(accepted)) => {
                self.record_accepted(caller, request.key_hash, accepted).await?
            }
            (None, OutsideCheck::Available) => return Ok(ClaimReply::CheckKey),
            (None, OutsideCheck::Absent) => return refused(CloseReason::UnknownKey),
        };
        if key.revoked {
            self.note_refusal(key.stream, (CloseReason::RevokedKey, ""), peer).await?;
            return refused(CloseReason::RevokedKey);
        }
        let Versioned { value: stream, version } = match services.repo.stream(key.stream).await {
            Err(RepoError::NotFound) => return refused(CloseReason::RevokedKey),
            found => found?,
        };
        if stream.outside_key == Some(request.key_hash)
            && let Some(answer) = outside::not_accepted(request)
        {
            return Ok(answer);
        }
        let current = services.repo.claim(stream.id).await?;
        let now = services.wall_clock();
        let fresh = BroadcastId::generate(now, &mut rand::rng());
        let held = current.as_ref().map(|current| &current.value);
        let mut decision = match claim::decide(now, &stream, held, request, fresh) {
            Ok(decision) => decision,
            Err(reason) => {
                self.note_refusal(stream.id, (reason, ""), peer).await?;
                return refused(reason);
            }
        };
        if decision.waits {
            let limits = claim::limits(&self.plan(&stream));
            return Ok(ClaimReply::Held { stream: stream.id, limits });
        }
        if !decision.repeated {
            decision.claim.settings.plan = self.plan(&stream);
            if !decision.claim.continues && !decision.claim.airing.is_first() {
                services.repo.keep_past_checkpoint(&decision.claim).await?;
            }
            let claim_version = current.as_ref().map(|current| current.version);
            let both = ((&decision.stream, version), (&decision.claim, claim_version));
            services.repo.put_both(both.0, both.1, now).await?;
            if let Some(session) = decision.kick {
                services.announcer.kick(session, decision.kick_for);
            }
            info!(stream = %decision.claim.stream, session = %request.session, epoch = %decision.claim.epoch,
                protocol = request.protocol, "publisher granted an epoch");
        }
        services.announcer.epoch(&decision.claim);
        Ok(ClaimReply::Granted(Box::new(decision.claim.to_grant())))
    }

    /// Returns the renditions of the livestream's ladder. A template that was taken out of the configuration encodes nothing, so
    /// that the publisher is not locked out by it.
    fn plan(&self, stream: &Stream) -> LadderPlan {
        let plan = self.services.templates.plan(&stream.settings.ladder);
        plan.unwrap_or_else(|| {
            warn!(stream = %stream.id, ladder = ?stream.settings.ladder,
                "the template of the livestream's ladder is not configured; the publish is copied only");
            LadderPlan::default()
        })
    }

    /// Renews a session's lease, or answers on positive evidence that the session is superseded.
    pub(crate) async fn renew(
        &self,
        caller: &Caller,
        request: &RenewRequest,
    ) -> Result<LeaseReply, CommandError> {
        let renew = async { Ok(self.try_renew(request).await?) };
        self.audited(caller, Command::Renew, Some(request.stream), renew).await
    }

    async fn try_renew(&self, request: &RenewRequest) -> Result<LeaseReply, RepoError> {
        let services = &self.services;
        retry!({
            let Some(current) = services.repo.claim(request.stream).await? else {
                return self.renew_without_claim(request.stream).await;
            };
            match claim::renew(services.wall_clock(), &current.value, request) {
                Lease::Kept(Some(claim)) => {
                    if !self.put_changed(&current, &claim, None).await? {
                        return Ok(LeaseReply::Superseded { reason: CloseReason::StreamEnded });
                    }
                    let back = current.value.presence != Presence::Publishing;
                    if back || !claim.events.is_empty() {
                        services.announcer.epoch(&claim);
                    }
                    Ok(LeaseReply::Ok)
                }
                Lease::Kept(None) | Lease::Unknown => Ok(LeaseReply::Ok),
                Lease::Lost(reason) => Ok(LeaseReply::Superseded { reason }),
            }
        })
    }

    /// Writes a changed claim. The first media of a broadcast begin it, and an end of the publish is kept in the stream's
    /// record: then both records are written. Returns false if the stream's status does not let the broadcast begin.
    async fn put_changed(
        &self,
        current: &Versioned<Claim>,
        claim: &Claim,
        disconnect: Option<Disconnect>,
    ) -> Result<bool, RepoError> {
        let services = &self.services;
        let now = services.wall_clock();
        let begins = claim.begun && !current.value.begun;
        if !begins && disconnect.is_none() {
            services.repo.put_claim(claim, current.version, now).await?;
            return Ok(true);
        }
        let Versioned { value: mut stream, version } = services.repo.stream(claim.stream).await?;
        if begins && stream.begin(claim.broadcast, now).is_err() {
            return Ok(false);
        }
        stream.last_disconnect = disconnect.or(stream.last_disconnect);
        if begins {
            let begun = claim.begun_broadcast(now);
            services.repo.begin((&stream, version), (claim, current.version), &begun).await?;
        } else {
            services.repo.put_both((&stream, version), (claim, Some(current.version)), now).await?;
        }
        Ok(true)
    }

    /// Records that a session's lease has lapsed: its publisher counts as away.
    pub(crate) async fn lapsed(&self, current: &Versioned<Claim>, away: &Claim) -> Result<(), RepoError> {
        let text =
            "The publisher's ingest node has stopped renewing its lease: the node or the link to it is gone.";
        let disconnect =
            current.value.disconnect(self.services.wall_clock(), CloseReason::ConnectionLost, text);
        self.put_changed(current, away, Some(disconnect)).await.map(drop)
    }

    /// Deletes the claim of a publisher that vanished before any media came.
    pub(crate) async fn withdraw(&self, current: &Versioned<Claim>) -> Result<(), RepoError> {
        let Versioned { value: mut stream, version } =
            self.services.repo.stream(current.value.stream).await?;
        let now = self.services.wall_clock();
        stream.airings.note(current.value.numbers(now));
        self.services.repo.withdraw_claim((&stream, version), current.version, now, &[]).await
    }

    /// Keeps the refusal of a publisher in the record of its livestream, if there is one.
    async fn note_refusal(
        &self,
        stream: StreamId,
        reason: (CloseReason, &str),
        peer: (&str, Option<IpAddr>),
    ) -> Result<(), RepoError> {
        let repo = &self.services.repo;
        retry!({
            let Versioned { value: mut stream, version } = match repo.stream(stream).await {
                Err(RepoError::NotFound) => return Ok(()),
                found => found?,
            };
            let now = self.services.wall_clock();
            let refusal = Disconnect::new(now, reason, peer, true);
            if stream.last_disconnect.as_ref().is_some_and(|last| refusal.repeats(last)) {
                return Ok(());
            }
            let event = publish_refused(&refusal);
            stream.last_disconnect = Some(refusal);
            repo.put_stream(&stream, version, now, &[event]).await
        })
    }

    /// Keeps a refusal that an ingest node decided on its own.
    pub(crate) async fn refused(
        &self,
        caller: &Caller,
        report: &RefusalReport,
    ) -> Result<LeaseReply, CommandError> {
        let refused = async {
            let key = self.services.repo.load::<KeyRecord>(&state_keys::key_hash(&report.key_hash)).await?;
            let Some(key) = key else { return Ok(Report::ChangesNothing) };
            let peer = (report.protocol.as_str(), report.addr);
            self.note_refusal(key.value.stream, (report.reason, &report.text), peer).await?;
            Ok(Report::Recorded(key.value.stream))
        };
        self.audited(caller, Command::Refused, None, refused).await?;
        Ok(LeaseReply::Ok)
    }

    /// Answers a session of a stream without claim. The session is over if the stream is; lost state alone stops no
    /// session.
    async fn renew_without_claim(&self, stream: StreamId) -> Result<LeaseReply, RepoError> {
        match self.services.repo.stream(stream).await {
            Ok(Versioned { value, .. })
                if !matches!(value.status, Status::Live | Status::Scheduled) && !value.airs_again() =>
            {
                Ok(LeaseReply::Superseded { reason: CloseReason::StreamEnded })
            }
            Ok(_) | Err(RepoError::NotFound) => Ok(LeaseReply::Ok),
            Err(error) => Err(error),
        }
    }

    /// Records that the session's publisher is away: the reconnect window begins, or the claim is withdrawn if no media came.
    pub(crate) async fn release(
        &self,
        caller: &Caller,
        request: &ReleaseRequest,
    ) -> Result<LeaseReply, CommandError> {
        let release = async { Ok(self.try_release(request).await?) };
        self.audited(caller, Command::Release, Some(request.stream), release).await?;
        Ok(LeaseReply::Ok)
    }

    async fn try_release(&self, request: &ReleaseRequest) -> Result<Report, RepoError> {
        let services = &self.services;
        retry!({
            let Some(current) = services.repo.claim(request.stream).await? else {
                return Ok(Report::ChangesNothing);
            };
            let now = services.wall_clock();
            let disconnect = current.value.disconnect(now, request.reason, &request.text);
            let code = request.reason.code();
            if current.value.is_withdrawn_by(request) {
                let Versioned { value: mut stream, version } = services.repo.stream(request.stream).await?;
                // An encoder that leaves by itself was not refused.
                let left = matches!(request.reason, CloseReason::PublisherLeft | CloseReason::ConnectionLost);
                let events: Vec<LifecycleKind> =
                    (!left).then(|| publish_refused(&disconnect)).into_iter().collect();
                stream.last_disconnect = Some(disconnect);
                stream.airings.note(current.value.numbers(now));
                services.repo.withdraw_claim((&stream, version), current.version, now, &events).await?;
                info!(stream = %stream.id, session = %request.session, reason = code,
                    "publisher left before usable media came; the livestream stays as it was");
                return Ok(Report::Recorded(request.stream));
            }
            let Some(claim) = current.value.released(now, request) else {
                return Ok(Report::ChangesNothing);
            };
            if !self.put_changed(&current, &claim, Some(disconnect)).await? {
                return Ok(Report::ChangesNothing);
            }
            info!(stream = %claim.stream, session = %claim.session, epoch = %claim.epoch, reason = code,
                window_s = claim.settings.reconnect_window, "publisher away; reconnect window began");
            services.announcer.epoch(&claim);
            Ok(Report::Recorded(request.stream))
        })
    }

    /// Records a log writer's report that it sealed or ended an epoch.
    pub(crate) async fn sealed(
        &self,
        caller: &Caller,
        report: &SealReport,
    ) -> Result<LeaseReply, CommandError> {
        let after = |claim: &Claim| {
            info!(stream = %claim.stream, epoch = %report.epoch, last = ?report.last, ended = report.ended,
                "epoch sealed");
        };
        let sealed = self.change_claim(report.stream, |claim| claim.sealed(report), after);
        self.audited(caller, Command::Sealed, Some(report.stream), sealed).await?;
        Ok(LeaseReply::Ok)
    }

    /// Writes the claim that `change` returns, if any, and announces it.
    async fn change_claim(
        &self,
        stream: StreamId,
        change: impl Fn(&Claim) -> Option<Claim>,
        after: impl Fn(&Claim),
    ) -> Result<Report, CommandError> {
        let report: Result<Report, RepoError> = retry!({
            let Some(current) = self.services.repo.claim(stream).await? else {
                return Ok(Report::ChangesNothing);
            };
            let Some(claim) = change(&current.value) else { return Ok(Report::ChangesNothing) };
            if !self.put_changed(&current, &claim, None).await? {
                return Ok(Report::ChangesNothing);
            }
            after(&claim);
            self.services.announcer.epoch(&claim);
            Ok(Report::Recorded(stream))
        });
        Ok(report?)
    }
}
