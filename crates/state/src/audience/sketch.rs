//! An estimate of how many different names were seen, in 4 KiB: HyperLogLog (Flajolet et al., 2007) with linear counting for
//! few names. The embedded store uses it; Redis has its own.

use std::hash::{DefaultHasher, Hash, Hasher};

/// Bits of a name's hash that choose its register. With 4096 registers the standard error is 1.6 %.
const INDEX_BITS: u32 = 12;
const REGISTERS: usize = 1 << INDEX_BITS;

/// The names seen so far, as the longest run of zeros in each register.
pub(crate) struct Sketch {
    registers: Box<[u8]>,
}

impl Default for Sketch {
    fn default() -> Self {
        Self { registers: vec![0; REGISTERS].into() }
    }
}

impl Sketch {
    /// Adds a name.
    pub(crate) fn add(&mut self, name: &str) {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let hash = hasher.finish();
        let index = (hash >> (u64::BITS - INDEX_BITS)) as usize;
        let run = ((hash << INDEX_BITS).leading_zeros() + 1).min(u64::BITS - INDEX_BITS + 1) as u8;
        if let Some(register) = self.registers.get_mut(index) {
            *register = (*register).max(run);
        }
    }

    /// Returns the estimated number of different names.
    pub(crate) fn estimate(&self) -> u64 {
        let size = REGISTERS as f64;
        let sum: f64 = self.registers.iter().map(|run| 0.5_f64.powi(i32::from(*run))).sum();
        let raw = 0.7213 / (1.0 + 1.079 / size) * size * size / sum;
        let empty: usize = self.registers.iter().map(|run| usize::from(*run == 0)).sum();
        let estimate = if raw <= 2.5 * size && empty > 0 { size * (size / empty as f64).ln() } else { raw };
        estimate.round() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sketch_estimates_few_names_exactly_and_many_within_five_percent() {
        let mut sketch = Sketch::default();
        assert_eq!(sketch.estimate(), 0);
        for number in 1..=200_000_u64 {
            sketch.add(&format!("viewer {number}"));
            sketch.add("viewer 1");
            if number <= 10 {
                assert_eq!(sketch.estimate(), number);
            } else if number.is_power_of_two() || number == 200_000 {
                let error = (sketch.estimate() as f64 / number as f64 - 1.0).abs();
                assert!(error < 0.05, "{} of {number}", sketch.estimate());
            }
        }
    }
}
