//! A client and a server connected back to back, without sockets or clocks.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use bytes::{BufMut, Bytes, BytesMut};
use common::{Pair, message};
use millrace_buf::ByteChain;
use millrace_rtmp::{
    ClientConfig, ClientEvent, ErrorKind, Event, Limits, Message, MessageType, Phase, PublishMode, Refusal,
    Rejection, StreamName, Value, amf,
};
use std::time::Duration;

const URL: &str = "rtmp://localhost/live/KEY?user=1";

fn publishing() -> Pair {
    publishing_with(ClientConfig::from_url(URL).unwrap())
}

fn publishing_with(config: ClientConfig) -> Pair {
    let mut pair = Pair::with(config, Limits::default());
    pair.run().unwrap();
    assert!(pair.client.is_publishing() && pair.server.is_publishing());
    pair.events.clear();
    pair
}

/// Pulls events until the publish request, which it leaves undecided.
fn until_publish(pair: &mut Pair) -> millrace_rtmp::PublishRequest {
    loop {
        pair.step().unwrap();
        match pair.server.next_event(pair.now, &mut pair.to_server).unwrap() {
            Some(Event::ConnectRequested(_)) => pair.server.accept_connect().unwrap(),
            Some(Event::PublishRequested(request)) => return request,
            _ => {}
        }
    }
}

fn command(name: &str, transaction: f64, arguments: &[Value]) -> ByteChain {
    let mut payload = BytesMut::new();
    amf::encode(&[name.into(), transaction.into()], &mut payload);
    amf::encode(arguments, &mut payload);
    payload.freeze().into()
}

#[test]
fn client_and_server_complete_a_whole_publish() {
    let mut pair = Pair::new(URL);
    pair.run().unwrap();
    let [Event::ConnectRequested(connect), Event::PublishRequested(publish)] = &pair.events[..] else {
        panic!("{:?}", pair.events);
    };
    assert_eq!((connect.app.as_str(), connect.tc_url.as_str()), ("live", "rtmp://localhost/live"));
    assert_eq!(
        (publish.app.as_str(), publish.stream_key.expose(), publish.mode),
        ("live", "KEY", PublishMode::Live)
    );
    assert_eq!(publish.query.as_ref().map(StreamName::expose), Some("user=1"));
    assert!(pair.client_events.contains(&ClientEvent::PublishStarted));
    pair.events.clear();

    let properties = vec![("width".to_owned(), Value::from(640.0))];
    pair.client.push_metadata(0, properties.clone()).unwrap();
    pair.client.push_video(40, Bytes::from_static(b"video")).unwrap();
    pair.client.push_audio(41, Bytes::from_static(b"audio")).unwrap();
    pair.client.push_data(42, &["onCaptionInfo".into(), "708".into()]).unwrap();
    pair.run().unwrap();
    pair.client.unpublish().unwrap();
    pair.run().unwrap();
    let expected = [
        Event::Metadata { timestamp: 0, properties },
        Event::Video { timestamp: 40, data: Bytes::from_static(b"video").into() },
        Event::Audio { timestamp: 41, data: Bytes::from_static(b"audio").into() },
        Event::Data { timestamp: 42, name: "onCaptionInfo".to_owned(), values: vec!["708".into()] },
        Event::Unpublished,
    ];
    assert_eq!(pair.events, expected);
    assert!(
        pair.client_events.contains(&ClientEvent::Status { code: "NetStream.Unpublish.Success".to_owned() })
    );
}

#[test]
fn server_yields_pictures_as_slices_of_the_read_buffer() {
    for (chunk_bytes, pieces) in [(4096, 5), (60_000, 1)] {
        let mut config = ClientConfig::from_url(URL).unwrap();
        config.chunk_bytes = chunk_bytes;
        let mut pair = publishing_with(config);
        pair.client.push_video(0, Bytes::from(vec![9; 20_000])).unwrap();
        pair.step().unwrap();
        let held = pair.to_server.as_ptr_range();
        let event = pair.server.next_event(pair.now, &mut pair.to_server).unwrap();
        let Some(Event::Video { data, .. }) = event else { panic!("{event:?}") };
        assert_eq!((data.len(), data.iter().count()), (20_000, pieces));
        assert!(data.iter().all(|piece| held.contains(&piece.as_ptr())));
    }
}

#[test]
fn client_gets_status_and_description_of_a_refused_publish() {
    for why in [Rejection::BadName, Rejection::Denied, Rejection::Failed] {
        let mut pair = Pair::new(URL);
        until_publish(&mut pair);
        pair.server.reject_publish(why, "unknown key").unwrap();
        pair.run().unwrap();
        let refused =
            ClientEvent::Refused { code: why.code().to_owned(), description: "unknown key".to_owned() };
        assert!(pair.client_events.contains(&refused), "{:?}", pair.client_events);
        assert!(pair.server.is_finished() && pair.server.deadline().is_none());
    }
}

#[test]
fn server_lists_the_codecs_of_enhanced_rtmp_in_its_answer_to_connect() {
    let mut pair = Pair::new(URL);
    let answer = loop {
        pair.step().unwrap();
        if let Some(Event::ConnectRequested(_)) =
            pair.server.next_event(pair.now, &mut pair.to_server).unwrap()
        {
            pair.server.accept_connect().unwrap();
            let sent: Vec<Bytes> = std::iter::from_fn(|| pair.server.poll_transmit()).collect();
            break sent.concat();
        }
    };
    let list = Value::StrictArray(vec!["avc1".into(), "mp4a".into()]);
    let mut expected = BytesMut::from(&b"\x00\x0afourCcList"[..]);
    amf::encode(&[list], &mut expected);
    assert!(answer.windows(expected.len()).any(|bytes| bytes == &expected[..]), "{}", answer.escape_ascii());
}

#[test]
fn client_gets_status_and_description_of_a_refused_connect() {
    let mut pair = Pair::new("rtmp://localhost/wrong/KEY");
    while !pair.server.is_finished() {
        pair.step().unwrap();
        if let Some(Event::ConnectRequested(_)) =
            pair.server.next_event(pair.now, &mut pair.to_server).unwrap()
        {
            pair.server.reject_connect(Rejection::ConnectRejected, "no such application").unwrap();
        }
    }
    pair.run().unwrap();
    let [ClientEvent::Refused { code, .. }] = &pair.client_events[..] else {
        panic!("{:?}", pair.client_events)
    };
    assert_eq!(code, "NetConnection.Connect.Rejected");
}

#[test]
fn client_gets_status_and_description_of_a_kick() {
    let mut pair = publishing();
    pair.server.kick(Rejection::Denied, "stream stopped").unwrap();
    pair.client.push_video(0, Bytes::from_static(b"late")).unwrap();
    pair.run().unwrap();
    assert!(matches!(&pair.client_events.last(), Some(ClientEvent::Refused { .. })));
    assert!(pair.events.is_empty());
}

#[test]
fn server_parses_nothing_while_a_decision_is_pending() {
    let mut pair = Pair::new(URL);
    until_publish(&mut pair);
    let early = message(6, MessageType::VIDEO, 0, b"early");
    pair.client.send_message(&early).unwrap();
    pair.step().unwrap();
    assert!(!pair.server.wants_input());
    assert_eq!(pair.server.next_event(pair.now, &mut pair.to_server).unwrap(), None);
    pair.server.accept_publish(pair.now).unwrap();
    let event = pair.server.next_event(pair.now, &mut pair.to_server).unwrap();
    assert_eq!(event, Some(Event::Video { timestamp: 0, data: early.payload }));
}

#[test]
fn server_finds_the_key_in_the_application_path() {
    let mut config = ClientConfig::from_url("rtmp://localhost/live/KEY/x").unwrap();
    config.name = StreamName::new("");
    let mut pair = Pair::with(config, Limits::default());
    let request = until_publish(&mut pair);
    assert_eq!((request.app.as_str(), request.stream_key.expose()), ("live", "KEY"));
}

#[test]
fn server_refuses_a_publish_without_key() {
    let mut config = ClientConfig::from_url(URL).unwrap();
    config.name = StreamName::new("");
    let mut pair = Pair::with(config, Limits::default());
    pair.run().unwrap();
    assert!(
        matches!(&pair.client_events[..], [.., ClientEvent::Refused { code, .. }] if code == "NetStream.Publish.BadName")
    );
    assert!(matches!(&pair.events[..], [Event::ConnectRequested(_), Event::Refused(Refusal::NoKey)]));
    assert!(pair.server.is_finished() && !pair.server.wants_input());
}

#[test]
fn server_refuses_a_player_and_reads_no_more() {
    for name in ["play", "play2"] {
        let mut pair = Pair::new(URL);
        while pair.events.is_empty() {
            pair.step().unwrap();
            if let Some(event) = pair.server.next_event(pair.now, &mut pair.to_server).unwrap() {
                pair.events.push(event);
            }
        }
        pair.server.accept_connect().unwrap();
        let payload = command(name, 0.0, &[Value::Null, "KEY".into()]);
        pair.client
            .send_message(&Message { payload, ..message(3, MessageType::COMMAND_AMF0, 0, &[]) })
            .unwrap();
        pair.client.send_message(&message(6, MessageType::VIDEO, 0, b"late")).unwrap();
        pair.run().unwrap();
        assert!(matches!(&pair.events[1..], [Event::Refused(Refusal::Play)]), "{:?}", pair.events);
        assert!(pair.server.is_finished() && !pair.to_server.is_empty());
        let Some(ClientEvent::Refused { code, .. }) = pair.client_events.last() else {
            panic!("{:?}", pair.client_events)
        };
        assert_eq!(code, "NetStream.Play.StreamNotFound");
    }
}

/// A server with a rate of 100 messages and 1 000 chunks per second that is being published to.
fn publishing_within_rates() -> Pair {
    let limits = Limits { messages_per_second: 100, chunks_per_second: 1_000, ..Limits::default() };
    let mut pair = Pair::with(ClientConfig::from_url(URL).unwrap(), limits);
    pair.run().unwrap();
    pair
}

/// Sends what a case is about.
type Send<'a> = &'a dyn Fn(&mut Pair);

#[test]
fn server_ends_a_connection_beyond_the_rate_of_messages_or_chunks() {
    let messages = ErrorKind::RateExceeded { what: "messages", limit: 100 };
    let chunks = ErrorKind::RateExceeded { what: "chunks", limit: 1_000 };
    // Media, messages that cause no event, and parts of one aggregate.
    let mut part = vec![9, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0x57, 0, 0, 0, 12];
    part = part.repeat(1_001);
    let cases: [(&str, ErrorKind, Send<'_>); 4] = [
        ("media", messages.clone(), &|pair| {
            (0..1_001).for_each(|ms| pair.client.push_video(ms, Bytes::from_static(b"W")).unwrap());
        }),
        ("messages without an event", messages.clone(), &|pair| {
            (0..1_001).for_each(|_| pair.client.send_message(&message(4, MessageType(99), 0, b"")).unwrap());
        }),
        ("an aggregate", messages, &|pair| {
            pair.client.send_message(&message(6, MessageType::AGGREGATE, 0, &part)).unwrap();
        }),
        ("chunks of one byte", chunks, &|pair| {
            let size = 1_u32.to_be_bytes();
            pair.client.send_message(&message(2, MessageType::SET_CHUNK_SIZE, 0, &size)).unwrap();
            while let Some(bytes) = pair.client.poll_transmit() {
                pair.to_server.extend_from_slice(&bytes);
            }
            pair.to_server.extend_from_slice(&[6, 0, 0, 0, 1, 0, 0, 9, 1, 0, 0, 0, 0]);
            (0..10_001).for_each(|_| pair.to_server.extend_from_slice(&[0xc6, 0]));
        }),
    ];
    for (name, error, send) in cases {
        let mut pair = publishing_within_rates();
        send(&mut pair);
        assert_eq!(pair.run().map_err(|error| error.kind), Err(error), "{name}");
    }
}

#[test]
fn server_accepts_the_messages_of_ten_seconds_at_once_after_a_stall() {
    let mut pair = publishing_within_rates();
    for second in 0..3 {
        pair.now += Duration::from_secs(10);
        (0..900)
            .for_each(|ms| pair.client.push_video(second * 9_000 + ms, Bytes::from_static(b"v")).unwrap());
        pair.run().unwrap();
    }
    let videos = pair.events.iter().filter(|event| matches!(event, Event::Video { .. })).count();
    assert_eq!(videos, 2_700);
}

#[test]
fn client_publishes_again_on_the_same_connection() {
    let mut pair = publishing();
    for name in ["FCUnpublish", "deleteStream", "closeStream"] {
        let payload = command(name, 9.0, &[Value::Null, 1.0.into()]);
        let kind = MessageType::COMMAND_AMF0;
        pair.client.send_message(&Message { payload, ..message(3, kind, 0, &[]) }).unwrap();
    }
    let payload = command("publish", 10.0, &[Value::Null, "OTHER".into(), "append".into()]);
    pair.client.send_message(&Message { payload, ..message(3, MessageType::COMMAND_AMF0, 0, &[]) }).unwrap();
    pair.run().unwrap();
    let [Event::Unpublished, Event::PublishRequested(request)] = &pair.events[..] else {
        panic!("{:?}", pair.events)
    };
    assert_eq!((request.stream_key.expose(), request.mode), ("OTHER", PublishMode::Append));
}

#[test]
fn server_answers_the_commands_of_encoders() {
    let mut pair = publishing();
    for (i, name) in
        ["_checkbw", "getStreamLength", "releaseStream", "FCPublish", "unheardOf"].iter().enumerate()
    {
        let payload = command(name, 20.0 + i as f64, &[Value::Null, "KEY".into()]);
        pair.client
            .send_message(&Message { stream: 0, payload, ..message(3, MessageType::COMMAND_AMF0, 0, &[]) })
            .unwrap();
    }
    // An AMF3 command: AMF0 behind a zero byte.
    let mut amf3 = vec![0];
    amf3.extend_from_slice(&command("createStream", 30.0, &[Value::Null]).contiguous());
    pair.client.send_message(&message(3, MessageType::COMMAND_AMF3, 0, &amf3)).unwrap();
    // A command that ends after its name.
    let mut short = BytesMut::new();
    amf::encode(&["_checkbw".into()], &mut short);
    pair.client.send_message(&message(3, MessageType::COMMAND_AMF0, 0, &short)).unwrap();
    pair.client.send_ping(77).unwrap();
    pair.server.send_ping(5).unwrap();
    pair.run().unwrap();
    assert_eq!(pair.server.last_pong(), Some(5));
    assert!(pair.server.is_publishing());
}

#[test]
fn server_acknowledges_each_window_of_bytes() {
    let mut pair = publishing();
    let window = 100_000u32;
    pair.client
        .send_message(&Message {
            stream: 0,
            ..message(2, MessageType::WINDOW_ACK_SIZE, 0, &window.to_be_bytes())
        })
        .unwrap();
    for i in 0..50 {
        pair.client.push_video(i * 40, Bytes::from(vec![1; 10_000])).unwrap();
        pair.run().unwrap();
    }
    let acks: Vec<u32> = pair
        .client_events
        .iter()
        .filter_map(|e| if let ClientEvent::Acknowledged(n) = e { Some(*n) } else { None })
        .collect();
    assert_eq!(acks.len(), 5, "{acks:?}");
    assert!(acks.is_sorted_by(|a, b| b - a >= window), "{acks:?}");
}

#[test]
fn server_yields_the_parts_of_an_aggregate() {
    let mut pair = publishing();
    let mut body = BytesMut::new();
    // Longer than a chunk, so that the parts lie across slices.
    let large: Vec<u8> = (0..70_000u32).map(|i| (i / 7) as u8).collect();
    for (kind, timestamp, data) in [(9u8, 1000u32, &b"v1"[..]), (8, 1010, b"a1"), (9, 1040, &large[..])] {
        body.put_u8(kind);
        body.put_uint(data.len() as u64, 3);
        body.put_uint(u64::from(timestamp & 0xff_ffff), 3);
        body.put_u8((timestamp >> 24) as u8);
        body.put_uint(1, 3);
        body.put_slice(data);
        body.put_u32(11 + data.len() as u32);
    }
    pair.client.send_message(&message(6, MessageType::AGGREGATE, 500, &body)).unwrap();
    pair.run().unwrap();
    let expected = [
        Event::Video { timestamp: 500, data: Bytes::from_static(b"v1").into() },
        Event::Audio { timestamp: 510, data: Bytes::from_static(b"a1").into() },
        Event::Video { timestamp: 540, data: Bytes::from(large).into() },
    ];
    assert_eq!(pair.events, expected);
}

#[test]
fn server_drops_broken_metadata_and_goes_on() {
    let mut pair = publishing();
    pair.client.send_message(&message(5, MessageType::DATA_AMF0, 0, &[2, 0, 9, b'x'])).unwrap();
    pair.client.push_data(0, &["@setDataFrame".into(), "onMetaData".into()]).unwrap();
    pair.client.push_video(0, Bytes::from_static(b"v")).unwrap();
    pair.run().unwrap();
    assert_eq!(pair.events.len(), 2);
    assert_eq!(pair.events[0], Event::Metadata { timestamp: 0, properties: vec![] });
    assert_eq!(pair.server.ignored(), 1);
}

#[test]
fn server_times_out_in_each_phase() {
    let limits = Limits::default();
    let mut pair = Pair::new(URL);
    assert_eq!(pair.server.deadline(), Some(limits.handshake));
    let late = pair.server.handle_timeout(limits.handshake).unwrap_err();
    assert_eq!(late.kind, ErrorKind::TimedOut(Phase::Handshake));

    // The handshake alone.
    pair.now = Duration::from_secs(2);
    pair.step().unwrap();
    pair.server.next_event(pair.now, &mut pair.to_server).unwrap();
    pair.step().unwrap();
    while pair.server.next_event(pair.now, &mut pair.to_server).unwrap().is_none() {
        pair.step().unwrap();
    }
    assert_eq!(pair.server.deadline(), None, "a decision is pending");
    pair.server.accept_connect().unwrap();
    assert_eq!(pair.server.deadline(), Some(pair.now + limits.publish));
    pair.run().unwrap();
    assert_eq!(pair.server.deadline(), Some(pair.now + limits.ping));
    pair.now = Duration::from_secs(9);
    pair.client.push_video(0, Bytes::from_static(b"v")).unwrap();
    pair.run().unwrap();
    // A ping does not extend the deadline of media.
    pair.now = Duration::from_secs(12);
    pair.client.send_ping(1).unwrap();
    pair.run().unwrap();
    pair.server.handle_timeout(pair.now).unwrap();
    assert_eq!(pair.server.deadline(), Some(pair.now + limits.ping));
    let late = pair.server.handle_timeout(Duration::from_secs(9) + limits.idle).unwrap_err();
    assert_eq!(late.kind, ErrorKind::TimedOut(Phase::Media));
}

#[test]
fn server_pings_at_each_interval_and_ends_a_peer_that_sends_nothing_for_the_limit() {
    let limits = Limits { idle: Duration::from_mins(10), ..Limits::default() };
    let mut pair = Pair::with(ClientConfig::from_url(URL).unwrap(), limits);
    pair.run().unwrap();
    let mut now = Duration::ZERO;
    // The peer answers pings and sends no media.
    for ping in 1..=12 {
        now += limits.ping;
        assert_eq!(pair.server.deadline(), Some(now));
        pair.server.handle_timeout(now).unwrap();
        pair.now = now;
        pair.run().unwrap();
        assert_eq!(pair.server.last_pong(), Some(ping * 10_000));
    }
    // It stops answering: pings go on until the limit.
    let silent = now + limits.ping_timeout;
    while pair.server.deadline().unwrap() < silent {
        now = pair.server.deadline().unwrap();
        pair.server.handle_timeout(now).unwrap();
    }
    assert_eq!(now, silent.checked_sub(limits.ping).unwrap());
    let late = pair.server.handle_timeout(silent).unwrap_err();
    assert_eq!(late.kind, ErrorKind::TimedOut(Phase::Ping));
}

#[test]
fn peer_that_sends_media_and_never_answers_pings_is_kept() {
    let mut pair = publishing();
    for second in (5..600).step_by(5) {
        pair.now = Duration::from_secs(second);
        pair.client.push_video(0, Bytes::from_static(b"v")).unwrap();
        while let Some(bytes) = pair.client.poll_transmit() {
            pair.to_server.extend_from_slice(&bytes);
        }
        while pair.server.next_event(pair.now, &mut pair.to_server).unwrap().is_some() {}
        pair.server.handle_timeout(pair.now).unwrap();
        // Pings go out, and nothing of them comes back.
        while pair.server.poll_transmit().is_some() {}
    }
    assert_eq!(pair.server.last_pong(), None);
}

#[test]
fn server_announces_the_chunk_size_of_its_limits_and_takes_chunks_of_any_size_up_to_60000() {
    for announced in [128, 4_096, 60_000] {
        let limits = Limits { outbound_chunk: announced, ..Limits::default() };
        for sent in [128, 4_096, 60_000] {
            let mut config = ClientConfig::from_url(URL).unwrap();
            config.chunk_bytes = sent;
            let mut pair = Pair::with(config, limits);
            pair.run().unwrap();
            pair.events.clear();
            let picture = Bytes::from(vec![7; 150_000]);
            pair.client.push_video(40, picture.clone()).unwrap();
            pair.run().unwrap();
            assert_eq!(pair.events, [Event::Video { timestamp: 40, data: picture.into() }]);
            assert_eq!(pair.client.server_chunk_bytes(), announced as usize, "{announced} {sent}");
        }
    }
}

type Misbehaviour = fn(&mut Pair);

#[test]
fn server_limits_commands_and_bytes_before_publish() {
    let cases: [(&str, Misbehaviour); 3] = [
        ("commands before publish", |pair| {
            for i in 0..40 {
                let payload = command("releaseStream", f64::from(i), &[Value::Null]);
                pair.client
                    .send_message(&Message { payload, ..message(3, MessageType::COMMAND_AMF0, 0, &[]) })
                    .unwrap();
            }
        }),
        ("bytes before publish", |pair| {
            for _ in 0..20 {
                pair.client.send_message(&message(6, MessageType::VIDEO, 0, &vec![0; 60_000])).unwrap();
            }
        }),
        ("the peer does not read its answers", |pair| {
            for i in 0..10_000 {
                pair.client.send_ping(i).unwrap();
            }
        }),
    ];
    for (limit, misbehave) in cases {
        let mut pair = Pair::new(URL);
        while !matches!(
            pair.server.next_event(pair.now, &mut pair.to_server),
            Ok(Some(Event::ConnectRequested(_)))
        ) {
            pair.step().unwrap();
        }
        pair.server.accept_connect().unwrap();
        misbehave(&mut pair);
        assert_eq!(pair.run().unwrap_err().kind, ErrorKind::Limit(limit));
    }
}

#[test]
fn server_accepts_large_media_once_published_up_to_the_limit() {
    let mut pair = Pair::new(URL);
    pair.run().unwrap();
    pair.client.push_video(0, Bytes::from(vec![1; 3_000_000])).unwrap();
    pair.run().unwrap();
    assert!(matches!(&pair.events.last(), Some(Event::Video { data, .. }) if data.len() == 3_000_000));
    pair.client.push_video(0, Bytes::from(vec![1; 9_000_000])).unwrap();
    let error = pair.run().unwrap_err();
    assert!(matches!(error.kind, ErrorKind::MessageTooLarge { length: 9_000_000, .. }));
    assert_eq!((error.at.chunk_stream, error.at.message_type), (Some(6), Some(9)));
}

#[test]
fn server_yields_timestamps_across_every_wrap() {
    let mut pair = publishing();
    let times = [
        0,
        (1 << 24) - 40,
        (1 << 24) + 1,
        (1 << 24) + 41,
        (1 << 31) - 1,
        (1 << 31) + 39,
        u32::MAX - 3,
        36,
        76,
    ];
    for (i, timestamp) in times.into_iter().enumerate() {
        pair.client.push_video(timestamp, Bytes::from(vec![i as u8; 70_000])).unwrap();
    }
    pair.run().unwrap();
    let got: Vec<u32> = pair
        .events
        .iter()
        .filter_map(|e| if let Event::Video { timestamp, .. } = e { Some(*timestamp) } else { None })
        .collect();
    assert_eq!(got, times);
}
