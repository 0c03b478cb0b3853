//! Media messages in, facts with their bytes out: the copy rung, sans-IO.
//!
//! What comes out depends only on the media from a segment's boundary on, on the epoch's numbers and on the part
//! params, so two workers that package the same segment say the same about it and write the same bytes.

use std::collections::{BTreeMap, VecDeque};

use millrace_media::frame::{MediaEvent, TrackConfig, TrackKind};
use millrace_media::packager::{
    Init, Output, Packager, Part, PartSetup, PartTiming, SegmentEnd, SegmentStart,
};
use millrace_media::time::Timescale;
use millrace_media::timeline::TIMELINE_START;
use millrace_protocol::job::Packaged;
use millrace_wire::fact::{self, EpochOpen, MediaDuration, TrackInfo, TrackMedia};
use millrace_wire::ids::{DiscontinuitySeq, InitVersion, Msn, PartIndex, Rendition, UnixMillis};
use millrace_wire::message::media::{MediaMessage, MediaUnit, Track, UnitKind};

use crate::convert::media_event;

/// Segments whose discontinuity sequence number is remembered: a track is at most two segments behind.
const REMEMBERED_SEGMENTS: usize = 8;

/// See the module.
#[derive(Debug)]
pub struct Pipeline {
    packager: Packager,
    epoch_start: UnixMillis,
    first_discontinuity: DiscontinuitySeq,
    discontinuities: BTreeMap<u64, DiscontinuitySeq>,
    heads: BTreeMap<TrackKind, SegmentStart>,
    renditions: Vec<TrackKind>,
    /// Bits per second ingest declares for each track's newest configuration.
    declared: BTreeMap<TrackKind, u64>,
    /// Each track's newest init segment as it was made.
    inits: BTreeMap<TrackKind, Packaged>,
    params: Option<PartTiming>,
    made: VecDeque<Packaged>,
    bad_units: u64,
}

impl Pipeline {
    /// A pipeline for one epoch; `setup` as the packager takes it.
    pub fn new(open: &EpochOpen, setup: PartSetup) -> Self {
        Self {
            packager: Packager::new(setup),
            epoch_start: open.program_date_time,
            first_discontinuity: open.discontinuity_sequence,
            discontinuities: BTreeMap::new(),
            heads: BTreeMap::new(),
            renditions: Vec::new(),
            declared: BTreeMap::new(),
            inits: BTreeMap::new(),
            params: match setup {
                PartSetup::Resume(params) => Some(params),
                PartSetup::Measure | PartSetup::Frozen { .. } => None,
            },
            made: VecDeque::new(),
            bad_units: 0,
        }
    }

    /// Takes the next message.
    pub fn push(&mut self, message: MediaMessage) {
        for unit in message.units {
            self.remember(unit.msn.0, unit.discontinuity_sequence);
            if let UnitKind::Config { bandwidth } = unit.kind {
                self.declare(&unit, bandwidth);
            }
            match media_event(unit) {
                Ok(event) => self.feed(event),
                Err(error) => {
                    self.bad_units += 1;
                    tracing::warn!(%error, "unit left out");
                }
            }
        }
    }

    /// The epoch ends here: closes the open segments with predicted durations.
    pub fn finish(&mut self) {
        self.packager.finish();
        self.drain();
    }

    /// The next thing made.
    pub fn poll(&mut self) -> Option<Packaged> {
        self.made.pop_front()
    }

    /// Units that could not be read or came too late to be packaged.
    pub const fn lost_units(&self) -> u64 {
        self.bad_units + self.packager.late_units()
    }

    fn remember(&mut self, msn: u64, discontinuity: DiscontinuitySeq) {
        self.discontinuities.insert(msn, discontinuity);
        while self.discontinuities.len() > REMEMBERED_SEGMENTS {
            self.discontinuities.pop_first();
        }
    }

    /// Ingest corrects what it has declared when segments turn out bigger.
    fn declare(&mut self, unit: &MediaUnit, bandwidth: u64) {
        let track = track_kind(unit.track);
        self.declared.insert(track, bandwidth);
        if let Some(made @ Packaged::Init { .. }) = self.inits.get_mut(&track)
            && let Packaged::Init { version, info, .. } = made
            && *version == unit.init_version
            && info.bandwidth < bandwidth
        {
            info.bandwidth = bandwidth;
            self.made.push_back(made.clone());
        }
    }

    fn feed(&mut self, event: MediaEvent) {
        self.packager.push(event);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.packager.poll() {
            match output {
                Output::Init(init) => self.init(init),
                Output::Params { params, .. } => {
                    self.params = Some(params);
                    for track in self.renditions.clone() {
                        self.part_target(track);
                    }
                }
                Output::SegmentStart(head) => {
                    self.heads.insert(head.track, head);
                }
                Output::Part(part) => self.part(part),
                Output::SegmentEnd(end) => self.segment(end),
            }
        }
    }

    fn init(&mut self, init: Init) {
        let Init { track, version, config, bytes } = init;
        let info = track_info(&config, self.declared.get(&track).copied().unwrap_or_default());
        let rendition = rendition(track);
        let made = Packaged::Init { rendition, version: InitVersion(version), info, bytes };
        self.inits.insert(track, made.clone());
        self.made.push_back(made);
        if !self.renditions.contains(&track) {
            self.renditions.push(track);
            self.part_target(track);
        }
    }

    fn part_target(&mut self, track: TrackKind) {
        let Some(params) = self.params else { return };
        let target = MediaDuration { ticks: u64::from(params.part_target), timescale: 90_000 };
        self.made.push_back(Packaged::PartTarget { rendition: rendition(track), target });
    }

    fn part(&mut self, part: Part) {
        let Some(head) = self.heads.get(&part.track).copied() else { return };
        let fact = fact::Part {
            rendition: rendition(part.track),
            msn: Msn(part.msn),
            part: PartIndex(part.part),
            duration: duration(u64::from(part.duration), part.timescale.ticks_per_second()),
            independent: part.independent,
            bytes: part.body.len() as u64,
            discontinuity_sequence: self.discontinuity(part.msn),
            program_date_time: self.wall_clock(&head),
            init_version: InitVersion(head.init_version),
            gap: false,
        };
        self.made.push_back(Packaged::Part(fact, part.body.into_chunks()));
    }

    fn segment(&mut self, end: SegmentEnd) {
        let head = end.head;
        let rendition = rendition(head.track);
        let msn = Msn(head.msn);
        let duration = duration(end.duration, head.timescale.ticks_per_second());
        if end.gap {
            // A playlist lists the other renditions' segment, and a GAP where this one has none.
            tracing::debug!(%rendition, %msn, "no media for a segment");
            return;
        }
        let fact = fact::Segment {
            rendition,
            msn,
            parts: end.parts,
            duration,
            independent: head.independent,
            bytes: end.bytes,
            discontinuity_sequence: self.discontinuity(head.msn),
            program_date_time: self.wall_clock(&head),
            init_version: InitVersion(head.init_version),
        };
        self.made.push_back(Packaged::Segment(fact));
    }

    fn discontinuity(&self, msn: u64) -> DiscontinuitySeq {
        let known = self.discontinuities.range(..=msn).next_back();
        known.map_or(self.first_discontinuity, |(_, sequence)| *sequence)
    }

    /// Every epoch's timeline starts at [`TIMELINE_START`], which is the epoch's wall clock.
    fn wall_clock(&self, head: &SegmentStart) -> UnixMillis {
        let start = Timescale::VIDEO.convert(TIMELINE_START, Timescale::MILLIS);
        let millis = head.timescale.convert(head.start, Timescale::MILLIS) - start;
        UnixMillis(self.epoch_start.0.saturating_add_signed(millis))
    }
}

const fn duration(ticks: u64, timescale: u32) -> MediaDuration {
    MediaDuration { ticks, timescale }
}

/// The copy rung's rendition of a track.
pub fn rendition(track: TrackKind) -> Rendition {
    match track {
        TrackKind::Video => Rendition::video(),
        TrackKind::Audio => Rendition::audio(),
    }
}

const fn track_kind(track: Track) -> TrackKind {
    match track {
        Track::Video => TrackKind::Video,
        Track::Audio => TrackKind::Audio,
    }
}

fn track_info(config: &TrackConfig, bandwidth: u64) -> TrackInfo {
    let (media, timescale) = match config {
        TrackConfig::Video(video) => {
            let rate = video.frame_rate.map(|(ticks, per)| f64::from(ticks) / f64::from(per.max(1)));
            let media = TrackMedia::Video {
                width: video.width,
                height: video.height,
                frame_rate_milli: rate.map(|rate| (rate * 1000.0).round() as u32),
            };
            (media, 90_000)
        }
        TrackConfig::Audio(audio) => {
            (TrackMedia::Audio { channels: audio.channels, sample_rate: audio.rate }, audio.rate)
        }
    };
    // BANDWIDTH is not optional, and 0 says nothing.
    TrackInfo { media, codecs: config.codec().to_owned(), bandwidth: bandwidth.max(1), timescale }
}
