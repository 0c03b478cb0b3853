//! rml_rtmp as an independent peer where it is correct: its writer against this crate's reader, and the reverse.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use bytes::{Bytes, BytesMut};
use common::{message, read_all};
use millrace_rtmp::chunk::ChunkWriter;
use millrace_rtmp::limits::AmfLimits;
use millrace_rtmp::{Limits, Message, MessageType, Value, amf};
use rml_rtmp::chunk_io::{ChunkDeserializer, ChunkSerializer};
use rml_rtmp::messages::MessagePayload;
use rml_rtmp::rml_amf0::Amf0Value;
use rml_rtmp::time::RtmpTimestamp;

fn frames() -> Vec<Message> {
    // rml_rtmp's writer puts video on chunk stream 4.
    let frame = |(i, n): (u32, usize)| message(4, MessageType::VIDEO, i * 40, &vec![i as u8; n]);
    [(1, 10), (2, 10), (3, 10), (4, 500), (5, 129), (6, 128), (7, 128), (8, 128)].map(frame).to_vec()
}

fn theirs(m: &Message) -> MessagePayload {
    let timestamp = RtmpTimestamp::new(m.timestamp);
    MessagePayload { timestamp, type_id: m.kind.0, message_stream_id: m.stream, data: m.payload.contiguous() }
}

#[test]
fn reader_reads_the_chunks_of_rml_rtmp() {
    let mut library = ChunkSerializer::new();
    let mut wire = BytesMut::new();
    for m in &frames() {
        wire.extend_from_slice(&library.serialize(&theirs(m), false, false).unwrap().bytes);
    }
    assert_eq!(read_all(&mut wire, Limits::default()).unwrap(), frames());
}

#[test]
fn rml_rtmp_reads_the_chunks_of_the_writer() {
    let mut wire = BytesMut::new();
    let mut writer = ChunkWriter::default();
    for m in &frames() {
        writer.write(m, &mut wire).unwrap();
    }
    let mut library = ChunkDeserializer::new();
    let mut input: &[u8] = &wire;
    for m in &frames() {
        assert_eq!(library.get_next_message(input).unwrap(), Some(theirs(m)));
        input = &[];
    }
}

#[test]
fn amf0_agrees_with_rml_rtmp_in_both_directions() {
    let ours = vec![
        Value::from("name"),
        Value::Number(1.5),
        Value::Object(vec![("k".to_owned(), true.into())]),
        Value::StrictArray(vec![Value::Null, Value::Undefined]),
    ];
    let their = vec![
        Amf0Value::Utf8String("name".to_owned()),
        Amf0Value::Number(1.5),
        Amf0Value::Object([("k".to_owned(), Amf0Value::Boolean(true))].into()),
        Amf0Value::StrictArray(vec![Amf0Value::Null, Amf0Value::Undefined]),
    ];
    let mut encoded = BytesMut::new();
    amf::encode(&ours, &mut encoded);
    let by_them = Bytes::from(rml_rtmp::rml_amf0::serialize(&their).unwrap());
    assert_eq!(encoded, by_them);
    assert_eq!(rml_rtmp::rml_amf0::deserialize(&mut &encoded[..]).unwrap(), their);
    assert_eq!(amf::decode(&by_them, &AmfLimits::default()).unwrap(), ours);
}
