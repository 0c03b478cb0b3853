//! Compares the served media with the publish, sample by sample.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use millrace_media::container::cmaf::demux::{parse_fragments, parse_init};
use millrace_tests::tape::bodies::slices;
use millrace_tests::tape::{Tag, TagKind, Tape};

use crate::watch::Track;

/// One sample as it was served.
#[derive(Debug, Clone)]
pub(crate) struct Unit {
    /// Number of the picture or audio frame that was sent; `None` if it never was.
    pub(crate) number: Option<usize>,
    /// True presentation time in milliseconds of the sent one.
    pub(crate) true_ms: f64,
    /// Decoding and presentation time and duration in milliseconds.
    pub(crate) dts: f64,
    pub(crate) pts: f64,
    pub(crate) duration: f64,
    /// Decoding can start here.
    pub(crate) sync: bool,
    /// Discontinuity sequence number of its segment.
    pub(crate) period: u64,
    /// Media sequence number of its segment, and the part in it.
    pub(crate) msn: u64,
    pub(crate) part: usize,
}

/// One track of a watched stream, measured.
#[derive(Debug, Clone, Default)]
pub(crate) struct Measured {
    pub(crate) units: Vec<Unit>,
    pub(crate) sent: usize,
    /// Numbers that were sent and never served, or served twice.
    pub(crate) lost: Vec<usize>,
    pub(crate) twice: usize,
    /// Samples that were never sent.
    pub(crate) invented: usize,
    /// Pairs of pictures that are shown in another order than they were sent for.
    pub(crate) out_of_order: usize,
    /// Samples shorter than the next's true distance by more than half, the shortest and the longest in milliseconds.
    pub(crate) shortest: f64,
    pub(crate) longest: f64,
    /// Distances between a sample's end and the next one's beginning, in one period: widest hole, deepest overlap.
    pub(crate) hole: f64,
    pub(crate) overlap: f64,
    /// Media sequence number, part and sent number of the sample behind the widest of them.
    pub(crate) worst: String,
    /// Served minus true presentation time: range in milliseconds after the first one is taken off.
    pub(crate) strayed: f64,
    pub(crate) periods: usize,
    pub(crate) segments: usize,
    pub(crate) independent: usize,
    pub(crate) gaps: usize,
}

/// The bytes that make a message what it is, in any framing.
fn identity(kind: TagKind, media: &[u8]) -> Bytes {
    match kind {
        TagKind::Video => slices(media).concat().into(),
        _ => Bytes::copy_from_slice(media),
    }
}

fn units_of(track: &Track) -> Result<Vec<(Unit, Bytes)>> {
    let mut units = Vec::new();
    for (msn, (segment, bytes)) in &track.segments {
        let Some(bytes) = bytes else { continue };
        let init = track.inits.get(&segment.init).context("a segment without its initialisation section")?;
        let scale = f64::from(parse_init(init)?.timescale) / 1000.0;
        for (part, fragment) in
            parse_fragments(bytes).with_context(|| segment.uri.clone())?.iter().enumerate()
        {
            for sample in &fragment.samples {
                let unit = Unit {
                    number: None,
                    true_ms: 0.0,
                    dts: sample.dts as f64 / scale,
                    pts: (sample.dts + i64::from(sample.cts)) as f64 / scale,
                    duration: f64::from(sample.duration) / scale,
                    sync: sample.sync,
                    period: segment.discontinuity_sequence,
                    msn: *msn,
                    part,
                };
                units.push((unit, sample.data.clone()));
            }
        }
    }
    Ok(units)
}

/// Names the sent message of each served sample: the first one of its bytes that was not served yet.
fn name_units(units: Vec<(Unit, Bytes)>, sent: &[&Tag]) -> Vec<Unit> {
    let mut known: HashMap<Bytes, Vec<usize>> = HashMap::new();
    for (number, tag) in sent.iter().enumerate().rev() {
        known.entry(identity(tag.kind, &tag.media())).or_default().push(number);
    }
    let kind = sent.first().map_or(TagKind::Audio, |tag| tag.kind);
    let mut named = Vec::with_capacity(units.len());
    for (mut unit, bytes) in units {
        if let Some(number) = known.get_mut(&identity(kind, &bytes)).and_then(Vec::pop) {
            unit.number = Some(number);
            unit.true_ms = sent[number].true_pts_ms() as f64;
        }
        named.push(unit);
    }
    named
}

/// Measures one track against the messages that were sent for it.
pub(crate) fn measure(track: &Track, tape: &Tape, kind: TagKind) -> Result<Measured> {
    let sent: Vec<&Tag> = match kind {
        TagKind::Video => tape.pictures().collect(),
        _ => tape.sounds().collect(),
    };
    let units = name_units(units_of(track)?, &sent);
    let mut measured = Measured { sent: sent.len(), ..Measured::default() };
    let mut seen = BTreeSet::new();
    for unit in &units {
        match unit.number {
            None => measured.invented += 1,
            Some(number) => measured.twice += usize::from(!seen.insert(number)),
        }
    }
    measured.lost = (0..sent.len()).filter(|number| !seen.contains(number)).collect();
    measured.shortest = units.iter().map(|unit| unit.duration).fold(f64::INFINITY, f64::min);
    measured.longest = units.iter().map(|unit| unit.duration).fold(0.0, f64::max);
    for pair in units.windows(2).filter(|pair| pair[0].period == pair[1].period) {
        let distance = pair[1].dts - pair[0].dts - pair[0].duration;
        if distance.abs() > measured.hole.max(measured.overlap).max(0.5) {
            measured.worst = format!(" at {}.{} number {:?}", pair[1].msn, pair[1].part, pair[1].number);
        }
        measured.hole = measured.hole.max(distance);
        measured.overlap = measured.overlap.max(-distance);
    }
    measured.out_of_order = out_of_order(&units);
    measured.strayed = strayed(&units);
    measured.periods = units.iter().map(|unit| unit.period).collect::<BTreeSet<_>>().len();
    measured.segments = track.segments.values().filter(|(_, bytes)| bytes.is_some()).count();
    measured.gaps = track.segments.values().filter(|(segment, _)| segment.gap).count();
    let mut before = None;
    for unit in &units {
        measured.independent += usize::from(before != Some(unit.msn) && unit.sync);
        before = Some(unit.msn);
    }
    measured.units = units;
    Ok(measured)
}

/// Neighbours in presentation order, of one period, that were sent for the other order or the same time.
fn out_of_order(units: &[Unit]) -> usize {
    let mut shown: Vec<&Unit> = units.iter().filter(|unit| unit.number.is_some()).collect();
    shown.sort_by(|a, b| (a.period, a.pts).partial_cmp(&(b.period, b.pts)).expect("times are numbers"));
    let wrong = |pair: &&[&Unit]| {
        let (a, b) = (pair[0], pair[1]);
        a.period == b.period && (a.true_ms > b.true_ms || b.pts - a.pts < 0.5)
    };
    shown.windows(2).filter(wrong).count()
}

/// The range of served minus true time, in one period at a time.
fn strayed(units: &[Unit]) -> f64 {
    let mut widest = 0.0_f64;
    for period in units.iter().map(|unit| unit.period).collect::<BTreeSet<_>>() {
        let shifts = units.iter().filter(|unit| unit.period == period && unit.number.is_some());
        let (low, high) = shifts
            .map(|unit| unit.pts - unit.true_ms)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), shift| (low.min(shift), high.max(shift)));
        widest = widest.max(high - low);
    }
    widest
}

/// The widest distance in milliseconds by which pictures and sound of one true time were served apart.
pub(crate) fn apart(video: &Measured, audio: &Measured) -> f64 {
    let mut widest = 0.0_f64;
    let sounds: Vec<&Unit> = audio.units.iter().filter(|unit| unit.number.is_some()).collect();
    for picture in video.units.iter().filter(|unit| unit.number.is_some()) {
        let near = sounds.iter().filter(|sound| sound.period == picture.period).min_by(|a, b| {
            let distance = |unit: &Unit| (unit.true_ms - picture.true_ms).abs();
            distance(a).total_cmp(&distance(b))
        });
        if let Some(sound) = near.filter(|sound| (sound.true_ms - picture.true_ms).abs() < 100.0) {
            widest = widest.max(((picture.pts - picture.true_ms) - (sound.pts - sound.true_ms)).abs());
        }
    }
    widest
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} sent, {} served in {} segments ({} independent, {} gaps, {} periods), {} lost{}, {} twice, {} invented, \
             {} out of order; samples {:.1}–{:.1} ms, hole {:.1} ms, overlap {:.1} ms{}, strayed {:.1} ms",
            self.sent,
            self.units.len(),
            self.segments,
            self.independent,
            self.gaps,
            self.periods,
            self.lost.len(),
            self.lost.first().map(|first| format!(" from {first}")).unwrap_or_default(),
            self.twice,
            self.invented,
            self.out_of_order,
            self.shortest,
            self.longest,
            self.hole,
            self.overlap,
            self.worst,
            self.strayed
        )
    }
}
