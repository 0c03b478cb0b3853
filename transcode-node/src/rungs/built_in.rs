//! The rungs that this build can run.

use std::sync::Arc;

use millrace_wire::fact::{EpochOpen, StreamState};
use millrace_wire::ids::{Rendition, RungId};
use millrace_wire::ladder::LadderPlan;
use millrace_wire::message::control::StreamSettings;

use super::copy::{self, CopyRung};
use super::ladder::{self, LadderRung};
use super::{Rung, RungFactory};
use crate::encoders::EncoderFactory;

/// The rungs that this build can run: the copy rung, and the encoded ones if there are encoders.
#[derive(Debug, Clone, Default)]
pub struct BuiltInRungs {
    encoders: Option<Arc<dyn EncoderFactory>>,
}

impl BuiltInRungs {
    /// Returns the rungs of a node with these encoders.
    pub fn new(encoders: Arc<dyn EncoderFactory>) -> Self {
        Self { encoders: Some(encoders) }
    }
}

impl BuiltInRungs {
    /// Returns the renditions that the rungs of these settings may make.
    fn renditions(&self, settings: &StreamSettings) -> Vec<Rendition> {
        if self.encoders.is_some() { renditions(&settings.plan) } else { renditions(&LadderPlan::default()) }
    }
}

/// Returns the renditions that a plan may have.
fn renditions(plan: &LadderPlan) -> Vec<Rendition> {
    let encoded = plan.encodes().then(|| ladder::renditions(plan));
    [Rendition::video(), Rendition::audio()].into_iter().chain(encoded.into_iter().flatten()).collect()
}

impl RungFactory for BuiltInRungs {
    fn rungs(&self, settings: &StreamSettings) -> Vec<RungId> {
        let ladder = self.encoders.is_some() && settings.plan.encodes();
        let encoded = ladder.then(LadderRung::rung_id);
        [RungId::copy()].into_iter().chain(encoded).collect()
    }

    fn encoders(&self) -> Option<Arc<dyn EncoderFactory>> {
        self.encoders.clone()
    }

    fn start(
        &self,
        id: &RungId,
        settings: &StreamSettings,
        open: &EpochOpen,
        base: &StreamState,
    ) -> Box<dyn Rung> {
        match &self.encoders {
            Some(encoders) if *id == LadderRung::rung_id() => {
                Box::new(LadderRung::new(&**encoders, settings, open, base))
            }
            _ => {
                let rung = CopyRung::new(open, copy::part_setup(base, settings));
                Box::new(rung.beside(base, &renditions(&open.plan), &self.renditions(settings)))
            }
        }
    }
}
