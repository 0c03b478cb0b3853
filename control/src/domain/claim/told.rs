//! The conditions of a stream's media and rungs that lifecycle events have told of.

use millrace_wire::message::announce::Degraded;
use millrace_wire::message::control::LifecycleKind;
use millrace_wire::message::ladder_health::{LadderHealth, MediaCondition};
use serde::{Deserialize, Serialize};

/// The conditions and the number of missing rungs that lifecycle events have told of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    conditions: Vec<MediaCondition>,
    left_out: u8,
    #[serde(default)]
    degraded: Option<Degraded>,
}

impl Told {
    /// Appends the events that bring what was told to the reported health, and notes them as told. A stream whose worker has
    /// reported nothing yet keeps what was told of its rungs.
    pub(super) fn follow(
        &mut self,
        degraded: Option<Degraded>,
        ladder: Option<&LadderHealth>,
        events: &mut Vec<LifecycleKind>,
    ) {
        if std::mem::replace(&mut self.degraded, degraded) != degraded {
            events
                .push(degraded.map_or(LifecycleKind::Recovered, |reason| LifecycleKind::Degraded { reason }));
        }
        let Some(ladder) = ladder else { return };
        for &condition in &ladder.conditions {
            if !self.conditions.contains(&condition) {
                self.conditions.push(condition);
                events.push(LifecycleKind::ConditionBegan { condition });
            }
        }
        for condition in self.conditions.extract_if(.., |told| !ladder.conditions.contains(told)) {
            events.push(LifecycleKind::ConditionEnded { condition });
        }
        let rungs = u8::try_from(ladder.left_out()).unwrap_or(u8::MAX);
        if std::mem::replace(&mut self.left_out, rungs) != rungs {
            events.push(LifecycleKind::RungsLeftOut { rungs });
        }
    }
}
