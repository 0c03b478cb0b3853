//! Pictures that stand in for a paused encoder of fields, decoded by ffmpeg. No encoder here codes fields as pictures of
//! their own, so the test writes them, of macroblocks without compression.
#![allow(missing_docs, clippy::unwrap_used)]

use std::process::Command;

use bytes::Bytes;
use millrace_media::codec::h264::{AvcConfig, PictureRepeater};

/// Frames of 32 × 64 samples, so that a field has four macroblocks.
const MACROBLOCKS: u32 = 4;

/// A NAL unit that is being written bit by bit.
struct Unit {
    bits: Vec<bool>,
}

impl Unit {
    fn new(header: u32) -> Self {
        Self { bits: Vec::new() }.bits(header, 8)
    }

    fn bits(mut self, value: u32, count: u32) -> Self {
        self.bits.extend((0..count).rev().map(|at| value >> at & 1 == 1));
        self
    }

    /// Unsigned Exp-Golomb codes.
    fn codes(self, values: &[u32]) -> Self {
        values.iter().fold(self, |unit, value| {
            let length = 32 - (value + 1).leading_zeros();
            unit.bits(0, length - 1).bits(value + 1, length)
        })
    }

    fn align(mut self) -> Self {
        while !self.bits.len().is_multiple_of(8) {
            self.bits.push(false);
        }
        self
    }

    /// Appends the stop bit; returns the bytes with emulation prevention.
    fn finish(self) -> Vec<u8> {
        let bits = self.bits(1, 1).align().bits;
        let mut out = Vec::new();
        for byte in bits.chunks(8).map(|bits| bits.iter().fold(0u8, |byte, bit| byte << 1 | u8::from(*bit))) {
            if out.ends_with(&[0, 0]) && byte <= 3 {
                out.push(3);
            }
            out.push(byte);
        }
        out
    }
}

fn sps() -> Vec<u8> {
    // Main profile, level 1.0; frame numbers of 4 bits, order counts of 8.
    let unit = Unit::new(0x67).bits(77, 8).bits(0, 8).bits(10, 8).codes(&[0, 0, 0, 4, 2]).bits(0, 1);
    // 2 macroblocks by 2 map units, fields, no macroblocks of either kind, direct_8x8_inference.
    unit.codes(&[1, 1]).bits(0b001, 3).bits(0, 2).finish()
}

fn pps() -> Vec<u8> {
    // CAVLC, one slice group, one reference, deblocking control.
    let unit = Unit::new(0x68).codes(&[0, 0]).bits(0, 2).codes(&[0, 0, 0]).bits(0, 3).codes(&[0, 0, 0]);
    unit.bits(0b100, 3).finish()
}

/// A field of one shade; the very first one is an IDR picture.
fn field(frame: u32, is_bottom: bool) -> Vec<u8> {
    let is_idr = frame == 0 && !is_bottom;
    let unit = Unit::new(if is_idr { 0x65 } else { 0x61 }).codes(&[0, 7, 0]).bits(frame % 16, 4);
    let unit = unit.bits(1, 1).bits(u32::from(is_bottom), 1);
    let unit = if is_idr { unit.codes(&[0]) } else { unit };
    let unit = unit.bits((2 * frame + u32::from(is_bottom)) % 256, 8);
    // The marking of references, QP, no deblocking.
    let unit = unit.bits(0, if is_idr { 2 } else { 1 }).codes(&[0, 1]);
    let shade = 40 + 3 * frame + 100 * u32::from(is_bottom);
    let macroblock = |unit: Unit, _| (0..384).fold(unit.codes(&[25]).align(), |unit, _| unit.bits(shade, 8));
    (0..MACROBLOCKS).fold(unit, macroblock).finish()
}

fn with_lengths(nals: &[Vec<u8>]) -> Bytes {
    nals.iter()
        .flat_map(|nal| [&(nal.len() as u32).to_be_bytes()[..], nal].concat())
        .collect::<Vec<u8>>()
        .into()
}

/// The hash of each decoded frame; any complaint of the decoder fails.
fn decoded(nals: &[Vec<u8>], name: &str) -> Vec<String> {
    let file = std::env::temp_dir().join(format!("millrace-fields-{}-{name}.h264", std::process::id()));
    let stream: Vec<u8> = nals.iter().flat_map(|nal| [&[0, 0, 0, 1][..], nal].concat()).collect();
    std::fs::write(&file, stream).unwrap();
    let output = Command::new("ffmpeg")
        // With several threads ffmpeg 5.1 marks fields behind a frame as corrupt, and decodes them alike.
        .args(["-hide_banner", "-nostdin", "-loglevel", "warning", "-xerror", "-threads", "1", "-r", "25"])
        .args(["-f", "h264", "-i"])
        .arg(&file)
        .args(["-fps_mode", "passthrough", "-f", "framemd5", "-"])
        .output()
        .unwrap();
    std::fs::remove_file(&file).unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaints.is_empty(), "{name}: {complaints}");
    let text = String::from_utf8(output.stdout).unwrap();
    let frames = text.lines().filter(|line| !line.starts_with('#'));
    frames.map(|line| line.rsplit(',').next().unwrap().trim().to_owned()).collect()
}

#[test]
fn decoder_shows_the_last_frame_of_two_fields_again_and_nothing_is_repeated_between_fields() {
    let frames: Vec<[Vec<u8>; 2]> = (0..20).map(|frame| [field(frame, false), field(frame, true)]).collect();
    let stream = |frames: &[[Vec<u8>; 2]]| [&[sps(), pps()][..], &frames.concat()].concat();
    let reference = decoded(&stream(&frames), "source");
    assert_eq!(reference.len(), 20);
    for is_apart in [false, true] {
        for pause in [0, 7, 18] {
            let mut repeater = PictureRepeater::new(&AvcConfig::build(&sps(), &pps()).unwrap()).unwrap();
            let mut nals = vec![sps(), pps()];
            for (index, fields) in frames.iter().enumerate() {
                if is_apart {
                    repeater.observe(&with_lengths(&fields[..1]).into());
                    assert!(repeater.repeat().is_none(), "the second field is still to come");
                    repeater.observe(&with_lengths(&fields[1..]).into());
                } else {
                    repeater.observe(&with_lengths(fields).into());
                }
                nals.extend(fields.clone());
                if index == pause {
                    nals.extend((0..5).map(|_| repeater.repeat().unwrap()[4..].to_vec()));
                }
            }
            let mut expected = reference.clone();
            expected.splice(pause..pause, vec![reference[pause].clone(); 5]);
            assert_eq!(decoded(&nals, "paused"), expected, "paused after {pause}");
        }
    }
}
