//! What a publisher's tracks are declared with (BANDWIDTH): players choose by it, and read it once.
//!
//! The publisher's own word (metadata) and a margin; without it, an estimate from picture size and channels. Never more
//! than the publisher may send, and corrected upwards when a segment turns out bigger, which reaches viewers who come
//! later.

use millrace_media::frame::{AudioConfig, TrackConfig, TrackKind, VideoConfig};
use millrace_rtmp::StreamInfo;

/// What is added to the publisher's word, in percent: rate control overshoots, and fragments have headers.
const MARGIN: u64 = 5;
/// A segment this much above the declared rate, in percent, corrects it, by as much again: players are to expect
/// deviations of a tenth (HLS authoring specification, 1.26), and each correction is announced.
const TOLERANCE: u64 = 10;
/// Bits per pixel of a publisher that declares nothing: a value too low makes players start a stream they can't sustain.
const BITS_PER_PIXEL: f64 = 0.15;
/// Pictures per second where neither the stream nor metadata tells.
const FRAME_RATE: f64 = 30.0;
/// Bounds of that estimate in bits per second.
const ESTIMATE: std::ops::RangeInclusive<u64> = 500_000..=20_000_000;
/// Estimated bits per second of an audio channel.
const AUDIO_CHANNEL: u64 = 96_000;
/// A decoder's input buffer bounds an AAC frame to 6144 bits a channel and 1024 samples (ISO/IEC 14496-3 §4.5.3.2).
const AAC_BITS_PER_SAMPLE: u64 = 6;

/// One track's share.
#[derive(Debug, Default)]
struct Share {
    /// Bits per second the publisher says.
    announced: Option<u64>,
    /// Bits per second that a segment made necessary.
    corrected: u64,
    /// What is declared at present.
    declared: u64,
    /// Since the measurement began.
    bytes: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Bandwidth {
    limit: u64,
    /// What a measurement takes at least, in 90 kHz ticks.
    shortest: i64,
    since: Option<i64>,
    frame_rate: Option<f64>,
    video: Share,
    audio: Share,
}

impl Bandwidth {
    /// For a publisher that may send `limit` bits per second.
    pub(super) fn new(limit: u64, target_duration_s: u32) -> Self {
        // Peaks are those of half a target duration and more (RFC 8216bis §4.4.6.2).
        let shortest = i64::from(target_duration_s) * 90_000 / 2;
        let (video, audio) = (Share::default(), Share::default());
        Self { limit, shortest, since: None, frame_rate: None, video, audio }
    }

    /// The publisher's word; a later one replaces it for later configurations.
    pub(super) fn announce(&mut self, info: &StreamInfo) {
        self.frame_rate = info.frame_rate;
        self.video.announced = info.video_bitrate;
        self.audio.announced = info.audio_bitrate;
    }

    /// Bits per second to declare for a configuration.
    pub(super) fn of(&mut self, config: &TrackConfig) -> u64 {
        let (wanted, most) = match config {
            TrackConfig::Video(video) => (self.wanted_video(video), self.limit),
            TrackConfig::Audio(audio) => (self.wanted_audio(audio), self.limit.min(most_audio(audio))),
        };
        let share = self.share(config.track());
        share.declared = wanted.max(share.corrected).min(most);
        share.declared
    }

    /// Counts media of a track.
    pub(super) fn count(&mut self, track: TrackKind, bytes: usize) {
        self.share(track).bytes += bytes as u64;
    }

    /// A segment begins at `start`, in 90 kHz ticks: what the last one took is known.
    pub(super) fn boundary(&mut self, start: i64) {
        let ticks = start - *self.since.get_or_insert(start);
        if ticks < self.shortest {
            return;
        }
        self.since = Some(start);
        for share in [&mut self.video, &mut self.audio] {
            let bytes = u128::from(std::mem::take(&mut share.bytes));
            let measured = u64::try_from(bytes * 8 * 90_000 / ticks as u128).unwrap_or(u64::MAX);
            if measured > plus(share.declared, TOLERANCE) {
                share.corrected = plus(measured, TOLERANCE);
            }
        }
    }

    fn share(&mut self, track: TrackKind) -> &mut Share {
        match track {
            TrackKind::Video => &mut self.video,
            TrackKind::Audio => &mut self.audio,
        }
    }

    fn wanted_video(&self, config: &VideoConfig) -> u64 {
        self.video.announced.map_or_else(
            || {
                let told = config.frame_rate.map(|(ticks, per)| f64::from(ticks) / f64::from(per.max(1)));
                let pixels = f64::from(config.width) * f64::from(config.height);
                let bits = pixels * told.or(self.frame_rate).unwrap_or(FRAME_RATE) * BITS_PER_PIXEL;
                (bits as u64).clamp(*ESTIMATE.start(), *ESTIMATE.end())
            },
            |bits| plus(bits, MARGIN),
        )
    }

    fn wanted_audio(&self, config: &AudioConfig) -> u64 {
        let estimate = AUDIO_CHANNEL * u64::from(config.channels);
        self.audio.announced.map_or(estimate, |bits| plus(bits, MARGIN))
    }
}

/// The most that frames of this configuration can hold.
fn most_audio(config: &AudioConfig) -> u64 {
    AAC_BITS_PER_SAMPLE * u64::from(config.rate) * u64::from(config.channels)
}

/// Some percent more.
const fn plus(bits: u64, percent: u64) -> u64 {
    bits.saturating_add(bits.saturating_mul(percent) / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 8_000_000;

    fn audio() -> TrackConfig {
        TrackConfig::Audio(AudioConfig::aac_lc(48_000, 2).unwrap())
    }

    fn video() -> TrackConfig {
        TrackConfig::Video(VideoConfig {
            avcc: bytes::Bytes::new(),
            width: 1280,
            height: 720,
            frame_rate: Some((30, 1)),
            codec: String::new(),
            nal_length_size: 4,
        })
    }

    fn said(video: Option<u64>, audio: Option<u64>) -> Bandwidth {
        let mut bandwidth = Bandwidth::new(LIMIT, 4);
        bandwidth.announce(&StreamInfo {
            video_bitrate: video,
            audio_bitrate: audio,
            ..StreamInfo::default()
        });
        bandwidth
    }

    #[test]
    fn the_publishers_word_and_a_margin_within_its_limit() {
        let mut honest = said(Some(2_500_000), Some(128_000));
        assert_eq!((honest.of(&video()), honest.of(&audio())), (2_625_000, 134_400));
        let mut silent = said(None, None);
        assert_eq!((silent.of(&video()), silent.of(&audio())), (4_147_200, 192_000));
        let mut boastful = said(Some(1_000_000_000), Some(1_000_000_000));
        assert_eq!((boastful.of(&video()), boastful.of(&audio())), (LIMIT, 576_000));
    }

    #[test]
    fn a_segment_that_is_bigger_corrects_it_once() {
        let mut modest = said(Some(1_000), None);
        assert_eq!(modest.of(&video()), 1_050);
        modest.boundary(90_000);
        let mut declared = Vec::new();
        for segment in 1..=4 {
            modest.count(TrackKind::Video, 500_000);
            modest.boundary(90_000 + segment * 180_000);
            declared.push(modest.of(&video()));
        }
        // 500 kB in two seconds are 2 Mb/s.
        assert_eq!(declared, [2_200_000; 4]);
        // A tenth more is within the tolerance, and the limit holds.
        modest.count(TrackKind::Video, 600_000);
        modest.boundary(90_000 + 5 * 180_000);
        assert_eq!(modest.of(&video()), 2_200_000);
        modest.count(TrackKind::Video, 1 << 30);
        modest.boundary(90_000 + 6 * 180_000);
        assert_eq!(modest.of(&video()), LIMIT);
    }

    #[test]
    fn short_segments_are_measured_together() {
        let mut bandwidth = said(Some(1_000_000), None);
        bandwidth.of(&video());
        // A keyframe of 100 kB, cut off after a tenth of a second, is no 8 Mb/s.
        for n in 0..20 {
            bandwidth.count(TrackKind::Video, if n == 0 { 100_000 } else { 5_000 });
            bandwidth.boundary(n * 9_000);
        }
        assert_eq!(bandwidth.of(&video()), 1_050_000);
    }
}
