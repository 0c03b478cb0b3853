//! Timescales, and clocks that wrap around.

/// A number of ticks per second, never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Timescale(u32);

impl Timescale {
    /// The timescale of video, of RTP for video and of MPEG-2 systems: 90 000 ticks a second.
    pub const VIDEO: Self = Self(90_000);
    /// The timescale of RTMP: 1 000 ticks a second.
    pub const MILLIS: Self = Self(1_000);

    /// Returns the timescale of so many ticks per second; `None` for zero.
    pub const fn new(ticks_per_second: u32) -> Option<Self> {
        if ticks_per_second == 0 { None } else { Some(Self(ticks_per_second)) }
    }

    /// Returns the timescale of audio of this sampling rate; a rate of zero, which no parser lets
    /// through, counts as 1.
    pub const fn of_rate(rate: u32) -> Self {
        Self(if rate == 0 { 1 } else { rate })
    }

    /// Returns the number of ticks per second.
    pub const fn ticks_per_second(self) -> u32 {
        self.0
    }

    /// Converts ticks of this timescale to ticks of `to`, rounding to nearest and halves up.
    pub const fn convert(self, ticks: i64, to: Self) -> i64 {
        let (from, to) = (self.0 as i128, to.0 as i128);
        (ticks as i128 * to * 2 + from).div_euclid(from * 2) as i64
    }

    /// True if `ticks` of this timescale are before `other_ticks` of the other one. The comparison
    /// is exact.
    pub const fn is_before(self, ticks: i64, other: Self, other_ticks: i64) -> bool {
        (ticks as i128 * other.0 as i128) < (other_ticks as i128 * self.0 as i128)
    }

    /// Converts ticks of this timescale to seconds.
    pub const fn seconds(self, ticks: i64) -> f64 {
        ticks as f64 / self.0 as f64
    }

    /// Returns the whole ticks of a duration; `i64::MAX` if they are more.
    pub fn ticks(self, duration: std::time::Duration) -> i64 {
        let ticks = duration.as_nanos() * u128::from(self.ticks_per_second()) / 1_000_000_000;
        i64::try_from(ticks).unwrap_or(i64::MAX)
    }

    /// Converts non-negative ticks to a duration, rounded to the microsecond.
    pub const fn duration(self, ticks: u64) -> std::time::Duration {
        let micros = (ticks as u128 * 2_000_000 + self.0 as u128) / (2 * self.0 as u128);
        std::time::Duration::from_micros(micros as u64)
    }
}

/// Unwraps a clock of 1 to 63 bits, taking each value as the one nearest to its predecessor.
///
/// Steps of up to half the clock's range, forward or back, are unwrapped correctly.
#[derive(Debug, Clone)]
pub struct TimestampUnwrapper {
    bits: u32,
    last: Option<i64>,
}

impl TimestampUnwrapper {
    /// Creates an unwrapper of a clock that wraps at `2^bits`; `bits` is clamped to 1 to 63.
    pub const fn new(bits: u32) -> Self {
        let bits = if bits == 0 {
            1
        } else if bits > 63 {
            63
        } else {
            bits
        };
        Self { bits, last: None }
    }

    /// Creates an unwrapper of RTP timestamps, which have 32 bits.
    pub const fn rtp() -> Self {
        Self::new(32)
    }

    /// Creates an unwrapper of MPEG-2 PES timestamps, which have 33 bits (ISO/IEC 13818-1
    /// §2.4.3.6).
    pub const fn pes() -> Self {
        Self::new(33)
    }

    /// Returns the unwrapped value. The first one is taken as it is; bits above the clock's width
    /// are ignored.
    pub fn unwrap(&mut self, raw: u64) -> i64 {
        let raw = (raw & ((1u64 << self.bits) - 1)) as i64;
        let value = self.last.map_or(raw, |last| last + self.step(last, raw));
        self.last = Some(value);
        value
    }

    /// Returns the signed distance from `last` to the value nearest to it that is congruent to
    /// `raw`.
    const fn step(&self, last: i64, raw: i64) -> i64 {
        let shift = 64 - self.bits;
        ((raw as u64).wrapping_sub(last as u64) << shift) as i64 >> shift
    }
}

/// Unwraps the clock of an RTMP connection: milliseconds of 32 bits, from senders of which some
/// wrap early.
///
/// Some senders never use the extended timestamp and wrap at 2^24 ms (4 h 39 m), some keep
/// milliseconds in a signed integer and wrap at 2^31. Such a wrap is recognised by the values
/// before and after it, and remembered.
#[derive(Debug, Clone)]
pub struct RtmpClock {
    bits: u32,
    last_raw: Option<u32>,
    last: i64,
}

/// Largest distance from the wrap, on both sides, of a step that counts as an early wrap. It is
/// longer than any interleaving or pause that continues the same timeline, and tiny against 2^24
/// ms.
const EARLY_WRAP_WINDOW_MS: i64 = 60_000;

impl Default for RtmpClock {
    fn default() -> Self {
        Self::new()
    }
}

impl RtmpClock {
    /// Creates a clock without any value.
    pub const fn new() -> Self {
        Self { bits: 32, last_raw: None, last: 0 }
    }

    /// Returns the unwrapped time in milliseconds. It must be given the times of all media messages
    /// of the connection, of both tracks.
    pub fn unwrap(&mut self, raw: u32) -> i64 {
        let Some(last_raw) = self.last_raw.replace(raw) else {
            self.last = i64::from(raw);
            return self.last;
        };
        if self.bits < 32 && u64::from(raw) >= 1u64 << self.bits {
            self.bits = 32; // the sender does use the higher bits after all
        }
        for bits in [24, 31] {
            if self.bits == 32 && wraps_early(last_raw, raw, bits) {
                self.bits = bits;
            }
        }
        let shift = 32 - self.bits;
        let step = (raw.wrapping_sub(last_raw) << shift) as i32 >> shift;
        self.last += i64::from(step);
        self.last
    }
}

fn wraps_early(last: u32, raw: u32, bits: u32) -> bool {
    let modulus = 1i64 << bits;
    let (last, raw) = (i64::from(last), i64::from(raw));
    (modulus - EARLY_WRAP_WINDOW_MS..modulus).contains(&last) && raw < EARLY_WRAP_WINDOW_MS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn timescale_converts_rounding_to_nearest() {
        let audio = Timescale::of_rate(44_100);
        assert_eq!(Timescale::MILLIS.convert(1000, Timescale::VIDEO), 90_000);
        assert_eq!(audio.convert(1024, Timescale::VIDEO), 2090); // 2089.796
        assert_eq!(audio.convert(-1024, Timescale::VIDEO), -2090);
        assert!(audio.is_before(44_099, Timescale::VIDEO, 90_000));
        assert!(!audio.is_before(44_100, Timescale::VIDEO, 90_000));
        assert_eq!(Timescale::VIDEO.duration(3003).as_micros(), 33_367);
    }

    #[test]
    fn unwrapper_passes_the_wrap_at_every_width() {
        for bits in [24, 31, 32, 33] {
            let mut clock = TimestampUnwrapper::new(bits);
            let top = 1u64 << bits;
            assert_eq!(clock.unwrap(top - 20), top as i64 - 20);
            assert_eq!(clock.unwrap(13), top as i64 + 13);
            assert_eq!(clock.unwrap(top - 3), top as i64 - 3, "a late unit of before the wrap");
            assert_eq!(clock.unwrap(40), top as i64 + 40);
        }
    }

    #[test]
    fn rtmp_clock_passes_early_wraps() {
        for bits in [24, 31, 32] {
            let mut clock = RtmpClock::new();
            let modulus = 1u64 << bits;
            let mut expected = modulus as i64 - 1000;
            for step in 0..200i64 {
                let jitter = if step % 2 == 0 { 0 } else { -25 };
                let time = expected + jitter;
                assert_eq!(clock.unwrap((time as u64 % modulus) as u32), time, "{bits} bits, step {step}");
                expected += 20;
            }
        }
    }

    #[test]
    fn rtmp_clock_passes_24_and_31_bits_of_senders_that_do_not_wrap_there() {
        for bits in [24, 31] {
            let mut clock = RtmpClock::new();
            let start = (1i64 << bits) - 1000;
            for time in (start..start + 3000).step_by(33) {
                assert_eq!(clock.unwrap(time as u32), time);
            }
        }
    }

    proptest! {
        #[test]
        fn unwrapper_follows_any_walk_with_bounded_steps(bits in 24u32..=33, start in 0u64..1 << 33, steps in prop::collection::vec(-1_000_000i64..4_000_000, 1..200)) {
            let modulus = 1i64 << bits;
            let start = (start as i64) % modulus;
            let mut clock = TimestampUnwrapper::new(bits);
            prop_assert_eq!(clock.unwrap(start as u64), start);
            let mut time = start;
            for step in steps {
                time += step;
                prop_assert_eq!(clock.unwrap(time.rem_euclid(modulus) as u64), time);
            }
        }
    }
}
