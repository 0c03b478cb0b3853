//! Plays fMP4 files as a live stream through an edge, for work on the watch page:
//! `cargo run -p millrace-edge --example replay -- video.mp4 audio.mp4 LISTEN [DELAY_S]`.
//! The files hold fragments of 200 ms each, as tests/browser/spike/media.mjs makes them.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../tests/edge/log_writer.rs"]
mod log_writer;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use log_writer::{FIRST, LogWriter, audio_info, video_info};
use millrace_bus::MemBus;
use millrace_edge::{Config, Deps, start};
use millrace_node::Backends;
use millrace_runtime::Process;
use millrace_state::{RedbState, StateStore, Tx};
use millrace_store::DirStore;
use millrace_wire::catalog::PlaybackRecord;
use millrace_wire::fact::MediaDuration;
use millrace_wire::ids::{PlaybackId, Rendition, StreamId};
use millrace_wire::state_keys;

/// Splits a fragmented MP4 file into its init section and its fragments.
fn split(path: &str) -> (Bytes, Vec<Bytes>) {
    let all = Bytes::from(std::fs::read(path).unwrap());
    let (mut at, mut init, mut parts) = (0, None, Vec::new());
    while at + 8 <= all.len() {
        let size = u32::from_be_bytes(all[at..at + 4].try_into().unwrap()) as usize;
        if &all[at + 4..at + 8] == b"moof" {
            init.get_or_insert(at);
            let mdat = u32::from_be_bytes(all[at + size..at + size + 4].try_into().unwrap()) as usize;
            parts.push(all.slice(at..at + size + mdat));
            at += mdat;
        }
        at += size;
    }
    (all.slice(..init.unwrap()), parts)
}

fn main() {
    millrace_runtime::block_on(run()).unwrap();
}

async fn run() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let delay: u64 = args.get(3).map_or(0, |s| s.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let bus: millrace_bus::SharedBus = Arc::new(MemBus::new());
    let state = Arc::new(RedbState::open(dir.path().join("state.redb")).await.unwrap());
    let store = Arc::new(
        DirStore::open(dir.path().join("store"), millrace_store::SyncPolicy::default()).await.unwrap(),
    );
    let (stream, playback) =
        (StreamId::from_u128(9), "00112233445566778899aabbccddeeff".parse::<PlaybackId>().unwrap());
    state
        .commit(
            Tx::new().put(state_keys::playback(playback), PlaybackRecord::public(stream).encode().unwrap()),
        )
        .await
        .unwrap();
    let config = Config { listen: args[2].parse().unwrap(), workers: 1, ..Config::default() };
    let backends = Backends { bus: bus.clone(), store, state };
    let node = start(config, Deps::new(backends, Process::default())).await.unwrap();
    println!("http://{}/watch/{playback}", node.addr());
    tokio::time::sleep(Duration::from_secs(delay)).await;
    let writer = LogWriter::new(bus, stream, playback).await;
    writer.announce();
    let (video, audio) = (split(&args[0]), split(&args[1]));
    writer.open(
        (video_info(426, 240, "avc1.640015"), video.0),
        (audio_info(), audio.0),
        MediaDuration::from_millis(220),
    );
    tokio::join!(
        play(&writer, Rendition::video(), &video.1, 200.0),
        play(&writer, Rendition::audio(), &audio.1, 10.0 * 1024.0 / 48.0),
        async {
            loop {
                writer.announce();
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    );
}

async fn play(writer: &LogWriter, rendition: Rendition, parts: &[Bytes], ms: f64) {
    let began = tokio::time::Instant::now();
    let (mut msn, mut index, mut bytes, mut start) = (FIRST, 0, 0, 0.0);
    for (i, part) in parts.iter().enumerate() {
        let (from, to) = (i as f64 * ms, (i + 1) as f64 * ms);
        tokio::time::sleep_until(began + Duration::from_secs_f64(to / 1000.0)).await;
        if from + 0.001 >= (msn - FIRST + 1) as f64 * 2000.0 {
            writer.segment(rendition.clone(), msn, index, (from - start).round() as u64, true, bytes);
            (msn, index, bytes, start) = (msn + 1, 0, 0, from);
            if msn > FIRST + 15 && rendition == Rendition::video() {
                writer.trim(msn - 15);
            }
        }
        writer.part(
            rendition.clone(),
            (msn, index),
            ms.round() as u64,
            i % 10 == 0 || rendition == Rendition::audio(),
            part.clone(),
        );
        index += 1;
        bytes += part.len() as u64;
    }
    if rendition == Rendition::video() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        writer.end();
    }
}
