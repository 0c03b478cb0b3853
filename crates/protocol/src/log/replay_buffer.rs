//! A producer's bounded memory of what it published, by sequence number.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::Millis;

/// Bounds of a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayLimits {
    /// Bytes, over everything kept; pinned entries too.
    pub bytes: usize,
    /// Age in milliseconds of what is kept without a pin.
    pub age_ms: u64,
}

impl ReplayLimits {
    /// For facts: what is in the store is kept a few seconds for readers that lost messages, the rest while the store is
    /// away, 50 s of 5 Mb/s.
    pub const FACTS: Self = Self { bytes: 32 << 20, age_ms: 6_000 };
}

#[derive(Debug)]
struct Entry<T> {
    at: Millis,
    tag: T,
    frames: Vec<Bytes>,
    bytes: usize,
}

/// Numbered messages (each as its encoded frames), oldest dropped first. Entries at or after the pin are dropped for
/// the byte bound only. `T` is what the owner looks entries up by, such as a segment number.
#[derive(Debug)]
pub struct ReplayBuffer<T> {
    limits: ReplayLimits,
    first: u64,
    entries: VecDeque<Entry<T>>,
    bytes: usize,
    pin: Option<u64>,
    pinned_lost: u64,
}

impl<T> ReplayBuffer<T> {
    /// An empty ring whose first entry will be number 0.
    pub fn new(limits: ReplayLimits) -> Self {
        Self { limits, first: 0, entries: VecDeque::new(), bytes: 0, pin: None, pinned_lost: 0 }
    }
    /// The next number.
    pub fn next_seq(&self) -> u64 {
        self.first + self.entries.len() as u64
    }
    /// The oldest number held.
    pub fn oldest(&self) -> Option<u64> {
        (!self.entries.is_empty()).then_some(self.first)
    }
    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
    /// Pinned entries that the byte bound pushed out so far: media that may never be stored.
    pub fn pinned_lost(&self) -> u64 {
        self.pinned_lost
    }
    /// Appends a message; gives its number.
    pub fn push(&mut self, now: Millis, tag: T, frames: Vec<Bytes>) -> u64 {
        let seq = self.next_seq();
        let bytes = frames.iter().map(Bytes::len).sum();
        self.bytes += bytes;
        self.entries.push_back(Entry { at: now, tag, frames, bytes });
        self.shrink(now);
        seq
    }
    /// Keeps everything from `seq` on (within the byte bound); `None`: nothing is pinned.
    pub fn pin(&mut self, now: Millis, seq: Option<u64>) {
        self.pin = seq;
        self.shrink(now);
    }
    /// The frames of one message.
    pub fn get(&self, seq: u64) -> Option<&[Bytes]> {
        let i = usize::try_from(seq.checked_sub(self.first)?).ok()?;
        self.entries.get(i).map(|e| &e.frames[..])
    }
    /// The number of the first message whose tag satisfies `found`.
    pub fn find(&self, found: impl Fn(&T) -> bool) -> Option<u64> {
        self.entries.iter().position(|e| found(&e.tag)).map(|i| self.first + i as u64)
    }
    /// Drops everything.
    pub fn clear(&mut self) {
        self.first = self.next_seq();
        self.entries.clear();
        self.bytes = 0;
    }

    fn shrink(&mut self, now: Millis) {
        while let Some(front) = self.entries.front() {
            let pinned = self.pin.is_some_and(|p| self.first >= p);
            let over = self.bytes > self.limits.bytes;
            if !over && (pinned || now - front.at <= self.limits.age_ms) {
                return;
            }
            self.bytes -= front.bytes;
            self.pinned_lost += u64::from(pinned);
            self.entries.pop_front();
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bounded_contiguous_and_pinned(ops in proptest::collection::vec((0u64..40, 0usize..50, 0u64..60), 1..200)) {
            let limits = ReplayLimits { bytes: 400, age_ms: 100 };
            let mut ring = ReplayBuffer::new(limits);
            let mut now = Millis(0);
            for (dt, len, pin) in ops {
                now = now + dt;
                let seq = ring.push(now, len, vec![Bytes::from(vec![0; len])]);
                prop_assert!(ring.bytes() <= limits.bytes);
                prop_assert_eq!(ring.next_seq(), seq + 1);
                if pin > 40 { ring.pin(now, Some(seq)); }
                if let Some(oldest) = ring.oldest() {
                    for s in oldest..=seq { prop_assert!(ring.get(s).is_some()); }
                    prop_assert!(ring.get(seq + 1).is_none());
                }
            }
        }
    }

    #[test]
    fn a_pin_outlives_the_age_but_not_the_bytes() {
        let mut ring = ReplayBuffer::new(ReplayLimits { bytes: 10, age_ms: 5 });
        ring.pin(Millis(0), Some(0));
        ring.push(Millis(0), (), vec![Bytes::from_static(b"1234")]);
        ring.push(Millis(100), (), vec![Bytes::from_static(b"1234")]);
        assert_eq!(ring.oldest(), Some(0));
        ring.push(Millis(100), (), vec![Bytes::from_static(b"1234")]);
        assert_eq!((ring.oldest(), ring.pinned_lost()), (Some(1), 1));
    }
}
