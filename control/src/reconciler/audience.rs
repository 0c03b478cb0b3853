//! The leader samples how many viewers each broadcast has, from which its peak, watch time and course are made.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use millrace_runtime::{ActorContext, LogLimit};
use millrace_wire::ids::StreamId;
use tracing::warn;

use super::MAX_CLAIMS;
use crate::context::Services;
use crate::domain::audience::BroadcastAudience;
use crate::domain::claim::{Claim, Presence};
use crate::repo::RepoError;

/// Pause between two samples: half the time within which counts are right.
const SAMPLE_EVERY: Duration = Duration::from_secs(5);

/// Time between two writes of a broadcast's record, in milliseconds. A leader that dies loses that much of the course.
const WRITE_EVERY_MS: u64 = 15_000;

/// A broadcast that is being sampled.
struct Sampled {
    audience: BroadcastAudience,
    written_ms: u64,
}

/// Samples until the actor is stopped, while this control leads.
pub(crate) async fn run(services: Arc<Services>, actor: ActorContext) -> anyhow::Result<()> {
    let mut sampler = Sampler { services, sampled: HashMap::new() };
    let lines = LogLimit::default();
    loop {
        tokio::select! {
            () = tokio::time::sleep(SAMPLE_EVERY) => {}
            () = actor.stop.cancelled() => break,
        }
        if !*sampler.services.leading.borrow() {
            sampler.sampled.clear();
        } else if let Err(error) = sampler.round().await
            && let Some(suppressed) = lines.due()
        {
            warn!(%error, suppressed, "viewers of broadcasts could not be sampled; will retry");
        }
        actor.status.set_queue(sampler.sampled.len(), Duration::ZERO);
    }
    sampler.finish().await;
    Ok(())
}

struct Sampler {
    services: Arc<Services>,
    sampled: HashMap<StreamId, Sampled>,
}

impl Sampler {
    async fn round(&mut self) -> Result<(), RepoError> {
        let claims = self.services.repo.claims(MAX_CLAIMS).await?;
        let is_on = |claim: &Claim| claim.begun && !matches!(claim.presence, Presence::Ended { .. });
        let on_air: HashMap<StreamId, Claim> = claims
            .into_iter()
            .map(|claim| claim.value)
            .filter(is_on)
            .map(|claim| (claim.stream, claim))
            .collect();
        let over = self.sampled.extract_if(|stream, sampled| {
            on_air.get(stream).is_none_or(|claim| claim.broadcast != sampled.audience.broadcast)
        });
        let over: Vec<_> = over.collect();
        for (stream, sampled) in over {
            self.write(stream, sampled.audience).await?;
        }
        for claim in on_air.values() {
            self.sample(claim).await?;
        }
        Ok(())
    }

    async fn sample(&mut self, claim: &Claim) -> Result<(), RepoError> {
        let (stream, repo) = (claim.stream, &self.services.repo);
        let viewers = repo.viewers(stream).await?;
        let (now, now_ms) = (self.services.wall_clock(), self.services.clock.now_ms());
        let mut sampled = match self.sampled.remove(&stream) {
            Some(sampled) => sampled,
            // Another control may have led before.
            None => {
                if let Some(audience) = repo.audience(stream, claim.broadcast).await? {
                    Sampled { audience, written_ms: now_ms }
                } else {
                    repo.drop_oldest_audiences(stream).await?;
                    Sampled { audience: BroadcastAudience::begin(claim.broadcast, now), written_ms: 0 }
                }
            }
        };
        sampled.audience.sample(viewers, now);
        let due = now_ms.saturating_sub(sampled.written_ms) >= WRITE_EVERY_MS || sampled.written_ms == 0;
        if due {
            sampled.written_ms = now_ms.max(1);
            sampled.audience = self.write(stream, sampled.audience).await?;
        }
        self.sampled.insert(stream, sampled);
        Ok(())
    }

    /// Writes a record with the number of unique viewers until now.
    async fn write(
        &self,
        stream: StreamId,
        mut audience: BroadcastAudience,
    ) -> Result<BroadcastAudience, RepoError> {
        let unique = self.services.repo.unique_viewers(stream, audience.broadcast).await?;
        audience.note_unique(unique);
        self.services.repo.put_audience(stream, &audience).await?;
        Ok(audience)
    }

    async fn finish(&mut self) {
        for (stream, sampled) in std::mem::take(&mut self.sampled) {
            if let Err(error) = self.write(stream, sampled.audience).await {
                warn!(%stream, %error, "the newest samples of a broadcast's viewers were not written");
                return;
            }
        }
    }
}
