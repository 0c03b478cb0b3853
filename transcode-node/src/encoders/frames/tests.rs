use bytes::Bytes;
use millrace_codec::engine::order::{
    AudioSource, EncoderKind, Order, Plan, RungIndex, RungPlan, Slot, SourcePicture, SourceSound, VideoSource,
};
use millrace_codec::engine::product::{
    AudioStart, CodedPicture, Condition, Part, Product, Refusal, Report, RungReport, RungStart,
};
use millrace_media::codec::{AudioCodec, VideoCodec};
use proptest::prelude::*;

use super::*;

fn data() -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 1..200).prop_map(Bytes::from)
}

/// Media in several slices, as a picture lies in read buffers.
fn chain() -> impl Strategy<Value = ByteChain> {
    proptest::collection::vec(data(), 1..4).prop_map(ByteChain::from)
}

fn plan() -> impl Strategy<Value = Plan> {
    let rung = (2u32..5000, any::<u64>(), any::<Option<u32>>(), any::<Option<String>>())
        .prop_map(|(height, bitrate, fps, preset)| RungPlan { height, bitrate, fps, preset });
    (proptest::collection::vec(rung, 0..8), any::<(bool, bool, bool)>(), any::<u32>()).prop_map(
        |(rungs, (audio, pictures, lgpl_only), threads)| Plan {
            rungs,
            audio,
            pictures,
            encoders: vec![EncoderKind::X264, EncoderKind::Vaapi],
            lgpl_only,
            threads,
        },
    )
}

fn order() -> impl Strategy<Value = Order> {
    let video = (data(), 1u32..5000, any::<(u32, u32)>(), any::<u64>()).prop_map(
        |(record, width, pixel_aspect, bitrate)| {
            let codec = VideoCodec::Hevc;
            Order::VideoConfig(VideoSource {
                codec,
                record,
                width,
                height: 7,
                pixel_aspect,
                frame_rate_milli: 29_970,
                bitrate,
                version: 3,
            })
        },
    );
    let audio = (data(), any::<u32>(), any::<u8>()).prop_map(|(record, rate, channels)| {
        Order::AudioConfig(AudioSource { codec: AudioCodec::Opus, record, rate, channels })
    });
    let picture = (any::<u64>(), any::<i64>(), any::<u32>(), any::<(bool, bool, bool, bool)>(), chain())
        .prop_map(|(slot, pts, duration, (starts_segment, independent, encode, keyframe), data)| {
            let slot = Slot(slot);
            Order::Picture(SourcePicture {
                slot,
                pts,
                duration,
                starts_segment,
                independent,
                encode,
                keyframe,
                data,
            })
        });
    let sound = (any::<i64>(), any::<bool>(), chain())
        .prop_map(|(pts, encode, data)| Order::Sound(SourceSound { pts, encode, data }));
    prop_oneof![
        plan().prop_map(Order::Start),
        video,
        picture,
        audio,
        sound,
        proptest::collection::vec(any::<u8>().prop_map(RungIndex), 0..8).prop_map(Order::Encode),
        Just(Order::Flush),
    ]
}

fn product() -> impl Strategy<Value = Product> {
    let picture = (any::<u8>(), any::<u64>(), any::<u32>(), any::<i64>(), any::<(bool, bool)>(), data())
        .prop_map(|(rung, slot, slots, pts, (idr, repeats), data)| {
            let (rung, slot) = (RungIndex(rung), Slot(slot));
            Product::Picture(CodedPicture { rung, slot, slots, pts, idr, repeats, data })
        });
    let start = (any::<u8>(), data(), any::<u64>()).prop_map(|(rung, record, bitrate)| {
        let (source_version, frame_rate_milli, encoder) = (7, 29_970, EncoderKind::Openh264);
        let rung = RungIndex(rung);
        Product::RungStarted(RungStart { rung, source_version, record, bitrate, frame_rate_milli, encoder })
    });
    let report =
        any::<(u64, u64, u64, u64)>().prop_map(|(media_us, decode_us, lost_pictures, waiting_ms)| {
            let (rung, pictures, bytes, encode_us) = (RungIndex(1), 30, 40_000, 12);
            let rungs = vec![RungReport { rung, pictures, bytes, encode_us, waiting_ms }];
            Product::Report(Report { media_us, decode_us, lost_pictures, waiting_ms, rungs })
        });
    prop_oneof![
        start,
        any::<(u8, u32)>().prop_map(|(rung, source_version)| {
            Product::RungDropped { rung: RungIndex(rung), source_version }
        }),
        any::<(u8, u32)>().prop_map(|(rung, source_version)| {
            let part = Part::Rung(RungIndex(rung));
            Product::Refused(Refusal { part, source_version, reason: "no encoder opens".to_owned() })
        }),
        picture,
        (data(), any::<u64>())
            .prop_map(|(record, bitrate)| Product::AudioStarted(AudioStart { record, bitrate })),
        (any::<i64>(), data()).prop_map(|(pts, data)| Product::Sound { pts, data }),
        (any::<i64>(), data()).prop_map(|(pts, jpeg)| Product::Thumbnail { pts, jpeg }),
        (any::<(u32, u8, i64)>(), data()).prop_map(|((number, tiles, first_pts), jpeg)| {
            Product::Sheet { number, tiles, first_pts, jpeg }
        }),
        any::<bool>().prop_map(|begins| Product::Condition { condition: Condition::Frozen, begins }),
        report,
        Just(Product::Flushed),
    ]
}

/// The bytes of frames on the stream, cut at arbitrary places.
fn pieces(frames: impl IntoIterator<Item = Frame>, cuts: &[usize]) -> Vec<Vec<u8>> {
    let whole: Vec<u8> = frames.into_iter().flat_map(Frame::into_slices).flatten().collect();
    let mut rest = whole.as_slice();
    let mut pieces = Vec::new();
    for cut in cuts {
        let (piece, after) = rest.split_at((*cut).min(rest.len()));
        pieces.push(piece.to_vec());
        rest = after;
    }
    pieces.push(rest.to_vec());
    pieces
}

fn read_all(pieces: Vec<Vec<u8>>) -> Result<Vec<(u8, Bytes)>, FrameError> {
    let mut reader = FrameReader::default();
    let mut frames = Vec::new();
    for piece in pieces {
        reader.buffer().extend_from_slice(&piece);
        while let Some(frame) = reader.next_frame()? {
            frames.push(frame);
        }
    }
    assert!(reader.buffer().is_empty(), "bytes are left behind the last frame");
    Ok(frames)
}

proptest! {
    #[test]
    fn orders_are_read_as_they_were_written_wherever_the_stream_is_cut(
        orders in proptest::collection::vec(order(), 0..8),
        cuts in proptest::collection::vec(0usize..300, 0..12),
    ) {
        let frames = read_all(pieces(orders.iter().cloned().map(encode_order), &cuts)).unwrap();
        let read: Vec<Order> = frames.into_iter().map(|(kind, body)| decode_order(kind, body).unwrap()).collect();
        prop_assert_eq!(read, orders);
    }

    #[test]
    fn products_are_read_as_they_were_written_wherever_the_stream_is_cut(
        products in proptest::collection::vec(product(), 0..8),
        cuts in proptest::collection::vec(0usize..300, 0..12),
    ) {
        let frames = read_all(pieces(products.iter().cloned().map(encode_product), &cuts)).unwrap();
        let read: Vec<_> = frames.into_iter().map(|(kind, body)| decode_product(kind, body).unwrap()).collect();
        let written: Vec<_> = products.into_iter().map(ChildMessage::Product).collect();
        prop_assert_eq!(read, written);
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_read_and_never_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..2000), kind in 0u8..12,
    ) {
        let mut reader = FrameReader::default();
        reader.buffer().extend_from_slice(&bytes);
        while let Ok(Some((kind, body))) = reader.next_frame() {
            let _ = (decode_order(kind, body.clone()), decode_product(kind, body));
        }
        let body = Bytes::from(bytes);
        let _ = (decode_order(kind, body.clone()), decode_product(kind, body));
    }

    #[test]
    fn damaged_frames_are_refused_or_read_and_never_panic(
        product in product(), at in any::<prop::sample::Index>(), with in any::<u8>(),
    ) {
        let mut bytes: Vec<u8> = encode_product(product).into_slices().flatten().collect();
        let at = at.index(bytes.len());
        bytes[at] ^= with;
        let mut reader = FrameReader::default();
        reader.buffer().extend_from_slice(&bytes);
        while let Ok(Some((kind, body))) = reader.next_frame() {
            let _ = decode_product(kind, body);
        }
    }
}

#[test]
fn frame_beyond_the_limit_is_refused_before_any_memory_is_taken() {
    for length in [0, MAX_FRAME as u32 + 1, u32::MAX] {
        let mut reader = FrameReader::default();
        reader.buffer().extend_from_slice(&length.to_be_bytes());
        assert_eq!(reader.next_frame(), Err(FrameError::Length(length as usize)));
    }
}

#[test]
fn reason_of_a_failure_is_cut_to_its_limit() {
    let frame = encode_failure(&"ü".repeat(2000));
    let (kind, body) = read_all(pieces([frame], &[])).unwrap().remove(0);
    let Ok(ChildMessage::Failed(reason)) = decode_product(kind, body) else { panic!("no reason") };
    assert_eq!(reason, "ü".repeat(512));
}
