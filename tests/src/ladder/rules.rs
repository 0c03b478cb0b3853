//! The rules that hold among the renditions of a ladder, whatever happened to the nodes.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use millrace_media::container::cmaf::demux::{parse_fragments, parse_init};
use millrace_store::{ObjectStore, list_all};
use millrace_wire::object_names::{ObjectKind, ObjectName, stream_prefix};

use super::{Ladder, media_of};
use crate::tape::bodies::nal_units;
use crate::viewer::Track;

/// The type of an IDR picture's slice (ITU-T H.264, table 7-1).
const IDR: u8 = 5;
/// Objects of one stream at most.
const MAX_OBJECTS: usize = 10_000;

/// Fails unless the rung is in step with the copied rendition: in every segment that both hold, equal numbers are equal times,
/// the first picture is an IDR picture, and the parts lie on one grid. Returns the number of segments that were compared.
pub fn in_step(copy: &Track, rung: &Track, division: usize) -> Result<usize> {
    let mut compared = 0;
    for (msn, (segment, bytes)) in &rung.segments {
        let (listed, source) =
            copy.segments.get(msn).with_context(|| format!("the source has no segment {msn}"))?;
        ensure!(
            (listed.duration - segment.duration).abs() < 0.001 || segment.gap,
            "{}: segment {msn} lasts {} s, the source's {} s",
            rung.url,
            segment.duration,
            listed.duration
        );
        ensure!(
            listed.discontinuity_sequence == segment.discontinuity_sequence,
            "{}: segment {msn} follows {} discontinuities, the source's {}",
            rung.url,
            segment.discontinuity_sequence,
            listed.discontinuity_sequence
        );
        let (Some(bytes), Some(source)) = (bytes, source) else { continue };
        let (own, source) = (media_of(bytes)?, media_of(source)?);
        ensure!(
            (own.start, own.duration) == (source.start, source.duration),
            "{}: segment {msn} is {} + {}, the source's {} + {}",
            rung.url,
            own.start,
            own.duration,
            source.start,
            source.duration
        );
        ensure!(
            own.samples == source.samples.div_ceil(division),
            "{}: segment {msn} has {} pictures, the source's {}",
            rung.url,
            own.samples,
            source.samples
        );
        let units = nal_units(&own.first);
        let is_idr = units.iter().any(|unit| unit.first().is_some_and(|byte| byte & 0x1f == IDR));
        ensure!(is_idr, "{}: segment {msn} begins with no IDR picture", rung.url);
        ensure!(
            division > 1 || own.parts == source.parts,
            "{}: the parts of segment {msn} begin at {:?}, the source's at {:?}",
            rung.url,
            own.parts,
            source.parts
        );
        compared += 1;
    }
    Ok(compared)
}

/// Fails unless the audio of equal numbers begins within one frame of the video's segments, and has no hole.
pub fn sound_in_step(copy: &Track, sound: &Track) -> Result<usize> {
    let (mut compared, mut last_end) = (0, None);
    for (msn, (segment, bytes)) in &sound.segments {
        let (Some(bytes), Some((_, Some(source)))) = (bytes, copy.segments.get(msn)) else { continue };
        let rate = timescale(sound, &segment.init)?;
        let frames: Vec<_> = parse_fragments(bytes)?.into_iter().flat_map(|part| part.samples).collect();
        let (first, last) = frames.first().zip(frames.last()).context("a segment without sound")?;
        let boundary = media_of(source)?.start as f64 / 90_000.0;
        let late = first.dts as f64 / rate - boundary;
        ensure!(late.abs() <= 0.05, "{}: segment {msn} begins {late:.4} s off the video's", sound.url);
        ensure!(last_end.is_none_or(|end| end == first.dts), "{}: a hole before segment {msn}", sound.url);
        last_end = Some(last.dts + i64::from(last.duration));
        compared += 1;
    }
    Ok(compared)
}

fn timescale(track: &Track, init: &str) -> Result<f64> {
    let bytes = track.inits.get(init).with_context(|| init.to_owned())?;
    Ok(f64::from(parse_init(bytes)?.timescale))
}

impl Ladder {
    /// Fails unless every playlist of every rendition is one that players can follow to its end.
    pub fn playable(&self) -> Result<()> {
        for track in self.tracks.values() {
            track.check()?;
        }
        Ok(())
    }

    /// Fails if a rendition has a discontinuity, a GAP of its own, or two initialisation sections.
    pub fn uninterrupted(&self) -> Result<()> {
        let copy = self.track(super::COPY)?;
        for (name, track) in &self.tracks {
            ensure!(track.discontinuities() == 0, "{name}: {} discontinuities", track.discontinuities());
            ensure!(
                track.inits.len() == 1,
                "{name}: several initialisation sections {:?}",
                track.inits.keys()
            );
            let gaps = super::gaps(copy, track);
            ensure!(
                gaps.is_empty(),
                "{name}: GAPs {gaps:?}\n{}",
                track.playlists.last().map_or("", String::as_str)
            );
        }
        Ok(())
    }

    /// Fails unless the rungs are in step with the copied rendition and show its pictures, all `pictures` of them.
    pub async fn complete(&self, rungs: &[&str], pictures: usize) -> Result<()> {
        let copy = self.track(super::COPY)?;
        for name in rungs {
            let rung = self.track(name)?;
            ensure!(in_step(copy, rung, 1)? == super::held(copy), "{name} lacks segments");
            let shown = super::pictures::same_pictures(copy, rung, 1).await?;
            ensure!(shown == pictures, "{name} shows {shown} of {pictures} pictures");
        }
        Ok(())
    }

    /// Fails unless the store has every segment that was listed, in all renditions.
    pub async fn stored(&self, store: &impl ObjectStore, playback_id: &str) -> Result<()> {
        let entries = list_all(store, &stream_prefix(playback_id.parse()?), MAX_OBJECTS).await?;
        let mut held = BTreeSet::new();
        for entry in entries {
            if let Ok(name) = entry.key.parse::<ObjectName>()
                && let ObjectKind::Segment(msn, _) = name.kind
            {
                held.insert((name.rendition.to_string(), msn.0));
            }
        }
        let missing: Vec<_> = self.segments().into_iter().filter(|segment| !held.contains(segment)).collect();
        ensure!(missing.is_empty(), "not in the bucket: {missing:?}");
        Ok(())
    }
}
