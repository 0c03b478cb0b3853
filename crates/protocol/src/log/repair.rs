//! Gap repair: a consumer's tracker that orders, dedups and asks again, and a producer's merged, budgeted answers.

use std::collections::{BTreeMap, BTreeSet};

use millrace_wire::message::repair::{MAX_RANGES, RepairRequest};

use crate::Millis;
use crate::time::Jitter;

/// Delay before the first request for a gap: requests of several consumers meet and are answered once, and mere
/// reordering needs no request.
pub const JITTER_MS: u64 = 50;
/// Time until an unanswered request is sent again.
pub const RETRY_MS: u64 = 200;
/// Most numbers one request asks for: about a segment of 60 messages a second, so answers come in order.
pub const MAX_ASK: u64 = 512;
/// Items kept out of order; beyond it the newest is dropped and asked for later.
pub const MAX_AHEAD: usize = 8192;
/// A consumer without news for this long asks what the producer's newest number is: the last message may be lost.
pub const PROBE_MS: u64 = 500;

/// Gives received items in order of their number, once each, and says what to ask the producer for.
#[derive(Debug)]
pub struct GapTracker<T> {
    next: u64,
    head: u64,
    ahead: BTreeMap<u64, T>,
    ask_at: Option<Millis>,
    heard: Millis,
    jitter: Jitter,
}

impl<T> GapTracker<T> {
    /// Expects `next` first. `seed` spreads the requests of different consumers.
    pub fn new(now: Millis, next: u64, seed: u64) -> Self {
        Self { next, head: next, ahead: BTreeMap::new(), ask_at: None, heard: now, jitter: Jitter(seed) }
    }
    /// The next number to be given out.
    pub fn next_seq(&self) -> u64 {
        self.next
    }
    /// The producer is known to have used all numbers below this.
    pub fn head(&self) -> u64 {
        self.head
    }
    /// Numbers known to exist and not yet given out.
    pub fn lag(&self) -> u64 {
        self.head - self.next
    }
    /// Takes a received item; a number already given out or held is dropped.
    pub fn receive(&mut self, now: Millis, seq: u64, item: T) {
        self.heard = now;
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
    /// Learns from elsewhere (a reply, a heartbeat) that all numbers below `head` exist.
    pub fn learn_head(&mut self, now: Millis, head: u64) {
        self.heard = now;
        self.head = self.head.max(head);
        self.schedule(now);
    }
    /// Learns that nothing below `oldest` can be had any more; gives the numbers lost.
    pub fn learn_oldest(&mut self, oldest: u64) -> Option<std::ops::Range<u64>> {
        let first_held = self.ahead.first_key_value().map_or(u64::MAX, |(k, _)| *k);
        let to = oldest.min(first_held);
        if to <= self.next || to == u64::MAX {
            return None;
        }
        let lost = self.next..to;
        self.next = to;
        self.head = self.head.max(to);
        Some(lost)
    }
    /// Goes on from `next`, forgetting everything below.
    pub fn skip_to(&mut self, next: u64) {
        self.next = self.next.max(next);
        self.head = self.head.max(self.next);
        self.ahead = self.ahead.split_off(&self.next);
    }
    /// The next item in order.
    pub fn pop(&mut self) -> Option<(u64, T)> {
        let item = self.ahead.remove(&self.next)?;
        self.next += 1;
        Some((self.next - 1, item))
    }
    fn schedule(&mut self, now: Millis) {
        if self.ask_at.is_none() && self.ahead.len() as u64 != self.head - self.next {
            self.ask_at = Some(now + self.jitter.upto(JITTER_MS));
        }
    }
    /// What to ask for now, if anything. An empty request asks only for the producer's numbers.
    pub fn poll_request(&mut self, now: Millis) -> Option<RepairRequest> {
        if self.ask_at.is_some_and(|at| at <= now) {
            let ranges = self.holes();
            self.ask_at = (!ranges.is_empty()).then(|| now + RETRY_MS + self.jitter.upto(JITTER_MS));
            if !ranges.is_empty() {
                return Some(RepairRequest { ranges });
            }
        }
        if now - self.heard >= PROBE_MS {
            self.heard = now;
            return Some(RepairRequest { ranges: Vec::new() });
        }
        None
    }
    /// When to call [`GapTracker::poll_request`] again.
    pub fn next_timeout(&self) -> Millis {
        let probe = self.heard + PROBE_MS;
        self.ask_at.map_or(probe, |at| at.min(probe))
    }
    fn holes(&self) -> Vec<(u64, u64)> {
        let (mut out, mut from, mut budget) = (Vec::new(), self.next, MAX_ASK);
        let ends = self.ahead.keys().copied().chain([self.head]);
        for end in ends {
            if from < end && budget > 0 && out.len() < MAX_RANGES {
                let n = (end - from).min(budget);
                out.push((from, from + n - 1));
                budget -= n;
            }
            from = from.max(end.saturating_add(1));
        }
        out
    }
}

/// Bounds of a producer's answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RepairLimits {
    /// Bytes per second of repeated messages: twice the stream's rate.
    pub rate: u64,
    /// Bytes that may leave at once: what a replacement needs to resume without waiting.
    pub burst: u64,
}

impl Default for RepairLimits {
    fn default() -> Self {
        Self { rate: 12_500_000, burst: 16 << 20 }
    }
}

/// A number repeated within this time is not repeated again: its first repetition is still under way.
pub const MERGE_MS: u64 = 40;
/// Numbers waiting to be repeated; requests beyond it are dropped and will come again.
pub const MAX_WANTED: usize = 16_384;

/// Merges requests for a ring's messages and says which to publish again within the budget, oldest first.
#[derive(Debug)]
pub struct Retransmitter {
    limits: RepairLimits,
    wanted: BTreeSet<u64>,
    recent: BTreeMap<u64, Millis>,
    credit: u64,
    filled: Millis,
}

impl Retransmitter {
    /// With a full burst.
    pub fn new(now: Millis, limits: RepairLimits) -> Self {
        Self { limits, wanted: BTreeSet::new(), recent: BTreeMap::new(), credit: limits.burst, filled: now }
    }
    /// Takes a request; numbers outside `oldest..next` are ignored.
    pub fn request(&mut self, now: Millis, request: &RepairRequest, oldest: Option<u64>, next: u64) {
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
    /// The next number to publish again; `bytes` says how long it is, `None` that it is gone.
    pub fn poll(&mut self, now: Millis, bytes: impl Fn(u64) -> Option<u64>) -> Option<u64> {
        let earned = (now - self.filled).saturating_mul(self.limits.rate) / 1000;
        self.credit = self.credit.saturating_add(earned).min(self.limits.burst);
        self.filled = now;
        while let Some(&seq) = self.wanted.first() {
            let Some(len) = bytes(seq) else {
                self.wanted.pop_first();
                continue;
            };
            // A message larger than the burst leaves when the burst is full.
            if len.min(self.limits.burst) > self.credit {
                return None;
            }
            self.credit = self.credit.saturating_sub(len);
            self.wanted.pop_first();
            self.recent.insert(seq, now);
            return Some(seq);
        }
        None
    }
    /// When to call [`Retransmitter::poll`] again.
    pub fn next_timeout(&self) -> Option<Millis> {
        (!self.wanted.is_empty()).then(|| self.filled + 5)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Any order, loss and duplication: with a producer that answers, everything comes out once and in order.
        #[test]
        fn everything_once_in_order(drops in proptest::collection::vec(any::<u8>(), 1..300), seed: u64) {
            let n = drops.len() as u64;
            let mut t = GapTracker::new(Millis(0), 0, seed);
            let mut out = Vec::new();
            for (i, d) in drops.iter().enumerate() {
                let i = i as u64;
                match d % 4 {
                    0 => {}
                    1 => { t.receive(Millis(i), i, i); t.receive(Millis(i), i, i); }
                    2 => t.receive(Millis(i), (i + 3).min(n - 1), (i + 3).min(n - 1)),
                    _ => t.receive(Millis(i), i, i),
                }
                out.extend(std::iter::from_fn(|| t.pop()).map(|x| x.0));
            }
            let mut r = Retransmitter::new(Millis(0), RepairLimits { rate: 100_000, burst: 100 });
            let mut now = Millis(n);
            for _ in 0..10_000 {
                if t.next_seq() == n { break; }
                now = now + 10;
                if let Some(request) = t.poll_request(now) {
                    r.request(now, &request, Some(0), n);
                    t.learn_head(now, n);
                }
                while let Some(seq) = r.poll(now, |_| Some(10)) { t.receive(now, seq, seq); }
                out.extend(std::iter::from_fn(|| t.pop()).map(|x| x.0));
            }
            prop_assert_eq!(out, (0..n).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_repeated_request_is_merged() {
        let mut r = Retransmitter::new(Millis(0), RepairLimits { rate: 0, burst: 1000 });
        let request = RepairRequest { ranges: vec![(0, 4)] };
        r.request(Millis(0), &request, Some(2), 4);
        let sent: Vec<_> = std::iter::from_fn(|| r.poll(Millis(0), |_| Some(1))).collect();
        assert_eq!(sent, [2, 3]);
        r.request(Millis(1), &request, Some(2), 4);
        assert_eq!(r.poll(Millis(1), |_| Some(1)), None);
        r.request(Millis(100), &request, Some(2), 4);
        assert_eq!(r.poll(Millis(100), |_| Some(1)), Some(2));
    }

    #[test]
    fn what_is_gone_is_skipped_up_to_what_is_held() {
        let mut t = GapTracker::new(Millis(0), 0, 1);
        t.receive(Millis(0), 5, ());
        assert_eq!(t.learn_oldest(9), Some(0..5));
        assert_eq!(t.pop(), Some((5, ())));
        assert_eq!(t.learn_oldest(6), None);
    }
}
