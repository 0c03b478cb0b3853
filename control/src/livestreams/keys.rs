//! The commands of stream keys: add one, revoke one.

use millrace_wire::close_reason::CloseReason;
use millrace_wire::ids::{KeyId, StreamId, StreamKey};

use super::{Audited, Caller, Command, CommandError, Livestreams};
use crate::domain::keys::Key;
use crate::domain::stream::Stream;
use crate::domain::validate::NewKey;
use crate::repo::Changed;

impl Audited for (Changed, Key, StreamKey) {
    fn stream(&self) -> Option<StreamId> {
        self.0.stream()
    }

    fn after(&self) -> Option<&Stream> {
        self.0.after()
    }
}

impl Livestreams {
    /// Gives a livestream another stream key, which is returned here and never again.
    pub(crate) async fn add_key(
        &self,
        caller: &Caller,
        id: StreamId,
        request: &NewKey,
    ) -> Result<(Changed, Key, StreamKey), CommandError> {
        let add = async {
            let now = self.services.wall_clock();
            let checked = request.check(now).map_err(CommandError::Invalid)?;
            let (key, secret) = {
                let mut rng = rand::rng();
                let secret = StreamKey::generate(&mut rng);
                let key = Key {
                    id: KeyId::generate(now, &mut rng),
                    name: checked.name,
                    hash: self.services.repo.hash(&secret),
                    priority: checked.priority,
                    created_at: now,
                    expires_at: checked.expires_at,
                    revoked_at: None,
                };
                (key, secret)
            };
            let changed = self.services.repo.add_key(id, &key).await?;
            Ok((changed, key, secret))
        };
        self.audited(caller, Command::AddKey, Some(id), add).await
    }

    /// Revokes a stream key and kicks the session that publishes with it.
    pub(crate) async fn revoke_key(
        &self,
        caller: &Caller,
        id: StreamId,
        key: KeyId,
    ) -> Result<Changed, CommandError> {
        let revoke = async {
            let changed = self.services.repo.revoke_key(id, key, self.services.wall_clock()).await?;
            self.kick(&changed, CloseReason::RevokedKey);
            Ok(changed)
        };
        self.audited(caller, Command::RevokeKey, Some(id), revoke).await
    }
}
