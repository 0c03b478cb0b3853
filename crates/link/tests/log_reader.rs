//! A log reader on a bus that loses, doubles and swaps messages: the reader's machine finds the holes, the log server's
//! writer retransmits, and the reader reaches the writer's state.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millrace_bus::{FaultPlan, FaultyBus, MemBus, SharedBus};
use millrace_link::driver::Driver;
use millrace_link::{Link, LogForm, LogReader, LogRequest, LogServer};
use millrace_protocol::Millis;
use millrace_protocol::log::writer::LogWriter;
use millrace_protocol::reader::{Input, Output, StreamReader};
use millrace_protocol::state::apply;
use millrace_runtime::{Clock, Metrics, SystemClock};
use millrace_wire::fact::{EpochOpen, Fact, Gap, MediaDuration};
use millrace_wire::ids::{
    BroadcastId, DiscontinuitySeq, Epoch, FactSeq, Generation, Msn, NodeId, PlaybackId, SessionId, StreamId,
    UnixMillis,
};
use millrace_wire::message::announce::{EpochAnnouncement, EpochPhase, SessionAnnouncement};
use tokio::task::JoinSet;

const LIMIT: Duration = Duration::from_mins(1);
const LOG: (Epoch, Generation) = (Epoch(1_763_000_000_000), Generation(1));
/// Facts after the takeover: the opening of the epoch and one gap each.
const FACTS: u64 = 120;

fn stream() -> StreamId {
    StreamId::from_u128(1)
}

fn broadcast() -> BroadcastId {
    BroadcastId::from_u128(2)
}

fn fact(number: u64) -> Fact {
    let discontinuity_sequence = DiscontinuitySeq(0);
    if number == 1 {
        return Fact::EpochOpen(EpochOpen {
            broadcast: broadcast(),
            airing: millrace_wire::ids::Airing::FIRST,
            first_msn: Msn(1_000),
            discontinuity_sequence,
            program_date_time: UnixMillis(LOG.0.0),
            target_duration: 4,
            lead_gaps: 0,
            plan: millrace_wire::ladder::LadderPlan::default(),
        });
    }
    Fact::Gap(Gap {
        msn: Msn(998 + number),
        duration: MediaDuration::from_millis(2_000),
        discontinuity_sequence,
        program_date_time: UnixMillis(LOG.0.0 + number * 2_000),
    })
}

/// Writes the log, one fact every few milliseconds, and answers repair requests until it is dropped. Snapshot requests stay
/// unanswered: the reader has to repair.
async fn serve(link: Link, mut server: LogServer, clock: Arc<dyn Clock>) {
    let now = || Millis(clock.now_ms());
    let mut writer = LogWriter::open(now(), LOG, apply::empty(broadcast()), link.max_payload()).unwrap();
    let mut due = tokio::time::interval(Duration::from_millis(2));
    let mut next = 1;
    loop {
        while let Some(message) = writer.poll_output() {
            assert_eq!(server.publish(message), 0, "the in-process bus takes every fragment");
        }
        tokio::select! {
            request = server.recv() => match request.unwrap() {
                LogRequest::Repair(request) => request.respond(&writer.repair(now(), &request.message)),
                LogRequest::Snapshot(_) => {}
            },
            _ = due.tick() => {
                if next <= FACTS {
                    writer.announce(now(), &fact(next), Bytes::new()).unwrap();
                    next += 1;
                }
                writer.retransmit(now());
            }
        }
    }
}

fn adopt(reader: &mut Driver<StreamReader>) {
    let session = SessionId::from_u128(3);
    let playback: PlaybackId = "00112233445566778899aabbccddeeff".parse().unwrap();
    let worker: NodeId = "transcode-1".parse().unwrap();
    let epoch = EpochAnnouncement {
        stream: stream(),
        playback,
        broadcast: broadcast(),
        epoch: LOG.0,
        session: Some(session),
        phase: EpochPhase::Open,
    };
    let granted = SessionAnnouncement {
        stream: stream(),
        epoch: LOG.0,
        session,
        generation: Some(LOG.1),
        worker: Some(worker),
        degraded: None,
    };
    reader.handle(Input::Epoch(epoch)).unwrap();
    reader.handle(Input::Session(granted)).unwrap();
}

/// Follows the log up to its last fact; returns the number of repair requests.
async fn follow(link: &Link, reader: &mut Driver<StreamReader>) -> usize {
    let mut log = LogReader::follow(link, stream(), LOG, LogForm::Live, 256).await.unwrap();
    let (mut facts, mut answers, mut requests) = (Vec::new(), JoinSet::new(), 0);
    let last = FactSeq(FACTS);
    while reader.machine().snapshot().is_none_or(|state| state.seq != last) {
        while let Some(output) = reader.poll_output() {
            if let Output::Repair(_, _, request) = output {
                requests += 1;
                answers.spawn(log.ask_repair(request));
            }
        }
        tokio::select! {
            taken = log.recv_many(&mut facts, 64) => {
                assert!(taken > 0, "the bus is open");
                for fact in facts.drain(..) {
                    reader.handle(Input::Fact(fact)).unwrap();
                }
            }
            Some(answer) = answers.join_next() => {
                if let Some(reply) = answer.unwrap() {
                    reader.handle(Input::RepairReply(LOG.0, LOG.1, reply)).unwrap();
                }
            }
            () = reader.wait_timeout() => reader.handle_timeout().unwrap(),
        }
    }
    requests
}

#[tokio::test]
async fn log_reader_repairs_the_facts_that_a_faulty_bus_loses() {
    let faulty = FaultyBus::new(Arc::new(MemBus::new()), 7);
    let bus: SharedBus = Arc::new(faulty.clone());
    let link = Link::new(bus, &Metrics::new());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let machine = StreamReader::new(Millis(clock.now_ms()), 1);
    let mut reader = Driver::new(machine, clock.clone());
    adopt(&mut reader);
    faulty.set(FaultPlan { lose: 0.2, double: 0.1, swap: 0.1, ..FaultPlan::default() });
    let server = LogServer::open(&link, stream(), LOG, 64).await.unwrap();
    let serving = tokio::spawn(serve(link.clone(), server, clock));
    let requests = tokio::time::timeout(LIMIT, follow(&link, &mut reader)).await.unwrap();
    serving.abort();
    assert!(requests > 0, "nothing was lost");
    let state = reader.machine().snapshot().unwrap();
    assert_eq!(state.slots.len() as u64, FACTS - 1);
    assert!(state.slots.iter().all(|slot| slot.gap.is_some()));
}
