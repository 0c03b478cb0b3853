//! A real H.264 (B-frames) + AAC clip through the whole crate, judged by ffmpeg.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use millrace_media::container::flv::file::{Reader, TagKind};
use millrace_media::container::flv::{FlvAudio, FlvVideo};
use millrace_media::frame::{AudioConfig, MediaEvent, TrackConfig, TrackKind};
use millrace_media::hls::checker::Checker;
use millrace_media::hls::{Map, MediaPlaylist, Segment};
use millrace_media::packager::Output;
use millrace_media::repair::Repair;
use support::*;

const SECONDS: u32 = 9;

/// A directory that is removed with its content.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("millrace-media-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs a tool that must succeed without any output on stderr; returns its stdout.
fn quiet(program: &str, arguments: &[&str]) -> Vec<u8> {
    let output =
        Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.trim().is_empty(), "{program} {arguments:?}: {stderr}");
    output.stdout
}

fn clip(rate: &str, encoder: &[&str]) -> Bytes {
    let video = format!("testsrc2=size=320x180:rate={rate}:duration={SECONDS}");
    let audio = format!("sine=frequency=440:sample_rate=44100:duration={SECONDS}");
    let mut arguments = vec!["-v", "error", "-f", "lavfi", "-i", &video, "-f", "lavfi", "-i", &audio];
    arguments.extend(["-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-threads", "1"]);
    arguments.extend(encoder);
    arguments.extend([
        "-c:a",
        "aac",
        "-b:a",
        "96k",
        "-ac",
        "2",
        "-flvflags",
        "no_duration_filesize",
        "-f",
        "flv",
        "pipe:1",
    ]);
    Bytes::from(quiet("ffmpeg", &arguments))
}

fn messages(flv: Bytes) -> Vec<Message> {
    Reader::new(flv)
        .unwrap()
        .map(Result::unwrap)
        .filter_map(|tag| match tag.kind {
            TagKind::Video => Some(Message::Video(tag.timestamp_ms, FlvVideo::parse(tag.body).unwrap()?)),
            TagKind::Audio => Some(Message::Audio(tag.timestamp_ms, FlvAudio::parse(tag.body).unwrap()?)),
            TagKind::Script => None,
        })
        .collect()
}

/// Writes init, segments and playlist of a track, and all of them in one file; returns the path of
/// that file.
fn write(outputs: &[Output], track: TrackKind, directory: &Path) -> PathBuf {
    let mut whole = Vec::new();
    let mut playlist =
        MediaPlaylist { target_duration: 4, media_sequence: 100, ended: true, ..MediaPlaylist::default() };
    let mut segment: Vec<u8> = Vec::new();
    for output in outputs {
        match output {
            Output::Init(init) if init.track == track => {
                std::fs::write(directory.join(format!("{track}-init.mp4")), &init.bytes).unwrap();
                whole.extend_from_slice(&init.bytes);
            }
            Output::Part(part) if part.track == track => segment.extend(part.body.iter().flatten()),
            Output::SegmentEnd(end) if end.head.track == track => {
                assert_eq!(segment.len() as u64, end.bytes);
                let name = format!("{track}-{}.m4s", end.head.msn);
                std::fs::write(directory.join(&name), &segment).unwrap();
                whole.append(&mut segment);
                playlist.segments.push(Segment {
                    uri: name.into(),
                    duration: end.head.timescale.duration(end.duration),
                    map: Some(Map { uri: Arc::from(format!("{track}-init.mp4")) }),
                    ..Segment::default()
                });
            }
            _ => {}
        }
    }
    let text = playlist.render();
    assert_eq!(Checker::new().check(&text), []);
    std::fs::write(directory.join(format!("{track}.m3u8")), text).unwrap();
    let path = directory.join(format!("{track}.mp4"));
    std::fs::write(&path, whole).unwrap();
    path
}

/// (pts, dts) of every packet in seconds.
fn probe(path: &str, stream: &str) -> Vec<(f64, f64)> {
    let entries = ["-show_entries", "packet=pts_time,dts_time", "-of", "csv=p=0"];
    let out =
        quiet("ffprobe", &[&["-v", "error", "-select_streams", stream][..], &entries, &[path]].concat());
    String::from_utf8(out)
        .unwrap()
        .lines()
        .map(|line| {
            let mut fields = line.split(',').map(|field| field.parse().unwrap());
            (fields.next().unwrap(), fields.next().unwrap())
        })
        .collect()
}

fn check(name: &str, rate: &str, encoder: &[&str]) {
    let directory = Directory::new(name);
    let flv = clip(rate, encoder);
    let source = directory.0.join("source.flv");
    std::fs::write(&source, &flv).unwrap();
    let messages = messages(flv);
    let (events, ingest) = segment(messages.clone(), config());
    let (outputs, packager) = package(MEASURE, events.clone(), true);
    assert_eq!(packager.repairs().get(Repair::LateFrame), 0);
    assert_eq!(ingest.timeline.repairs().total(), 0);
    let mut starts = Vec::new();
    for (track, stream) in [(TrackKind::Video, "v:0"), (TrackKind::Audio, "a:0")] {
        let out: Vec<Bytes> = samples(&outputs, track).into_iter().map(|sample| sample.3).collect();
        assert!(out == message_data(&messages, track), "{track}: byte for byte, in order, once");
        let whole = write(&outputs, track, &directory.0);
        let whole = whole.to_str().unwrap();
        quiet("ffmpeg", &["-v", "error", "-xerror", "-i", whole, "-f", "null", "-"]);
        let list = directory.0.join(format!("{track}.m3u8"));
        let list = list.to_str().unwrap();
        quiet(
            "ffmpeg",
            &["-v", "error", "-xerror", "-allowed_extensions", "ALL", "-i", list, "-f", "null", "-"],
        );
        let (before, after) = (probe(source.to_str().unwrap(), stream), probe(whole, stream));
        assert_eq!(before.len(), after.len());
        assert!(after.windows(2).all(|pair| pair[0].1 < pair[1].1), "decoding times grow");
        let shift = after[0].0 - before[0].0;
        for (old, new) in before.iter().zip(&after) {
            assert!((new.0 - old.0 - shift).abs() < 0.0015, "{track}: {new:?} for {old:?} + {shift}");
        }
        starts.push(shift);
    }
    assert!((starts[0] - starts[1]).abs() < 0.0015, "audio and video keep their distance: {starts:?}");
}

/// The clip's audio, header and all, stays away for its first three seconds; metadata has announced
/// it as `announced`.
fn late_audio(name: &str, announced: AudioConfig) -> (Vec<MediaEvent>, Directory, PathBuf) {
    let directory = Directory::new(name);
    let (mut header, mut ingest) = (None, Ingest::new(config()));
    ingest.timeline.expect_audio(announced);
    let mut events = Vec::new();
    for message in messages(clip("30", &["-bf", "2", "-g", "60", "-sc_threshold", "0"])) {
        match &message {
            Message::Audio(_, FlvAudio::SequenceHeader(_)) => header = Some(message),
            Message::Audio(ms, _) if *ms < 3_000 => {}
            Message::Audio(..) => {
                events.extend(header.take().into_iter().flat_map(|header| ingest.push(header)));
                events.extend(ingest.push(message));
            }
            Message::Video(..) => events.extend(ingest.push(message)),
        }
    }
    let (outputs, packager) = package(MEASURE, events.clone(), true);
    assert_eq!(packager.repairs().get(Repair::LateFrame), 0);
    let whole = write(&outputs, TrackKind::Audio, &directory.0);
    (events, directory, whole)
}

#[test]
fn audio_announced_by_metadata_decodes_as_silence_until_it_comes() {
    let announced = AudioConfig::aac_lc(44_100, 2).unwrap();
    let (events, _directory, whole) = late_audio("late", announced);
    let discontinuous =
        |event: &&MediaEvent| matches!(event, MediaEvent::Frame(tagged) if tagged.tag.discontinuity);
    assert_eq!(events.iter().filter(discontinuous).count(), 0);
    let inits = |event: &&MediaEvent| matches!(event, MediaEvent::Init { config: TrackConfig::Audio(_), .. });
    assert_eq!(events.iter().filter(inits).count(), 1, "the same decoder all along");
    let arguments = ["-v", "error", "-xerror", "-i", whole.to_str().unwrap(), "-f", "s16le", "pipe:1"];
    let samples = quiet("ffmpeg", &arguments);
    let second = 44_100 * 2 * 2;
    assert!((samples.len() as i64 - 9 * second as i64).abs() < second as i64 / 10, "{}", samples.len());
    // Nothing but the first frame after the change may differ from silence before the tone.
    assert!(samples[..second * 29 / 10].iter().all(|byte| *byte == 0), "digital silence");
    let tone = &samples[second * 31 / 10..second * 4];
    assert!(tone.iter().any(|byte| *byte != 0), "the tone");
}

#[test]
fn audio_other_than_announced_follows_a_discontinuity() {
    let announced = AudioConfig::aac_lc(48_000, 1).unwrap();
    let (events, ..) = late_audio("other", announced);
    let stamps = events.iter().filter_map(|event| match event {
        MediaEvent::Frame(tagged) if tagged.frame.track() == TrackKind::Audio => Some(tagged.tag),
        _ => None,
    });
    let stamps: Vec<_> = stamps.collect();
    assert_eq!(stamps.iter().filter(|stamp| stamp.discontinuity).count(), 1);
    let change = stamps.iter().position(|stamp| stamp.discontinuity).unwrap();
    assert!(stamps[..change].iter().all(|stamp| stamp.init_version == 0));
    assert!(stamps[change..].iter().all(|stamp| stamp.init_version == 1));
    assert!(stamps[change].msn > stamps[change - 1].msn, "a segment of its own");
}

#[test]
fn clip_of_30_fps_with_b_frames_comes_out_byte_for_byte() {
    check("30", "30", &["-bf", "2", "-g", "60", "-keyint_min", "60", "-sc_threshold", "0"]);
}

#[test]
fn clip_of_ntsc_rate_with_long_gops_comes_out_byte_for_byte() {
    check("ntsc", "30000/1001", &["-bf", "3", "-g", "250", "-sc_threshold", "0"]);
}

#[test]
fn clip_of_60_fps_without_b_frames_comes_out_byte_for_byte() {
    check("60", "60", &["-bf", "0", "-g", "60", "-tune", "zerolatency"]);
}

#[test]
fn silent_frames_decode_to_digital_silence() {
    let directory = Directory::new("silence");
    for channels in [1u8, 2] {
        let frame = millrace_media::codec::aac::silent_frame(channels).unwrap();
        let length = frame.len() as u8 + 7;
        // ADTS: AAC-LC, 48 kHz.
        let header = [0xff, 0xf1, 0x4c, channels << 6, length >> 3, length << 5 | 0x1f, 0xfc];
        let stream: Vec<u8> = header.into_iter().chain(frame).collect::<Vec<_>>().repeat(20);
        let path = directory.0.join(format!("{channels}.aac"));
        std::fs::write(&path, stream).unwrap();
        let mut text = String::new();
        let _ = write!(text, "{}", path.display());
        let arguments = ["-v", "error", "-f", "aac", "-i", &text, "-f", "s16le", "pipe:1"];
        let samples = quiet("ffmpeg", &arguments);
        assert_eq!(samples.len(), 20 * 1024 * 2 * usize::from(channels));
        assert!(samples.iter().all(|byte| *byte == 0), "digital silence");
    }
}
