//! The commands that change livestreams. The API, the requests on the bus and the reconciler all go through them: each
//! command checks the rules, commits the new records in one transaction, publishes what follows from it (epoch
//! announcement, kick, lifecycle event) and leaves exactly one entry in the audit.

mod keys;
mod outside;
mod sessions;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_wire::close_reason::CloseReason;
use millrace_wire::ids::{PlaybackId, StreamId, StreamKey};
use serde_json::Value;

pub(crate) use crate::audit::{Audit, AuditEntry, AuditOutcome, Caller, Change, Command, Principal};
use crate::context::Services;
use crate::domain::airings::Airings;
use crate::domain::stream::{Stream, Transition};
use crate::domain::validate::{Create, FieldError, TakesEffect, Update};
use crate::repo::{Changed, RepoError};

/// The reason a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// Fields of the request break rules.
    #[error("invalid: {}", FieldError::list(.0))]
    Invalid(Vec<FieldError>),
    /// The livestream is absent, its state does not allow the command, or the state store failed.
    #[error(transparent)]
    Repo(#[from] RepoError),
}

impl CommandError {
    /// Returns true if a rule forbade the command; false if the state store failed.
    fn is_refusal(&self) -> bool {
        match self {
            Self::Invalid(_) => true,
            Self::Repo(error) => {
                matches!(
                    error,
                    RepoError::NotFound
                        | RepoError::InvalidTransition(_)
                        | RepoError::Fields(_)
                        | RepoError::NoSuchKey
                        | RepoError::TooManyKeys(_)
                        | RepoError::Changed
                )
            }
        }
    }
}

/// A command's result, as far as the audit needs it.
trait Audited {
    /// Returns the livestream that the command turned out to concern.
    fn stream(&self) -> Option<StreamId> {
        None
    }

    /// Returns the livestream as the command left it.
    fn after(&self) -> Option<&Stream> {
        None
    }

    /// Returns the reason of a refusal that is an answer rather than an error.
    fn refusal(&self) -> Option<&'static str> {
        None
    }
}

impl Audited for Changed {
    fn stream(&self) -> Option<StreamId> {
        Some(self.stream.id)
    }

    fn after(&self) -> Option<&Stream> {
        Some(&self.stream)
    }
}

impl Audited for (Changed, BTreeMap<&'static str, TakesEffect>) {
    fn stream(&self) -> Option<StreamId> {
        self.0.stream()
    }

    fn after(&self) -> Option<&Stream> {
        self.0.after()
    }
}

impl Audited for (Changed, StreamKey) {
    fn stream(&self) -> Option<StreamId> {
        self.0.stream()
    }

    fn after(&self) -> Option<&Stream> {
        self.0.after()
    }
}

/// Checks that the caller may give livestreams to other owners.
fn may_name_owners(caller: &Caller) -> Result<(), CommandError> {
    if caller.owns(None) {
        return Ok(());
    }
    let rule = "cannot be another than the caller's: operators alone give livestreams to owners";
    Err(CommandError::Invalid(vec![FieldError::new("owner", rule)]))
}

/// Returns the fields of a livestream that a command changed, without its keys' hashes and without what publishers change.
fn changed_fields(before: Option<&Stream>, after: Option<&Stream>, command: Command) -> Change {
    const LEFT_OUT: [&str; 3] = ["key_hash", "outside_key", "last_disconnect"];
    let fields = |stream: &Stream| {
        let mut fields = serde_json::to_value(stream).unwrap_or_default();
        if let Some(fields) = fields.as_object_mut() {
            for name in LEFT_OUT {
                fields.remove(name);
            }
            let keys = fields.get_mut("keys").and_then(Value::as_array_mut);
            keys.into_iter()
                .flatten()
                .filter_map(Value::as_object_mut)
                .for_each(|key| drop(key.remove("hash")));
        }
        fields
    };
    let mut change = Change::between(before.map(fields), after.map(fields));
    if let (Command::RotateKey, Some(Value::Object(after))) = (command, &mut change.after) {
        after.insert("stream_key".to_owned(), "replaced".into());
    }
    change
}

/// The commands of control; see the module.
pub(crate) struct Livestreams {
    services: Arc<Services>,
    audit: Arc<dyn Audit>,
}

impl Livestreams {
    pub(crate) fn new(services: Arc<Services>, audit: Arc<dyn Audit>) -> Self {
        Self { services, audit }
    }

    /// Returns the services the commands work with.
    pub(crate) fn services(&self) -> &Services {
        &self.services
    }

    /// Returns a handle to the services the commands work with.
    pub(crate) fn shared_services(&self) -> Arc<Services> {
        self.services.clone()
    }

    /// Creates a livestream with a new stream key, which is returned here and never again.
    pub(crate) async fn create(
        &self,
        caller: &Caller,
        request: &Create,
    ) -> Result<(Changed, StreamKey), CommandError> {
        let create = async {
            let checked = request.check(&self.services.templates).map_err(CommandError::Invalid)?;
            let own = caller.identity().and_then(|identity| identity.owner.as_ref());
            if checked.owner.is_some() && checked.owner.as_ref() != own {
                may_name_owners(caller)?;
            }
            let owner = checked.owner.or_else(|| own.cloned());
            let now = self.services.wall_clock();
            let (stream, key) = {
                let mut rng = rand::rng();
                let key = StreamKey::generate(&mut rng);
                let (id, playback_id) = (StreamId::generate(now, &mut rng), PlaybackId::generate(&mut rng));
                let key_hash = self.services.repo.hash(&key);
                let stream = Stream {
                    owner,
                    title: request.title.trim().to_owned(),
                    description: request.description.clone(),
                    scheduled_at: checked.scheduled_at,
                    settings: checked.settings,
                    airings: Airings { reusable: checked.reusable, ..Airings::default() },
                    ..Stream::scheduled(id, playback_id, key_hash, now)
                };
                (stream, key)
            };
            self.services.repo.create(&stream).await?;
            Ok((Changed { stream, claim: None }, key))
        };
        self.audited(caller, Command::Create, None, create).await
    }

    /// Changes fields of a livestream that is as `expected`, and scheduled or live, or airs again; returns the time at which each change takes effect.
    pub(crate) async fn update(
        &self,
        caller: &Caller,
        id: StreamId,
        request: &Update,
        expected: impl Fn(&Stream) -> bool,
    ) -> Result<(Changed, BTreeMap<&'static str, TakesEffect>), CommandError> {
        let update = async {
            if request.names("owner") {
                may_name_owners(caller)?;
            }
            let changes = request.check(&self.services.templates).map_err(CommandError::Invalid)?;
            let now = self.services.wall_clock();
            let changed = self.services.repo.change(id, &changes, now, expected).await?;
            Ok((changed, changes.takes_effect()))
        };
        self.audited(caller, Command::Update, Some(id), update).await
    }

    /// Marks a scheduled livestream as ready; its first usable media make it live.
    pub(crate) async fn start(&self, caller: &Caller, id: StreamId) -> Result<Changed, CommandError> {
        let start = self.transition(id, Transition::Start);
        self.audited(caller, Command::Start, Some(id), start).await
    }

    /// Cancels a livestream that is still scheduled.
    pub(crate) async fn cancel(&self, caller: &Caller, id: StreamId) -> Result<Changed, CommandError> {
        let cancel = async {
            let changed = self.transition(id, Transition::Cancel).await?;
            self.kick(&changed, CloseReason::StreamEnded);
            Ok(changed)
        };
        self.audited(caller, Command::Cancel, Some(id), cancel).await
    }

    /// Archives a livestream that ended.
    pub(crate) async fn archive(&self, caller: &Caller, id: StreamId) -> Result<Changed, CommandError> {
        let archive = self.transition(id, Transition::Archive);
        self.audited(caller, Command::Archive, Some(id), archive).await
    }

    /// Opens a livestream that has ended for another broadcast.
    pub(crate) async fn reopen(&self, caller: &Caller, id: StreamId) -> Result<Changed, CommandError> {
        let reopen = self.transition(id, Transition::Reopen);
        self.audited(caller, Command::Reopen, Some(id), reopen).await
    }

    /// Ends a live livestream, and kicks its session for `reason`. Without an operator's stop, because the reconnect window has
    /// passed, its keys may begin another broadcast.
    pub(crate) async fn stop(
        &self,
        caller: &Caller,
        id: StreamId,
        reason: CloseReason,
    ) -> Result<Changed, CommandError> {
        let stop = async {
            let transition = match reason {
                CloseReason::StreamEnded => Transition::End,
                _ => Transition::Stop,
            };
            let changed = self.transition(id, transition).await?;
            if let Some(claim) = &changed.claim {
                let announcer = &self.services.announcer;
                announcer.epoch(claim);
                announcer.kick(claim.session, reason);
            }
            Ok(changed)
        };
        self.audited(caller, Command::Stop, Some(id), stop).await
    }

    /// Gives a livestream a new stream key, revokes the old one and kicks the session that publishes with it.
    pub(crate) async fn rotate_key(
        &self,
        caller: &Caller,
        id: StreamId,
    ) -> Result<(Changed, StreamKey), CommandError> {
        let rotate = async {
            let key = StreamKey::generate(&mut rand::rng());
            let now = self.services.wall_clock();
            let changed = self.services.repo.rotate(id, self.services.repo.hash(&key), now).await?;
            self.kick(&changed, CloseReason::KeyRotated);
            Ok((changed, key))
        };
        self.audited(caller, Command::RotateKey, Some(id), rotate).await
    }

    /// Deletes a livestream that is not live; its objects are deleted in the background.
    pub(crate) async fn delete(&self, caller: &Caller, id: StreamId) -> Result<Changed, CommandError> {
        let delete = async {
            let changed = self.services.repo.delete(id, self.services.wall_clock()).await?;
            self.kick(&changed, CloseReason::RevokedKey);
            self.services.deleted.notify_one();
            Ok(changed)
        };
        self.audited(caller, Command::Delete, Some(id), delete).await
    }

    /// Kicks the session that holds the claim, if one does.
    fn kick(&self, changed: &Changed, reason: CloseReason) {
        let now = self.services.wall_clock();
        if let Some(claim) = changed.claim.as_ref().filter(|claim| claim.is_held(now)) {
            self.services.announcer.kick(claim.session, reason);
        }
    }

    async fn transition(&self, id: StreamId, transition: Transition) -> Result<Changed, CommandError> {
        Ok(self.services.repo.apply(id, transition, &*self.services.clock).await?)
    }

    /// Returns the livestream before a command of a caller of the API that may change it. One that another owner has is absent for
    /// a publisher, so that its id tells nothing.
    async fn permit(&self, caller: &Caller, id: StreamId) -> Result<Option<Stream>, CommandError> {
        if caller.identity().is_none() && caller.owns(None) {
            return Ok(None);
        }
        let stream = self.services.repo.stream(id).await?.value;
        if caller.owns(stream.owner.as_ref()) { Ok(Some(stream)) } else { Err(RepoError::NotFound.into()) }
    }

    /// Carries out a command and records it: the one place that writes the audit of livestreams. The livestream is read before the
    /// command for its entry; a change by another caller between the two shows as this one's.
    async fn audited<T: Audited>(
        &self,
        caller: &Caller,
        command: Command,
        stream: Option<StreamId>,
        run: impl Future<Output = Result<T, CommandError>>,
    ) -> Result<T, CommandError> {
        let permitted = match stream {
            Some(id) => self.permit(caller, id).await,
            None => Ok(None),
        };
        let (before, result) = match permitted {
            Ok(before) => (before, run.await),
            Err(error) => (None, Err(error)),
        };
        let outcome = match &result {
            Ok(done) => match done.refusal() {
                Some(reason) => AuditOutcome::Refused(reason.to_owned()),
                None => AuditOutcome::Done,
            },
            Err(error) if error.is_refusal() => AuditOutcome::Refused(error.to_string()),
            Err(error) => AuditOutcome::Failed(error.to_string()),
        };
        let stream = stream.or_else(|| result.as_ref().ok().and_then(Audited::stream));
        let after = result.as_ref().ok().and_then(Audited::after);
        let after = after.filter(|_| command != Command::Delete);
        let change = changed_fields(before.as_ref(), after, command);
        self.audit.record(&AuditEntry { caller, command, stream, target: None, outcome: &outcome, change });
        result
    }
}
