//! From the folded log to playlists: a pure function, so that all edges, and the author that publishes playlists into
//! the bucket, say the same.

use std::sync::Arc;
use std::time::Duration;

use millrace_media::hls::{
    Map, MediaPlaylist, MediaRendition, MultivariantPlaylist, OpenSegment, Part, PreloadHint,
    RenditionReport, Segment, ServerControl, Start, Variant, part_hold_back,
};
use millrace_wire::fact::{MediaDuration, Slot, Snapshot, TrackInfo, TrackMedia, TrackSlot};
use millrace_wire::ids::{Generation, Msn, Rendition};

use crate::view::slot_duration;

/// The audio group of every variant.
const AUDIO_GROUP: &str = "audio";
/// See [`join_point`]: half a frame at 25 frames a second.
const START_INSIDE: Duration = Duration::from_millis(20);
/// The author of names nobody has: grants begin at 1.
const NOBODY: Generation = Generation(0);

/// How far a media playlist has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Head {
    /// Media sequence number of the open segment: the one after the last complete one.
    pub open_msn: u64,
    /// Parts of the open segment.
    pub open_parts: u32,
    /// Parts of the segment before it.
    pub previous_parts: u32,
    /// No more will come.
    pub ended: bool,
}

/// What a blocking reload may be answered with (RFC 8216bis §6.2.5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The playlist has it.
    Now,
    /// It will come.
    Later,
    /// Beyond what a client may ask for: 400.
    TooFar,
}

/// A client may ask for segments this far above the last complete one (RFC 8216bis §6.2.5.2).
const MAX_MSN_AHEAD: u64 = 2;
/// Parts a client may ask for beyond the newest: three is what the RFC names for short parts, and a client
/// that lost a second of parts may skip some.
const MAX_PARTS_AHEAD: u32 = 8;

impl Head {
    /// Whether the playlist holds segment `msn`, or its part `part`.
    pub fn reach(&self, msn: u64, part: Option<u32>) -> Reach {
        if self.ended {
            return Reach::Now;
        }
        let Some(part) = part else {
            return match msn {
                m if m < self.open_msn => Reach::Now,
                m if m < self.open_msn.saturating_add(MAX_MSN_AHEAD) => Reach::Later,
                _ => Reach::TooFar,
            };
        };
        // A part beyond the last one of its segment means the first of the next segment.
        let (msn, part) = match msn {
            m if m.saturating_add(1) == self.open_msn && part >= self.previous_parts => (self.open_msn, 0),
            m => (m, part),
        };
        if msn < self.open_msn || (msn == self.open_msn && part < self.open_parts) {
            Reach::Now
        } else if msn == self.open_msn && part >= self.open_parts + MAX_PARTS_AHEAD
            || msn >= self.open_msn + MAX_MSN_AHEAD
        {
            Reach::TooFar
        } else {
            Reach::Later
        }
    }
}

fn duration(d: MediaDuration) -> Duration {
    // Playlists are written to the microsecond; rounded, so that sums stay close to the media.
    let timescale = u128::from(d.timescale.max(1));
    let us = (u128::from(d.ticks) * 1_000_000 + timescale / 2) / timescale;
    Duration::from_micros(u64::try_from(us).unwrap_or(u64::MAX))
}

fn segment_uri(slot: &Slot, generation: Generation) -> Arc<str> {
    format!("{}/{}.{generation}.m4s", slot.epoch, slot.msn).into()
}

fn part_uri(slot: &Slot, generation: Generation, part: usize) -> Arc<str> {
    format!("{}/{}.{generation}.{part}.m4s", slot.epoch, slot.msn).into()
}

fn map(slot: &Slot, track: &TrackSlot) -> Map {
    Map { uri: format!("{}/init-{}.mp4", slot.epoch, track.init_version).into() }
}

/// A rendition's playlist and how far it has come; `None` while it has nothing to play.
pub fn media(snapshot: &Snapshot, rendition: &Rendition) -> Option<(MediaPlaylist, Head)> {
    let part_target = snapshot.renditions.get(rendition)?.part_target.map(duration);
    let mut walk = Walk {
        rendition,
        part_target,
        segments: Vec::new(),
        open: None,
        map: None,
        independent: true,
        parts: 0,
        last: snapshot.slots.iter().rev().find(|s| s.tracks.contains_key(rendition)).map(|s| s.msn),
        target: MediaDuration { ticks: u64::from(snapshot.target_duration), timescale: 1 },
    };
    let first_map = snapshot.slots.iter().find_map(|s| s.tracks.get(rendition).map(|t| map(s, t)))?;
    walk.map = Some(first_map);
    let mut last: Option<u64> = None;
    for slot in &snapshot.slots {
        let discontinuity = last.is_some_and(|d| d != slot.discontinuity_sequence.0);
        last = Some(slot.discontinuity_sequence.0);
        if !walk.slot(slot, discontinuity) {
            break;
        }
    }
    if walk.segments.iter().all(|s| s.gap) && walk.open.as_ref().is_none_or(|o| o.parts.is_empty()) {
        return None;
    }
    Some(walk.finish(snapshot))
}

struct Walk<'a> {
    rendition: &'a Rendition,
    part_target: Option<Duration>,
    segments: Vec<Segment>,
    open: Option<OpenSegment>,
    map: Option<Map>,
    /// Every listed segment starts with a keyframe.
    independent: bool,
    /// Parts of the newest complete segment.
    parts: u32,
    /// The newest segment the rendition has anything of.
    last: Option<Msn>,
    /// TARGETDURATION, for what has no length of its own.
    target: MediaDuration,
}

impl Walk<'_> {
    /// Lists a slot; `false` when the rendition goes no further.
    fn slot(&mut self, slot: &Slot, discontinuity: bool) -> bool {
        let program_date_time = Some(slot.program_date_time.0 as i64);
        let track = slot.tracks.get(self.rendition);
        if let Some(track) = track {
            self.map = Some(map(slot, track));
        }
        let map = self.map.clone();
        let parts = track.map(|t| listed_parts(slot, t)).unwrap_or_default();
        let complete = track.and_then(|t| t.segment.as_ref());
        let segment = match (complete, slot.gap) {
            (Some(s), _) => {
                self.parts = s.parts;
                self.independent &= s.independent;
                Segment {
                    uri: segment_uri(slot, s.generation),
                    duration: duration(s.duration),
                    parts,
                    ..Segment::default()
                }
            }
            (None, Some(length)) => self.gap(slot, duration(length), parts),
            // Only the others have media here; this rendition goes on later.
            (None, None) if track.is_none() && self.last > Some(slot.msn) => {
                self.gap(slot, duration(slot_duration(slot).unwrap_or(self.target)), parts)
            }
            (None, None) => {
                if track.is_some() {
                    self.open = Some(OpenSegment { discontinuity, map, program_date_time, parts });
                }
                return false;
            }
        };
        self.segments.push(Segment { discontinuity, map, program_date_time, ..segment });
        true
    }

    /// A segment nobody has. Its parts are listed as gaps too: hls.js starts a window whose only media are parts of the
    /// open segment when a segment with parts stands below it (ADR 0002).
    fn gap(&mut self, slot: &Slot, length: Duration, had: Vec<Part>) -> Segment {
        let target = self.part_target.filter(|t| !t.is_zero());
        let count = target.map_or(0, |t| (length.as_micros() / t.as_micros()) as usize);
        let missing = |part| Part {
            uri: part_uri(slot, NOBODY, part),
            duration: target.unwrap_or_default(),
            independent: false,
            gap: true,
        };
        let parts: Vec<Part> = if had.is_empty() { (0..count).map(missing).collect() } else { had };
        self.parts = parts.len() as u32;
        Segment { uri: segment_uri(slot, NOBODY), duration: length, gap: true, parts, ..Segment::default() }
    }

    fn finish(self, snapshot: &Snapshot) -> (MediaPlaylist, Head) {
        let first = snapshot.slots.front();
        let low_latency = self.part_target.is_some();
        let mut playlist = MediaPlaylist {
            target_duration: snapshot.target_duration,
            part_target: self.part_target,
            server_control: Some(ServerControl {
                can_block_reload: true,
                part_hold_back: self.part_target.map(part_hold_back),
                hold_back: Some(Duration::from_secs(3 * u64::from(snapshot.target_duration))),
                can_skip_until: None,
            }),
            media_sequence: first.map_or(snapshot.first_msn.0, |s| s.msn.0),
            discontinuity_sequence: first.map_or(0, |s| s.discontinuity_sequence.0),
            independent_segments: self.independent,
            segments: self.segments,
            open: self.open,
            ended: snapshot.ended,
            ..MediaPlaylist::default()
        };
        let (open_msn, open_parts) = playlist.position();
        if low_latency && !snapshot.ended {
            playlist.preload_hint = Some(PreloadHint::Part(hint(snapshot, open_msn, open_parts)));
        }
        playlist.drop_old_parts();
        playlist.start = join_point(&playlist);
        let head = Head {
            open_msn,
            open_parts: open_parts as u32,
            previous_parts: self.parts,
            ended: snapshot.ended,
        };
        (playlist, head)
    }
}

/// Where a player is to begin when segments may start without a keyframe: at the newest independent part or segment that
/// is a hold-back from the end (ADR 0002). None where any segment will do.
fn join_point(playlist: &MediaPlaylist) -> Option<Start> {
    if playlist.independent_segments || playlist.ended {
        return None;
    }
    let hold_back = playlist.server_control.and_then(|c| c.part_hold_back)?;
    let open = playlist.open.iter().flat_map(|o| o.parts.iter().rev().map(|p| (p.duration, p.independent)));
    // A segment without parts says nothing of its keyframes.
    let complete = playlist.segments.iter().rev().take_while(|s| !s.gap && !s.parts.is_empty());
    let complete = complete.flat_map(|s| s.parts.iter().rev().map(|p| (p.duration, p.independent)));
    let mut back = Duration::ZERO;
    for (length, independent) in open.chain(complete) {
        back += length;
        if independent && back >= hold_back {
            // A little after the keyframe: rounding must not land in the part before it.
            let offset = back.saturating_sub(START_INSIDE).as_millis();
            return Some(Start {
                time_offset_ms: i32::try_from(offset).ok().map(i32::wrapping_neg)?,
                precise: true,
            });
        }
    }
    None
}

/// The parts up to the first that is not there: a later one must wait for it.
fn listed_parts(slot: &Slot, track: &TrackSlot) -> Vec<Part> {
    let part = |(i, p): (usize, &millrace_wire::fact::PartEntry)| Part {
        uri: part_uri(slot, p.generation, i),
        duration: duration(p.duration),
        independent: p.independent,
        gap: p.gap,
    };
    track.parts.iter().enumerate().map(part).collect()
}

/// The name the author will give the next part.
fn hint(snapshot: &Snapshot, msn: u64, part: usize) -> Arc<str> {
    let slot = snapshot.slots.iter().find(|s| s.msn.0 == msn);
    let epoch = slot.map_or(snapshot.epoch, |s| s.epoch);
    format!("{epoch}/{msn}.{}.{part}.m4s", snapshot.generation).into()
}

/// Path of a rendition's playlist relative to the multivariant playlist.
fn playlist_uri(rendition: &Rendition) -> String {
    format!("{rendition}/index.m3u8")
}

/// All media playlists, with the rendition reports that tie them together (RFC 8216bis §4.4.5.4).
pub fn all_media(snapshot: &Snapshot) -> Vec<(Rendition, MediaPlaylist, Head)> {
    let mut all: Vec<_> = snapshot
        .renditions
        .keys()
        .filter_map(|r| media(snapshot, r).map(|(playlist, head)| (r.clone(), playlist, head)))
        .collect();
    if snapshot.ended {
        return all;
    }
    let reports: Vec<_> = all.iter().map(|(r, _, head)| (r.clone(), report(r, *head))).collect();
    for (rendition, playlist, _) in &mut all {
        let others = reports.iter().filter(|(r, _)| r != rendition);
        playlist.rendition_reports = others.map(|(_, report)| report.clone()).collect();
    }
    all
}

fn report(rendition: &Rendition, head: Head) -> RenditionReport {
    let uri = format!("../{}", playlist_uri(rendition)).into();
    let (last_msn, parts) = match head.open_parts {
        0 => (head.open_msn.saturating_sub(1), head.previous_parts),
        parts => (head.open_msn, parts),
    };
    RenditionReport { uri, last_msn, last_part: parts.checked_sub(1).map(u64::from) }
}

/// All media playlists as a bucket serves them: nobody waits for anything there, so no parts, hints or reports.
pub fn plain_media(snapshot: &Snapshot) -> Vec<(Rendition, MediaPlaylist)> {
    let plain = |rendition: &Rendition| {
        let (full, _) = media(snapshot, rendition)?;
        let mut segments = full.segments;
        if segments.iter().all(|s| s.gap) {
            return None;
        }
        for segment in &mut segments {
            segment.parts.clear();
        }
        let playlist = MediaPlaylist {
            target_duration: full.target_duration,
            media_sequence: full.media_sequence,
            discontinuity_sequence: full.discontinuity_sequence,
            independent_segments: full.independent_segments,
            segments,
            ended: full.ended,
            ..MediaPlaylist::default()
        };
        Some((rendition.clone(), playlist))
    };
    snapshot.renditions.keys().filter_map(plain).collect()
}

/// The multivariant playlist; `None` while no rendition is described.
pub fn multivariant(snapshot: &Snapshot) -> Option<MultivariantPlaylist> {
    let described = |(r, state): (&Rendition, &millrace_wire::fact::RenditionState)| {
        state.inits.last().map(|init| (r.clone(), init.info.clone()))
    };
    let (audio, mut video): (Vec<_>, Vec<_>) = snapshot
        .renditions
        .iter()
        .filter_map(described)
        .partition(|(_, info)| matches!(info.media, TrackMedia::Audio { .. }));
    video.sort_by_key(|(_, info)| std::cmp::Reverse(info.bandwidth));
    let mut playlist = MultivariantPlaylist::default();
    if video.is_empty() {
        playlist.variants = audio.iter().map(|(r, info)| variant(r, info, None)).collect();
    } else {
        playlist.audio =
            audio.iter().enumerate().map(|(i, (r, info))| audio_rendition(r, info, i == 0)).collect();
        let heaviest = audio.iter().map(|(_, info)| info).max_by_key(|info| info.bandwidth);
        playlist.variants = video.iter().map(|(r, info)| variant(r, info, heaviest)).collect();
    }
    (!playlist.variants.is_empty()).then_some(playlist)
}

fn audio_rendition(rendition: &Rendition, info: &TrackInfo, default: bool) -> MediaRendition {
    let channels = match info.media {
        TrackMedia::Audio { channels, .. } => Some(channels),
        TrackMedia::Video { .. } => None,
    };
    MediaRendition {
        group_id: AUDIO_GROUP.to_owned(),
        name: rendition.to_string(),
        uri: Some(playlist_uri(rendition)),
        language: None,
        default,
        autoselect: true,
        channels,
    }
}

fn variant(rendition: &Rendition, info: &TrackInfo, audio: Option<&TrackInfo>) -> Variant {
    let (resolution, frame_rate_milli) = match info.media {
        TrackMedia::Video { width, height, frame_rate_milli } => (Some((width, height)), frame_rate_milli),
        TrackMedia::Audio { .. } => (None, None),
    };
    let codecs = audio.map_or_else(|| info.codecs.clone(), |a| format!("{},{}", info.codecs, a.codecs));
    Variant {
        uri: playlist_uri(rendition),
        bandwidth: info.bandwidth + audio.map_or(0, |a| a.bandwidth),
        average_bandwidth: None,
        codecs,
        resolution,
        frame_rate_milli,
        audio: audio.map(|_| AUDIO_GROUP.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_reload_may_ask_for() {
        let head = Head { open_msn: 10, open_parts: 3, previous_parts: 5, ended: false };
        for (msn, part, reach) in [
            (9, None, Reach::Now),
            (10, None, Reach::Later),
            (11, None, Reach::Later),
            (12, None, Reach::TooFar),
            (u64::MAX, None, Reach::TooFar),
            (10, Some(2), Reach::Now),
            (10, Some(3), Reach::Later),
            (10, Some(11), Reach::TooFar),
            (11, Some(0), Reach::Later),
            (12, Some(0), Reach::TooFar),
            (9, Some(4), Reach::Now),
            (9, Some(5), Reach::Now),
            (2, Some(500), Reach::Now),
        ] {
            assert_eq!(head.reach(msn, part), reach, "{msn} {part:?}");
        }
        let fresh = Head { open_parts: 0, ..head };
        assert_eq!(fresh.reach(9, Some(5)), Reach::Later, "means the first part of segment 10");
        assert_eq!(fresh.reach(9, Some(4)), Reach::Now);
        assert_eq!(Head { ended: true, ..head }.reach(500, Some(1)), Reach::Now);
    }
}
