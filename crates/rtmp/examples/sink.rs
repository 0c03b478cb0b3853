//! Takes one RTMP publisher after another and prints what it sends: `cargo run -p millrace-rtmp --example sink -- ADDR [refuse]`.

use bytes::BytesMut;
use millrace_rtmp::{Event, Limits, Rejection, ServerSession};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let listener = TcpListener::bind(address)?;
    println!("rtmp://{}/live", listener.local_addr()?);
    for socket in listener.incoming() {
        match serve(socket?) {
            Ok(()) => println!("closed"),
            Err(error) => println!("closed: {error}"),
        }
    }
    Ok(())
}

fn serve(mut socket: TcpStream) -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let mut session = ServerSession::new(Limits::default(), Duration::ZERO);
    let mut buf = BytesMut::new();
    let mut scratch = vec![0; 64 * 1024];
    let (mut video, mut audio, mut last) = (0u64, 0u64, 0u32);
    while !session.is_finished() {
        while let Some(event) = session.next_event(start.elapsed(), &mut buf)? {
            match event {
                Event::ConnectRequested(info) => {
                    println!("{info:?}");
                    session.accept_connect()?;
                }
                Event::PublishRequested(request) => {
                    println!("{request:?}");
                    if std::env::args().nth(2).is_some() {
                        session.reject_publish(Rejection::BadName, "this key is unknown")?;
                    } else {
                        session.accept_publish(start.elapsed())?;
                    }
                }
                Event::Video { timestamp, .. } => (video, last) = (video + 1, timestamp),
                Event::Audio { .. } => audio += 1,
                other => println!("{other:?}"),
            }
        }
        while let Some(bytes) = session.poll_transmit() {
            socket.write_all(&bytes)?;
        }
        socket.set_read_timeout(
            session.deadline().map(|at| at.saturating_sub(start.elapsed()).max(Duration::from_millis(1))),
        )?;
        match socket.read(&mut scratch) {
            Ok(0) => break,
            Ok(count) => buf.extend_from_slice(&scratch[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        session.handle_timeout(start.elapsed())?;
    }
    println!(
        "{} bytes, {video} video messages to {last} ms, {audio} audio messages, {} ignored",
        session.bytes_received(),
        session.ignored()
    );
    Ok(())
}
