//! The objects whose bytes may still be on their way to this edge: those that the newest segments of a playlist list, and
//! those that it hints. A request for one of them is held; any other is answered with 404 at once.

use millrace_wire::fact::{InitEntry, RenditionSegment, SegmentSlot, StreamState};
use millrace_wire::ids::{Epoch, Generation, Msn, PartIndex, Rendition};
use millrace_wire::object_names::{ObjectKind, ObjectName};

use crate::live::playlists::{Following, Phase, PlaylistPosition, StreamPlaylists};

/// Segments below the open one whose bytes may still be on their way to this edge.
const RECENT: u64 = 4;
/// Parts of the open segment, and of the one after it, that another edge may list or hint before this one.
const AHEAD: u32 = 2;
/// The generation in the names of GAPs, which no writer has made: grants begin at 1.
const NO_WRITER: Generation = Generation(0);

impl StreamPlaylists {
    /// Returns true if the name is that of a GAP in the window, or of a part of one.
    pub fn is_gap(&self, name: &ObjectName) -> bool {
        let (ObjectKind::Segment(msn, NO_WRITER) | ObjectKind::Part(msn, NO_WRITER, _)) = name.kind else {
            return false;
        };
        let Some(state) = self.state().filter(|state| state.renditions.contains_key(&name.rendition)) else {
            return false;
        };
        let slot = state.slots.iter().find(|slot| slot.msn == msn && slot.epoch == name.epoch);
        slot.is_some_and(|slot| match slot.tracks.get(&name.rendition) {
            Some(track) => {
                let is_declared = slot.gap.is_some() || slot.rendition_gaps.contains_key(&name.rendition);
                is_declared && track.segment.is_none()
            }
            // The other renditions have media here, or none has.
            None => true,
        })
    }

    /// Returns true if the object is listed or hinted near the end of its rendition's playlist.
    pub fn expects(&self, name: &ObjectName) -> bool {
        let Some(state) = self.state() else { return false };
        let grows = matches!(self.phase(), Phase::Starting | Phase::Live | Phase::Away);
        let Some(position) = self.rendition(name.rendition.as_str()).map(|playlist| playlist.position) else {
            // Its first part is on its way, or this edge lags behind.
            return grows
                && (state.renditions.contains_key(&name.rendition) || self.following == Following::Lagging);
        };
        let listed = Listed { state, rendition: &name.rendition, epoch: name.epoch, position };
        match name.kind {
            ObjectKind::Init(version) => {
                let inits = state.renditions.get(&name.rendition).map(|rendition| &rendition.inits);
                let is_named = |init: &InitEntry| (init.epoch, init.version) == (name.epoch, version);
                inits.is_some_and(|inits| inits.iter().any(is_named)) || (grows && name.epoch > state.epoch)
            }
            ObjectKind::Segment(msn, generation) => listed.has_segment(msn, generation),
            ObjectKind::Part(msn, generation, part) => {
                listed.has_part(msn, generation, part) || (grows && listed.may_come(msn, generation, part))
            }
        }
    }
}

/// What one rendition's playlist lists, as objects of one epoch.
struct Listed<'a> {
    state: &'a StreamState,
    rendition: &'a Rendition,
    epoch: Epoch,
    position: PlaylistPosition,
}

impl Listed<'_> {
    fn slot(&self, msn: Msn) -> Option<&SegmentSlot> {
        let is_recent = msn.0 + RECENT >= self.position.open_msn;
        let slot = self.state.slots.iter().rev().find(|slot| slot.msn == msn).filter(|_| is_recent)?;
        (slot.epoch == self.epoch).then_some(slot)
    }

    fn track(&self, msn: Msn) -> Option<&RenditionSegment> {
        self.slot(msn)?.tracks.get(self.rendition)
    }

    fn has_segment(&self, msn: Msn, generation: Generation) -> bool {
        let segment = self.track(msn).and_then(|track| track.segment.as_ref());
        segment.is_some_and(|segment| segment.generation == generation)
    }

    fn has_part(&self, msn: Msn, generation: Generation, part: PartIndex) -> bool {
        let Some(track) = self.track(msn) else { return false };
        match (track.parts.get(part.0 as usize), &track.segment) {
            (Some(part), _) => !part.gap && part.generation == generation,
            // The parts of an older segment are no longer listed one by one.
            (None, Some(segment)) => track.parts.is_empty() && part.0 < segment.parts,
            (None, None) => false,
        }
    }

    /// Returns true if the part may be the next one of the open segment, or one that another edge lists before this one:
    /// made by the log's writer or a newer one, and no later than a little after the newest part.
    fn may_come(&self, msn: Msn, generation: Generation, part: PartIndex) -> bool {
        if (self.epoch, generation) < (self.state.epoch, self.state.generation) {
            return false;
        }
        let PlaylistPosition { open_msn, open_parts, .. } = self.position;
        let is_near = match msn.0.checked_sub(open_msn) {
            Some(0) => (open_parts..=open_parts + AHEAD).contains(&part.0),
            Some(1) => part.0 < AHEAD,
            _ => false,
        };
        let slot = self.state.slots.iter().rev().find(|slot| slot.msn == msn);
        let is_gap =
            slot.is_some_and(|slot| slot.gap.is_some() || slot.rendition_gaps.contains_key(self.rendition));
        is_near && !is_gap
    }
}
