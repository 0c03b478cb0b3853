//! A seeded simulation: events of several livestreams go to endpoints that fail, hang and take an event whose answer is lost,
//! while controls crash and take over from one another.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

const SEEDS: u64 = 300;
const STEPS: usize = 600;
const STREAMS: u128 = 3;
const ENDPOINTS: [&str; 2] = ["one", "two"];

/// A record of the state store with the version that a change of it checks.
#[derive(Debug, Clone)]
struct Stored {
    progress: Progress,
    version: u64,
}

/// An attempt on its way: the version of the record it was made from, and whether its control still lives.
struct Attempt {
    key: DeliveryKey,
    progress: Progress,
    control: u64,
    ends: UnixMillis,
    /// True if the request reaches the endpoint, and true if its answer comes back as a success.
    arrives: bool,
    succeeds: bool,
}

struct World {
    rng: StdRng,
    now: UnixMillis,
    /// The number of the control that leads; a crash makes a new one lead.
    leader: u64,
    scheduler: Scheduler,
    versions: BTreeMap<DeliveryKey, u64>,
    pending: BTreeMap<DeliveryKey, Stored>,
    dead: BTreeSet<DeliveryKey>,
    attempts: Vec<Attempt>,
    arrived: Vec<DeliveryKey>,
    produced: BTreeMap<u128, u64>,
    commits: u64,
    healed: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            now: UnixMillis(1_700_000_000_000),
            leader: 1,
            scheduler: Scheduler::default(),
            versions: BTreeMap::new(),
            pending: BTreeMap::new(),
            dead: BTreeSet::new(),
            attempts: Vec::new(),
            arrived: Vec::new(),
            produced: BTreeMap::new(),
            commits: 0,
            healed: false,
        }
    }

    fn commit(&mut self) -> u64 {
        self.commits += 1;
        self.commits
    }

    /// A new event is stored for every endpoint, then known to the scheduler of the leader.
    fn produce(&mut self) {
        let stream = self.rng.random_range(0..STREAMS);
        let sequence = self.produced.entry(stream).or_insert(0);
        *sequence += 1;
        let sequence = *sequence;
        for endpoint in ENDPOINTS {
            let key = DeliveryKey {
                endpoint: endpoint.parse().unwrap(),
                stream: StreamId::from_u128(stream),
                sequence,
            };
            let (progress, version) = (Progress::new(self.now), self.commit());
            self.pending.insert(key.clone(), Stored { progress: progress.clone(), version });
            self.versions.insert(key.clone(), version);
            self.scheduler.add(&key, progress);
        }
    }

    /// The leader dies or loses its lease. Its attempts may still arrive, and may still try to store a verdict.
    fn change_leader(&mut self) {
        self.leader += 1;
        self.scheduler = Scheduler::default();
        self.versions.clear();
        if self.rng.random_bool(0.5) {
            self.attempts.clear();
        }
        for (key, stored) in &self.pending {
            self.scheduler.add(key, stored.progress.clone());
            self.versions.insert(key.clone(), stored.version);
        }
    }

    fn start_attempts(&mut self) {
        while let Some((key, progress)) = self.scheduler.start(self.now) {
            let takes = if self.healed { 0 } else { self.rng.random_range(0..12_000) };
            let arrives = self.healed || self.rng.random_bool(0.7);
            let succeeds = arrives && (self.healed || self.rng.random_bool(0.5));
            let ends = UnixMillis(self.now.0 + takes);
            self.attempts.push(Attempt { key, progress, control: self.leader, ends, arrives, succeeds });
        }
    }

    fn end_attempts(&mut self) {
        let now = self.now;
        let (over, on_their_way): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.attempts).into_iter().partition(|attempt| attempt.ends <= now);
        self.attempts = on_their_way;
        for attempt in over {
            if attempt.arrives {
                self.arrived.push(attempt.key.clone());
            }
            let outcome =
                if attempt.succeeds { Outcome::Taken } else { Outcome::Failed { retry_after_ms: None } };
            let verdict = judge(self.now, &attempt.progress, outcome, self.rng.random());
            if let Verdict::Again(next) = &verdict {
                assert!(next.due.0 - self.now.0 <= LONGEST_PAUSE_MS);
            }
            self.store(&attempt, &verdict);
        }
    }

    fn store(&mut self, attempt: &Attempt, verdict: &Verdict) {
        let key = &attempt.key;
        let is_leader = attempt.control == self.leader;
        // A control that no longer leads has an older version, so its commit conflicts.
        let holds = is_leader
            && self.pending.get(key).map(|stored| stored.version) == self.versions.get(key).copied();
        if !holds {
            if is_leader {
                self.scheduler.settle(key, None);
            }
            return;
        }
        match verdict {
            Verdict::Delivered => drop(self.pending.remove(key)),
            Verdict::Dead => {
                assert!(self.now.0 - attempt.progress.since.0 >= LIFETIME_MS, "given up before a day");
                self.pending.remove(key);
                self.dead.insert(key.clone());
            }
            Verdict::Again(progress) => {
                let version = self.commit();
                self.pending.insert(key.clone(), Stored { progress: progress.clone(), version });
                self.versions.insert(key.clone(), version);
            }
        }
        self.scheduler.settle(key, Some(verdict));
    }

    fn turn(&mut self) {
        self.end_attempts();
        self.start_attempts();
    }

    fn check(&self) {
        let mut first: BTreeMap<(WebhookId, StreamId), Vec<u64>> = BTreeMap::new();
        for key in &self.arrived {
            let lane = first.entry((key.endpoint.clone(), key.stream)).or_default();
            if !lane.contains(&key.sequence) {
                lane.push(key.sequence);
            }
        }
        for (lane, sequences) in &first {
            assert!(sequences.is_sorted(), "{lane:?} arrived out of order: {sequences:?}");
        }
        for (stream, last) in &self.produced {
            for endpoint in ENDPOINTS {
                let lane = (endpoint.parse().unwrap(), StreamId::from_u128(*stream));
                for sequence in 1..=*last {
                    let (endpoint, stream) = lane.clone();
                    let key = DeliveryKey { endpoint, stream, sequence };
                    let arrived = first.get(&lane).is_some_and(|lane| lane.contains(&sequence));
                    assert!(arrived || self.dead.contains(&key), "{key:?} is lost");
                }
            }
        }
    }
}

fn run(seed: u64) -> World {
    let mut world = World::new(seed);
    let crashes = world.rng.random_range(0.0..0.05);
    for _ in 0..STEPS {
        match world.rng.random_range(0..10) {
            0..2 => world.produce(),
            // Now and then an endpoint is away for hours, so that deliveries die.
            2 if world.rng.random_bool(0.02) => world.now.0 += 5 * 60 * 60 * 1_000,
            _ => world.now.0 += world.rng.random_range(0..5_000),
        }
        if world.rng.random_bool(crashes) {
            world.change_leader();
        }
        world.turn();
    }
    world.healed = true;
    let mut turns = 0;
    while !world.pending.is_empty() || !world.attempts.is_empty() {
        turns += 1;
        assert!(turns < 20_000, "deliveries never end: {:?}", world.pending);
        let ends = world.attempts.iter().map(|attempt| attempt.ends);
        let next = world.scheduler.next_due().into_iter().chain(ends).min();
        world.now = next.expect("a delivery is due or under way").max(world.now);
        world.turn();
    }
    world
}

#[test]
fn no_delivery_is_lost_and_each_lane_keeps_its_order_over_failures_and_changes_of_the_leader() {
    let mut dead = 0;
    for seed in 0..SEEDS {
        let outcome = std::panic::catch_unwind(|| {
            let world = run(seed);
            world.check();
            world.dead.len()
        });
        dead += outcome.unwrap_or_else(|_| panic!("seed {seed}"));
    }
    assert!(dead > 0, "the simulation lets deliveries die");
}
