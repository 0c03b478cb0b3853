//! The copy rung, fed with media messages as an ingest node publishes them.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "support/audio.rs"]
mod audio;

use std::task::{Context, Poll, Waker};

use audio::{FIRST, FRAME, RATE, config, messages, open};
use bytes::Bytes;
use millrace_media::packager::PartSetup;
use millrace_protocol::job::Packaged;
use millrace_transcode::rungs::Rung;
use millrace_transcode::rungs::copy::CopyRung;
use millrace_wire::ids::{DiscontinuitySeq, Msn};
use millrace_wire::message::media::{MediaMessage, MediaUnit};

/// Returns what the rung makes of the messages. The last message of an epoch closes its open segments.
fn package(rung: &mut CopyRung, messages: &[MediaMessage]) -> Vec<Packaged> {
    messages.iter().cloned().for_each(|message| rung.push(message));
    let ends = messages.last().is_some_and(|message| message.end);
    if ends {
        rung.finish();
    }
    let mut made = Vec::new();
    while let Poll::Ready(packaged) = rung.poll(&mut Context::from_waker(Waker::noop())) {
        made.push(packaged);
    }
    let flushed = made.iter().filter(|packaged| **packaged == Packaged::Flushed).count();
    assert_eq!(flushed, usize::from(ends), "flushed once, if it was asked to");
    assert_eq!(made.last() == Some(&Packaged::Flushed), ends, "nothing comes after it");
    made
}

#[test]
fn copy_rung_makes_segments_of_their_parts_on_the_wall_clock() {
    let mut rung = CopyRung::new(&open(), PartSetup::Measure { part_ms: 200 });
    let made = package(&mut rung, &messages(9));
    assert!(matches!(made[0], Packaged::Init { .. }), "{:?}", made[0]);
    let (mut parts, mut segments) = (Vec::new(), Vec::new());
    for item in made {
        match item {
            Packaged::Part(part, body) => {
                let bytes = body.contiguous();
                assert_eq!(part.bytes, bytes.len() as u64);
                assert_eq!(part.part.0 as usize, parts.len());
                parts.push(bytes);
            }
            Packaged::Segment(segment) => {
                let parts = std::mem::take(&mut parts);
                assert_eq!(segment.parts as usize, parts.len());
                assert_eq!(segment.bytes, parts.iter().map(|part| part.len() as u64).sum::<u64>());
                assert_eq!(segment.discontinuity_sequence, DiscontinuitySeq(3));
                segments.push(segment);
            }
            Packaged::Init { .. } | Packaged::PartTarget { .. } | Packaged::Flushed => {}
            failed @ (Packaged::Gap(_) | Packaged::RenditionEnd { .. }) => {
                panic!("the copy rung made {failed:?}")
            }
        }
    }
    let numbers: Vec<u64> = segments.iter().map(|segment| segment.msn.0).collect();
    assert_eq!(numbers, [FIRST, FIRST + 1, FIRST + 2, FIRST + 3, FIRST + 4]);
    let total: u64 = segments.iter().map(|segment| segment.duration.ticks).sum();
    assert_eq!(total as i64, 9 * RATE / FRAME * FRAME, "every frame once");
    for pair in segments.windows(2) {
        let step = pair[1].program_date_time.0 - pair[0].program_date_time.0;
        assert!(step.abs_diff(pair[0].duration.as_millis()) <= 1, "{step}");
    }
    assert_eq!(rung.lost_units(), 0);
}

#[test]
fn copy_rung_of_a_successor_makes_the_same_facts_of_the_same_segments() {
    let all = messages(9);
    let mut first = CopyRung::new(&open(), PartSetup::Measure { part_ms: 200 });
    let made = package(&mut first, &all);
    let target = made.iter().find_map(|item| match item {
        Packaged::PartTarget { target, .. } => Some(target.ticks as u32),
        _ => None,
    });
    let from = all.iter().position(|message| message.first_msn() == Some(Msn(FIRST + 2))).unwrap();
    let mut second = CopyRung::new(&open(), PartSetup::Frozen { part_target: target.unwrap() });
    let again = package(&mut second, &all[from..]);
    let after = |made: Vec<Packaged>| -> Vec<Packaged> {
        made.into_iter()
            .filter(|item| match item {
                Packaged::Part(part, _) => part.msn >= Msn(FIRST + 2),
                Packaged::Segment(segment) => segment.msn >= Msn(FIRST + 2),
                _ => false,
            })
            .collect()
    };
    assert_eq!(after(again), after(made));
}

#[test]
fn copy_rung_leaves_out_only_the_unit_of_a_malformed_configuration() {
    let mut all = messages(3);
    all[5].units.insert(0, config(5 * FRAME, Bytes::from_static(&[0xFF])));
    let mut rung = CopyRung::new(&open(), PartSetup::Measure { part_ms: 200 });
    let made = package(&mut rung, &all);
    assert_eq!(rung.lost_units(), 1);
    assert_eq!(made.iter().filter(|item| matches!(item, Packaged::Segment(..))).count(), 2);
}

#[test]
fn copy_rung_announces_the_declared_bandwidth_again_only_when_it_grows() {
    let mut all = messages(9);
    let configs = all.iter_mut().flat_map(|message| &mut message.units).filter_map(|unit| match unit {
        MediaUnit::Config(config) => Some(config),
        MediaUnit::Frame(_) => None,
    });
    for (config, bandwidth) in configs.zip([100_000, 100_000, 150_000, 140_000, 150_000]) {
        config.bit_rate = bandwidth;
    }
    let mut rung = CopyRung::new(&open(), PartSetup::Measure { part_ms: 200 });
    let made = package(&mut rung, &all);
    let inits = made.iter().filter_map(|item| match item {
        Packaged::Init { version, info, bytes, .. } => Some((version.0, info.bandwidth, bytes.clone())),
        _ => None,
    });
    let inits: Vec<_> = inits.collect();
    let declared: Vec<_> = inits.iter().map(|init| (init.0, init.1)).collect();
    assert_eq!(declared, [(0, 100_000), (0, 150_000)]);
    assert_eq!(inits[0].2, inits[1].2, "one name, one content");
}
