//! The chunk layer: every header type, every limit, and properties over random input.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use bytes::{BufMut, BytesMut};
use common::{message, read_all, recorded_session, serve};
use millrace_rtmp::chunk::{BasicHeader, ChunkReader, ChunkWriter, ExtendedTimestamps, RawHeader};
use millrace_rtmp::{ErrorKind, Limits, Message, MessageType};
use proptest::prelude::*;

fn header(format: u8, chunk_stream: u32, timestamp: u32, length: u32) -> RawHeader {
    let basic = BasicHeader { format, chunk_stream };
    RawHeader { basic, timestamp, length, kind: 9, stream: 1, repeat_extended: true }
}

fn chunk(header: RawHeader, payload: &[u8], wire: &mut BytesMut) {
    header.write(wire);
    wire.put_slice(payload);
}

#[test]
fn basic_header_round_trips_ids_of_one_two_and_three_bytes() {
    for id in [2, 63, 64, 319, 320, 65_599] {
        let mut wire = BytesMut::new();
        chunk(header(0, id, 5, 3), b"abc", &mut wire);
        assert_eq!(
            wire.len(),
            11 + 3
                + if id < 64 {
                    1
                } else if id < 320 {
                    2
                } else {
                    3
                }
        );
        assert_eq!(
            read_all(&mut wire, Limits::default()).unwrap(),
            [message(id, MessageType::VIDEO, 5, b"abc")]
        );
    }
}

#[test]
fn reader_applies_the_deltas_of_all_header_types() {
    let mut wire = BytesMut::new();
    chunk(header(0, 6, 1000, 2), b"a0", &mut wire);
    chunk(header(1, 6, 40, 3), b"b00", &mut wire);
    chunk(header(2, 6, 30, 0), b"c00", &mut wire);
    chunk(header(3, 6, 0, 0), b"d00", &mut wire);
    let times: Vec<_> = read_all(&mut wire, Limits::default()).unwrap().iter().map(|m| m.timestamp).collect();
    assert_eq!(times, [1000, 1040, 1070, 1100]);
}

#[test]
fn reader_takes_a_type_3_header_after_type_0_as_delta_only_if_plausible() {
    for (first, second) in [(33, 66), (3_600_000, 3_600_000), (1 << 25, 1 << 25)] {
        let mut wire = BytesMut::new();
        chunk(header(0, 6, first, 2), b"a0", &mut wire);
        chunk(header(3, 6, first, 0), b"b0", &mut wire);
        let times: Vec<_> =
            read_all(&mut wire, Limits::default()).unwrap().iter().map(|m| m.timestamp).collect();
        assert_eq!(times, [first, second]);
    }
}

#[test]
fn reader_detects_whether_extended_timestamps_are_repeated() {
    for (repeat, expected) in [(true, ExtendedTimestamps::Repeated), (false, ExtendedTimestamps::Omitted)] {
        let mut writer = ChunkWriter::default();
        writer.set_repeat_extended(repeat);
        let sent = message(6, MessageType::VIDEO, 0x0123_4567, &[3; 130]);
        let mut wire = BytesMut::new();
        writer.write(&sent, &mut wire).unwrap();
        let mut reader = ChunkReader::new(Limits::default(), 0);
        assert_eq!(reader.read(&mut wire).unwrap(), Some(sent));
        assert_eq!((reader.extended_timestamps(), wire.len()), (expected, 0));
    }
}

#[test]
fn reader_abandons_a_message_at_abort_or_a_new_header() {
    let mut wire = BytesMut::new();
    chunk(header(0, 6, 0, 300), &[1; 128], &mut wire);
    let abort = Message { stream: 0, ..message(2, MessageType::ABORT, 0, &6u32.to_be_bytes()) };
    ChunkWriter::default().write(&abort, &mut wire).unwrap();
    chunk(header(0, 6, 0, 300), &[1; 128], &mut wire);
    chunk(header(0, 6, 40, 2), b"ok", &mut wire);
    let mut reader = ChunkReader::new(Limits::default(), 0);
    assert_eq!(reader.read(&mut wire).unwrap(), Some(abort));
    assert_eq!(reader.read(&mut wire).unwrap(), Some(message(6, MessageType::VIDEO, 40, b"ok")));
    assert_eq!((reader.abandoned(), reader.buffered()), (2, 0));
}

#[test]
fn reader_accepts_chunk_sizes_up_to_the_largest() {
    for size in [1, 60_000, 1 << 20, 0x7fff_ffff] {
        let mut writer = ChunkWriter::default();
        let mut wire = BytesMut::new();
        writer.set_chunk_bytes(size, &mut wire);
        let sent = message(6, MessageType::VIDEO, 9, &vec![5; 400_000]);
        writer.write(&sent, &mut wire).unwrap();
        let got = read_all(&mut wire, Limits::default()).unwrap();
        assert_eq!(got[1], sent);
    }
    for size in [0u32, 0x8000_0000] {
        let mut wire = BytesMut::new();
        let bad = message(2, MessageType::SET_CHUNK_SIZE, 0, &size.to_be_bytes());
        ChunkWriter::default().write(&bad, &mut wire).unwrap();
        assert_eq!(
            read_all(&mut wire, Limits::default()).unwrap_err().kind,
            ErrorKind::InvalidChunkSize(size)
        );
    }
}

#[test]
fn reader_locates_the_message_that_exceeds_a_limit() {
    let limits = Limits::default();
    let mut wire = BytesMut::new();
    chunk(header(0, 6, 0, 0xff_ffff), &[], &mut wire);
    let error = read_all(&mut wire, limits).unwrap_err();
    assert_eq!(error.kind, ErrorKind::MessageTooLarge { length: 0xff_ffff, limit: limits.message_bytes });
    assert_eq!((error.at.chunk_stream, error.at.message_type), (Some(6), Some(9)));
    assert!(error.to_string().contains("chunk stream 6"), "{error}");

    let mut wire = BytesMut::new();
    for id in 0..=limits.chunk_streams as u32 {
        chunk(header(0, 3 + id, 0, 1), b"x", &mut wire);
    }
    let kind = ErrorKind::TooManyChunkStreams { limit: limits.chunk_streams };
    assert_eq!(read_all(&mut wire, limits).unwrap_err().kind, kind);

    let mut wire = BytesMut::new();
    chunk(header(3, 9, 0, 0), b"x", &mut wire);
    assert_eq!(read_all(&mut wire, limits).unwrap_err().kind, ErrorKind::NoPreviousHeader { format: 3 });

    let small = Limits { buffered_bytes: 200_000, ..limits };
    let mut wire = BytesMut::new();
    for id in 3..6 {
        chunk(header(0, id, 0, 100_000), &[0; 128], &mut wire);
    }
    assert_eq!(read_all(&mut wire, small).unwrap_err().kind, ErrorKind::BufferLimit { limit: 200_000 });
}

#[test]
fn reader_allocates_little_for_a_message_that_is_only_declared() {
    let limits = Limits::default();
    let mut wire = BytesMut::new();
    for id in 3..3 + limits.chunk_streams as u32 {
        chunk(header(0, id, 0, limits.message_bytes as u32), &[0; 128], &mut wire);
    }
    let mut reader = ChunkReader::new(limits, 0);
    assert_eq!(reader.read(&mut wire).unwrap(), None);
    assert!(reader.buffered() <= limits.chunk_streams * 128 * 1024, "{}", reader.buffered());
}

/// A few bytes of a message in each of many read buffers must not keep them all.
#[test]
fn reader_frees_read_buffers_that_hold_little_of_a_message() {
    const PIECE: usize = 2000;
    let sent = bytes(100 * PIECE, 3);
    let mut wire = BytesMut::new();
    ChunkWriter::default().set_chunk_bytes(PIECE as u32, &mut wire);
    let mut reader = ChunkReader::new(Limits::default(), 0);
    assert!(reader.read(&mut wire).unwrap().is_some());
    let (mut buffers, mut whole) = (Vec::new(), None);
    for (n, piece) in sent.chunks(PIECE).enumerate() {
        let mut buf = BytesMut::with_capacity(64 << 10);
        chunk(header(if n == 0 { 0 } else { 3 }, 6, 0, sent.len() as u32), piece, &mut buf);
        while buf.capacity() - buf.len() > 2 * PIECE {
            chunk(header(0, 7, 0, PIECE as u32), &[0; PIECE], &mut buf);
        }
        while let Some(message) = reader.read(&mut buf).unwrap() {
            whole = Some(message).filter(|message| message.chunk_stream == 6);
            if whole.is_some() {
                break;
            }
        }
        assert!(whole.is_some() || reader.buffered() <= (n + 1) * PIECE, "{}", reader.buffered());
        buffers.push(buf);
    }
    let whole = whole.expect("the message is whole");
    assert_eq!(&whole.payload.contiguous()[..], sent);
    // A buffer without other handles can be reclaimed from its start.
    let kept = buffers.iter_mut().filter_map(|buf| (!buf.try_reclaim(64 << 10)).then_some(())).count();
    assert!((1..=3).contains(&kept), "{kept} read buffers are held");
}

/// Makes bytes that differ from their neighbours, so that a misplaced one is detected.
fn bytes(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|i| (i as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0] ^ seed).collect()
}

fn messages() -> impl Strategy<Value = Vec<Message>> {
    let kind = prop_oneof![Just(MessageType::VIDEO), Just(MessageType::AUDIO), Just(MessageType::DATA_AMF0)];
    let length = prop_oneof![0usize..2000, 2000usize..20_000];
    let one = (3u32..8, kind, any::<u32>(), length, any::<u8>());
    let one = one.prop_map(|(id, kind, time, length, seed)| message(id, kind, time, &bytes(length, seed)));
    proptest::collection::vec(one, 0..20)
}

proptest! {
    #[test]
    fn reader_returns_what_the_writer_wrote(
        messages in messages(), size in 1u32..9000, repeat: bool, pieces in proptest::collection::vec(1usize..7000, 1..8),
    ) {
        let mut writer = ChunkWriter::default();
        writer.set_repeat_extended(repeat);
        let mut wire = BytesMut::new();
        writer.set_chunk_bytes(size, &mut wire);
        for m in &messages {
            writer.write(m, &mut wire).unwrap();
        }
        let total = wire.len();
        let mut reader = ChunkReader::new(Limits::default(), 0);
        let (mut buf, mut got, mut pieces) = (BytesMut::new(), Vec::new(), pieces.into_iter().cycle());
        while !wire.is_empty() {
            let count = wire.len().min(pieces.next().unwrap_or(1));
            buf.extend_from_slice(&wire.split_to(count));
            while let Some(m) = reader.read(&mut buf).unwrap() {
                got.push(m);
            }
        }
        prop_assert_eq!(&got[1..], &messages[..]);
        prop_assert_eq!((reader.buffered(), reader.offset()), (0, total as u64));
        prop_assert!(got.iter().all(|m| m.kind.is_media() || m.payload.iter().count() <= 1));
    }

    #[test]
    fn reader_follows_a_chunk_size_that_changes_within_a_message(
        sizes in proptest::collection::vec(prop_oneof![1u32..200, 900u32..1200, 1200u32..9000], 1..12),
        length in 1usize..60_000, seed: u8, read in 1usize..9000,
    ) {
        let sent = message(6, MessageType::VIDEO, 7, &bytes(length, seed));
        let (mut wire, mut rest) = (BytesMut::new(), sent.payload.contiguous());
        let mut writer = ChunkWriter::default();
        let mut sizes_left = sizes.iter().cycle();
        let mut format = 0;
        while !rest.is_empty() {
            let size = *sizes_left.next().unwrap();
            writer.set_chunk_bytes(size, &mut wire);
            let head = rest.split_to(rest.len().min(size as usize));
            chunk(header(format, 6, 7, length as u32), &head, &mut wire);
            format = 3;
        }
        let mut reader = ChunkReader::new(Limits::default(), 0);
        let (mut buf, mut got) = (BytesMut::new(), Vec::new());
        for piece in wire.chunks(read) {
            buf.extend_from_slice(piece);
            while let Some(message) = reader.read(&mut buf).unwrap() {
                got.push(message);
            }
        }
        got.retain(|message| message.kind == MessageType::VIDEO);
        prop_assert_eq!(got, vec![sent]);
        prop_assert_eq!(reader.buffered(), 0);
    }

    #[test]
    fn reader_reassembles_interleaved_messages(lengths in proptest::collection::vec(1usize..3000, 1..6), size in 1u32..500) {
        let sent: Vec<_> = lengths.iter().enumerate()
            .map(|(i, n)| message(3 + i as u32, MessageType::VIDEO, 1 << 24, &vec![i as u8; *n])).collect();
        let mut writer = ChunkWriter::default();
        let mut wire = BytesMut::new();
        writer.set_chunk_bytes(size, &mut wire);
        writer.write_interleaved(&sent, &mut wire).unwrap();
        let mut got = read_all(&mut wire, Limits::default()).unwrap().split_off(1);
        got.sort_by_key(|m| m.chunk_stream);
        prop_assert_eq!(got, sent);
    }

    #[test]
    fn reader_survives_random_bytes_within_its_limits(bytes in proptest::collection::vec(any::<u8>(), 0..4000), size in 1u32..200) {
        let mut wire = BytesMut::new();
        ChunkWriter::default().set_chunk_bytes(size, &mut wire);
        wire.extend_from_slice(&bytes);
        let limits = Limits::default();
        let mut reader = ChunkReader::new(limits, 0);
        while let Ok(Some(_)) = reader.read(&mut wire) {
            prop_assert!(reader.buffered() <= limits.buffered_bytes);
        }
    }

    #[test]
    fn server_yields_the_same_events_for_any_split_of_the_input(pieces in proptest::collection::vec(1usize..4000, 1..12), size in 1u32..5000) {
        let wire = recorded_session(size);
        let (whole, end) = serve(&wire, &[wire.len()], Limits::default());
        prop_assert_eq!(end, Ok(()));
        prop_assert_eq!(whole.len(), 2 + 1 + 12 + 1);
        let (split, end) = serve(&wire, &pieces, Limits::default());
        prop_assert_eq!(end, Ok(()));
        prop_assert_eq!(split, whole);
    }

    #[test]
    fn server_survives_mutated_sessions(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        cut in any::<prop::sample::Index>(), size in 1u32..5000, past_handshake: bool,
    ) {
        let mut wire = recorded_session(size);
        let start = if past_handshake { 3073 } else { 0 };
        for (at, value) in flips {
            let at = start + at.index(wire.len() - start);
            wire[at] = value;
        }
        wire.truncate(start + cut.index(wire.len() - start));
        let _ = serve(&wire, &[1000], Limits::default());
    }

    #[test]
    fn amf_decode_survives_random_bytes(bytes in proptest::collection::vec(0u8..20, 0..300)) {
        let _ = millrace_rtmp::amf::decode(&bytes, &millrace_rtmp::limits::AmfLimits::default());
    }
}
