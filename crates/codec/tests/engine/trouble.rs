//! Sources in trouble, and the orders of a job in trouble.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use millrace_codec::engine::order::{Order, RungIndex, SourcePicture, VideoSource};
use millrace_codec::engine::product::{Condition, Part, Product, Refusal};

use crate::support::{Made, Recipe, Timing, decode, number, plan, run};

const PLAIN: Recipe =
    Recipe::h264(90, "-c:v libx264 -preset veryfast -crf 20 -pix_fmt yuv420p -bf 2 -g 30 -keyint_min 30");

/// Orders of the plain source with segments of 30, after `change` has had its way.
fn plain(rungs: &[(u32, Option<u32>)], change: impl Fn(&mut SourcePicture)) -> Result<Vec<Order>> {
    let source = PLAIN.source()?;
    let mut pictures = source.orders(&Timing::even(90, 3000, 30), 0);
    pictures.iter_mut().for_each(change);
    let mut orders = vec![Order::Start(plan(rungs)), Order::VideoConfig(source.config(30_000))];
    orders.extend(pictures.into_iter().map(Order::Picture));
    Ok(orders)
}

fn slots(made: &Made) -> Vec<u64> {
    made.pictures.iter().map(|picture| picture.slot.0).collect()
}

#[test]
fn pictures_that_cannot_be_decoded_are_repeated_and_told() -> Result<()> {
    let broken = |picture: &mut SourcePicture| {
        if (40..44).contains(&picture.slot.0) {
            picture.data = Bytes::from_static(&[0, 0, 0, 9, 0x41, 1, 2, 3, 4, 5, 6, 7, 8]).into();
        }
    };
    let products = run(plain(&[(90, None)], broken)?)?;
    let made = Made::of(&products, 0);
    assert_eq!(slots(&made), (0..90).collect::<Vec<_>>());
    let repeats = made.pictures.iter().filter(|picture| picture.repeats).count();
    assert!((1..=4).contains(&repeats), "{repeats}");
    let condition = Product::Condition { condition: Condition::DecodeErrors, begins: true };
    assert_eq!(products.iter().filter(|product| **product == condition).count(), 1);
    let numbers = made.numbers()?;
    assert_eq!(numbers[..38], (0..38).map(Some).collect::<Vec<_>>());
    assert_eq!(numbers[60..], (60..90).map(Some).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn source_that_begins_within_a_group_starts_at_its_first_keyframe() -> Result<()> {
    let mut orders = plain(&[(90, None)], |_| {})?;
    orders.drain(2..12);
    let made = Made::of(&run(orders)?, 0);
    assert_eq!(slots(&made), (30..90).collect::<Vec<_>>());
    assert!(made.pictures[0].idr);
    assert_eq!(made.numbers()?, (30..90).map(Some).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn new_configuration_starts_each_rung_anew_and_drops_those_above_the_source() -> Result<()> {
    let small = PLAIN.sized(160, 90).source()?;
    let mut orders = plain(&[(180, None), (90, None)], |_| {})?;
    orders.push(Order::VideoConfig(VideoSource { version: 2, ..small.config(30_000) }));
    orders.extend(small.orders(&Timing::even(90, 3000, 30), 90).into_iter().map(Order::Picture));
    let products = run(orders)?;
    let (upper, lower) = (Made::of(&products, 0), Made::of(&products, 1));
    assert_eq!(slots(&upper), (0..90).collect::<Vec<_>>());
    let dropped = Product::RungDropped { rung: RungIndex(0), source_version: 2 };
    assert!(products.contains(&dropped));
    assert_eq!(slots(&lower), (0..180).collect::<Vec<_>>());
    let versions: Vec<u32> = lower.starts.iter().map(|start| start.source_version).collect();
    assert_eq!(versions, [1, 2]);
    let second = decode(&lower.starts[1].record, &lower.pictures[90..])?;
    assert_eq!(second.iter().map(number).collect::<Vec<_>>(), (0..90).map(Some).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn shed_rung_ends_at_a_segment_and_is_taken_back_with_an_idr_picture() -> Result<()> {
    let mut orders = plain(&[(180, None), (90, None)], |_| {})?;
    orders.insert(2 + 10, Order::Encode(vec![RungIndex(1)]));
    orders.insert(3 + 40, Order::Encode(vec![RungIndex(0), RungIndex(1)]));
    let products = run(orders)?;
    let (upper, lower) = (Made::of(&products, 0), Made::of(&products, 1));
    assert_eq!(slots(&upper), (0..30).chain(60..90).collect::<Vec<_>>());
    assert_eq!(slots(&lower), (0..90).collect::<Vec<_>>());
    assert_eq!(upper.starts.len(), 1, "the same record is not announced again");
    assert!(upper.pictures[30].idr);
    assert_eq!(upper.numbers()?, (0..30).chain(60..90).map(Some).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn successor_that_decodes_from_a_segment_on_continues_the_rung_with_the_same_parameter_sets() -> Result<()> {
    let rungs = [(180, None), (90, Some(15))];
    let first = run(plain(&rungs, |_| {})?)?;
    let mut orders = plain(&rungs, |picture| {
        picture.encode = picture.slot.0 >= 46;
        picture.independent = picture.slot.0 == 46;
    })?;
    orders.drain(2..32);
    let second = run(orders)?;
    for rung in 0..2 {
        let (before, after) = (Made::of(&first, rung), Made::of(&second, rung));
        assert_eq!(before.starts, after.starts, "parameter sets differ");
        assert_eq!(after.pictures[0].slot.0, 46);
        assert!(after.pictures[0].idr);
        let mut joined = before.pictures.clone();
        joined.retain(|picture| picture.slot.0 < 46);
        joined.extend(after.pictures);
        let step = usize::from(rung) + 1;
        let expected: Vec<Option<u16>> = (0..90u16).step_by(step).map(Some).collect();
        let numbers: Vec<_> = decode(&before.starts[0].record, &joined)?.iter().map(number).collect();
        assert_eq!(numbers, expected, "rung {rung}");
        let times = joined.iter().map(|picture| picture.pts).collect::<Vec<_>>();
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] == 3000 * step as i64));
    }
    Ok(())
}

#[test]
fn engine_goes_on_from_a_keyframe_behind_a_flush() -> Result<()> {
    let mut orders = plain(&[(90, None)], |_| {})?;
    orders.insert(2 + 60, Order::Flush);
    let products = run(orders)?;
    assert_eq!(products.iter().filter(|product| **product == Product::Flushed).count(), 2);
    let made = Made::of(&products, 0);
    assert_eq!(slots(&made), (0..90).collect::<Vec<_>>());
    assert_eq!(made.numbers()?, (0..90).map(Some).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn slow_fast_tiny_and_oversized_sources_are_encoded_or_refused() -> Result<()> {
    let source = PLAIN.source()?;
    for (duration, rate, fps, count) in
        [(90_000, 1_000, None, 90), (750, 120_000, Some(30), 24), (750, 120_000, None, 90)]
    {
        let mut orders = vec![Order::Start(plan(&[(90, fps)])), Order::VideoConfig(source.config(rate))];
        orders.extend(source.orders(&Timing::even(90, duration, 30), 0).into_iter().map(Order::Picture));
        let made = Made::of(&run(orders)?, 0);
        assert_eq!(made.pictures.len(), count, "{rate}");
        assert_eq!(made.pictures.iter().filter(|picture| picture.idr).count(), 3);
    }
    let tiny = PLAIN.sized(16, 16).source()?;
    let mut orders = vec![Order::Start(plan(&[(16, None)])), Order::VideoConfig(tiny.config(30_000))];
    orders.extend(tiny.orders(&Timing::even(90, 3000, 30), 0).into_iter().map(Order::Picture));
    assert_eq!(Made::of(&run(orders)?, 0).pictures.len(), 90);
    let huge = VideoSource { width: 8192, height: 8192, ..source.config(30_000) };
    let mut orders = vec![Order::Start(plan(&[(90, None)])), Order::VideoConfig(huge)];
    orders.extend(source.orders(&Timing::even(90, 3000, 30), 0).into_iter().map(Order::Picture));
    let products = run(orders)?;
    let refusal = products.iter().find_map(|product| match product {
        Product::Refused(Refusal { part: Part::Video, source_version: 1, reason }) => Some(reason),
        _ => None,
    });
    assert!(refusal.context("a refusal")?.contains("8192x8192"));
    assert_eq!(Made::of(&products, 0).pictures.len(), 0);
    Ok(())
}

/// Returns the colour fields that the decoder finds in a rung: full range, matrix, transfer, primaries, and the format.
fn colours(made: &Made) -> Result<(bool, u32, u32, u32, bool)> {
    use ffmpeg_next as av;
    let mut decoder = av::codec::context::Context::new_with_codec(
        av::decoder::find(av::codec::Id::H264).context("an H.264 decoder")?,
    );
    let record = &made.starts.first().context("a start")?.record;
    // SAFETY: the context is not open yet; libav frees the record, which has its padding.
    unsafe {
        let context = decoder.as_mut_ptr();
        (*context).extradata = av::ffi::av_mallocz(record.len() + 64).cast();
        std::ptr::copy_nonoverlapping(record.as_ptr(), (*context).extradata, record.len());
        (*context).extradata_size = record.len() as i32;
    }
    let mut decoder = decoder.decoder().video()?;
    let mut frame = av::frame::Video::empty();
    for picture in &made.pictures {
        decoder.send_packet(&av::Packet::copy(&picture.data))?;
        if decoder.receive_frame(&mut frame).is_ok() {
            break;
        }
    }
    anyhow::ensure!(frame.width() > 0, "no picture");
    // SAFETY: the frame is valid.
    unsafe {
        let raw = frame.as_ptr();
        Ok((
            (*raw).color_range == av::ffi::AVColorRange::AVCOL_RANGE_JPEG,
            (*raw).colorspace as u32,
            (*raw).color_trc as u32,
            (*raw).color_primaries as u32,
            frame.format() == av::format::Pixel::YUV420P,
        ))
    }
}

#[test]
fn rungs_are_8_bit_4_2_0_of_limited_range_with_the_colours_of_the_source() -> Result<()> {
    let (bt601, bt709) = (6, 1);
    let x264 = |arguments| Recipe::h264(30, arguments);
    let cases = [
        // Unsignalled colours of a small source are BT.601 to players.
        (x264("-c:v libx264 -preset veryfast -pix_fmt yuv420p -g 30"), bt601),
        (x264("-c:v libx264 -preset veryfast -pix_fmt yuv444p -color_range pc -g 30"), bt601),
        (
            x264(
                "-c:v libx264 -preset veryfast -pix_fmt yuv422p10le -g 30 -color_primaries bt709 -color_trc bt709 -colorspace bt709",
            ),
            bt709,
        ),
        (
            x264(
                "-c:v libx264 -preset veryfast -pix_fmt yuv420p10le -g 30 -color_primaries bt2020 -color_trc smpte2084 -colorspace bt2020nc",
            ),
            bt709,
        ),
    ];
    for (recipe, expected) in cases {
        let source = recipe.source()?;
        let mut orders =
            vec![Order::Start(plan(&[(180, None), (90, None)])), Order::VideoConfig(source.config(30_000))];
        orders.extend(source.orders(&Timing::even(30, 3000, 30), 0).into_iter().map(Order::Picture));
        let products = run(orders)?;
        for rung in 0..2 {
            let made = Made::of(&products, rung);
            assert_eq!(made.pictures.len(), 30);
            assert_eq!(colours(&made)?, (false, expected, expected, expected, true), "{recipe:?}");
        }
    }
    Ok(())
}
