//! HEVC, AV1, Opus and MP3 of real encoders through timeline, segmenter and packager, judged by
//! ffmpeg.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use millrace_media::codec::{AudioCodec, VideoCodec};
use millrace_media::container::cmaf::demux::{parse_config, parse_fragments};
use millrace_media::frame::{MediaEvent, TrackConfig, TrackKind};
use millrace_media::packager::Output;
use millrace_media::repair::{Repair, RepairCounts};
use millrace_media::time::Timescale;
use support::*;

/// Runs a tool that must succeed without any output on stderr; returns its stdout.
fn quiet(program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.trim().is_empty(), "{program} {arguments:?}: {stderr}");
    output.stdout
}

/// A fragmented MP4 file of one track.
fn clip(source: &str, encoder: &[&str]) -> Bytes {
    let mut arguments = vec!["-v", "error", "-f", "lavfi", "-i", source];
    arguments.extend(encoder);
    arguments.extend(["-video_track_timescale", "90000", "-f", "mp4", "-movflags"]);
    arguments.extend(["frag_keyframe+delay_moov+default_base_moof", "-frag_duration", "500000", "pipe:1"]);
    Bytes::from(quiet("ffmpeg", &arguments))
}

/// Pushes the file's samples through timeline, segmenter and packager. Returns the configuration,
/// the events and the outputs.
fn package_file(file: &Bytes) -> (TrackConfig, Vec<MediaEvent>, Vec<Output>) {
    let read = parse_config(file).unwrap();
    let mut ingest = Ingest::new(config());
    match read.clone() {
        TrackConfig::Video(video) => ingest.timeline.video_config(video),
        TrackConfig::Audio(audio) => ingest.timeline.audio_config(audio),
    }
    let samples = parse_fragments(file).unwrap().into_iter().flat_map(|fragment| fragment.samples);
    for sample in samples {
        match &read {
            TrackConfig::Video(_) => {
                ingest.timeline.push_video(sample.dts, i64::from(sample.cts), sample.data.clone());
            }
            TrackConfig::Audio(audio) => {
                let time = audio.timescale().convert(sample.dts, Timescale::VIDEO);
                ingest.timeline.push_audio(time, sample.data.clone());
            }
        }
    }
    let events = ingest.drain();
    let (outputs, packager) = package(MEASURE, events.clone(), true);
    assert_eq!(packager.repairs().get(Repair::LateFrame), 0);
    assert_eq!(*ingest.timeline.repairs(), RepairCounts::new());
    (read, events, outputs)
}

/// Writes init segment and parts to one file.
fn write(outputs: &[Output], path: &Path) {
    let mut file = Vec::new();
    for output in outputs {
        match output {
            Output::Init(init) => file.extend_from_slice(&init.bytes),
            Output::Part(part) => file.extend(part.body.iter().flatten()),
            _ => {}
        }
    }
    std::fs::write(path, file).unwrap();
}

/// Checks that the packaged file has every sample of `file`, that ffprobe finds this codec, and
/// that it decodes without a warning.
fn check(name: &str, codec: &str, file: &Bytes) -> TrackConfig {
    let (config, events, outputs) = package_file(file);
    let track = config.track();
    let sent: Vec<Bytes> = parse_fragments(file)
        .unwrap()
        .into_iter()
        .flat_map(|part| part.samples)
        .map(|sample| sample.data)
        .collect();
    assert!(frame_data(&events, track) == sent, "{name}: every frame, once, in order");
    let packaged: Vec<Bytes> = samples(&outputs, track).into_iter().map(|sample| sample.3).collect();
    assert!(packaged == sent, "{name}: byte for byte");
    let path = std::env::temp_dir().join(format!("millrace-codecs-{name}-{}.mp4", std::process::id()));
    write(&outputs, &path);
    let text = path.to_str().unwrap();
    let entries = ["-v", "error", "-show_entries", "stream=codec_name", "-of", "csv=p=0", text];
    assert_eq!(String::from_utf8(quiet("ffprobe", &entries)).unwrap().trim(), codec);
    let count =
        ["-v", "error", "-count_packets", "-show_entries", "stream=nb_read_packets", "-of", "csv=p=0"];
    let packets = String::from_utf8(quiet("ffprobe", &[&count[..], &[text]].concat())).unwrap();
    assert_eq!(packets.trim(), sent.len().to_string());
    quiet("ffmpeg", &["-v", "error", "-xerror", "-i", text, "-f", "null", "-"]);
    std::fs::remove_file(&path).unwrap();
    config
}

const PICTURES: &str = "testsrc2=size=320x180:rate=25:duration=5";
const TONE: &str = "sine=frequency=440:sample_rate=48000:duration=5";

/// The first frame of every segment is a keyframe in a stream with a keyframe every two seconds.
fn check_keyframes(file: &Bytes) {
    let (_, events, _) = package_file(file);
    let boundaries: Vec<bool> = events
        .iter()
        .filter_map(|event| match event {
            MediaEvent::Frame(tagged) if tagged.tag.boundary => Some(tagged.tag.independent),
            _ => None,
        })
        .collect();
    assert_eq!(boundaries, [true; 3]);
}

#[test]
fn hevc_of_x265_is_packaged_as_hvc1() {
    let options = ["-x265-params", "log-level=none:keyint=50:min-keyint=50:scenecut=0:open-gop=0"];
    let file = clip(
        PICTURES,
        &[&["-c:v", "libx265", "-preset", "ultrafast", "-tag:v", "hvc1"][..], &options].concat(),
    );
    let TrackConfig::Video(config) = check("hevc", "hevc", &file) else { panic!("no video") };
    assert_eq!((config.codec, config.width, config.height), (VideoCodec::Hevc, 320, 180));
    assert_eq!(config.codecs, "hvc1.1.6.L60.90");
    check_keyframes(&file);
}

#[test]
fn hevc_states_pixels_that_are_not_square_behind_reference_sets_of_any_kind() {
    for settings in ["bframes=0", "bframes=3:ref=4", "bframes=4:b-pyramid=1:ref=5", "scaling-list=default"] {
        let settings = format!("log-level=none:sar=64\\:45:{settings}");
        let options =
            ["-c:v", "libx265", "-preset", "ultrafast", "-tag:v", "hvc1", "-x265-params", &settings];
        let file = clip("testsrc2=s=720x576:r=25:d=0.6", &options);
        let Some(TrackConfig::Video(config)) = parse_config(&file).ok() else { panic!("no video") };
        assert_eq!((config.pixel_aspect, config.display_size()), ((64, 45), (1_024, 576)), "{settings}");
    }
}

#[test]
fn av1_of_libaom_is_packaged_as_av01() {
    let options = ["-cpu-used", "8", "-usage", "realtime", "-g", "50", "-keyint_min", "50"];
    let file = clip(PICTURES, &[&["-c:v", "libaom-av1"][..], &options].concat());
    let TrackConfig::Video(config) = check("av1", "av1", &file) else { panic!("no video") };
    assert_eq!((config.codec, config.width, config.height), (VideoCodec::Av1, 320, 180));
    assert_eq!(config.codecs, "av01.0.00M.08");
    check_keyframes(&file);
}

#[test]
fn opus_of_libopus_is_packaged_with_its_packet_durations() {
    for (name, duration, samples) in [("opus20", "20", 960), ("opus60", "60", 2_880)] {
        let file = clip(TONE, &["-c:a", "libopus", "-ac", "2", "-frame_duration", duration]);
        let TrackConfig::Audio(config) = check(name, "opus", &file) else { panic!("no audio") };
        assert_eq!((config.codec, config.rate, config.channels), (AudioCodec::Opus, 48_000, 2));
        assert_eq!(config.codecs, "opus");
        let (_, _, outputs) = package_file(&file);
        let first = parts(&outputs, TrackKind::Audio)[0];
        assert_eq!(first.duration % samples, 0);
        assert_eq!(first.duration / first.samples, samples);
    }
}

#[test]
fn mp3_of_lame_is_packaged_with_an_es_descriptor() {
    for (name, rate, codecs) in [("mp3", "44100", "mp4a.6B"), ("mp3-lsf", "22050", "mp4a.69")] {
        let file = clip(TONE, &["-c:a", "libmp3lame", "-b:a", "64k", "-ac", "2", "-ar", rate]);
        let TrackConfig::Audio(config) = check(name, "mp3", &file) else { panic!("no audio") };
        assert_eq!(
            (config.codec, config.rate.to_string(), config.channels),
            (AudioCodec::Mp3, rate.to_owned(), 2)
        );
        assert_eq!(config.codecs, codecs);
    }
}
