//! The fold: a log of facts becomes the state every playlist is rendered from. A pure function of the log, so all
//! readers of one log agree.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use millrace_wire::fact::{
    EpochOpen, Fact, Gap, InitEntry, MAX_SLOTS, MediaDuration, Part, PartEntry, RenditionSegment,
    RenditionState, Segment, SegmentEntry, SegmentSlot, StreamState,
};
use millrace_wire::ids::{
    BroadcastId, DiscontinuitySeq, Epoch, FactSeq, Generation, Msn, Rendition, UnixMillis,
};

/// Parts stay in the state for this many target durations from the end: one more than playlists must list them
/// (RFC 8216bis §6.2.2), because renditions differ in length.
pub const PARTS_KEPT: u64 = 4;
/// A hole in the numbers between epochs is filled with GAP segments up to this many; a longer one empties the window.
pub const MAX_HOLE: u64 = 16;

/// A state nobody has written to yet.
pub fn empty(broadcast: BroadcastId) -> StreamState {
    StreamState {
        broadcast,
        epoch: Epoch(0),
        generation: Generation(0),
        seq: FactSeq(0),
        target_duration: 0,
        opened: false,
        sealed: false,
        ended: false,
        first_msn: Msn(0),
        slots: VecDeque::new(),
        renditions: BTreeMap::new(),
    }
}

/// The state at fact 0 of a log: its base under the log's own position.
pub fn takeover(epoch: Epoch, generation: Generation, base: &StreamState) -> StreamState {
    let same = base.epoch == epoch;
    StreamState {
        epoch,
        generation,
        seq: FactSeq(0),
        opened: base.opened && same,
        sealed: base.sealed && same,
        ..base.clone()
    }
}

/// Applies fact number `seq` of the state's own log. What contradicts the state is ignored, by every reader alike.
pub fn apply(view: &mut StreamState, seq: FactSeq, fact: &Fact) {
    match fact {
        Fact::Takeover { base } => *view = takeover(view.epoch, view.generation, base),
        Fact::EpochOpen(open) => epoch_open(view, open),
        Fact::Init { rendition, version, info } => {
            let (epoch, generation) = (view.epoch, view.generation);
            let entry = InitEntry { epoch, version: *version, generation, seq, info: info.clone() };
            let inits = &mut view.renditions.entry(rendition.clone()).or_default().inits;
            match inits.iter_mut().find(|i| (i.epoch, i.version) == (epoch, *version)) {
                Some(old) => *old = entry,
                None => inits.push(entry),
            }
        }
        Fact::PartTarget { rendition, target } => {
            view.renditions.entry(rendition.clone()).or_default().part_target.get_or_insert(*target);
        }
        Fact::Part(part) => add_part(view, seq, part),
        Fact::Segment(segment) => add_segment(view, seq, segment),
        Fact::Stored { rendition, msn } => {
            if let Some(track) = slot_mut(view, *msn).and_then(|s| s.tracks.get_mut(rendition)) {
                track.stored = true;
            }
        }
        Fact::Gap(gap) => add_gap(view, gap),
        Fact::Seal { .. } => view.sealed = true,
        Fact::End => view.ended = true,
        Fact::Trim { first } => trim(view, *first),
    }
    view.seq = seq;
}

/// TARGETDURATION, or the default before it is known.
fn target(view: &StreamState) -> MediaDuration {
    MediaDuration { ticks: u64::from(view.target_duration.max(1)), timescale: 1 }
}

fn epoch_open(view: &mut StreamState, open: &EpochOpen) {
    let fresh = open.broadcast != view.broadcast || view.slots.is_empty();
    // Numbers of an earlier broadcast are never used again, not even for GAPs.
    let next = view.slots.back().map_or(view.first_msn, |s| s.msn.next());
    if open.broadcast != view.broadcast {
        view.renditions.clear();
    }
    if fresh || open.first_msn.0.saturating_sub(next.0) > MAX_HOLE {
        view.slots.clear();
        view.first_msn = next
            .max(Msn(open.first_msn.0.saturating_sub(u64::from(open.lead_gaps))))
            .min(open.first_msn)
            .max(view.first_msn);
    }
    view.broadcast = open.broadcast;
    view.target_duration = open.target_duration;
    (view.opened, view.sealed, view.ended) = (true, false, false);
    let gap = target(view);
    // A segment its author never closed, in whatever rendition, will not be closed any more.
    for slot in view.slots.iter_mut().filter(|slot| slot.gap.is_none()) {
        let closed = |r| slot.tracks.get(r).is_some_and(|t| t.segment.is_some());
        if !view.renditions.keys().all(closed) {
            let length = slot_duration(slot).unwrap_or(gap);
            Arc::make_mut(slot).gap = Some(length);
        }
    }
    let start = view.slots.back().map_or(view.first_msn, |s| s.msn.next());
    let before = view.slots.back().map(|s| s.discontinuity_sequence.0);
    let discontinuity = before
        .map_or(open.discontinuity_sequence.0, |b| b.max(open.discontinuity_sequence.0.saturating_sub(1)));
    let ms = gap.as_millis();
    for msn in start.0..open.first_msn.0 {
        let back = (open.first_msn.0 - msn) * ms;
        // Numbers may have been used up faster than time: the clock stands still rather than going back.
        let began = view.slots.back().map_or(0, |s| s.program_date_time.0);
        view.slots.push_back(Arc::new(SegmentSlot {
            msn: Msn(msn),
            epoch: view.epoch,
            discontinuity_sequence: DiscontinuitySeq(discontinuity),
            program_date_time: UnixMillis(open.program_date_time.0.saturating_sub(back).max(began)),
            gap: Some(gap),
            tracks: BTreeMap::new(),
        }));
    }
    bound(view);
}

fn slot_mut(view: &mut StreamState, msn: Msn) -> Option<&mut SegmentSlot> {
    let first = view.slots.front()?.msn;
    let i = usize::try_from(msn.0.checked_sub(first.0)?).ok()?;
    view.slots.get_mut(i).map(Arc::make_mut)
}

/// The slot of `msn`, made with any slots missing below it; `None` when `msn` has left the window.
fn slot_at(
    view: &mut StreamState,
    msn: Msn,
    discontinuity: DiscontinuitySeq,
    pdt: UnixMillis,
) -> Option<&mut SegmentSlot> {
    if msn < view.first_msn {
        return None;
    }
    let start = view.slots.back().map_or(msn.0, |s| s.msn.0.saturating_add(1));
    if msn.0.saturating_sub(start) > MAX_HOLE {
        return None;
    }
    let (epoch, gap) = (view.epoch, target(view));
    for n in start..=msn.0 {
        view.slots.push_back(Arc::new(SegmentSlot {
            msn: Msn(n),
            epoch,
            discontinuity_sequence: discontinuity,
            program_date_time: pdt,
            gap: (n < msn.0).then_some(gap),
            tracks: BTreeMap::new(),
        }));
    }
    bound(view);
    slot_mut(view, msn)
}

fn add_part(view: &mut StreamState, seq: FactSeq, part: &Part) {
    let generation = view.generation;
    let Some(slot) = slot_at(view, part.msn, part.discontinuity_sequence, part.program_date_time) else {
        return;
    };
    if slot.gap.is_some() {
        return;
    }
    let track = track(slot, &part.rendition, part.init_version);
    if track.segment.is_some() || part.part.0 as usize != track.parts.len() {
        return;
    }
    let Part { duration, independent, bytes, gap, .. } = *part;
    track.parts.push(PartEntry { generation, seq, duration, independent, bytes, gap });
}

fn track<'a>(
    slot: &'a mut SegmentSlot,
    rendition: &Rendition,
    init_version: millrace_wire::ids::InitVersion,
) -> &'a mut RenditionSegment {
    slot.tracks.entry(rendition.clone()).or_insert_with(|| RenditionSegment {
        init_version,
        parts: Vec::new(),
        segment: None,
        stored: false,
    })
}

fn add_segment(view: &mut StreamState, seq: FactSeq, segment: &Segment) {
    let generation = view.generation;
    let Some(slot) = slot_at(view, segment.msn, segment.discontinuity_sequence, segment.program_date_time)
    else {
        return;
    };
    if slot.gap.is_some() {
        return;
    }
    let track = track(slot, &segment.rendition, segment.init_version);
    if track.segment.as_ref().is_some_and(|old| old.generation >= generation) {
        return;
    }
    let Segment { duration, independent, bytes, parts, .. } = *segment;
    let known = track.segment.is_some();
    track.segment = Some(SegmentEntry { generation, seq, duration, independent, bytes, parts });
    track.stored = false;
    if !known {
        prune_parts(view);
    }
}

fn add_gap(view: &mut StreamState, gap: &Gap) {
    if let Some(slot) = slot_at(view, gap.msn, gap.discontinuity_sequence, gap.program_date_time) {
        slot.gap.get_or_insert(gap.duration);
        prune_parts(view);
    }
}

fn trim(view: &mut StreamState, first: Msn) {
    if first <= view.first_msn {
        return;
    }
    view.first_msn = first;
    while view.slots.front().is_some_and(|s| s.msn < first) {
        view.slots.pop_front();
    }
    for (name, RenditionState { inits, .. }) in &mut view.renditions {
        let last = inits.last().map(|i| (i.epoch, i.version));
        inits.retain(|i| {
            Some((i.epoch, i.version)) == last
                || view.slots.iter().any(|s| {
                    s.epoch == i.epoch && s.tracks.get(name).is_some_and(|t| t.init_version == i.version)
                })
        });
    }
}

fn bound(view: &mut StreamState) {
    if view.slots.len() > MAX_SLOTS {
        let first = view.slots[view.slots.len() - MAX_SLOTS].msn;
        trim(view, first);
    }
}

/// How long a slot lasts: its longest complete track, else its stated gap.
pub fn slot_duration(slot: &SegmentSlot) -> Option<MediaDuration> {
    let longest = slot.tracks.values().filter_map(|t| t.segment.as_ref().map(|s| s.duration));
    longest.max_by_key(|d| d.as_millis()).or(slot.gap)
}

/// How long a slot lasts as far as anything says: see [`slot_duration`], else the parts it has.
pub fn slot_length(slot: &SegmentSlot) -> Option<MediaDuration> {
    slot_duration(slot).or_else(|| {
        let parts = slot.tracks.values().filter_map(|track| {
            let timescale = track.parts.first()?.duration.timescale;
            let ticks = track.parts.iter().map(|part| part.duration.ticks).sum();
            Some(MediaDuration { ticks, timescale })
        });
        parts.filter(|length| length.ticks > 0).max_by_key(|length| length.as_millis())
    })
}

fn prune_parts(view: &mut StreamState) {
    let keep = u64::from(view.target_duration.max(1)) * 1000 * PARTS_KEPT;
    let mut after = 0;
    for slot in view.slots.iter_mut().rev() {
        if after > keep && slot.tracks.values().any(|t| t.segment.is_some() && !t.parts.is_empty()) {
            let tracks = Arc::make_mut(slot).tracks.values_mut();
            tracks.filter(|t| t.segment.is_some()).for_each(|t| t.parts.clear());
        }
        after += slot_duration(slot).map_or(0, MediaDuration::as_millis);
    }
}

/// Where a rendition's listing ends: its last segment, the parts it has there, and whether it is complete.
pub fn end_of(view: &StreamState, rendition: &Rendition) -> Option<(Msn, u32, bool)> {
    view.slots.iter().rev().find_map(|slot| match slot.tracks.get(rendition) {
        Some(RenditionSegment { segment: Some(s), .. }) => Some((slot.msn, s.parts, true)),
        Some(t) => Some((slot.msn, t.parts.len() as u32, slot.gap.is_some())),
        None => slot.gap.map(|_| (slot.msn, 0, true)),
    })
}

/// The oldest segment of `epoch` that may not be in the store: where a replacement resumes. A rendition lags behind
/// another by less than two segments, so what a slot lacks two slots later will not come.
pub fn resume_msn(view: &StreamState, epoch: Epoch, first: Msn) -> Msn {
    let mine = || view.slots.iter().filter(|s| s.epoch == epoch && s.msn >= first);
    let last = mine().next_back().map(|s| s.msn);
    let open = mine().find(|slot| {
        let here = slot.tracks.values().all(|t| t.stored);
        let all = view.renditions.keys().all(|r| slot.tracks.contains_key(r)) && !slot.tracks.is_empty();
        slot.gap.is_none() && !(here && (all || view.sealed || last.is_some_and(|l| l.0 >= slot.msn.0 + 2)))
    });
    open.map(|s| s.msn).or(last.map(Msn::next)).unwrap_or(first)
}

/// The new media sequence number that leaves at least `window_ms` of complete segments, if it is to grow.
pub fn trim_to(view: &StreamState, window_ms: u64) -> Option<Msn> {
    // RFC 8216 §6.2.2: at least three target durations stay.
    trim_after(view, window_ms.max(u64::from(view.target_duration.max(1)) * 3000))
}

/// The first number of those that are needed for more than `keep` milliseconds, if there are others.
pub(crate) fn trim_after(view: &StreamState, keep: u64) -> Option<Msn> {
    let mut after = 0;
    for slot in view.slots.iter().rev() {
        if after > keep {
            return (slot.msn.next() > view.first_msn).then_some(slot.msn.next());
        }
        after += slot_duration(slot).map_or(0, MediaDuration::as_millis);
    }
    None
}

/// Whether `epoch` is sealed and everything of it is in the store.
pub fn is_stored(view: &StreamState, epoch: Epoch) -> bool {
    let mut mine = view.slots.iter().filter(|s| s.epoch == epoch && s.gap.is_none());
    view.epoch == epoch && view.sealed && mine.all(|s| s.tracks.values().all(|t| t.stored))
}
