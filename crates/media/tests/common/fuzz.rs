//! The body of the fuzz target; `tests/corpus.rs` replays its corpus on the stable toolchain.

use bytes::{Buf, Bytes};
use millrace_media::codec::nal::nal_units;
use millrace_media::container::flv::{FlvAudio, FlvVideo};
use millrace_media::intake::{AacIntake, AudioStep, H264Intake, VideoStep};

/// Most bytes that the lengths and parameter sets in front of a picture may add to what was sent.
const MAX_ADDED: usize = 80 * 1024;

/// Takes the input as messages, each behind a byte of its kind (video if it is even) and two of its length, through the
/// FLV parsers and the intakes: every access unit that comes out has lengths that add up.
pub fn media_bodies(input: &[u8]) {
    let (mut video, mut audio) = (H264Intake::default(), AacIntake::default());
    let (mut rest, mut sent) = (input, 0);
    while let Some((&[kind, high, low], tail)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([high, low])).min(tail.len());
        let (body, tail) = tail.split_at(length);
        (rest, sent) = (tail, sent + length);
        let body = Bytes::copy_from_slice(body);
        if kind % 2 == 0 {
            take_video(&mut video, body, sent);
        } else {
            take_audio(&mut audio, body);
        }
    }
}

fn take_video(intake: &mut H264Intake, body: Bytes, sent: usize) {
    let _ = match FlvVideo::parse(body) {
        Ok(Some(FlvVideo::SequenceHeader(record))) => intake.record(record),
        Ok(Some(FlvVideo::Nalus { cts_ms, keyframe, data })) => {
            intake.picture(i64::from(cts_ms), keyframe, data)
        }
        _ => Ok(()),
    };
    while let Some(step) = intake.poll() {
        match step {
            VideoStep::Config(config) => {
                assert!(config.nal_length_size == 4 && config.width > 0 && config.height > 0);
            }
            VideoStep::Picture { data, .. } | VideoStep::Rest { data } => {
                assert!(data.len() <= 2 * sent + MAX_ADDED);
                for unit in nal_units(&data, 4) {
                    assert!(unit.is_ok_and(|unit| unit.remaining() > 0), "an access unit of empty NAL units");
                }
            }
        }
    }
}

fn take_audio(intake: &mut AacIntake, body: Bytes) {
    let _ = match FlvAudio::parse(body) {
        Ok(Some(FlvAudio::SequenceHeader(record))) => intake.record(record),
        Ok(Some(FlvAudio::Raw(data))) => intake.frames(data),
        Ok(Some(FlvAudio::Mp3(data))) => millrace_media::intake::Mp3Intake::default().frames(data),
        _ => Ok(()),
    };
    while let Some(step) = intake.poll() {
        match step {
            AudioStep::Config(config) => assert!(config.rate > 0 && config.channels > 0),
            AudioStep::Frame { data, .. } => assert!(!data.is_empty()),
        }
    }
}
