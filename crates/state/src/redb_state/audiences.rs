//! Audiences, kept in this process's memory.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::audience::{Members, Sighting, Sketch, UNIQUES_TTL};

/// Sets of unique viewers kept at once; the one that was used longest ago is dropped for another.
const MAX_SKETCHES: usize = 4_096;

#[derive(Default)]
struct Kept {
    members: HashMap<String, Members>,
    sketches: HashMap<String, (Sketch, u64)>,
}

/// Audiences and their unique viewers by name; an empty audience takes no room.
pub(super) struct Audiences {
    start: Instant,
    kept: Mutex<Kept>,
}

impl Default for Audiences {
    fn default() -> Self {
        Self { start: Instant::now(), kept: Mutex::default() }
    }
}

impl Audiences {
    fn lock(&self) -> (MutexGuard<'_, Kept>, u64) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        (kept, self.start.elapsed().as_millis() as u64)
    }

    pub(super) fn note(&self, audience: &str, uniques: Option<&str>, sightings: &[Sighting]) -> u64 {
        let (mut guard, now_ms) = self.lock();
        let Kept { members, sketches } = &mut *guard;
        let entry = members.entry(audience.to_owned()).or_default();
        let names: Vec<String> =
            sightings.iter().filter_map(|sighting| entry.note(sighting, now_ms)).collect();
        let viewers = entry.count(now_ms);
        if let Some(uniques) = uniques.filter(|_| !names.is_empty()) {
            make_room(sketches, uniques, now_ms);
            let (sketch, used_ms) = sketches.entry(uniques.to_owned()).or_default();
            for name in &names {
                sketch.add(name);
            }
            *used_ms = now_ms;
        }
        viewers
    }

    pub(super) fn count(&self, audience: &str) -> u64 {
        let (mut guard, now_ms) = self.lock();
        let viewers = guard.members.get_mut(audience).map_or(0, |members| members.count(now_ms));
        // Every audience is looked at, so that one that is not read any more is freed too.
        guard.members.retain(|_, members| !members.is_empty(now_ms));
        viewers
    }

    pub(super) fn uniques(&self, uniques: &str) -> u64 {
        self.lock().0.sketches.get(uniques).map_or(0, |(sketch, _)| sketch.estimate())
    }
}

fn make_room(sketches: &mut HashMap<String, (Sketch, u64)>, name: &str, now_ms: u64) {
    if sketches.contains_key(name) {
        return;
    }
    let ttl_ms = UNIQUES_TTL.as_millis() as u64;
    sketches.retain(|_, (_, used_ms)| now_ms.saturating_sub(*used_ms) < ttl_ms);
    while sketches.len() >= MAX_SKETCHES
        && let Some(oldest) = sketches.iter().min_by_key(|(_, (_, used_ms))| *used_ms)
    {
        let oldest = oldest.0.clone();
        sketches.remove(&oldest);
    }
}
