//! The copy rung's pipeline on media as ingest stamps it.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "support/audio.rs"]
mod audio;

use audio::{FIRST, FRAME, RATE, messages, open, unit};
use bytes::Bytes;
use millrace_media::packager::PartSetup;
use millrace_protocol::job::Packaged;
use millrace_transcode::pipeline::Pipeline;
use millrace_wire::ids::{DiscontinuitySeq, Msn};
use millrace_wire::message::media::{MediaMessage, UnitKind};

fn make(pipeline: &mut Pipeline, messages: &[MediaMessage]) -> Vec<Packaged> {
    messages.iter().cloned().for_each(|message| pipeline.push(message));
    if messages.last().is_some_and(|message| message.end) {
        pipeline.finish();
    }
    std::iter::from_fn(|| pipeline.poll()).collect()
}

#[test]
fn segments_are_their_parts_and_follow_the_wall_clock() {
    let mut pipeline = Pipeline::new(&open(), PartSetup::Measure);
    let made = make(&mut pipeline, &messages(9));
    assert!(matches!(made[0], Packaged::Init { .. }), "{:?}", made[0]);
    let (mut parts, mut segments) = (Vec::new(), Vec::new());
    for item in made {
        match item {
            Packaged::Part(part, pieces) => {
                let bytes = pieces.concat();
                assert_eq!(part.bytes, bytes.len() as u64);
                assert_eq!(part.part.0 as usize, parts.len());
                parts.push(bytes);
            }
            Packaged::Segment(segment) => {
                let pieces = std::mem::take(&mut parts);
                assert_eq!(segment.parts as usize, pieces.len());
                assert_eq!(segment.bytes, pieces.iter().map(|piece| piece.len() as u64).sum::<u64>());
                assert_eq!(segment.discontinuity_sequence, DiscontinuitySeq(3));
                segments.push(segment);
            }
            Packaged::Init { .. } | Packaged::PartTarget { .. } => {}
            Packaged::Flushed => panic!("nobody asked for a flush"),
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
    assert_eq!(pipeline.lost_units(), 0);
}

#[test]
fn a_successor_makes_the_same_of_the_same_segment() {
    let all = messages(9);
    let mut first = Pipeline::new(&open(), PartSetup::Measure);
    let made = make(&mut first, &all);
    let target = made.iter().find_map(|item| match item {
        Packaged::PartTarget { target, .. } => Some(target.ticks as u32),
        _ => None,
    });
    let from = all.iter().position(|message| message.first_msn() == Some(Msn(FIRST + 2))).unwrap();
    let mut second = Pipeline::new(&open(), PartSetup::Frozen { part_target: target.unwrap() });
    let again = make(&mut second, &all[from..]);
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
fn an_unreadable_configuration_costs_its_unit_only() {
    let mut all = messages(3);
    all[5]
        .units
        .insert(0, unit(UnitKind::Config { bandwidth: 128_000 }, 5 * FRAME, Bytes::from_static(&[0xFF])));
    let mut pipeline = Pipeline::new(&open(), PartSetup::Measure);
    let made = make(&mut pipeline, &all);
    assert_eq!(pipeline.lost_units(), 1);
    assert_eq!(made.iter().filter(|item| matches!(item, Packaged::Segment(..))).count(), 2);
}

#[test]
fn bandwidth_is_what_ingest_declares_and_is_corrected_upwards_once() {
    let mut all = messages(9);
    let configs = all.iter_mut().flat_map(|message| &mut message.units).filter(|unit| unit.kind.is_config());
    for (config, bandwidth) in configs.zip([100_000, 100_000, 150_000, 140_000, 150_000]) {
        config.kind = UnitKind::Config { bandwidth };
    }
    let mut pipeline = Pipeline::new(&open(), PartSetup::Measure);
    let made = make(&mut pipeline, &all);
    let inits = made.iter().filter_map(|item| match item {
        Packaged::Init { version, info, bytes, .. } => Some((version.0, info.bandwidth, bytes.clone())),
        _ => None,
    });
    let inits: Vec<_> = inits.collect();
    let declared: Vec<_> = inits.iter().map(|init| (init.0, init.1)).collect();
    assert_eq!(declared, [(0, 100_000), (0, 150_000)]);
    assert_eq!(inits[0].2, inits[1].2, "one name, one content");
}
