//! Sources for the transcoder's tests: numbered pictures in any codec, and their way through an engine.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use ffmpeg_next as av;
use millrace_codec::engine::Engine;
use millrace_codec::engine::order::{
    EncoderKind, Order, Plan, RungIndex, RungPlan, Slot, SourcePicture, VideoSource,
};
use millrace_codec::engine::product::{CodedPicture, Product, RungStart};
use millrace_codec::{H264Decoder, LumaFrame};
use millrace_media::codec::VideoCodec;
use millrace_testkit::clip::{draw_number, read_number};
use millrace_testkit::ffmpeg::ffmpeg;

/// Pictures whose numbers count from 0 in the order of presentation.
#[derive(Debug, Clone, Copy)]
pub struct Recipe {
    pub frames: usize,
    pub size: (usize, usize),
    pub codec: VideoCodec,
    /// ffmpeg's arguments for the encoder.
    pub arguments: &'static str,
    /// The name of the drawing, and the drawing of a picture's luma in so many columns and lines.
    pub draw: Drawing,
}

/// The name of a drawing, and the function that draws the luma of a picture's number, columns and lines.
pub type Drawing = (&'static str, fn(usize, usize, usize) -> Vec<u8>);

/// Pictures with their numbers.
pub const NUMBERS: Drawing =
    ("numbers", |number, width, height| draw_number(number as u16, number * 5, width, height));

/// A coded source.
#[derive(Debug, Clone)]
pub struct Source {
    pub codec: VideoCodec,
    pub record: Bytes,
    pub size: (u32, u32),
    /// The coded pictures in decoding order.
    pub pictures: Vec<Coded>,
}

/// A coded picture of a source.
#[derive(Debug, Clone)]
pub struct Coded {
    pub data: Bytes,
    /// Its place in the order of presentation, which is the number that is drawn.
    pub rank: usize,
    pub keyframe: bool,
}

impl Recipe {
    /// H.264 at 320 × 180.
    pub const fn h264(frames: usize, arguments: &'static str) -> Self {
        Self { frames, size: (320, 180), codec: VideoCodec::H264, arguments, draw: NUMBERS }
    }

    /// The same in another codec.
    pub const fn of(self, codec: VideoCodec) -> Self {
        Self { codec, ..self }
    }

    /// The same in another size.
    pub const fn sized(self, width: usize, height: usize) -> Self {
        Self { size: (width, height), ..self }
    }

    /// Encodes the pictures, unless a test did it before.
    pub fn source(&self) -> Result<Source> {
        let input = av::format::input(&self.file()?)?;
        read(input, self)
    }

    fn file(&self) -> Result<PathBuf> {
        let folder = std::env::temp_dir().join("millrace-clips");
        std::fs::create_dir_all(&folder)?;
        let name: String =
            self.arguments.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let (width, height) = self.size;
        let path = folder.join(format!("engine-{}-{width}x{height}-{}{name}.mp4", self.draw.0, self.frames));
        if !path.is_file() {
            let unfinished = tempfile::Builder::new().suffix(".mp4").tempfile_in(&folder)?;
            let mut command = ffmpeg();
            command.args([
                "-f",
                "rawvideo",
                "-pix_fmt",
                "gray",
                "-r",
                "30",
                "-s",
                &format!("{width}x{height}"),
            ]);
            command.args(["-i", "-"]).args(self.arguments.split_whitespace()).arg(unfinished.path());
            let mut child =
                command.stdin(Stdio::piped()).spawn().context("start ffmpeg (apt-get install ffmpeg)")?;
            let mut pipe = child.stdin.take().context("ffmpeg's input")?;
            for number in 0..self.frames {
                pipe.write_all(&(self.draw.1)(number, width, height))?;
            }
            drop(pipe);
            ensure!(child.wait()?.success(), "ffmpeg could not encode {self:?}");
            unfinished.persist(&path)?;
        }
        Ok(path)
    }
}

fn read(mut input: av::format::context::Input, recipe: &Recipe) -> Result<Source> {
    let stream = input.streams().best(av::media::Type::Video).context("a video stream")?;
    let index = stream.index();
    // SAFETY: the stream's parameters live as long as the input; the record has the size that they tell.
    let record = unsafe {
        let parameters = stream.parameters();
        let raw = parameters.as_ptr();
        Bytes::copy_from_slice(std::slice::from_raw_parts((*raw).extradata, (*raw).extradata_size as usize))
    };
    let mut packets = Vec::new();
    for (stream, packet) in input.packets() {
        if stream.index() == index {
            let data = Bytes::copy_from_slice(packet.data().context("a packet's bytes")?);
            packets.push((packet.pts().context("a time")?, data, packet.is_key()));
        }
    }
    let mut times: Vec<i64> = packets.iter().map(|packet| packet.0).collect();
    times.sort_unstable();
    let rank = |pts: i64| times.binary_search(&pts).map_err(|_| anyhow::anyhow!("a time without a rank"));
    let pictures = packets
        .into_iter()
        .map(|(pts, data, keyframe)| Ok(Coded { data, rank: rank(pts)?, keyframe }))
        .collect::<Result<_>>()?;
    let size = (recipe.size.0 as u32, recipe.size.1 as u32);
    Ok(Source { codec: recipe.codec, record, size, pictures })
}

/// The times and segments of a source's places.
#[derive(Debug, Clone)]
pub struct Timing {
    pub durations: Vec<u32>,
    pub segments: Vec<bool>,
}

impl Timing {
    /// Equal pictures, and segments of so many.
    pub fn even(count: usize, duration: u32, segment: usize) -> Self {
        let segments = (0..count).map(|place| place % segment == 0).collect();
        Self { durations: vec![duration; count], segments }
    }
}

impl Source {
    /// Returns the configuration of the source.
    pub fn config(&self, frame_rate_milli: u32) -> VideoSource {
        VideoSource {
            codec: self.codec,
            record: self.record.clone(),
            width: self.size.0,
            height: self.size.1,
            pixel_aspect: (1, 1),
            frame_rate_milli,
            bitrate: 0,
            version: 1,
        }
    }

    /// Returns the pictures as orders, the first at place `first`. Each is shown two places after it is decoded, or more.
    pub fn orders(&self, timing: &Timing, first: u64) -> Vec<SourcePicture> {
        let mut starts = vec![0i64];
        for duration in &timing.durations {
            starts.push(starts.last().copied().unwrap_or(0) + i64::from(*duration));
        }
        let delay = 4 * i64::from(timing.durations.iter().copied().max().unwrap_or(3000));
        let order = |(place, coded): (usize, &Coded)| SourcePicture {
            slot: Slot(first + place as u64),
            pts: starts[coded.rank] + delay,
            duration: timing.durations[place],
            starts_segment: timing.segments[place],
            independent: false,
            encode: true,
            keyframe: coded.keyframe,
            data: coded.data.clone().into(),
        };
        self.pictures.iter().enumerate().map(order).collect()
    }
}

/// Returns a plan of x264 rungs of these heights, each with a limit of its frame rate.
pub fn plan(rungs: &[(u32, Option<u32>)]) -> Plan {
    let rung = |&(height, fps): &(u32, Option<u32>)| RungPlan { height, bitrate: 600_000, fps, preset: None };
    Plan { rungs: rungs.iter().map(rung).collect(), encoders: vec![EncoderKind::X264], ..Plan::default() }
}

/// Runs an engine over orders and a flush, and returns the products in order.
pub fn run(orders: Vec<Order>) -> Result<Vec<Product>> {
    let (input, output) = Engine::start()?.split();
    let feeder = thread::spawn(move || {
        for order in orders.into_iter().chain([Order::Flush]) {
            input.push(order)?;
        }
        Ok::<_, millrace_codec::engine::PushError>(())
    });
    let products = output.filter(|product| !matches!(product, Product::Report(_))).collect();
    feeder.join().map_err(|_| anyhow::anyhow!("the feeder panicked"))??;
    Ok(products)
}

/// The pictures of one rung and its starts, as they came.
#[derive(Debug, Default)]
pub struct Made {
    pub starts: Vec<RungStart>,
    pub pictures: Vec<CodedPicture>,
}

impl Made {
    /// Collects the products of a rung.
    pub fn of(products: &[Product], rung: u8) -> Self {
        let mut made = Self::default();
        for product in products {
            match product {
                Product::RungStarted(start) if start.rung == RungIndex(rung) => {
                    made.starts.push(start.clone());
                }
                Product::Picture(picture) if picture.rung == RungIndex(rung) => {
                    made.pictures.push(picture.clone());
                }
                _ => {}
            }
        }
        made
    }

    /// Decodes the pictures with the record of the first start.
    pub fn decode(&self) -> Result<Vec<LumaFrame>> {
        let record = &self.starts.first().context("a start of the rung")?.record;
        decode(record, &self.pictures)
    }

    /// Returns the numbers that are drawn in the decoded pictures.
    pub fn numbers(&self) -> Result<Vec<Option<u16>>> {
        Ok(self.decode()?.iter().map(number).collect())
    }
}

/// Decodes a rung's pictures.
pub fn decode(record: &[u8], pictures: &[CodedPicture]) -> Result<Vec<LumaFrame>> {
    let mut decoder = H264Decoder::new(record)?;
    let mut frames = Vec::new();
    for picture in pictures {
        frames.extend(decoder.decode(&picture.data, picture.pts)?);
    }
    frames.extend(decoder.finish()?);
    Ok(frames)
}

/// Reads the number of a decoded picture.
pub fn number(frame: &LumaFrame) -> Option<u16> {
    read_number(&frame.luma, frame.width as usize, frame.height as usize)
}
