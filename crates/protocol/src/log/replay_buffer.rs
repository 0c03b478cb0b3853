//! A producer's bounded memory of the messages it published, by sequence number.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::time::Millis;

/// Bounds of a replay buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayLimits {
    /// Most bytes over all messages, pinned ones included.
    pub bytes: usize,
    /// Age in milliseconds after which a message that is not pinned is dropped.
    pub age_ms: u64,
}

impl ReplayLimits {
    /// The bounds of a log writer's buffer. Stored segments are kept for a few seconds, for readers that lost messages;
    /// while the store is away, 32 MiB hold the parts of 50 s of 5 Mb/s.
    pub const FACTS: Self = Self { bytes: 32 << 20, age_ms: 6_000 };
}

#[derive(Debug)]
struct Entry<T> {
    pushed_at: Millis,
    tag: T,
    fragments: Vec<Bytes>,
    bytes: usize,
}

/// Numbered messages, each as its encoded fragments; the oldest are dropped first. Messages that are pinned or kept are
/// dropped for the byte bound only. `T` is what the owner finds messages by, such as a segment number.
#[derive(Debug)]
pub struct ReplayBuffer<T> {
    limits: ReplayLimits,
    first: u64,
    entries: VecDeque<Entry<T>>,
    bytes: usize,
    pin: Option<u64>,
    keep: Option<u64>,
    pinned_lost: u64,
}

impl<T> ReplayBuffer<T> {
    /// Creates an empty buffer whose first message will have number 0.
    pub fn new(limits: ReplayLimits) -> Self {
        Self { limits, first: 0, entries: VecDeque::new(), bytes: 0, pin: None, keep: None, pinned_lost: 0 }
    }

    /// Returns the number that the next message will have.
    pub fn next_seq(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// Returns the number of the oldest message held; `None` if the buffer is empty.
    pub fn oldest(&self) -> Option<u64> {
        (!self.entries.is_empty()).then_some(self.first)
    }

    /// Returns the number of bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns how many pinned messages the byte bound has pushed out so far: media that may never be stored.
    pub fn pinned_lost(&self) -> u64 {
        self.pinned_lost
    }

    /// Appends a message and returns its number.
    pub fn push(&mut self, now: Millis, tag: T, fragments: Vec<Bytes>) -> u64 {
        let seq = self.next_seq();
        let bytes = fragments.iter().map(Bytes::len).sum();
        self.bytes += bytes;
        self.entries.push_back(Entry { pushed_at: now, tag, fragments, bytes });
        self.shrink(now);
        seq
    }

    /// Pins the messages from number `seq` on; with `None` none is pinned.
    pub fn pin(&mut self, now: Millis, seq: Option<u64>) {
        self.pin = seq;
        self.shrink(now);
    }

    /// Keeps the messages from number `seq` on past their age, from the next change on. Unlike pinned ones they are no loss
    /// when the byte bound pushes them out.
    pub fn keep(&mut self, seq: Option<u64>) {
        self.keep = seq;
    }

    /// Returns the fragments of message `seq`; `None` if it is not held.
    pub fn get(&self, seq: u64) -> Option<&[Bytes]> {
        let index = usize::try_from(seq.checked_sub(self.first)?).ok()?;
        self.entries.get(index).map(|entry| &entry.fragments[..])
    }

    /// Returns the number of the oldest message whose tag satisfies `matches`.
    pub fn find(&self, matches: impl Fn(&T) -> bool) -> Option<u64> {
        self.entries.iter().position(|entry| matches(&entry.tag)).map(|index| self.first + index as u64)
    }

    /// Returns the messages held up to number `last`, the newest first: their numbers and what they are found by.
    pub fn back_from(&self, last: u64) -> impl Iterator<Item = (u64, &T)> {
        let held = last.saturating_add(1).saturating_sub(self.first).min(self.entries.len() as u64);
        let entries = self.entries.range(..usize::try_from(held).unwrap_or_default()).rev();
        (self.first..self.first + held).rev().zip(entries.map(|entry| &entry.tag))
    }

    fn shrink(&mut self, now: Millis) {
        while let Some(oldest) = self.entries.front() {
            let pinned = self.pin.is_some_and(|pin| self.first >= pin);
            let kept = self.keep.is_some_and(|keep| self.first >= keep);
            let over = self.bytes > self.limits.bytes;
            if !over && (pinned || kept || now - oldest.pushed_at <= self.limits.age_ms) {
                return;
            }
            self.bytes -= oldest.bytes;
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
        fn replay_buffer_stays_bounded_and_contiguous_under_any_pushes_and_pins(
            ops in proptest::collection::vec((0u64..40, 0usize..50, 0u64..60), 1..200),
        ) {
            let limits = ReplayLimits { bytes: 400, age_ms: 100 };
            let mut buffer = ReplayBuffer::new(limits);
            let mut now = Millis(0);
            for (elapsed, len, pin) in ops {
                now = now + elapsed;
                let seq = buffer.push(now, len, vec![Bytes::from(vec![0; len])]);
                prop_assert!(buffer.bytes() <= limits.bytes);
                prop_assert_eq!(buffer.next_seq(), seq + 1);
                if pin > 40 { buffer.pin(now, Some(seq)); }
                if let Some(oldest) = buffer.oldest() {
                    for held in oldest..=seq { prop_assert!(buffer.get(held).is_some()); }
                    prop_assert!(buffer.get(seq + 1).is_none());
                }
            }
        }
    }

    #[test]
    fn replay_buffer_keeps_pinned_messages_past_their_age_within_its_bytes() {
        let mut buffer = ReplayBuffer::new(ReplayLimits { bytes: 10, age_ms: 5 });
        buffer.pin(Millis(0), Some(0));
        buffer.push(Millis(0), (), vec![Bytes::from_static(b"1234")]);
        buffer.push(Millis(100), (), vec![Bytes::from_static(b"1234")]);
        assert_eq!(buffer.oldest(), Some(0));
        buffer.push(Millis(100), (), vec![Bytes::from_static(b"1234")]);
        assert_eq!((buffer.oldest(), buffer.pinned_lost()), (Some(1), 1));
    }

    #[test]
    fn replay_buffer_keeps_messages_before_the_pin_past_their_age_and_counts_no_loss_of_them() {
        let mut buffer = ReplayBuffer::new(ReplayLimits { bytes: 12, age_ms: 5 });
        for tag in 0..3 {
            buffer.push(Millis(0), tag, vec![Bytes::from_static(b"1234")]);
        }
        buffer.keep(Some(1));
        buffer.pin(Millis(100), Some(2));
        assert_eq!(buffer.back_from(9).collect::<Vec<_>>(), [(2, &2), (1, &1)]);
        assert_eq!(buffer.back_from(1).count(), 1);
        assert_eq!(buffer.back_from(0).count(), 0);
        buffer.push(Millis(100), 3, vec![Bytes::from_static(b"12345")]);
        assert_eq!((buffer.oldest(), buffer.pinned_lost()), (Some(2), 0));
    }
}
