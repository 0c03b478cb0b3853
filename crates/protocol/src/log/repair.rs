//! Gap repair: a consumer's tracker that orders messages, drops repetitions and asks for what is missing, and a producer's
//! answers, which are merged and bounded in bytes per second.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use millrace_wire::message::repair::{MAX_RANGES, RepairRequest};

use crate::log::replay_buffer::ReplayBuffer;
use crate::time::{Jitter, Millis};

/// Delay before the first request for a gap: requests of several consumers meet and are answered once, and mere
/// reordering needs no request.
pub const JITTER_MS: u64 = 50;
/// Time until an unanswered request is sent again.
pub const RETRY_MS: u64 = 200;
/// Most numbers one request asks for: about a segment of 60 messages a second, so answers come in order.
pub const MAX_ASK: u64 = 512;
/// Most messages kept out of order; beyond it the newest is dropped and asked for later.
pub const MAX_AHEAD: usize = 8192;
/// A consumer that received nothing for this long asks for the producer's newest number: the last message may be lost.
pub const PROBE_MS: u64 = 500;

/// Gives received messages in the order of their numbers, once each, and names the numbers to ask the producer for.
#[derive(Debug)]
pub struct GapTracker<T> {
    next: u64,
    head: u64,
    ahead: BTreeMap<u64, T>,
    ask_at: Option<Millis>,
    last_received: Millis,
    jitter: Jitter,
}

impl<T> GapTracker<T> {
    /// Creates a tracker that expects number `next` first. `seed` spreads the requests of different consumers.
    pub fn new(now: Millis, next: u64, seed: u64) -> Self {
        let (ahead, jitter) = (BTreeMap::new(), Jitter(seed));
        Self { next, head: next, ahead, ask_at: None, last_received: now, jitter }
    }

    /// Returns the number that [`GapTracker::pop`] gives next.
    pub fn next_seq(&self) -> u64 {
        self.next
    }

    /// Returns the number below which the producer is known to have used every number.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// Returns how many messages are known to exist and were not given out yet.
    pub fn lag(&self) -> u64 {
        self.head - self.next
    }

    /// Takes a received message; one that was given out or is held already is dropped.
    pub fn receive(&mut self, now: Millis, seq: u64, item: T) {
        self.last_received = now;
        if seq < self.next {
            return;
        }
        self.head = self.head.max(seq.saturating_add(1));
        self.ahead.entry(seq).or_insert(item);
        if self.ahead.len() > MAX_AHEAD {
            self.ahead.pop_last();
        }
        self.schedule(now);
    }

    /// Learns from a reply that all numbers below `head` exist.
    pub fn learn_head(&mut self, now: Millis, head: u64) {
        self.last_received = now;
        self.head = self.head.max(head);
        self.schedule(now);
    }

    /// Learns that the producer no longer holds anything below `oldest`. Returns the numbers that are lost by it.
    pub fn learn_oldest(&mut self, oldest: u64) -> Option<std::ops::Range<u64>> {
        let first_held = self.ahead.first_key_value().map_or(u64::MAX, |(seq, _)| *seq);
        let resume = oldest.min(first_held);
        if resume <= self.next || resume == u64::MAX {
            return None;
        }
        let lost = self.next..resume;
        self.next = resume;
        self.head = self.head.max(resume);
        Some(lost)
    }

    /// Goes on from number `next` and forgets everything below.
    pub fn skip_to(&mut self, next: u64) {
        self.next = self.next.max(next);
        self.head = self.head.max(self.next);
        self.ahead = self.ahead.split_off(&self.next);
    }

    /// Removes and returns the next message in order, if it has come.
    pub fn pop(&mut self) -> Option<(u64, T)> {
        let item = self.ahead.remove(&self.next)?;
        self.next += 1;
        Some((self.next - 1, item))
    }

    /// Returns the request to send now, if one is due. A request without numbers asks for the producer's newest and oldest
    /// number only.
    pub fn poll_request(&mut self, now: Millis) -> Option<RepairRequest> {
        if self.ask_at.is_some_and(|at| at <= now) {
            let ranges = self.holes();
            self.ask_at = (!ranges.is_empty()).then(|| now + RETRY_MS + self.jitter.up_to(JITTER_MS));
            if !ranges.is_empty() {
                return Some(RepairRequest { ranges });
            }
        }
        if now - self.last_received >= PROBE_MS {
            self.last_received = now;
            return Some(RepairRequest { ranges: Vec::new() });
        }
        None
    }

    /// Returns when to call [`GapTracker::poll_request`] again.
    pub fn next_timeout(&self) -> Millis {
        let probe = self.last_received + PROBE_MS;
        self.ask_at.map_or(probe, |at| at.min(probe))
    }

    fn schedule(&mut self, now: Millis) {
        if self.ask_at.is_none() && self.ahead.len() as u64 != self.head - self.next {
            self.ask_at = Some(now + self.jitter.up_to(JITTER_MS));
        }
    }

    fn holes(&self) -> Vec<(u64, u64)> {
        let (mut holes, mut from, mut budget) = (Vec::new(), self.next, MAX_ASK);
        let ends = self.ahead.keys().copied().chain([self.head]);
        for end in ends {
            if from < end && budget > 0 && holes.len() < MAX_RANGES {
                let count = (end - from).min(budget);
                holes.push((from, from + count - 1));
                budget -= count;
            }
            from = from.max(end.saturating_add(1));
        }
        holes
    }
}

/// Bounds of what a producer repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RepairLimits {
    /// Bytes per second of repeated messages: twice the stream's rate.
    pub rate: u64,
    /// Bytes that may leave at once: what a successor needs to resume without waiting.
    pub burst: u64,
}

impl Default for RepairLimits {
    fn default() -> Self {
        Self { rate: 12_500_000, burst: 16 << 20 }
    }
}

/// A message repeated within this time is not repeated again: its first repetition is still under way.
pub const MERGE_MS: u64 = 40;
/// Most numbers waiting to be repeated; a consumer whose request is dropped beyond it asks again.
pub const MAX_WANTED: usize = 16_384;

/// Merges the requests for the messages of a replay buffer and gives those to publish again within the budget, oldest
/// first.
#[derive(Debug)]
pub struct Retransmitter {
    limits: RepairLimits,
    wanted: BTreeSet<u64>,
    recent: BTreeMap<u64, Millis>,
    /// Bytes that may be repeated now.
    credit: u64,
    credited_at: Millis,
}

impl Retransmitter {
    /// Creates a retransmitter that may use its whole burst at once.
    pub fn new(now: Millis, limits: RepairLimits) -> Self {
        let (wanted, recent) = (BTreeSet::new(), BTreeMap::new());
        Self { limits, wanted, recent, credit: limits.burst, credited_at: now }
    }

    /// Takes a request; numbers outside `oldest..next` are ignored.
    pub fn on_request(&mut self, now: Millis, request: &RepairRequest, oldest: Option<u64>, next: u64) {
        self.recent.retain(|_, at| now - *at < MERGE_MS);
        let Some(oldest) = oldest else { return };
        for &(from, to) in request.ranges.iter().take(MAX_RANGES) {
            for seq in from.max(oldest)..to.saturating_add(1).min(next) {
                if self.wanted.len() >= MAX_WANTED {
                    return;
                }
                if !self.recent.contains_key(&seq) {
                    self.wanted.insert(seq);
                }
            }
        }
    }

    /// Returns the fragments of the next message of `replay` to publish again.
    pub(crate) fn poll_from<T>(&mut self, now: Millis, replay: &ReplayBuffer<T>) -> Option<Vec<Bytes>> {
        let length = |seq| replay.get(seq).map(|fragments| fragments.iter().map(|f| f.len() as u64).sum());
        let seq = self.poll(now, length)?;
        replay.get(seq).map(<[Bytes]>::to_vec)
    }

    /// Returns the number of the next message to publish again. `length` gives a message's bytes, or `None` if it is no
    /// longer held.
    pub fn poll(&mut self, now: Millis, length: impl Fn(u64) -> Option<u64>) -> Option<u64> {
        let earned = (now - self.credited_at).saturating_mul(self.limits.rate) / 1000;
        self.credit = self.credit.saturating_add(earned).min(self.limits.burst);
        self.credited_at = now;
        while let Some(&seq) = self.wanted.first() {
            let Some(bytes) = length(seq) else {
                self.wanted.pop_first();
                continue;
            };
            // A message larger than the burst leaves when the burst is full.
            if bytes.min(self.limits.burst) > self.credit {
                return None;
            }
            self.credit = self.credit.saturating_sub(bytes);
            self.wanted.pop_first();
            self.recent.insert(seq, now);
            return Some(seq);
        }
        None
    }

    /// Returns when to poll again; `None` if nothing is to be repeated.
    pub fn next_timeout(&self) -> Option<Millis> {
        (!self.wanted.is_empty()).then(|| self.credited_at + BUDGET_MS)
    }
}

/// Time until a retransmitter without budget is polled again: enough for one fragment at the default rate.
const BUDGET_MS: u64 = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn gap_tracker_gives_every_message_once_and_in_order_despite_loss_reordering_and_duplication(
            fates in proptest::collection::vec(any::<u8>(), 1..300),
            seed: u64,
        ) {
            let count = fates.len() as u64;
            let mut tracker = GapTracker::new(Millis(0), 0, seed);
            let mut given = Vec::new();
            for (seq, fate) in (0u64..).zip(&fates) {
                match fate % 4 {
                    0 => {}
                    1 => {
                        tracker.receive(Millis(seq), seq, seq);
                        tracker.receive(Millis(seq), seq, seq);
                    }
                    2 => {
                        let early = (seq + 3).min(count - 1);
                        tracker.receive(Millis(seq), early, early);
                    }
                    _ => tracker.receive(Millis(seq), seq, seq),
                }
                given.extend(std::iter::from_fn(|| tracker.pop()).map(|(seq, _)| seq));
            }
            let mut retransmitter = Retransmitter::new(Millis(0), RepairLimits { rate: 100_000, burst: 100 });
            let mut now = Millis(count);
            for _ in 0..10_000 {
                if tracker.next_seq() == count { break; }
                now = now + 10;
                if let Some(request) = tracker.poll_request(now) {
                    retransmitter.on_request(now, &request, Some(0), count);
                    tracker.learn_head(now, count);
                }
                while let Some(seq) = retransmitter.poll(now, |_| Some(10)) {
                    tracker.receive(now, seq, seq);
                }
                given.extend(std::iter::from_fn(|| tracker.pop()).map(|(seq, _)| seq));
            }
            prop_assert_eq!(given, (0..count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn retransmitter_merges_a_request_repeated_within_40_ms() {
        let mut retransmitter = Retransmitter::new(Millis(0), RepairLimits { rate: 0, burst: 1000 });
        let request = RepairRequest { ranges: vec![(0, 4)] };
        retransmitter.on_request(Millis(0), &request, Some(2), 4);
        let sent: Vec<_> = std::iter::from_fn(|| retransmitter.poll(Millis(0), |_| Some(1))).collect();
        assert_eq!(sent, [2, 3]);
        retransmitter.on_request(Millis(1), &request, Some(2), 4);
        assert_eq!(retransmitter.poll(Millis(1), |_| Some(1)), None);
        retransmitter.on_request(Millis(100), &request, Some(2), 4);
        assert_eq!(retransmitter.poll(Millis(100), |_| Some(1)), Some(2));
    }

    #[test]
    fn gap_tracker_skips_lost_messages_up_to_the_oldest_one_held() {
        let mut tracker = GapTracker::new(Millis(0), 0, 1);
        tracker.receive(Millis(0), 5, ());
        assert_eq!(tracker.learn_oldest(9), Some(0..5));
        assert_eq!(tracker.pop(), Some((5, ())));
        assert_eq!(tracker.learn_oldest(6), None);
    }
}
