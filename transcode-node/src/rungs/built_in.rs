//! The rungs that this build can run.

use millrace_wire::fact::{EpochOpen, StreamState};
use millrace_wire::ids::RungId;
use millrace_wire::message::control::StreamSettings;

use super::copy::{self, CopyRung};
use super::{Rung, RungFactory};

/// The rungs that this build can run.
#[derive(Debug, Clone, Copy, Default)]
pub struct BuiltInRungs;

impl RungFactory for BuiltInRungs {
    fn rungs(&self, _: &StreamSettings) -> Vec<RungId> {
        vec![RungId::copy()]
    }

    fn start(
        &self,
        _: &RungId,
        settings: &StreamSettings,
        open: &EpochOpen,
        base: &StreamState,
    ) -> Box<dyn Rung> {
        Box::new(CopyRung::new(open, copy::part_setup(base, settings)))
    }
}
