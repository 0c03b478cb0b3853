use super::*;
use proptest::prelude::*;

#[allow(clippy::too_many_lines)] // one of each fact
fn facts() -> Vec<Fact> {
    let duration = MediaDuration { ticks: 90_000, timescale: 90_000 };
    let rendition = Rendition::video();
    let base = StreamState {
        broadcast: BroadcastId::from_u128(9),
        airing: crate::ids::Airing(1),
        epoch: Epoch(4),
        origin: Origin::Log,
        generation: Generation(2),
        seq: FactSeq(77),
        target_duration: 4,
        plan: LadderPlan::default(),
        opened: true,
        sealed: false,
        ended: false,
        first_msn: Msn(5),
        slots: VecDeque::from([Arc::new(SegmentSlot {
            msn: Msn(5),
            epoch: Epoch(4),
            discontinuity_sequence: DiscontinuitySeq(1),
            program_date_time: UnixMillis(1),
            gap: None,
            rendition_gaps: BTreeMap::from([(Rendition::audio(), duration)]),
            tracks: BTreeMap::from([(
                rendition.clone(),
                RenditionSegment {
                    init_version: InitVersion(0),
                    parts: vec![],
                    segment: None,
                    stored: false,
                },
            )]),
        })]),
        renditions: BTreeMap::from([(rendition.clone(), RenditionState::default())]),
    };
    vec![
        Fact::Takeover { base: Box::new(base) },
        Fact::EpochOpen(EpochOpen {
            broadcast: BroadcastId::from_u128(9),
            airing: crate::ids::Airing(1),
            first_msn: Msn(1),
            discontinuity_sequence: DiscontinuitySeq(2),
            program_date_time: UnixMillis(3),
            target_duration: 4,
            lead_gaps: 2,
            plan: LadderPlan { audio_only: true, ..LadderPlan::default() },
        }),
        Fact::Init {
            rendition: rendition.clone(),
            version: InitVersion(1),
            info: TrackInfo {
                media: TrackMedia::Video { width: 640, height: 360, frame_rate_milli: Some(30_000) },
                codecs: "avc1.64001f".into(),
                bandwidth: 1,
                timescale: 90_000,
            },
        },
        Fact::PartTarget { rendition: rendition.clone(), target: duration },
        Fact::Part(Part {
            rendition: rendition.clone(),
            msn: Msn(1),
            part: PartIndex(2),
            duration,
            independent: true,
            bytes: 3,
            discontinuity_sequence: DiscontinuitySeq(2),
            program_date_time: UnixMillis(3),
            init_version: InitVersion(1),
            gap: false,
            last: false,
        }),
        Fact::Segment(Segment {
            rendition: rendition.clone(),
            msn: Msn(1),
            parts: 4,
            duration,
            independent: true,
            bytes: 3,
            discontinuity_sequence: DiscontinuitySeq(2),
            program_date_time: UnixMillis(3),
            init_version: InitVersion(1),
        }),
        Fact::Stored { rendition: rendition.clone(), msn: Msn(1) },
        Fact::Gap(Gap {
            msn: Msn(2),
            duration,
            discontinuity_sequence: DiscontinuitySeq(2),
            program_date_time: UnixMillis(4),
        }),
        Fact::RenditionGap(RenditionGap {
            rendition: rendition.clone(),
            msn: Msn(2),
            duration,
            discontinuity_sequence: DiscontinuitySeq(2),
            program_date_time: UnixMillis(4),
        }),
        Fact::RenditionEnd { rendition, last: Msn(2) },
        Fact::Seal { last: Some(Msn(2)) },
        Fact::Trim { first: Msn(2) },
        Fact::End,
    ]
}

#[test]
fn every_fact_round_trips() {
    let mut reader = FactReader::default();
    for (i, fact) in facts().into_iter().enumerate() {
        let payload = Bytes::from(vec![i as u8; i * 700]);
        let seq = FactSeq(i as u64);
        let message = FactMessage { epoch: Epoch(4), generation: Generation(3), seq, fact, payload };
        let mut got = Vec::new();
        for f in message.encode(1024).unwrap() {
            got.extend(reader.push(f).unwrap());
        }
        assert_eq!(got, [message]);
    }
}

proptest! {
    #[test]
    fn damaged_facts_are_refused_or_read(which: u8, flip: u16, to: u8, cut: u16) {
        let all = facts();
        let fact = all[usize::from(which) % all.len()].clone();
        let message = FactMessage {
            epoch: Epoch(4), generation: Generation(3), seq: FactSeq(1), fact, payload: Bytes::from_static(b"abc"),
        };
        let mut body = message.encode(1 << 20).unwrap()[0].slice(fragment::HEADER..).to_vec();
        let i = usize::from(flip) % body.len();
        body[i] = to;
        body.truncate(body.len() - usize::from(cut) % body.len());
        let at = Position { epoch: Epoch(4), generation: Generation(3), seq: 1 };
        let _ = FactMessage::decode(at, body.into());
    }

    #[test]
    fn garbage_does_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let at = Position { epoch: Epoch(4), generation: Generation(3), seq: 1 };
        let _ = FactMessage::decode(at, bytes.clone().into());
        let _ = FactReader::default().push(bytes.into());
    }
}
