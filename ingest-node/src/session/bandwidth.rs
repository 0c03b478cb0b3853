//! The bandwidth that a publisher's tracks are declared with (BANDWIDTH): players choose a rendition by it, and read it
//! once.
//!
//! It is the publisher's own declaration (metadata) and a margin; without one, an estimate from picture size and
//! channels. It never exceeds the publisher's bitrate limit, and is corrected upwards when a segment turns out bigger,
//! which reaches viewers who join later.

use millrace_media::frame::{AudioConfig, TrackConfig, TrackKind, VideoConfig};

use super::source::SourceMetadata;

/// Added to the publisher's declaration, in percent: rate control overshoots, and fragments have headers.
const MARGIN: u64 = 5;
/// A segment this much above the declared rate, in percent, corrects it, by as much again: players expect
/// deviations of a tenth (HLS authoring specification, 1.26), and each correction is announced.
const TOLERANCE: u64 = 10;
/// Bits per pixel of a publisher that declares nothing: a value too low makes players start a stream they can't sustain.
const BITS_PER_PIXEL: f64 = 0.15;
/// Pictures per second assumed where neither the stream nor metadata declares them.
const FRAME_RATE: f64 = 30.0;
/// Bounds of the estimate in bits per second.
const ESTIMATE: std::ops::RangeInclusive<u64> = 500_000..=20_000_000;
/// Estimated bits per second of an audio channel.
const AUDIO_CHANNEL: u64 = 96_000;
/// A decoder's input buffer bounds an AAC frame to 6144 bits a channel and 1024 samples (ISO/IEC 14496-3 §4.5.3.2).
const AAC_BITS_PER_SAMPLE: u64 = 6;

/// The bandwidth of one track.
#[derive(Debug, Default)]
struct TrackBandwidth {
    /// Bits per second that the publisher declares.
    announced: Option<u64>,
    /// Bits per second that a segment made necessary.
    corrected: u64,
    /// Bits per second that are declared at present.
    declared: u64,
    /// Bytes since the measurement began.
    bytes: u64,
}

/// Declares, measures and corrects the bandwidth of both tracks.
#[derive(Debug)]
pub(super) struct Bandwidth {
    limit: u64,
    /// Shortest measurement in 90 kHz ticks.
    shortest: i64,
    since: Option<i64>,
    frame_rate: Option<f64>,
    video: TrackBandwidth,
    audio: TrackBandwidth,
}

impl Bandwidth {
    /// Creates the bandwidths of a publisher that may send `limit` bits per second.
    pub(super) fn new(limit: u64, target_duration_s: u32) -> Self {
        // Peaks are those of half a target duration and more (RFC 8216bis §4.4.6.2).
        let shortest = i64::from(target_duration_s) * 90_000 / 2;
        let (video, audio) = (TrackBandwidth::default(), TrackBandwidth::default());
        Self { limit, shortest, since: None, frame_rate: None, video, audio }
    }

    /// Takes the publisher's declaration; a later one replaces it for later configurations.
    pub(super) fn declare(&mut self, metadata: &SourceMetadata) {
        self.frame_rate = metadata.frame_rate;
        self.video.announced = metadata.video_bitrate;
        self.audio.announced = metadata.audio_bitrate;
    }

    /// Returns the bits per second to declare for a configuration.
    pub(super) fn declared(&mut self, config: &TrackConfig) -> u64 {
        let (wanted, max) = match config {
            TrackConfig::Video(video) => (self.wanted_video(video), self.limit),
            TrackConfig::Audio(audio) => (self.wanted_audio(audio), self.limit.min(max_audio(audio))),
        };
        let track = self.track(config.track());
        track.declared = wanted.max(track.corrected).min(max);
        track.declared
    }

    /// Counts media of a track.
    pub(super) fn count(&mut self, track: TrackKind, bytes: usize) {
        self.track(track).bytes += bytes as u64;
    }

    /// Measures the segment that ends where the next one begins, at `start` in 90 kHz ticks.
    pub(super) fn boundary(&mut self, start: i64) {
        let ticks = start - *self.since.get_or_insert(start);
        if ticks < self.shortest {
            return;
        }
        self.since = Some(start);
        for track in [&mut self.video, &mut self.audio] {
            let bytes = u128::from(std::mem::take(&mut track.bytes));
            let measured = u64::try_from(bytes * 8 * 90_000 / ticks as u128).unwrap_or(u64::MAX);
            if measured > with_percent(track.declared, TOLERANCE) {
                track.corrected = with_percent(measured, TOLERANCE);
            }
        }
    }

    fn track(&mut self, track: TrackKind) -> &mut TrackBandwidth {
        match track {
            TrackKind::Video => &mut self.video,
            TrackKind::Audio => &mut self.audio,
        }
    }

    fn wanted_video(&self, config: &VideoConfig) -> u64 {
        self.video.announced.map_or_else(
            || {
                let coded = config.frame_rate.map(|(ticks, per)| f64::from(ticks) / f64::from(per.max(1)));
                let pixels = f64::from(config.width) * f64::from(config.height);
                let bits = pixels * coded.or(self.frame_rate).unwrap_or(FRAME_RATE) * BITS_PER_PIXEL;
                (bits as u64).clamp(*ESTIMATE.start(), *ESTIMATE.end())
            },
            |bits| with_percent(bits, MARGIN),
        )
    }

    fn wanted_audio(&self, config: &AudioConfig) -> u64 {
        let estimate = AUDIO_CHANNEL * u64::from(config.channels);
        self.audio.announced.map_or(estimate, |bits| with_percent(bits, MARGIN))
    }
}

/// Returns the most bits per second that frames of this configuration can hold.
fn max_audio(config: &AudioConfig) -> u64 {
    AAC_BITS_PER_SAMPLE * u64::from(config.rate) * u64::from(config.channels)
}

/// Returns `bits` and `percent` of them more.
const fn with_percent(bits: u64, percent: u64) -> u64 {
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
            codec: millrace_media::codec::VideoCodec::H264,
            record: bytes::Bytes::new(),
            width: 1280,
            height: 720,
            pixel_aspect: (1, 1),
            frame_rate: Some((30, 1)),
            codecs: String::new(),
            nal_length_size: 4,
        })
    }

    fn declaring(video: Option<u64>, audio: Option<u64>) -> Bandwidth {
        let mut bandwidth = Bandwidth::new(LIMIT, 4);
        bandwidth.declare(&SourceMetadata {
            video_bitrate: video,
            audio_bitrate: audio,
            ..SourceMetadata::default()
        });
        bandwidth
    }

    #[test]
    fn bandwidth_is_the_declaration_and_a_margin_within_the_limit() {
        let mut honest = declaring(Some(2_500_000), Some(128_000));
        assert_eq!((honest.declared(&video()), honest.declared(&audio())), (2_625_000, 134_400));
        let mut silent = declaring(None, None);
        assert_eq!((silent.declared(&video()), silent.declared(&audio())), (4_147_200, 192_000));
        let mut boastful = declaring(Some(1_000_000_000), Some(1_000_000_000));
        assert_eq!((boastful.declared(&video()), boastful.declared(&audio())), (LIMIT, 576_000));
    }

    #[test]
    fn bandwidth_is_corrected_once_by_a_bigger_segment() {
        let mut modest = declaring(Some(1_000), None);
        assert_eq!(modest.declared(&video()), 1_050);
        modest.boundary(90_000);
        let mut declared = Vec::new();
        for segment in 1..=4 {
            modest.count(TrackKind::Video, 500_000);
            modest.boundary(90_000 + segment * 180_000);
            declared.push(modest.declared(&video()));
        }
        // 500 kB in two seconds are 2 Mb/s.
        assert_eq!(declared, [2_200_000; 4]);
        // A tenth more is within the tolerance, and the limit holds.
        modest.count(TrackKind::Video, 600_000);
        modest.boundary(90_000 + 5 * 180_000);
        assert_eq!(modest.declared(&video()), 2_200_000);
        modest.count(TrackKind::Video, 1 << 30);
        modest.boundary(90_000 + 6 * 180_000);
        assert_eq!(modest.declared(&video()), LIMIT);
    }

    #[test]
    fn bandwidth_of_short_segments_is_measured_together() {
        let mut bandwidth = declaring(Some(1_000_000), None);
        bandwidth.declared(&video());
        // A keyframe of 100 kB, cut off after a tenth of a second, is no 8 Mb/s.
        for n in 0..20 {
            bandwidth.count(TrackKind::Video, if n == 0 { 100_000 } else { 5_000 });
            bandwidth.boundary(n * 9_000);
        }
        assert_eq!(bandwidth.declared(&video()), 1_050_000);
    }
}
