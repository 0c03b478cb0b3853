//! The limit of viewers that are counted for one address. A viewer takes one of its address's places until it leaves, so an
//! address that invents ids or user agents is counted for no more viewers than the limit at any time. A viewer over the limit
//! watches uncounted; no request is refused.

use std::collections::HashMap;

/// Viewers that an edge counts at once: more than an edge is sized for, some thirty megabytes.
pub(super) const MAX_VIEWERS: usize = 200_000;

/// The places taken, by a hash of the address.
#[derive(Debug, Default)]
pub(super) struct Places {
    per_address: u32,
    taken: HashMap<u64, u32>,
    all: usize,
}

impl Places {
    /// Gives at most `per_address` places to an address; 0 stands for any number.
    pub(super) fn new(per_address: u32) -> Self {
        Self { per_address, ..Self::default() }
    }

    /// Takes a place for a viewer of `address`; false if there is none.
    pub(super) fn take(&mut self, address: u64) -> bool {
        let own = self.taken.get(&address).copied().unwrap_or_default();
        let free = self.all < MAX_VIEWERS && (self.per_address == 0 || own < self.per_address);
        if free {
            self.taken.insert(address, own + 1);
            self.all += 1;
        }
        free
    }

    /// Gives a place back.
    pub(super) fn give_back(&mut self, address: u64) {
        let Some(own) = self.taken.get_mut(&address) else { return };
        *own -= 1;
        self.all -= 1;
        if *own == 0 {
            self.taken.remove(&address);
        }
    }

    /// Returns the number of places taken.
    pub(super) fn all(&self) -> usize {
        self.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_an_address_are_limited_and_given_back() {
        let mut places = Places::new(2);
        assert!(places.take(1) && places.take(1) && !places.take(1));
        assert!(places.take(2), "each address has its own places");
        places.give_back(1);
        places.give_back(3);
        assert!(places.take(1) && !places.take(1));
        assert_eq!((places.all(), places.taken.len()), (3, 2));
        (0..2).for_each(|_| places.give_back(1));
        assert_eq!((places.all(), places.taken.len()), (1, 1));
    }

    #[test]
    fn places_of_an_edge_are_limited_whatever_the_limit_of_an_address() {
        for per_address in [0, 2] {
            let mut places = Places::new(per_address);
            let taken = (0..MAX_VIEWERS as u64 + 50).filter(|address| places.take(*address)).count();
            assert_eq!((taken, places.all()), (MAX_VIEWERS, MAX_VIEWERS));
            places.give_back(7);
            assert!(places.take(8));
        }
        let mut places = Places::new(0);
        assert!((0..10_000).all(|_| places.take(1)), "zero stands for any number");
    }
}
