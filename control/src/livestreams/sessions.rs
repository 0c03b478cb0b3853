//! The commands of publisher sessions and log writers: claim, renew, release, sealed.

use millrace_wire::close_reason::CloseReason;
use millrace_wire::ids::{BroadcastId, StreamId};
use millrace_wire::message::control::{
    ClaimReply, ClaimRequest, LeaseReply, ReleaseRequest, RenewRequest, SealReport,
};
use millrace_wire::state_keys;
use tracing::info;

use super::{Audited, Caller, Command, CommandError, Livestreams};
use crate::domain::claim::{self, Claim, Lease, Presence};
use crate::domain::stream::Status;
use crate::repo::{KeyRecord, RepoError, Versioned, retry};

impl Audited for ClaimReply {
    fn stream(&self) -> Option<StreamId> {
        match self {
            Self::Granted(grant) => Some(grant.stream),
            Self::Refused { .. } => None,
        }
    }

    fn refusal(&self) -> Option<&'static str> {
        match self {
            Self::Granted(_) => None,
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

/// The result of a release or a seal report. Both are answered with [`LeaseReply::Ok`] in any case, so that the caller
/// stops repeating them.
enum Report {
    Recorded,
    ChangesNothing,
}

impl Audited for Report {
    fn refusal(&self) -> Option<&'static str> {
        match self {
            Self::Recorded => None,
            Self::ChangesNothing => Some("repeated, or not about the current claim"),
        }
    }
}

impl Livestreams {
    /// Grants the presented key an epoch, or refuses it with the reason to give to the publisher.
    pub(crate) async fn claim(
        &self,
        caller: &Caller,
        request: &ClaimRequest,
    ) -> Result<ClaimReply, CommandError> {
        let claim = async {
            let reply = retry!({ self.try_claim(request).await })?;
            let outcome = match &reply {
                ClaimReply::Granted(_) => "granted",
                ClaimReply::Refused { reason } => reason.code(),
            };
            self.services.metrics.claims.with(&[outcome]).inc();
            Ok(reply)
        };
        self.audited(caller, Command::Claim, None, claim).await
    }

    async fn try_claim(&self, request: &ClaimRequest) -> Result<ClaimReply, RepoError> {
        let refused = |reason| Ok(ClaimReply::Refused { reason });
        let services = &self.services;
        let key_record = state_keys::key_hash(&request.key_hash);
        let Some(key) = services.repo.load::<KeyRecord>(&key_record).await? else {
            return refused(CloseReason::UnknownKey);
        };
        if key.value.revoked {
            return refused(CloseReason::RevokedKey);
        }
        let Versioned { value: stream, version } = match services.repo.stream(key.value.stream).await {
            Err(RepoError::NotFound) => return refused(CloseReason::RevokedKey),
            found => found?,
        };
        if stream.key_hash != request.key_hash {
            return refused(CloseReason::RevokedKey);
        }
        let current = services.repo.claim(stream.id).await?;
        let now = services.wall_clock();
        let fresh = BroadcastId::generate(now, &mut rand::rng());
        let held = current.as_ref().map(|current| &current.value);
        let decision = match claim::decide(now, &stream, held, request, fresh) {
            Ok(decision) => decision,
            Err(reason) => return refused(reason),
        };
        if !decision.repeated {
            let claim_version = current.as_ref().map(|current| current.version);
            services.repo.put_grant((&decision.stream, version), (&decision.claim, claim_version)).await?;
            if let Some(session) = decision.kick {
                services.announcer.kick(session, CloseReason::TakenOver);
            }
            services.announcer.event(&decision.claim);
            info!(stream = %decision.claim.stream, session = %request.session, epoch = %decision.claim.epoch,
                protocol = request.protocol, "publisher granted an epoch");
        }
        services.announcer.epoch(&decision.claim);
        Ok(ClaimReply::Granted(Box::new(decision.claim.to_grant())))
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
                    let back = current.value.presence != Presence::Publishing;
                    services.repo.put_claim(&claim, current.version).await?;
                    if back {
                        services.announcer.event(&claim);
                        services.announcer.epoch(&claim);
                    }
                    Ok(LeaseReply::Ok)
                }
                Lease::Kept(None) | Lease::Unknown => Ok(LeaseReply::Ok),
                Lease::Lost(reason) => Ok(LeaseReply::Superseded { reason }),
            }
        })
    }

    /// Answers a session of a stream without claim. The session is over if the stream is; lost state alone stops no
    /// session.
    async fn renew_without_claim(&self, stream: StreamId) -> Result<LeaseReply, RepoError> {
        match self.services.repo.stream(stream).await {
            Ok(Versioned { value, .. }) if !matches!(value.status, Status::Live | Status::Scheduled) => {
                Ok(LeaseReply::Superseded { reason: CloseReason::StreamEnded })
            }
            Ok(_) | Err(RepoError::NotFound) => Ok(LeaseReply::Ok),
            Err(error) => Err(error),
        }
    }

    /// Records that the session's publisher is away; the reconnect window begins.
    pub(crate) async fn release(
        &self,
        caller: &Caller,
        request: &ReleaseRequest,
    ) -> Result<LeaseReply, CommandError> {
        let announcer = &self.services.announcer;
        let change = |claim: &Claim| claim.released(self.services.wall_clock(), request);
        let after = |claim: &Claim| {
            info!(stream = %claim.stream, session = %claim.session, epoch = %claim.epoch,
                reason = request.reason.code(), window_s = claim.settings.reconnect_window,
                "publisher away; reconnect window began");
            announcer.event(claim);
        };
        let release = self.change_claim(request.stream, change, after);
        self.audited(caller, Command::Release, Some(request.stream), release).await?;
        Ok(LeaseReply::Ok)
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
            self.services.repo.put_claim(&claim, current.version).await?;
            after(&claim);
            self.services.announcer.epoch(&claim);
            Ok(Report::Recorded)
        });
        Ok(report?)
    }
}
