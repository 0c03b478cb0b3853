//! The order of states: which of two knows more of a stream.

use millrace_wire::fact::{Origin, StreamState};
use millrace_wire::ids::{Epoch, FactSeq, Generation};

/// The position that a state has reached in its stream's succession of logs; the greater one is newer.
///
/// Epochs come before all else, because only control issues them. Within an epoch the fold of a log is newer than a
/// checkpoint of it: the log may have been read further than what was stored. Then the generation and the fact number
/// decide. Of two checkpoints at one fact the ended one is newer: the other was taken while segments were being stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    epoch: Epoch,
    origin: Origin,
    generation: Generation,
    seq: FactSeq,
    ended: bool,
}

impl Position {
    /// Returns the position of `state`.
    pub const fn of(state: &StreamState) -> Self {
        let StreamState { epoch, origin, generation, seq, ended, .. } = *state;
        Self { epoch, origin, generation, seq, ended }
    }

    /// Returns the position of `state` among the checkpoints of its stream, for either origin.
    pub(crate) const fn of_checkpoint(state: &StreamState) -> Self {
        Self { origin: Origin::Checkpoint, ..Self::of(state) }
    }
}

#[cfg(test)]
mod tests {
    use millrace_wire::ids::BroadcastId;

    use super::*;
    use crate::state::apply;

    #[test]
    fn position_orders_by_epoch_origin_generation_fact_and_end() {
        let state = |epoch, origin, generation, seq, ended| StreamState {
            epoch: Epoch(epoch),
            origin,
            generation: Generation(generation),
            seq: FactSeq(seq),
            ended,
            ..apply::empty(BroadcastId::from_u128(1))
        };
        let ascending = [
            state(4, Origin::Log, 9, 9, true),
            state(5, Origin::Checkpoint, 1, 99, false),
            state(5, Origin::Checkpoint, 2, 9, false),
            state(5, Origin::Checkpoint, 2, 9, true),
            state(5, Origin::Checkpoint, 2, 10, false),
            state(5, Origin::Log, 1, 0, false),
            state(5, Origin::Log, 2, 0, false),
            state(6, Origin::Checkpoint, 1, 0, false),
        ];
        assert!(ascending.iter().is_sorted_by(|a, b| Position::of(a) < Position::of(b)));
    }
}
