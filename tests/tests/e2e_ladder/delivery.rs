//! Undisturbed streams: the multivariant playlist, the renditions in step, the shapes of sources.

use anyhow::{Context, Result, ensure};
use millrace_testkit::ffmpeg::{decode_cleanly, probe};
use millrace_testkit::http;
use millrace_testkit::programs::{spawn, tail};
use millrace_testkit::{ClipSpec, Process};
use millrace_tests::api::Livestream;
use millrace_tests::compare::same;
use millrace_tests::known_clip::Clip;
use millrace_tests::ladder::rules::{in_step, sound_in_step};
use millrace_tests::ladder::{COPY, Ladder, LadderWatch, RUNGS, held, pictures, small_clip, small_rungs};
use millrace_tests::playlist::Multivariant;
use millrace_tests::publish::push;
use millrace_tests::standalone::Standalone;
use millrace_tests::tape::Tape;
use millrace_tests::viewer::Track;
use serde_json::json;

use crate::{ROOM, TURN, create, finish};

/// A template that halves 60 frames a second in its lower rung only.
const HALVED: &str = "[transcode.templates.halved]\nhalve_fps_below = 200\n\
    rungs = [{ height = 240, bitrate = 500000 }, { height = 144, bitrate = 200000, preset = 'ultrafast' }]\n";
/// The largest share of BANDWIDTH that a variant may declare above its VBV maximum and its audio, and the least.
const MARGIN: std::ops::Range<f64> = 1.04..1.12;

/// A publish that is under way, and its viewer.
struct Publish {
    live: Livestream,
    encoder: Process,
    watch: LadderWatch,
}

impl Publish {
    async fn begin(
        server: &Standalone,
        clip: &Clip,
        ladder: &serde_json::Value,
        renditions: &[&str],
    ) -> Result<Self> {
        let live = create(&server.api(), "delivery", ladder).await?;
        let encoder = push(clip, &live.push_url(), server.folder())?;
        let watch = LadderWatch::begin(&live.hls_url, renditions).await.with_context(|| tail(&encoder))?;
        Ok(Self { live, encoder, watch })
    }

    async fn finish(mut self, server: &Standalone) -> Result<(Livestream, Ladder)> {
        finish(&server.api(), &self.live, &mut self.encoder).await?;
        let ladder = self.watch.finish().await?;
        ladder.playable()?;
        ladder.uninterrupted()?;
        Ok((self.live, ladder))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn standalone_delivers_the_rungs_that_were_asked_for_in_step_with_the_source() -> Result<()> {
    let _turn = TURN.lock().await;
    let server = Standalone::start_with(&format!("{ROOM}{HALVED}")).await?;
    let clip = Clip::numbered(small_clip(14)).await?;
    let fast = Clip::numbered(ClipSpec { fps: 60, frames: 840, gop: 120, ..small_clip(14) }).await?;
    let plain = Publish::begin(&server, &clip, &small_rungs(), &RUNGS).await?;
    let halved = Publish::begin(&server, &fast, &json!("halved"), &RUNGS).await?;
    let (live, ladder) = plain.finish(&server).await?;
    ladder.complete(&RUNGS, clip.units.video.len()).await?;
    same("access units", &clip.units.video, &ladder.track(COPY)?.samples()?)?;
    same("audio frames", &clip.units.audio, &ladder.track("audio")?.samples()?)?;
    sound_in_step(ladder.track(COPY)?, ladder.track("audio")?)?;
    declared(&ladder, "240p", "426x240", "30.000", 400_000)?;
    declared(&ladder, "144p", "256x144", "30.000", 200_000)?;
    let main = &ladder.multivariant;
    ensure!(main.variants.first().is_some_and(|uri| uri.starts_with("240p/")), "{main:?}");
    ensure!(main.audio.len() == 1, "{main:?}");
    // Once it is measured, the average is declared too.
    let at_the_end = Multivariant::parse(&http::get_text(&live.hls_url).await?)?;
    for variant in 0..at_the_end.variants.len() {
        let average = number(&at_the_end, variant, "AVERAGE-BANDWIDTH")?;
        ensure!(
            average > 0.0 && average <= number(&at_the_end, variant, "BANDWIDTH")? * 1.1,
            "{at_the_end:?}"
        );
    }
    // A player of the whole, as ffmpeg is one.
    decode_cleanly(&live.hls_url).await?;

    let (_, ladder) = halved.finish(&server).await?;
    let copy = ladder.track(COPY)?;
    for (name, division, rate) in [("240p", 1, "60.000"), ("144p", 2, "30.000")] {
        let rung = ladder.track(name)?;
        ensure!(in_step(copy, rung, division)? == held(copy), "{name} lacks segments");
        let shown = pictures::same_pictures(copy, rung, division).await?;
        ensure!(shown == fast.units.video.len() / division, "{name} shows {shown} pictures");
        let declared = ladder.multivariant.attribute(ladder.variant(name)?, "FRAME-RATE");
        ensure!(declared == Some(rate), "{name}: {declared:?}");
    }
    Ok(())
}

fn number(main: &Multivariant, variant: usize, name: &str) -> Result<f64> {
    let text = main.attribute(variant, name).with_context(|| format!("no {name} in {main:?}"))?;
    text.parse().with_context(|| text.to_owned())
}

/// Fails unless the variant declares what its media are.
fn declared(ladder: &Ladder, name: &str, size: &str, rate: &str, bitrate: u64) -> Result<()> {
    let (main, variant) = (&ladder.multivariant, ladder.variant(name)?);
    let attribute = |key: &str| main.attribute(variant, key).unwrap_or_default().to_owned();
    ensure!(attribute("RESOLUTION") == size, "{name}: {}", attribute("RESOLUTION"));
    ensure!(attribute("FRAME-RATE") == rate, "{name}: {}", attribute("FRAME-RATE"));
    ensure!(attribute("AUDIO") == "audio", "{name}: {}", attribute("AUDIO"));
    let track = ladder.track(name)?;
    let wanted = format!("{},mp4a.40.2", codec_of(track)?);
    ensure!(
        attribute("CODECS") == wanted,
        "{name}: {}, its parameter sets say {wanted}",
        attribute("CODECS")
    );
    let (bandwidth, sound) = (number(main, variant, "BANDWIDTH")?, sound_rate(ladder)?);
    let share = bandwidth / (bitrate as f64 + sound);
    ensure!(
        MARGIN.contains(&share),
        "{name}: BANDWIDTH is {share:.3} times {bitrate} and the audio's {sound:.0}"
    );
    for (msn, (segment, bytes)) in &track.segments {
        let rate = bytes.as_ref().map_or(0, bytes::Bytes::len) as f64 * 8.0 / segment.duration + sound;
        ensure!(rate <= bandwidth * 1.1, "{name}: segment {msn} has {rate:.0} b/s, BANDWIDTH is {bandwidth}");
    }
    Ok(())
}

/// Returns the codec of a rendition as RFC 6381 writes it, from its avcC box.
fn codec_of(track: &Track) -> Result<String> {
    let init = track.inits.values().next().context("no initialisation section")?;
    let at = init.windows(4).position(|window| window == b"avcC").context("no avcC box")?;
    let [profile, constraints, level] =
        init.get(at + 5..at + 8).and_then(|bytes| bytes.try_into().ok()).context("avcC")?;
    let [profile, constraints, level]: [u8; 3] = [profile, constraints, level];
    Ok(format!("avc1.{profile:02x}{constraints:02x}{level:02x}"))
}

/// Returns the highest bits per second of a segment of the audio.
fn sound_rate(ladder: &Ladder) -> Result<f64> {
    let track = ladder.track("audio")?;
    let rates = track.segments.values().filter_map(|(segment, bytes)| {
        Some(bytes.as_ref()?.len() as f64 * 8.0 / segment.duration).filter(|_| segment.duration > 1.0)
    });
    Ok(rates.fold(0.0, f64::max))
}

/// Pushes a tape as ffmpeg sends files, and returns the renditions.
async fn pushed(
    server: &Standalone,
    name: &str,
    tape: Tape,
    renditions: &[&str],
) -> Result<(Livestream, Ladder)> {
    let file = server.folder().join(format!("{name}.flv"));
    tape.write(&file)?;
    let live = create(&server.api(), name, &small_rungs()).await?;
    let mut command = millrace_testkit::ffmpeg::ffmpeg();
    command.arg("-re").arg("-i").arg(&file).args(["-c", "copy", "-f", "flv", &live.push_url()]);
    let mut encoder = spawn(name, server.folder(), command)?;
    let watch = LadderWatch::begin(&live.hls_url, renditions).await.with_context(|| tail(&encoder))?;
    finish(&server.api(), &live, &mut encoder).await?;
    let ladder = watch.finish().await?;
    ladder.playable()?;
    ladder.uninterrupted()?;
    Ok((live, ladder))
}

/// Object type 5 (SBR) over LC of 24 kHz in stereo, with an output of 48 kHz (ISO/IEC 14496-3, 1.6.2.1). The frames carry no SBR
/// data, which a decoder must take, too.
const HE_AAC: [u8; 4] = [0x2b, 0x11, 0x88, 0x00];
/// The pictures of a source that players of the rungs could not show as they are.
const DEEP: &str = "-f lavfi -i testsrc2=s=720x576:r=25:d=12,setsar=16/11 -f lavfi -i sine=r=48000:d=12 -c:a aac -ac 2 -c:v libx264 \
    -preset ultrafast -g 50 -sc_threshold 0 -pix_fmt yuv422p10le -color_range pc -colorspace bt709 -color_primaries bt709 \
    -color_trc bt709 -b:v 1500k";

#[tokio::test(flavor = "multi_thread")]
async fn rungs_of_unusual_pictures_and_sound_are_what_every_player_takes() -> Result<()> {
    let _turn = TURN.lock().await;
    let mut server = Standalone::start_with(ROOM).await?;
    let picture = "-f lavfi -i testsrc2=s=640x360:r=30:d=12";
    let video = "-c:v libx264 -preset ultrafast -g 60 -sc_threshold 0 -pix_fmt yuv420p -b:v 800k";
    let mono = format!("{picture} -f lavfi -i sine=r=44100:d=12 {video} -c:a aac -ac 1 -b:a 96k");
    let ntsc = picture.replace("r=30", "r=30000/1001");
    let surround = format!("{ntsc} -f lavfi -i sine=r=48000:d=12 {video} -c:a aac -ac 6 -b:a 256k");
    let half = format!("{picture} -f lavfi -i sine=r=24000:d=12 {video} -c:a aac -ac 2 -b:a 64k");
    let mp3 = format!("{picture} -f lavfi -i sine=r=44100:d=12 {video} -c:a libmp3lame -ac 2 -b:a 128k");
    let sounds = ["240p", "144p", "aac"];
    let high_efficiency = Tape::made("ladder-12-he-aac", &half).await?;
    let high_efficiency = high_efficiency.map_audio_config(|config| *config = HE_AAC.to_vec());
    let (deep, mono, surround, high_efficiency, mp3) = tokio::join!(
        pushed(&server, "deep", Tape::made("ladder-12-deep", DEEP).await?, &RUNGS),
        pushed(&server, "mono", Tape::made("ladder-12-mono", &mono).await?, &sounds),
        pushed(&server, "surround", Tape::made("ladder-12-surround-ntsc", &surround).await?, &sounds),
        pushed(&server, "he-aac", high_efficiency, &sounds),
        pushed(&server, "mp3", Tape::made("ladder-12-mp3", &mp3).await?, &sounds),
    );
    let log = || tail(server.process());
    let (live, ladder) = deep.with_context(log).context("10 bits, 4:2:2, full range, anamorphic")?;
    for (name, shape) in [("240p", "436x240"), ("144p", "262x144")] {
        let copy = ladder.track(COPY)?;
        ensure!(in_step(copy, ladder.track(name)?, 1)? == held(copy), "{name} lacks segments");
        let url = live.hls_url.replace("/index.m3u8", &format!("/{name}/index.m3u8"));
        let found = probe(&url).await?;
        let stream = &found["streams"][0];
        ensure!(stream["pix_fmt"] == "yuv420p" && stream["color_range"] == "tv", "{name}: {stream}");
        ensure!(stream["color_space"] == "bt709" || stream["color_space"] == "smpte170m", "{name}: {stream}");
        // The display shape is kept: 720 x 16/11 : 576.
        let pixels = |key: &str| stream[key].as_f64().unwrap_or_default();
        let sar =
            stream["sample_aspect_ratio"].as_str().unwrap_or("1:1").split_once(':').unwrap_or(("1", "1"));
        let sar = sar.0.parse::<f64>().unwrap_or(1.0) / sar.1.parse::<f64>().unwrap_or(1.0);
        let display = pixels("width") * sar / pixels("height");
        ensure!(
            (display - 720.0 * 16.0 / 11.0 / 576.0).abs() < 0.02,
            "{name} ({shape}): {display}: {stream}"
        );
    }
    let results = [
        ("mono of 44.1 kHz", mono),
        ("5.1", surround),
        ("HE-AAC", high_efficiency),
        ("MP3 of 44.1 kHz", mp3),
    ];
    for (what, result) in results {
        let (live, ladder) = result.context(what)?;
        let sound = ladder.track("aac")?;
        ensure!(sound_in_step(ladder.track(COPY)?, sound)? >= 3, "{what}");
        let found = probe(&live.hls_url.replace("/index.m3u8", "/aac/index.m3u8")).await?;
        let stream = &found["streams"][0];
        let is_plain = stream["codec_name"] == "aac" && stream["profile"] == "LC" && stream["channels"] == 2;
        ensure!(is_plain && stream["sample_rate"] == "48000", "{what}: {stream}");
        let main = &ladder.multivariant;
        ensure!(main.audio == ["aac/index.m3u8"], "{what}: {main:?}");
        let rate = if what == "5.1" { "29.970" } else { "30.000" };
        let declared = (0..main.variants.len()).all(|at| main.attribute(at, "FRAME-RATE") == Some(rate));
        ensure!(declared && main.variants.len() == 3, "{what}: {main:?}");
    }
    Ok(())
}
