//! Packager outputs to the facts that a job announces, with the epoch's numbers and wall clock.

use std::collections::{BTreeMap, VecDeque};

use millrace_link::media_convert::track_info;
use millrace_media::frame::{TrackConfig, TrackKind};
use millrace_media::packager::{Init, Output, Part, PartSetup, PartTiming, SegmentEnd, SegmentStart};
use millrace_media::time::Timescale;
use millrace_media::timeline::TIMELINE_START;
use millrace_protocol::job::Packaged;
use millrace_wire::fact::{self, EpochOpen, MediaDuration, StreamState, TrackInfo, TrackMedia};
use millrace_wire::ids::{DiscontinuitySeq, InitVersion, Msn, PartIndex, Rendition, UnixMillis};

/// Segments whose discontinuity sequence number is remembered: a rendition is at most two segments behind another.
const REMEMBERED_SEGMENTS: usize = 8;

/// The renditions that a rung makes of each kind of track.
#[derive(Debug, Clone)]
pub(super) struct TrackRenditions {
    pub(super) video: Rendition,
    pub(super) audio: Rendition,
}

impl TrackRenditions {
    const fn of_track(&self, track: TrackKind) -> &Rendition {
        match track {
            TrackKind::Video => &self.video,
            TrackKind::Audio => &self.audio,
        }
    }

    /// Returns the part timing to start with: a running stream keeps its PART-TARGET, that of a new one is measured with
    /// parts of about `part_ms` milliseconds.
    pub(super) fn part_setup(&self, base: &StreamState, part_ms: u32) -> PartSetup {
        let known = |rendition| base.renditions.get(rendition)?.part_target;
        let target = known(&self.video).or_else(|| known(&self.audio));
        match target {
            Some(target) => PartSetup::Frozen { part_target: in_video_ticks(target) },
            None => PartSetup::Measure { part_ms },
        }
    }
}

fn in_video_ticks(duration: MediaDuration) -> u32 {
    let per_second = u64::from(Timescale::VIDEO.ticks_per_second());
    let ticks = duration.ticks.saturating_mul(per_second) / u64::from(duration.timescale.max(1));
    u32::try_from(ticks).unwrap_or(u32::MAX)
}

/// The progress of one rendition of the rung.
#[derive(Debug, Default)]
struct Progress {
    /// The segment that parts are being made of.
    segment: Option<SegmentStart>,
    /// Bits per second that ingest declares for the newest configuration.
    declared: u64,
    /// The newest init segment as it was announced.
    init: Option<Packaged>,
}

/// Builds the facts of one rung for one epoch.
#[derive(Debug)]
pub(super) struct FactBuilder {
    renditions: TrackRenditions,
    epoch_start: UnixMillis,
    first_discontinuity: DiscontinuitySeq,
    discontinuities: BTreeMap<Msn, DiscontinuitySeq>,
    progress: BTreeMap<Rendition, Progress>,
    timing: Option<PartTiming>,
    ready: VecDeque<Packaged>,
}

impl FactBuilder {
    pub(super) fn new(renditions: TrackRenditions, open: &EpochOpen, setup: PartSetup) -> Self {
        Self {
            renditions,
            epoch_start: open.program_date_time,
            first_discontinuity: open.discontinuity_sequence,
            discontinuities: BTreeMap::new(),
            progress: BTreeMap::new(),
            timing: match setup {
                PartSetup::Resume(timing) => Some(timing),
                PartSetup::Measure { .. } | PartSetup::Frozen { .. } => None,
            },
            ready: VecDeque::new(),
        }
    }

    /// Remembers the discontinuity sequence number of a segment before its media are packaged.
    pub(super) fn begin_segment(&mut self, msn: Msn, discontinuity: DiscontinuitySeq) {
        self.discontinuities.insert(msn, discontinuity);
        while self.discontinuities.len() > REMEMBERED_SEGMENTS {
            self.discontinuities.pop_first();
        }
    }

    /// Takes the bit rate that ingest declares for a track. Ingest corrects it when segments turn out larger: then the
    /// init segment is announced again with the larger figure.
    pub(super) fn declare(&mut self, track: TrackKind, of_version: InitVersion, bandwidth: u64) {
        let rendition = self.renditions.of_track(track).clone();
        let progress = self.progress.entry(rendition).or_default();
        progress.declared = bandwidth;
        if let Some(init @ Packaged::Init { .. }) = &mut progress.init
            && let Packaged::Init { version, info, .. } = init
            && *version == of_version
            && info.bandwidth < bandwidth
        {
            info.bandwidth = bandwidth;
            self.ready.push_back(init.clone());
        }
    }

    /// Takes the packager's next output.
    pub(super) fn take(&mut self, output: Output) {
        match output {
            Output::Init(init) => self.init(init),
            Output::Timing { timing, .. } => {
                self.timing = Some(timing);
                self.correct_frame_rate(timing);
                let started = self.progress.iter().filter(|(_, progress)| progress.init.is_some());
                let renditions: Vec<Rendition> = started.map(|(rendition, _)| rendition.clone()).collect();
                for rendition in renditions {
                    self.part_target(rendition);
                }
            }
            Output::SegmentStart(start) => {
                let rendition = self.renditions.of_track(start.track).clone();
                self.progress.entry(rendition).or_default().segment = Some(start);
            }
            Output::Part(part) => self.part(part),
            Output::SegmentEnd(end) => self.segment(&end),
        }
    }

    /// Adds the end of a rendition of an earlier ladder, after its segment `last`.
    pub(super) fn end_rendition(&mut self, rendition: Rendition, last: Msn) {
        self.ready.push_back(Packaged::RenditionEnd { rendition, last });
    }

    /// Adds that everything asked for has been made.
    pub(super) fn flushed(&mut self) {
        self.ready.push_back(Packaged::Flushed);
    }

    /// Returns the oldest fact that was not returned yet.
    pub(super) fn next(&mut self) -> Option<Packaged> {
        self.ready.pop_front()
    }

    fn init(&mut self, init: Init) {
        let Init { track, version, config, bytes } = init;
        let rendition = self.renditions.of_track(track).clone();
        let progress = self.progress.entry(rendition.clone()).or_default();
        let mut info = track_info(&config, progress.declared);
        if let (Some(timing), TrackConfig::Video(video)) = (self.timing, &config) {
            set_frame_rate(&mut info, timing, version, video.frame_rate);
        }
        let version = InitVersion(version);
        let made = Packaged::Init { rendition: rendition.clone(), version, info, bytes };
        let first = progress.init.replace(made.clone()).is_none();
        self.ready.push_back(made);
        if first {
            self.part_target(rendition);
        }
    }

    /// Announces the init segment again if the pictures come at another rate than its configuration declares: players
    /// compare the FRAME-RATE of renditions when they choose one.
    fn correct_frame_rate(&mut self, timing: PartTiming) {
        let progress = self.progress.get_mut(self.renditions.of_track(TrackKind::Video));
        let Some(init) = progress.and_then(|progress| progress.init.as_mut()) else { return };
        if let Packaged::Init { version, info, .. } = init
            && let TrackMedia::Video { frame_rate_milli, .. } = info.media
            && set_frame_rate(info, timing, version.0, frame_rate_milli.map(|rate| (rate, 1000)))
        {
            self.ready.push_back(init.clone());
        }
    }

    fn part_target(&mut self, rendition: Rendition) {
        let Some(timing) = self.timing else { return };
        let ticks = u64::from(timing.part_target);
        let target = MediaDuration { ticks, timescale: Timescale::VIDEO.ticks_per_second() };
        self.ready.push_back(Packaged::PartTarget { rendition, target });
    }

    fn part(&mut self, part: Part) {
        let rendition = self.renditions.of_track(part.track);
        let Some(segment) = self.progress.get(rendition).and_then(|progress| progress.segment) else {
            return;
        };
        let fact = fact::Part {
            rendition: rendition.clone(),
            msn: Msn(part.msn),
            part: PartIndex(part.part),
            duration: duration(u64::from(part.duration), part.timescale),
            independent: part.independent,
            bytes: part.body.len() as u64,
            discontinuity_sequence: self.discontinuity(Msn(part.msn)),
            program_date_time: self.wall_clock(&segment),
            init_version: InitVersion(segment.init_version),
            gap: false,
            last: part.last,
        };
        self.ready.push_back(Packaged::Part(fact, part.body));
    }

    fn segment(&mut self, end: &SegmentEnd) {
        let start = end.head;
        let rendition = self.renditions.of_track(start.track).clone();
        let msn = Msn(start.msn);
        if end.gap {
            // A playlist lists a GAP where its rendition lacks a segment that others have.
            tracing::debug!(%rendition, %msn, "rendition has no media for this segment");
            return;
        }
        let fact = fact::Segment {
            rendition,
            msn,
            parts: end.parts,
            duration: duration(end.duration, start.timescale),
            independent: start.independent,
            bytes: end.bytes,
            discontinuity_sequence: self.discontinuity(msn),
            program_date_time: self.wall_clock(&start),
            init_version: InitVersion(start.init_version),
        };
        self.ready.push_back(Packaged::Segment(fact));
    }

    fn discontinuity(&self, msn: Msn) -> DiscontinuitySeq {
        let known = self.discontinuities.range(..=msn).next_back();
        known.map_or(self.first_discontinuity, |(_, sequence)| *sequence)
    }

    /// Returns the wall clock of a segment's start. Every epoch's timeline begins at [`TIMELINE_START`], which stands for
    /// the epoch's wall clock.
    fn wall_clock(&self, segment: &SegmentStart) -> UnixMillis {
        let start = Timescale::VIDEO.convert(TIMELINE_START, Timescale::MILLIS);
        let millis = segment.timescale.convert(segment.start, Timescale::MILLIS) - start;
        UnixMillis(self.epoch_start.0.saturating_add_signed(millis))
    }
}

/// Sets the frame rate of pictures of init version `version` that `timing` was measured with; true if that changes it.
fn set_frame_rate(
    info: &mut TrackInfo,
    timing: PartTiming,
    version: u32,
    declared: Option<(u32, u32)>,
) -> bool {
    let TrackMedia::Video { frame_rate_milli, .. } = &mut info.media else { return false };
    if timing.init_version != Some(version) {
        return false;
    }
    let rate = Some(timing.frame_rate_milli(declared));
    std::mem::replace(frame_rate_milli, rate) != rate
}

const fn duration(ticks: u64, timescale: Timescale) -> MediaDuration {
    MediaDuration { ticks, timescale: timescale.ticks_per_second() }
}
