//! The reasons against rml_rtmp's chunk reader and AMF0: each fault is reproduced beside this crate's behaviour. If a newer
//! release mends one, its test fails and the decision can be reviewed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use bytes::{BufMut, BytesMut};
use common::{message, read_all};
use millrace_rtmp::chunk::{BasicHeader, ChunkWriter, RawHeader};
use millrace_rtmp::limits::AmfLimits;
use millrace_rtmp::{Limits, Message, MessageType, amf};
use rml_rtmp::chunk_io::ChunkDeserializer;
use rml_rtmp::messages::MessagePayload;
use rml_rtmp::time::RtmpTimestamp;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// 2^24 ms, 4 h 39 m 37 s: timestamps from here on are extended.
const FOUR_HOURS_FORTY: u32 = 1 << 24;

/// Writes a frame of three chunks with an audio frame after the first, as every interleaving encoder does.
fn interleaved() -> (Vec<Message>, BytesMut) {
    let messages =
        vec![message(4, MessageType::VIDEO, 20, &[2; 300]), message(6, MessageType::AUDIO, 20, &[1; 100])];
    let mut wire = BytesMut::new();
    ChunkWriter::default().write_interleaved(&messages, &mut wire).unwrap();
    (messages, wire)
}

#[test]
fn rml_rtmp_reader_panics_on_interleaved_chunk_streams() {
    let (_, wire) = interleaved();
    let mut library = ChunkDeserializer::new();
    let outcome =
        catch_unwind(AssertUnwindSafe(|| while let Ok(Some(_)) = library.get_next_message(&wire) {}));
    let panic = outcome.expect_err("the library keeps one buffer for all chunk streams");
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default();
    assert!(text.contains("overflow"), "{text}");
}

#[test]
fn reader_reassembles_interleaved_chunk_streams() {
    let (messages, mut wire) = interleaved();
    let mut got = read_all(&mut wire, Limits::default()).unwrap();
    got.sort_by_key(|m| m.chunk_stream);
    assert_eq!(got, messages);
}

/// Writes two messages after 4 h 39 m as a sender that does not repeat the extended timestamp.
fn omitting_sender() -> (Vec<Message>, BytesMut) {
    let messages = vec![
        message(6, MessageType::VIDEO, FOUR_HOURS_FORTY + 5, &[7; 300]),
        message(6, MessageType::VIDEO, FOUR_HOURS_FORTY + 45, &[8; 310]),
    ];
    let mut writer = ChunkWriter::default();
    writer.set_repeat_extended(false);
    let mut wire = BytesMut::new();
    for m in &messages {
        writer.write(m, &mut wire).unwrap();
    }
    (messages, wire)
}

#[test]
fn rml_rtmp_reader_desynchronises_without_repeated_extended_timestamps() {
    let (messages, wire) = omitting_sender();
    let mut library = ChunkDeserializer::new();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut input: &[u8] = &wire;
        let mut got = Vec::new();
        while let Ok(Some(m)) = library.get_next_message(input) {
            got.push(m.data);
            input = &[];
        }
        got
    }));
    let expected: Vec<_> = messages.iter().map(|m| m.payload.contiguous()).collect();
    assert!(outcome.is_err() || outcome.is_ok_and(|got| got != expected));
}

#[test]
fn reader_follows_both_dialects_of_extended_timestamps() {
    let (messages, mut wire) = omitting_sender();
    assert_eq!(read_all(&mut wire, Limits::default()).unwrap(), messages);
    let mut wire = BytesMut::new();
    let mut writer = ChunkWriter::default();
    for m in &messages {
        writer.write(m, &mut wire).unwrap();
    }
    assert_eq!(read_all(&mut wire, Limits::default()).unwrap(), messages);
}

#[test]
fn rml_rtmp_panics_on_a_length_that_shrinks_in_mid_message() {
    // 128 of 300 bytes, then a type 1 header with length 10: ordinary after a dropped frame.
    let mut wire = BytesMut::new();
    let mut header = RawHeader {
        basic: BasicHeader { format: 0, chunk_stream: 6 },
        timestamp: 0,
        length: 300,
        kind: 9,
        stream: 1,
        repeat_extended: true,
    };
    header.write(&mut wire);
    wire.put_bytes(1, 128);
    header.basic.format = 1;
    header.length = 10;
    header.write(&mut wire);
    wire.put_bytes(2, 10);
    let mut library = ChunkDeserializer::new();
    assert!(catch_unwind(AssertUnwindSafe(|| library.get_next_message(&wire).is_ok())).is_err());
    let got = read_all(&mut wire, Limits::default()).unwrap();
    assert_eq!(got, [message(6, MessageType::VIDEO, 0, &[2; 10])]);
}

fn command(data: &[u8]) -> MessagePayload {
    let data = data.to_vec().into();
    MessagePayload { timestamp: RtmpTimestamp::new(0), type_id: 20, message_stream_id: 0, data }
}

#[test]
fn rml_rtmp_panics_on_short_commands() {
    // `_checkbw` with no transaction id and no command object.
    let mut payload = BytesMut::new();
    amf::encode(&["_checkbw".into()], &mut payload);
    let payload = command(&payload);
    assert!(catch_unwind(AssertUnwindSafe(|| payload.to_rtmp_message().is_ok())).is_err());
}

#[test]
fn rml_rtmp_refuses_long_strings_and_pads_truncated_ones() {
    let long = [0x0c, 0, 0, 0, 1, b'x'];
    assert!(rml_rtmp::rml_amf0::deserialize(&mut &long[..]).is_err());
    assert_eq!(amf::decode(&long, &AmfLimits::default()).unwrap(), ["x".into()]);
    let truncated = [0x02, 0, 4, b'x'];
    assert!(rml_rtmp::rml_amf0::deserialize(&mut &truncated[..]).is_ok());
    assert!(amf::decode(&truncated, &AmfLimits::default()).is_err());
}

#[test]
fn amf_decode_refuses_nesting_that_would_overflow_the_stack() {
    // rml_amf0 recurses once per level, without bound: 60 000 levels fit one command and abort the process,
    // which no `catch_unwind` contains; so only this crate's decoder is run here.
    let deep: Vec<u8> = [0x0a, 0, 0, 0, 1].repeat(12_000);
    assert!(amf::decode(&deep, &AmfLimits::default()).is_err());
}
