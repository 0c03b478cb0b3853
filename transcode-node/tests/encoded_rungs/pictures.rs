//! The pictures of renditions, decoded, by the numbers that are drawn on them.

use bytes::Bytes;
use millrace_codec::H264Decoder;
use millrace_media::container::cmaf::demux::{parse_config, parse_fragments};
use millrace_media::frame::TrackConfig;
use millrace_testkit::clip::read_number;

/// One picture of a rendition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// Presentation time in 90 kHz ticks.
    pub pts: i64,
    /// The number that is drawn, if it can be read.
    pub number: Option<u16>,
}

/// Decodes parts or segments that follow each other, and returns their pictures in the order of presentation.
pub fn decode<'a>(init: &Bytes, media: impl IntoIterator<Item = &'a Bytes>) -> Vec<Shown> {
    let TrackConfig::Video(config) = parse_config(init).unwrap() else { panic!("not video") };
    let mut decoder = H264Decoder::new(&config.record).unwrap();
    let mut pictures = Vec::new();
    for bytes in media {
        for sample in parse_fragments(bytes).unwrap().into_iter().flat_map(|fragment| fragment.samples) {
            let pts = sample.dts + i64::from(sample.cts);
            pictures.extend(decoder.decode(&sample.data, pts).unwrap());
        }
    }
    pictures.extend(decoder.finish().unwrap());
    let shown = |picture: millrace_codec::LumaFrame| Shown {
        pts: picture.pts,
        number: read_number(&picture.luma, picture.width as usize, picture.height as usize),
    };
    pictures.into_iter().map(shown).collect()
}

/// Returns the decoding time of the first sample.
pub fn start(media: &Bytes) -> i64 {
    parse_fragments(media).unwrap()[0].samples[0].dts
}

/// Returns the decoding times of the samples.
pub fn times(media: &Bytes) -> Vec<i64> {
    let samples = parse_fragments(media).unwrap().into_iter().flat_map(|fragment| fragment.samples);
    samples.map(|sample| sample.dts).collect()
}

/// Returns the number of samples.
pub fn count(media: &Bytes) -> usize {
    parse_fragments(media).unwrap().iter().map(|fragment| fragment.samples.len()).sum()
}
