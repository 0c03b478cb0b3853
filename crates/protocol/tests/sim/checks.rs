//! The checks of every state an edge shows, and of every playlist rendered from it.

use std::collections::BTreeMap;

use bytes::Bytes;
use millrace_media::hls::checker::{Checker, Rule, Violation};
use millrace_protocol::playlist::media_with_reports;
use millrace_protocol::state::query::{ListingEnd, is_gap_in, is_parts_laid_together, listing_end};
use millrace_wire::fact::StreamState;
use millrace_wire::ids::*;

use super::nodes::{part_name, segment_name};
use super::world::World;

/// Most jobs on all workers together: each epoch leaves a few behind that finish their uploads.
const MAX_JOBS: usize = 40;

/// Rules that schedules with several epochs and generations break by design: a replaced writer's positions change their
/// names once, to the newer generation (ADR 1); a GAP at the start of the window takes the initialisation section of the
/// media that follow it; EXT-X-DISCONTINUITY of the window's first segment counts as removed; and an absence may last
/// longer than the numbers it leaves unused.
const BROKEN_BY_FAILOVER: [Rule; 4] =
    [Rule::SegmentChanged, Rule::PartChanged, Rule::DiscontinuitySequenceMiscounted, Rule::GapMissing];

/// Checks the playlists of one edge as one viewer fetches them. Each log has a viewer of its own.
#[derive(Default)]
pub struct PlaylistCheckers {
    log: Option<(Epoch, Generation)>,
    by_rendition: BTreeMap<Rendition, Checker>,
}

impl PlaylistCheckers {
    /// Checks the playlists of a state that is shown now, and returns the rules they break.
    fn check(&mut self, shown: &StreamState) -> Vec<(Rendition, Violation)> {
        let log = Some((shown.epoch, shown.generation));
        if self.log != log {
            *self = Self { log, ..Self::default() };
        }
        let mut found = Vec::new();
        for name in shown.renditions.keys() {
            let Some(playlist) = media_with_reports(shown, name) else { continue };
            let checker = self.by_rendition.entry(name.clone()).or_default();
            found.extend(checker.check_playlist(&playlist).into_iter().map(|v| (name.clone(), v)));
        }
        found
    }
}

impl World {
    /// Checks the state that an edge shows now against the one it showed before.
    pub fn check_edge(&mut self, i: usize) {
        let now = self.now;
        let edge = &mut self.edges[i];
        let Some(new) = edge.reader.shown().map(|shown| (**shown).clone()) else { return };
        let summary = || crate::summary(&new);
        let contiguous = new.slots.iter().zip(new.slots.iter().skip(1)).all(|(a, b)| a.msn.next() == b.msn);
        assert!(contiguous, "edge {i}: numbers are not contiguous");
        let sorted = new.slots.iter().is_sorted_by_key(|slot| slot.discontinuity_sequence);
        assert!(sorted, "edge {i}: discontinuity sequence falls within the window: {}", summary());
        if self.trace {
            let ends: Vec<_> = new.renditions.keys().map(|name| listing_end(&new, name)).collect();
            let (epoch, generation, seq, first) = (new.epoch, new.generation, new.seq, new.first_msn);
            eprintln!("{now} edge {i} shows {epoch}/{generation}/{seq} from {first} {ends:?}");
        }
        if self.checks_playlists {
            let is_allowed = |rule| self.has_failovers && BROKEN_BY_FAILOVER.contains(&rule);
            let violations = edge.playlists.check(&new).into_iter().filter(|(_, v)| !is_allowed(v.rule));
            let text: Vec<_> = violations.map(|(name, v)| format!("{name}: {v}")).collect();
            assert!(text.is_empty(), "{now}: edge {i}: {text:#?} in {}", summary());
        }
        let old = edge.seen.replace(new.clone());
        self.check_segments(i, &new);
        if let Some(old) = old {
            self.check_succession(i, &old, &new);
        }
    }

    /// Checks that an edge's bytes of each segment that it shows are those that the store has under the segment's name: its
    /// parts laid end to end, or what came with the fact.
    fn check_segments(&self, i: usize, shown: &StreamState) {
        let now = self.now;
        for slot in &shown.slots {
            for (rendition, track) in &slot.tracks {
                let Some(segment) = &track.segment else { continue };
                let by = segment.generation;
                let Some(stored) = self.bodies.get(&(slot.epoch, by, rendition.clone(), slot.msn)) else {
                    continue;
                };
                let part = |part| self.names.get(&part_name(rendition, slot.epoch, (slot.msn, by), part));
                let held = if is_parts_laid_together(track) {
                    let parts: Option<Vec<_>> = (0..segment.parts).map(part).collect();
                    parts.map(|parts| Bytes::from(parts.into_iter().flatten().copied().collect::<Vec<u8>>()))
                } else {
                    self.names.get(&segment_name(rendition, slot.epoch, (slot.msn, by))).cloned()
                };
                let is_same = held.is_none_or(|held| held == *stored);
                assert!(is_same, "{now}: edge {i}: segment {} of {rendition} has two contents", slot.msn);
            }
        }
    }

    /// Checks that nothing an edge has shown goes back.
    fn check_succession(&self, i: usize, old: &StreamState, new: &StreamState) {
        let at = self.now;
        assert!(new.first_msn >= old.first_msn, "{at}: edge {i}: media sequence fell");
        let discontinuity = |state: &StreamState| state.slots.front().map(|slot| slot.discontinuity_sequence);
        assert!(
            new.slots.is_empty() || discontinuity(new) >= discontinuity(old),
            "{at}: edge {i}: discontinuity sequence fell"
        );
        for (name, rendition) in &old.renditions {
            let (before, after) = (end_of(old, name), end_of(new, name));
            // A segment whose log writer died before it was closed is a GAP once the next epoch opens, or if its successor
            // cannot encode it; when its ingest node died too, another log writer may close it short.
            let slot = new.slots.iter().find(|slot| slot.msn == after.msn);
            let excused = slot.is_some_and(|s| is_gap_in(s, name) || self.lost_epochs.contains(&s.epoch));
            let short = excused && after.msn == before.msn && after.closed;
            assert!(after >= before || short, "{at}: edge {i}: {name} fell from {before:?} to {after:?}");
            // A blackout may lose the fact of a rendition's end before any checkpoint has it.
            let is_lost = new.epoch > old.epoch && self.lost_epochs.contains(&old.epoch);
            let is_kept = rendition.ended.is_none()
                || is_lost
                || new.broadcast != old.broadcast
                || new.renditions.get(name).is_some_and(|rendition| rendition.ended.is_some());
            assert!(is_kept, "{at}: edge {i}: ENDLIST of {name} taken back");
        }
        assert!(!old.ended || new.ended || new.epoch > old.epoch, "{at}: edge {i}: ENDLIST taken back");
    }

    /// Checks that nothing grows without bound.
    pub fn check_bounds(&mut self) {
        let jobs: usize = self.workers.iter().map(|worker| worker.jobs.len()).sum();
        assert!(jobs <= MAX_JOBS, "{jobs} jobs");
    }

    /// Returns the numbers that are indexed of a rendition in an epoch, in the order of their segments.
    pub fn indexed(&self, epoch: Epoch, rendition: &Rendition) -> Vec<u64> {
        let name = || rendition.clone();
        let own = self.index.range((epoch, name(), Msn(0))..=(epoch, name(), Msn(u64::MAX)));
        own.flat_map(|(_, numbers)| numbers.clone()).collect()
    }
}

/// Returns the end of a rendition's listing; without one, everything below the window's start counts as complete.
fn end_of(state: &StreamState, rendition: &Rendition) -> ListingEnd {
    let nothing = ListingEnd { msn: Msn(state.first_msn.0 - 1), parts: u32::MAX, closed: true };
    listing_end(state, rendition).unwrap_or(nothing)
}
