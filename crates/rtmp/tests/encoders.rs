//! Real encoders publish over a real socket to a `ServerSession`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use bytes::BytesMut;
use millrace_rtmp::{Event, Limits, Rejection, RtmpError, ServerSession, Value};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Time within which an encoder connects, and later ends.
const PATIENCE: Duration = Duration::from_mins(1);

/// An encoder's process, killed when the test ends.
struct Encoder(Option<Child>);

impl Encoder {
    fn start(program: &str, arguments: &[&str]) -> Self {
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{program} is needed by this test: {e}"));
        Self(Some(child))
    }

    fn output(mut self) -> Output {
        self.0.take().unwrap().wait_with_output().unwrap()
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("rtmp://127.0.0.1:{}/live/KEY", listener.local_addr().unwrap().port());
    (listener, url)
}

fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).unwrap();
    let start = Instant::now();
    loop {
        match listener.accept() {
            Ok((socket, _)) => {
                socket.set_nonblocking(false).unwrap();
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                return socket;
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock && start.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(e) => panic!("no encoder connected: {e}"),
        }
    }
}

/// Serves one connection until it ends.
fn serve(listener: &TcpListener, limits: Limits, refuse: Option<Rejection>) -> Result<Vec<Event>, RtmpError> {
    let mut socket = accept(listener);
    let start = Instant::now();
    let mut session = ServerSession::new(limits, Duration::ZERO);
    let (mut buf, mut events) = (BytesMut::new(), Vec::new());
    let mut scratch = vec![0; 16 * 1024];
    loop {
        while let Some(event) = session.next_event(start.elapsed(), &mut buf)? {
            match &event {
                Event::ConnectRequested(_) => session.accept_connect()?,
                Event::PublishRequested(_) => match refuse {
                    Some(why) => session.reject_publish(why, "this key is unknown")?,
                    None => session.accept_publish(start.elapsed())?,
                },
                _ => {}
            }
            events.push(event);
        }
        while let Some(bytes) = session.poll_transmit() {
            if socket.write_all(&bytes).is_err() {
                return Ok(events);
            }
        }
        if session.is_finished() {
            return Ok(events);
        }
        session.prepare_read(&mut buf);
        match socket.read(&mut scratch) {
            Ok(0) => return Ok(events),
            Ok(n) => buf.extend_from_slice(&scratch[..n]),
            // ffmpeg resets the connection when it closes with unread answers.
            Err(e) if e.kind() == ErrorKind::ConnectionReset => return Ok(events),
            Err(e) => panic!("the encoder went silent: {e}"),
        }
    }
}

/// An input and its codec options; ffmpeg expects all inputs before all codec options.
struct Input([&'static str; 4], &'static [&'static str]);

const VIDEO: Input = Input(
    ["-f", "lavfi", "-i", "testsrc=size=320x180:rate=25"],
    &["-c:v", "libx264", "-preset", "veryfast", "-bf", "2", "-g", "25", "-pix_fmt", "yuv420p"],
);
const AUDIO: Input = Input(["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000"], &["-c:a", "aac"]);

fn ffmpeg(inputs: &[&Input], output: &[&str], url: &str) -> Encoder {
    let mut arguments = vec!["-hide_banner", "-loglevel", "warning"];
    for input in inputs {
        arguments.extend_from_slice(&input.0);
    }
    for input in inputs {
        arguments.extend_from_slice(input.1);
    }
    arguments.extend_from_slice(&["-t", "2"]);
    arguments.extend_from_slice(output);
    arguments.extend_from_slice(&["-f", "flv", url]);
    Encoder::start("ffmpeg", &arguments)
}

fn times(events: &[Event], video: bool) -> Vec<u32> {
    let time = |e: &Event| match e {
        Event::Video { timestamp, .. } if video => Some(*timestamp),
        Event::Audio { timestamp, .. } if !video => Some(*timestamp),
        _ => None,
    };
    events.iter().filter_map(time).collect()
}

/// Checks that the codec configuration comes first and 2 s of frames follow in order.
fn check_media(events: &[Event], video: bool, start: u32) {
    let first = events.iter().find_map(|e| match e {
        Event::Video { data, .. } if video => Some(data.clone()),
        Event::Audio { data, .. } if !video => Some(data.clone()),
        _ => None,
    });
    let first = first.expect("media arrives");
    let [kind, packet] = first.first_chunk().expect("two bytes at least");
    assert_eq!(packet, 0, "the codec's configuration comes first");
    assert_eq!(kind, if video { 0x17 } else { 0xaf });
    let times = times(events, video);
    assert!(times.is_sorted(), "{times:?}");
    let span = times[times.len() - 1] - start;
    assert!((1_800..2_300).contains(&span), "{span} ms from {start}: {times:?}");
}

#[test]
fn ffmpeg_publishes_video_and_audio() {
    let (listener, url) = listen();
    let encoder = ffmpeg(&[&VIDEO, &AUDIO], &[], &url);
    let events = serve(&listener, Limits::default(), None).unwrap();
    assert!(encoder.output().status.success());
    let Some(Event::PublishRequested(request)) = events.get(1) else { panic!("{:?}", events.get(1)) };
    assert_eq!((request.app.as_str(), request.stream_key.expose()), ("live", "KEY"));
    let width = events.iter().find_map(|e| match e {
        Event::Metadata { properties, .. } => {
            properties.iter().find(|(name, _)| name == "width").map(|(_, v)| v)
        }
        _ => None,
    });
    assert_eq!(width, Some(&Value::Number(320.0)));
    check_media(&events, true, 0);
    check_media(&events, false, 0);
    assert_eq!(times(&events, true).len(), 50 + 2, "configuration, 50 frames, end of sequence");
    assert!(matches!(events.last(), Some(Event::Unpublished)), "{:?}", events.last());
}

#[test]
fn ffmpeg_publishes_audio_alone() {
    let (listener, url) = listen();
    let encoder = ffmpeg(&[&AUDIO], &[], &url);
    let events = serve(&listener, Limits::default(), None).unwrap();
    assert!(encoder.output().status.success());
    check_media(&events, false, 0);
    assert!(times(&events, true).is_empty());
}

#[test]
fn ffmpeg_publishes_beyond_2_24_ms_in_small_chunks() {
    // ffmpeg adopts the server's chunk size: with 128 every frame is followed by type 3 chunks.
    let limits = Limits { outbound_chunk: 128, ..Limits::default() };
    let (listener, url) = listen();
    let encoder = ffmpeg(&[&VIDEO], &["-output_ts_offset", "16776"], &url);
    let events = serve(&listener, limits, None).unwrap();
    assert!(encoder.output().status.success());
    check_media(&events, true, 16_776_000);
    assert!(times(&events, true).last() > Some(&(1 << 24)));
}

#[test]
fn ffmpeg_shows_the_description_of_a_refusal() {
    let (listener, url) = listen();
    let encoder = ffmpeg(&[&VIDEO], &[], &url);
    let events = serve(&listener, Limits::default(), Some(Rejection::BadName)).unwrap();
    let output = encoder.output();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("this key is unknown"), "{text}");
    assert_eq!(events.len(), 2);
}

#[test]
fn gstreamer_publishes_video_and_audio() {
    // GStreamer is one of the optional, heavy clients.
    let inspected = Command::new("gst-inspect-1.0").args(["--exists", "rtmp2sink"]).status();
    if !inspected.is_ok_and(|status| status.success()) {
        eprintln!("skipped: gst-launch-1.0 with rtmp2sink is not installed");
        return;
    }
    let (listener, url) = listen();
    let sink = format!("location={url}");
    let pipeline = "-q flvmux name=mux streamable=true ! rtmp2sink SINK \
        videotestsrc num-buffers=50 ! video/x-raw,width=320,height=180,framerate=25/1 ! x264enc key-int-max=25 ! \
        h264parse ! queue ! mux. audiotestsrc num-buffers=94 samplesperbuffer=1024 ! audio/x-raw,rate=48000 ! \
        avenc_aac ! aacparse ! queue ! mux.";
    let arguments: Vec<&str> =
        pipeline.split_whitespace().map(|word| if word == "SINK" { sink.as_str() } else { word }).collect();
    let encoder = Encoder::start("gst-launch-1.0", &arguments);
    let events = serve(&listener, Limits::default(), None).unwrap();
    let output = encoder.output();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    check_media(&events, true, times(&events, true)[0]);
    check_media(&events, false, times(&events, false)[0]);
}
