//! Pictures that stand in for a paused encoder, decoded by ffmpeg: the decoded frames are those of the
//! source, with the last one repeated.
#![allow(missing_docs, clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use millrace_media::codec::h264::{ParameterSets, PictureRepeater};

/// Splits an Annex B stream into NAL units without start codes.
fn nal_units(stream: &[u8]) -> Vec<&[u8]> {
    let starts: Vec<usize> =
        (0..stream.len().saturating_sub(2)).filter(|at| stream[*at..*at + 3] == [0, 0, 1]).collect();
    let ends = starts.iter().skip(1).copied().chain([stream.len() + 1]);
    starts
        .iter()
        .zip(ends)
        .map(|(start, end)| {
            let end = if end > stream.len() { stream.len() } else { end };
            let unit = &stream[start + 3..end];
            let zeros = unit.iter().rev().take_while(|byte| **byte == 0).count();
            &unit[..unit.len() - zeros]
        })
        .collect()
}

/// Groups NAL units into access units; parameter sets and SEI belong to the picture that follows.
fn access_units(stream: &[u8]) -> Vec<Vec<&[u8]>> {
    let mut units: Vec<Vec<&[u8]>> = Vec::new();
    let mut head: Vec<&[u8]> = Vec::new();
    for nal in nal_units(stream) {
        let is_slice = matches!(nal[0] & 0x1f, 1 | 5);
        // first_mb_in_slice 0 is a single bit.
        if is_slice && nal[1] & 0x80 == 0 {
            units.last_mut().unwrap().push(nal);
        } else if is_slice {
            head.push(nal);
            units.push(std::mem::take(&mut head));
        } else {
            head.push(nal);
        }
    }
    units
}

fn with_lengths(unit: &[&[u8]]) -> Bytes {
    unit.iter()
        .flat_map(|nal| [&(nal.len() as u32).to_be_bytes()[..], nal].concat())
        .collect::<Vec<u8>>()
        .into()
}

/// The hash of each decoded frame, in the order of output; any complaint of the decoder fails.
fn decoded(stream: &[u8], folder: &Path, name: &str) -> Vec<String> {
    let file = folder.join(name);
    std::fs::write(&file, stream).unwrap();
    let output = Command::new("ffmpeg")
        .args(["-hide_banner", "-nostdin", "-loglevel", "warning", "-xerror", "-r", "30", "-f", "h264", "-i"])
        .arg(&file)
        .args(["-fps_mode", "passthrough", "-f", "framemd5", "-"])
        .output()
        .unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaints.is_empty(), "{name}: {complaints}");
    let text = String::from_utf8(output.stdout).unwrap();
    let frames = text.lines().filter(|line| !line.starts_with('#'));
    frames.map(|line| line.rsplit(',').next().unwrap().trim().to_owned()).collect()
}

/// Encodes moving pictures of an odd size by x264 with these settings, the profile first, as Annex B.
fn encoded(settings: &str, pictures: u32) -> Vec<u8> {
    let (profile, settings) = settings.split_once(':').unwrap();
    let profile = profile.trim_start_matches("profile=");
    let encoded = Command::new("ffmpeg")
        .args([
            "-hide_banner",
            "-nostdin",
            "-loglevel",
            "error",
            "-f",
            "lavfi",
            "-i",
            "testsrc2=s=318x180:r=30",
        ])
        .args(["-frames:v", &pictures.to_string(), "-pix_fmt", "yuv420p", "-c:v", "libx264"])
        .args(["-profile:v", profile, "-g", "30", "-x264-params", settings, "-f", "h264", "-"])
        .output()
        .unwrap();
    assert!(encoded.status.success(), "{}", String::from_utf8_lossy(&encoded.stderr));
    encoded.stdout
}

#[test]
fn decoder_shows_the_last_picture_again_and_all_others_as_they_were() {
    let folder = std::env::temp_dir().join(format!("millrace-repeat-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let other = encoded("profile=baseline:sps-id=1", 1);
    for (number, settings) in [
        "profile=baseline:bframes=0",
        "profile=main:bframes=0:ref=1:weightp=0",
        "profile=main:bframes=0:ref=4:weightp=2",
        "profile=high:bframes=0:ref=1:slices=4",
        "profile=high:bframes=2:ref=4:b-pyramid=none",
        "profile=high:bframes=2:ref=1:weightp=2:cabac=0",
        "profile=high:bframes=3:ref=4:b-pyramid=normal",
        "profile=high:bframes=0:sliced-threads=1:rc-lookahead=0:sync-lookahead=0",
        "profile=high:bframes=0:fake-interlaced=1",
        "profile=high:bframes=0:tff=1:weightp=2",
        "profile=main:bframes=0:bff=1:ref=4:slices=2",
        "profile=main:bframes=0:tff=1:cabac=0",
        "profile=high:bframes=2:tff=1:ref=4",
    ]
    .into_iter()
    .enumerate()
    {
        let encoded = encoded(settings, 60);
        let units = access_units(&encoded);
        // Parameter sets of another encoding come first.
        let mut sets = ParameterSets::default();
        for nal in access_units(&other)[0].iter().chain(&units[0]) {
            sets.insert(&Bytes::copy_from_slice(nal)).unwrap();
        }
        let mut repeater = PictureRepeater::new(&sets.record(Some(1)).unwrap()).unwrap();
        let reference = decoded(&encoded, &folder, &format!("{number}-source.h264"));
        let annex_b = |unit: &[&[u8]]| {
            unit.iter().flat_map(|nal| [&[0, 0, 0, 1][..], nal].concat()).collect::<Vec<u8>>()
        };
        // A pause after an IDR picture, after the pictures behind it, and right before the next one.
        for pause in [0usize, 1, 7, 13, 29, 59] {
            let mut repaired = Vec::new();
            let mut inserted = 0;
            for (index, unit) in units.iter().enumerate() {
                repaired.extend(annex_b(unit));
                repeater.observe(&with_lengths(unit).into());
                // Only where the newest picture in decoding order is the newest one shown.
                if index == pause {
                    for _ in 0..5 {
                        let repeat = repeater.repeat().unwrap();
                        repaired.extend(annex_b(&[&repeat[4..]]));
                        inserted += 1;
                    }
                }
            }
            let frames = decoded(&repaired, &folder, &format!("{number}-{pause}.h264"));
            let mut distinct = frames.clone();
            distinct.dedup();
            let mut expected = reference.clone();
            expected.dedup();
            // Pictures that are shown before the repeated ones and come behind them may be late.
            if settings.contains("bframes=0") {
                assert_eq!(frames.len(), reference.len() + inserted, "{settings}: paused after {pause}");
                assert_eq!(distinct, expected, "{settings}: paused after {pause}");
            } else {
                let late = reference.iter().filter(|frame| !frames.contains(frame)).count();
                assert!(late <= 3, "{settings}: {late} pictures lost by a pause after {pause}");
            }
        }
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
