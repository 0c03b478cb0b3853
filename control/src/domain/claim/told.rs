//! The conditions of a stream's media and rungs that lifecycle events have told of.

use millrace_wire::message::control::LifecycleKind;
use millrace_wire::message::ladder_health::{LadderHealth, MediaCondition};
use serde::{Deserialize, Serialize};

/// The conditions and the number of missing rungs that lifecycle events have told of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    conditions: Vec<MediaCondition>,
    left_out: u8,
}

impl Told {
    /// Returns the next event that brings what was told closer to `ladder`, and notes it as told; `None` if nothing has changed.
    /// A stream whose worker has reported nothing yet keeps what was told.
    pub(super) fn step(&mut self, ladder: Option<&LadderHealth>) -> Option<LifecycleKind> {
        let ladder = ladder?;
        let is_new = |condition: &&MediaCondition| !self.conditions.contains(condition);
        if let Some(&condition) = ladder.conditions.iter().find(is_new) {
            self.conditions.push(condition);
            return Some(LifecycleKind::ConditionBegan { condition });
        }
        if let Some(at) = self.conditions.iter().position(|told| !ladder.conditions.contains(told)) {
            let condition = self.conditions.remove(at);
            return Some(LifecycleKind::ConditionEnded { condition });
        }
        let rungs = u8::try_from(ladder.left_out()).unwrap_or(u8::MAX);
        (std::mem::replace(&mut self.left_out, rungs) != rungs)
            .then_some(LifecycleKind::RungsLeftOut { rungs })
    }
}
