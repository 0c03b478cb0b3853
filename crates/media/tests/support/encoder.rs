//! A simulated encoder whose clocks and arrivals are set frame by frame, and the repaired times.
#![allow(dead_code)]

use bytes::Bytes;
use millrace_media::frame::{AudioConfig, MediaFrame, VideoConfig};
use millrace_media::repair::{Repair, RepairCounts};
use millrace_media::timeline::{Timeline, TimelineEvent};

use super::{PPS, avcc};

/// One frame on its way: times in 90 kHz ticks, the arrival in milliseconds.
#[derive(Debug, Clone, Copy)]
pub enum Sent {
    /// A picture with its arrival, time, composition offset, and true if it is a B picture.
    Picture(f64, i64, i64, bool),
    /// An audio frame of 1024 samples with its arrival and time.
    Audio(f64, i64),
}

impl Sent {
    pub fn arrival(&self) -> f64 {
        match self {
            Self::Picture(arrival, ..) | Self::Audio(arrival, _) => *arrival,
        }
    }
}

/// The repaired frames of one publish, in the order of their tracks.
#[derive(Debug, Default)]
pub struct Repaired {
    /// Decoding and presentation times of the pictures.
    pub video: Vec<(i64, i64)>,
    /// Times of the audio frames in samples, and true for made-up ones.
    pub audio: Vec<(i64, bool)>,
    pub discontinuities: usize,
    pub repairs: RepairCounts,
}

impl Repaired {
    /// Steps between decoding times.
    pub fn steps(&self) -> Vec<i64> {
        self.video.windows(2).map(|pair| pair[1].0 - pair[0].0).collect()
    }

    pub fn audio_is_contiguous(&self) -> bool {
        self.audio.windows(2).all(|pair| pair[1].0 - pair[0].0 == 1024)
    }

    pub fn silent(&self) -> usize {
        self.audio.iter().filter(|frame| frame.1).count()
    }

    /// The kinds of repair that occurred.
    pub fn kinds(&self) -> Vec<Repair> {
        self.repairs.iter().map(|(repair, _)| repair).collect()
    }
}

/// A picture of a few bytes.
pub fn picture(is_key: bool, is_b: bool) -> Bytes {
    Bytes::from_static(match (is_key, is_b) {
        (true, _) => &[0, 0, 0, 3, 0x65, 0x88, 0x80],
        (_, true) => &[0, 0, 0, 3, 0x01, 0x9e, 0x80],
        _ => &[0, 0, 0, 3, 0x41, 0x9a, 0x80],
    })
}

/// A timeline of H.264 and stereo AAC at 48 kHz.
pub fn both_tracks() -> Timeline {
    let mut timeline = Timeline::new();
    timeline.video_config(VideoConfig::from_avcc(avcc(PPS)).unwrap());
    timeline.audio_config(AudioConfig::aac_lc(48_000, 2).unwrap());
    timeline
}

/// Sends frames in the order of their arrival; without a clock the timeline is not told when they arrive.
pub fn repair(mut timeline: Timeline, mut frames: Vec<Sent>, has_clock: bool) -> Repaired {
    frames.sort_by(|a, b| a.arrival().total_cmp(&b.arrival()));
    let mut out = Repaired::default();
    for frame in frames {
        if has_clock {
            timeline.arrive(frame.arrival() as i64 * 90);
        }
        match frame {
            Sent::Picture(_, time, cts, is_b) => {
                timeline.push_video(time, cts, picture(out.video.is_empty(), is_b));
            }
            Sent::Audio(_, time) => timeline.push_audio(time, Bytes::from_static(&[1])),
        }
        drain(&mut timeline, &mut out);
    }
    out.repairs = *timeline.repairs();
    out
}

fn drain(timeline: &mut Timeline, out: &mut Repaired) {
    while let Some(event) = timeline.poll() {
        let TimelineEvent::Frame { frame, discontinuity } = event else { continue };
        out.discontinuities += usize::from(discontinuity);
        match frame {
            MediaFrame::Video(picture) => {
                if let Some(last) = out.video.last() {
                    assert!(picture.dts > last.0, "decoding times grow: {} after {}", picture.dts, last.0);
                }
                out.video.push((picture.dts, picture.pts()));
            }
            MediaFrame::Audio(frame) => {
                if let Some(last) = out.audio.last() {
                    assert!(frame.pts >= last.0 + 1024, "audio does not overlap");
                }
                out.audio.push((frame.pts, frame.data.contiguous() != [1][..]));
            }
        }
    }
}

/// Milliseconds rounded as RTMP does, in 90 kHz ticks.
pub fn ms(time: f64) -> i64 {
    time.round() as i64 * 90
}

/// Audio of `seconds`: frame `n` is due at `n` × 1024 / 48 ms, and gets its arrival and time from that.
pub fn audio(seconds: f64, place: impl Fn(usize, f64) -> (f64, i64)) -> Vec<Sent> {
    let count = (seconds * 48_000.0 / 1024.0) as usize;
    let frame = |number: usize| {
        let (arrival, time) = place(number, number as f64 * 1024.0 / 48.0);
        Sent::Audio(arrival, time)
    };
    (0..count).map(frame).collect()
}

/// Pictures of `seconds` at `fps` without B pictures: each gets its arrival and time from the one due.
pub fn pictures(seconds: f64, fps: f64, mut place: impl FnMut(usize, f64) -> (f64, i64)) -> Vec<Sent> {
    let count = (seconds * fps) as usize;
    let picture = |number: usize| {
        let (arrival, time) = place(number, number as f64 * 1000.0 / fps);
        Sent::Picture(arrival, time, 0, false)
    };
    (0..count).map(picture).collect()
}
