//! Audiences on Redis: three keys for each, changed by one script. They expire together, after the last viewer has.

use super::{RedisState, number};
use crate::StateError;
use crate::audience::{MAX_VIEWER_TTL, Sighting, UNIQUES_TTL, check};

/// Time for which the keys of an audience outlive its last viewer: they must not expire before it.
const SLACK_MS: u64 = 60_000;

impl RedisState {
    /// Notes sightings of an audience; returns the number of its viewers.
    pub(super) async fn note(
        &self,
        audience: &str,
        uniques: Option<&str>,
        sightings: &[Sighting],
    ) -> Result<u64, StateError> {
        check(audience, uniques, sightings)?;
        let mut call = self.scripts.audience.prepare_invoke();
        for part in ["", "/names", "/counts"] {
            call.key(format!("{}s:{audience}{part}", self.prefix));
        }
        call.key(self.uniques(uniques.unwrap_or(audience)));
        call.arg(MAX_VIEWER_TTL.as_millis() as u64 + SLACK_MS).arg(UNIQUES_TTL.as_millis() as u64);
        call.arg(u8::from(uniques.is_some()));
        for sighting in sightings {
            call.arg(&sighting.viewer).arg(&sighting.group).arg(sighting.ttl.as_millis() as u64);
        }
        number(self.run(&call).await?)
    }
}
