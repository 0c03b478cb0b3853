//! What real encoders and muxers send, through intake, timeline, segmenter and packager, judged by ffmpeg.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::path::PathBuf;
use std::process::Command;

use bytes::Bytes;
use millrace_buf::ByteChain;
use millrace_media::codec::nal::nal_units;
use millrace_media::container::flv::file::{Reader, TagKind};
use millrace_media::container::flv::{FlvAudio, FlvVideo};
use millrace_media::frame::{MediaEvent, SyncKind, TrackKind, VideoConfig};
use millrace_media::intake::{AacIntake, AudioStep, H264Intake, VideoStep};
use millrace_media::packager::Output;
use millrace_media::repair::Repair;
use support::*;

/// A message of H.264: its time in milliseconds, composition offset and content.
#[derive(Clone)]
struct Sent {
    time_ms: u32,
    cts_ms: i32,
    keyframe: bool,
    data: ByteChain,
}

/// A clip as an encoder sends it: its record and its pictures.
#[derive(Clone)]
struct Clip {
    record: Option<Bytes>,
    pictures: Vec<Sent>,
}

/// Runs a tool that must succeed; returns its stdout and stderr.
fn run(program: &str, arguments: &[&str]) -> (Vec<u8>, String) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {stderr}");
    (output.stdout, stderr)
}

fn flv(arguments: &[&str]) -> Bytes {
    let begin = ["-v", "error"];
    run("ffmpeg", &[&begin[..], arguments, &["-f", "flv", "pipe:1"]].concat()).0.into()
}

/// Ten seconds of x264 with these parameters.
fn clip(size: &str, x264: &str) -> Clip {
    let source = format!("testsrc2=size={size}:rate=30:duration=8");
    let file = flv(&[
        "-f",
        "lavfi",
        "-i",
        &source,
        "-c:v",
        "libx264",
        "-preset",
        "veryfast",
        "-x264-params",
        x264,
        "-pix_fmt",
        "yuv420p",
    ]);
    let mut clip = Clip { record: None, pictures: Vec::new() };
    for tag in Reader::new(file).unwrap().map(Result::unwrap).filter(|tag| tag.kind == TagKind::Video) {
        match FlvVideo::parse(tag.body).unwrap() {
            Some(FlvVideo::SequenceHeader(record)) => clip.record = Some(record),
            Some(FlvVideo::Nalus { cts_ms, keyframe, data }) => {
                clip.pictures.push(Sent { time_ms: tag.timestamp_ms, cts_ms, keyframe, data });
            }
            _ => {}
        }
    }
    clip
}

fn plain() -> Clip {
    clip("320x180", "keyint=60:min-keyint=60:scenecut=0:bframes=2:b-adapt=0")
}

impl Clip {
    /// The NAL units of the record's parameter sets.
    fn sets(&self) -> [Vec<u8>; 2] {
        let record = self.record.as_ref().unwrap();
        let sps_length = usize::from(record[7]);
        let pps = 8 + sps_length + 3;
        let pps_length = usize::from(record[pps - 1]);
        [record[8..8 + sps_length].to_vec(), record[pps..pps + pps_length].to_vec()]
    }

    /// Frames each access unit anew.
    fn framed(mut self, frame: impl Fn(&[Vec<u8>]) -> Vec<u8>) -> Self {
        for sent in &mut self.pictures {
            sent.data = ByteChain::from(frame(&nals(&sent.data)));
        }
        self
    }

    /// Puts the parameter sets in front of each keyframe and takes the record away.
    fn in_band(mut self) -> Self {
        let [sps, pps] = self.sets();
        for sent in self.pictures.iter_mut().filter(|sent| sent.keyframe) {
            let all = [vec![sps.clone(), pps.clone()], nals(&sent.data)].concat();
            sent.data = ByteChain::from(lengths(&all));
        }
        self.record = None;
        self
    }
}

fn nals(data: &ByteChain) -> Vec<Vec<u8>> {
    let read = |mut unit: bytes::buf::Take<millrace_buf::Reader<'_>>| {
        let length = bytes::Buf::remaining(&unit);
        bytes::Buf::copy_to_bytes(&mut unit, length).to_vec()
    };
    nal_units(data, 4).map(|unit| read(unit.unwrap())).collect()
}

fn lengths(nals: &[Vec<u8>]) -> Vec<u8> {
    nals.iter().map(|nal| [&(nal.len() as u32).to_be_bytes()[..], nal].concat()).collect::<Vec<_>>().concat()
}

/// What the intake made of a clip, and the packaged result.
struct Taken {
    intake: H264Intake,
    configs: Vec<VideoConfig>,
    pictures: Vec<(SyncKind, ByteChain)>,
    events: Vec<MediaEvent>,
    outputs: Vec<Output>,
}

fn take(clip: &Clip) -> Taken {
    let mut intake = H264Intake::default();
    let mut ingest = Ingest::new(config());
    let (mut configs, mut pictures) = (Vec::new(), Vec::new());
    if let Some(record) = &clip.record {
        intake.record(record.clone()).unwrap();
    }
    for sent in &clip.pictures {
        let pts = i64::from(sent.time_ms) + i64::from(sent.cts_ms);
        intake.picture(pts, sent.keyframe, sent.data.clone()).unwrap();
        while let Some(step) = intake.poll() {
            match step {
                VideoStep::Config(config) => {
                    configs.push(config.clone());
                    ingest.timeline.video_config(config);
                }
                VideoStep::Picture { sync, data } => {
                    pictures.push((sync, data.clone()));
                    let time = i64::from(sent.time_ms) * 90;
                    ingest.timeline.push_picture(time, i64::from(sent.cts_ms) * 90, sync, data);
                }
                VideoStep::Rest { .. } => panic!("the clips have each picture in one message"),
            }
        }
    }
    let events = ingest.drain();
    let (outputs, _) = package(MEASURE, events.clone(), true);
    Taken { intake, configs, pictures, events, outputs }
}

impl Taken {
    /// The bytes of the newest init segment in front of segment `skip` and all behind it, in a file.
    fn file(&self, name: &str, skip: usize) -> PathBuf {
        let first = ends(&self.outputs, TrackKind::Video)[skip].head.msn;
        let mut file = Vec::new();
        for output in &self.outputs {
            match output {
                Output::Init(init) => file.extend_from_slice(&init.bytes),
                Output::Part(part) if part.msn >= first => file.extend(part.body.iter().flatten()),
                _ => {}
            }
        }
        let path = std::env::temp_dir().join(format!("millrace-intake-{name}-{}.mp4", std::process::id()));
        std::fs::write(&path, file).unwrap();
        path
    }

    /// The number of pictures that ffmpeg decodes from segment `skip` on, and its complaints.
    fn decoded(&self, name: &str, skip: usize) -> (usize, String) {
        let path = self.file(name, skip);
        let text = path.to_str().unwrap();
        let count =
            ["-v", "error", "-count_frames", "-show_entries", "stream=nb_read_frames", "-of", "csv=p=0"];
        let (frames, complaints) = run("ffprobe", &[&count[..], &[text]].concat());
        std::fs::remove_file(&path).unwrap();
        (String::from_utf8(frames).unwrap().trim().parse().unwrap(), complaints)
    }

    /// True for each segment that is independent, in order.
    fn independent(&self) -> Vec<bool> {
        ends(&self.outputs, TrackKind::Video).iter().map(|end| end.head.independent).collect()
    }
}

#[test]
fn every_framing_and_place_of_parameter_sets_gives_the_same_pictures() {
    let plain = plain();
    let expected = take(&plain);
    assert_eq!(expected.intake.repairs().total(), 0);
    assert_eq!(expected.configs.len(), 1);
    let codes = |nals: &[Vec<u8>]| {
        nals.iter().map(|nal| [&[0, 0, 0, 1][..], nal].concat()).collect::<Vec<_>>().concat()
    };
    let zeros = |count: usize| {
        move |nals: &[Vec<u8>]| {
            let framed =
                nals.iter().map(|nal| [&(nal.len() as u32).to_be_bytes()[..], nal, &vec![0; count]].concat());
            framed.collect::<Vec<_>>().concat()
        }
    };
    let mut empty_record = plain.clone().in_band();
    empty_record.record = Some(Bytes::from_static(&[1, 0x64, 0, 0x1f, 0xff, 0xe0, 0]));
    let mut wrong_profile = plain.clone();
    wrong_profile.record = wrong_profile.record.map(|record| {
        let mut record = record.to_vec();
        record[1..4].copy_from_slice(&[0x42, 0, 0x0a]);
        record.into()
    });
    let [sps, pps] = plain.sets();
    let mut codes_for_record = plain.clone();
    codes_for_record.record = Some(codes(&[sps.clone(), pps.clone()]).into());
    let mut apart = plain.clone();
    apart.record = None;
    apart.pictures.insert(0, Sent { data: lengths(&[sps, pps]).into(), ..plain.pictures[0].clone() });
    for (name, clip, sets_in_pictures) in [
        ("in-band", plain.clone().in_band(), true),
        ("empty-record", empty_record, true),
        ("annex-b", plain.clone().framed(codes), false),
        ("annex-b-in-band", plain.clone().in_band().framed(codes), true),
        ("record-of-codes", codes_for_record, false),
        ("one-zero", plain.clone().framed(zeros(1)), false),
        ("two-zeros", plain.clone().framed(zeros(2)), false),
        ("three-zeros", plain.clone().framed(zeros(3)), false),
        ("wrong-profile", wrong_profile, false),
        ("sets-apart", apart, true),
    ] {
        let taken = take(&clip);
        assert_eq!(taken.configs, expected.configs, "{name}: the configuration of the parameter sets");
        assert_eq!(taken.pictures.len(), expected.pictures.len(), "{name}: every picture");
        if !sets_in_pictures {
            assert!(taken.pictures == expected.pictures, "{name}: byte for byte");
        }
        let (decoded, complaints) = taken.decoded(name, 0);
        assert_eq!((decoded, complaints.trim()), (plain.pictures.len(), ""), "{name}");
        assert!(taken.independent().iter().all(|independent| *independent), "{name}");
    }
}

#[test]
fn short_lengths_become_lengths_of_four_bytes() {
    let plain = clip("64x36", "keyint=60:scenecut=0:bframes=0");
    let mut short = plain.clone().framed(|nals| {
        nals.iter()
            .map(|nal| [&(nal.len() as u16).to_be_bytes()[..], nal].concat())
            .collect::<Vec<_>>()
            .concat()
    });
    short.record = short.record.map(|record| {
        let mut record = record.to_vec();
        record[4] = 0xfd;
        record.into()
    });
    let (taken, expected) = (take(&short), take(&plain));
    assert_eq!(taken.configs, expected.configs);
    assert!(taken.pictures == expected.pictures);
}

#[test]
fn size_that_changes_in_band_is_a_new_configuration_at_the_keyframe() {
    let (first, mut second) =
        (plain().in_band(), clip("480x270", "keyint=60:scenecut=0:bframes=0").in_band());
    let after = first.pictures.last().unwrap().time_ms + 33;
    for sent in &mut second.pictures {
        sent.time_ms += after;
    }
    let both = Clip { record: None, pictures: [first.pictures, second.pictures].concat() };
    let taken = take(&both);
    let sizes: Vec<_> = taken.configs.iter().map(|config| (config.width, config.height)).collect();
    assert_eq!(sizes, [(320, 180), (480, 270)]);
    assert_eq!(taken.pictures.len(), both.pictures.len());
    // The header of the first size, sent again, does not bring it back.
    let mut intake = taken.intake;
    intake.record(plain().record.unwrap()).unwrap();
    intake.record(plain().record.unwrap()).unwrap();
    assert_eq!(std::iter::from_fn(|| intake.poll()).count(), 1);
}

#[test]
fn open_gops_are_cut_and_decoded_from_every_segment() {
    let clip = clip("320x180", "keyint=60:min-keyint=60:scenecut=0:open-gop=1:bframes=2:b-adapt=0");
    let taken = take(&clip);
    assert_eq!(taken.independent(), [true; 4], "one segment for each group of pictures");
    assert_eq!(taken.pictures.iter().filter(|picture| picture.0 == SyncKind::Idr).count(), 1);
    assert_eq!(taken.pictures.iter().filter(|picture| picture.0 == SyncKind::OpenGop).count(), 3);
    let total = clip.pictures.len();
    assert_eq!(taken.decoded("open", 0).0, total);
    let counts: Vec<usize> = (0..4)
        .map(|segment| {
            parts(&taken.outputs, TrackKind::Video)
                .iter()
                .filter(|part| part.msn == 100 + segment)
                .map(|part| part.samples as usize)
                .sum()
        })
        .collect();
    for skip in 1..4 {
        let behind: usize = counts[skip..].iter().sum();
        let (decoded, _) = taken.decoded("open-skip", skip);
        assert!((behind - 2..=behind).contains(&decoded), "{decoded} of {behind} from segment {skip} on");
    }
}

#[test]
fn publish_that_begins_with_an_open_gop_leaves_its_leading_pictures_out() {
    let mut clip = clip("320x180", "keyint=60:min-keyint=60:scenecut=0:open-gop=1:bframes=2:b-adapt=0");
    let second = clip.pictures.iter().skip(1).position(|sent| sent.keyframe).unwrap() + 1;
    clip.pictures.drain(..second);
    let taken = take(&clip);
    let left_out = taken.intake.repairs().get(Repair::LeadingPicture) as usize;
    assert_eq!(left_out, 2);
    let (decoded, complaints) = taken.decoded("leading", 0);
    assert_eq!(complaints.trim(), "");
    // ffmpeg leaves out a few more until it knows the order of the pictures.
    let sent = clip.pictures.len() - left_out;
    assert!((sent - 4..=sent).contains(&decoded), "{decoded} of {sent}");
}

#[test]
fn pixels_that_are_not_square_reach_ffprobe_and_the_display_size() {
    for (size, setsar, pixel_aspect, display) in [
        ("720x576", "sar=64/45", (64, 45), (1024, 576)),
        ("720x480", "sar=8/9", (8, 9), (720, 540)),
        ("320x180", "sar=1", (1, 1), (320, 180)),
        ("324x182", "sar=4/3", (4, 3), (432, 182)),
    ] {
        let clip = clip(size, setsar);
        let taken = take(&clip);
        let config = &taken.configs[0];
        assert_eq!((config.pixel_aspect, config.display_size()), (pixel_aspect, display), "{size} {setsar}");
        // ffprobe takes the ratio of `pasp` in front of that of the SPS.
        let path = taken.file("pixels", 0);
        let entries = ["-v", "error", "-show_entries", "stream=sample_aspect_ratio", "-of", "csv=p=0"];
        let (ratio, _) = run("ffprobe", &[&entries[..], &[path.to_str().unwrap()]].concat());
        std::fs::remove_file(&path).unwrap();
        let expected = format!("{}:{}", pixel_aspect.0, pixel_aspect.1);
        assert_eq!(String::from_utf8(ratio).unwrap().trim(), expected);
        let init = taken.outputs.iter().find_map(|output| match output {
            Output::Init(init) => Some(init.bytes.clone()),
            _ => None,
        });
        let init = init.unwrap();
        let has_pasp = init.windows(4).any(|bytes| bytes == b"pasp");
        assert_eq!(has_pasp, pixel_aspect != (1, 1));
        let at = init.windows(4).position(|bytes| bytes == b"tkhd").unwrap() + 80;
        let sides = [at, at + 4].map(|at| u32::from(u16::from_be_bytes([init[at], init[at + 1]])));
        assert_eq!(sides, [display.0, display.1], "{size}: the track header");
    }
}

#[test]
fn gradual_refresh_begins_segments_that_are_not_independent() {
    let clip = clip("320x180", "keyint=60:intra-refresh=1:bframes=0");
    let taken = take(&clip);
    assert_eq!(taken.independent(), [true, false, false, false]);
    let boundaries = taken.events.iter().filter_map(|event| match event {
        MediaEvent::Frame(tagged) if tagged.tag.boundary => Some(&tagged.frame),
        _ => None,
    });
    let syncs: Vec<SyncKind> = boundaries
        .map(|frame| match frame {
            millrace_media::frame::MediaFrame::Video(picture) => picture.sync,
            millrace_media::frame::MediaFrame::Audio(_) => SyncKind::None,
        })
        .collect();
    assert_eq!(syncs, [SyncKind::Idr, SyncKind::Refresh, SyncKind::Refresh, SyncKind::Refresh]);
    assert_eq!(taken.decoded("refresh", 0).0, clip.pictures.len());
    assert!(taken.decoded("refresh-skip", 1).0 > 0, "a decoder can start at the refresh");
}

/// The AAC messages of ffmpeg with these arguments: records and frames.
fn aac(arguments: &[&str]) -> (Bytes, Vec<ByteChain>) {
    let source = ["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000:duration=1"];
    let file = flv(&[&source[..], arguments].concat());
    let (mut record, mut frames) = (Bytes::new(), Vec::new());
    for tag in Reader::new(file).unwrap().map(Result::unwrap).filter(|tag| tag.kind == TagKind::Audio) {
        match FlvAudio::parse(tag.body).unwrap() {
            Some(FlvAudio::SequenceHeader(sent)) if !sent.is_empty() => record = sent,
            Some(FlvAudio::Raw(data)) => frames.push(data),
            _ => {}
        }
    }
    (record, frames)
}

#[test]
fn configuration_of_ffmpegs_aac_is_taken_or_refused_in_words() {
    let refused = |arguments: &[&str]| AacIntake::default().record(aac(arguments).0).unwrap_err().to_string();
    let side = ["-af", "pan=5.1(side)|FL=c0|FR=c0|FC=c0|LFE=c0|SL=c0|SR=c0", "-c:a", "aac"];
    assert!(refused(&side).contains("6 channels in this layout"), "{}", refused(&side));
    let quad = ["-af", "pan=quad|FL=c0|FR=c0|BL=c0|BR=c0", "-c:a", "aac"];
    assert!(refused(&quad).contains("choose stereo or 5.1"), "{}", refused(&quad));
    let main = ["-c:a", "aac", "-profile:a", "aac_main"];
    assert!(refused(&main).contains("AAC Main (audio object type 1)"), "{}", refused(&main));
    let mut intake = AacIntake::default();
    intake.record(aac(&["-ac", "6", "-c:a", "aac"]).0).unwrap();
    let Some(AudioStep::Config(config)) = intake.poll() else { panic!("no configuration") };
    assert_eq!((config.channels, config.rate, config.codecs.as_str()), (6, 48_000, "mp4a.40.2"));
}
