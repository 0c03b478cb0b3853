//! The members of one audience, and how many viewers they are. It reads no clock: the caller passes the time.

use std::collections::{BTreeSet, HashMap};

use super::Sighting;

/// One id of a viewer.
struct Member {
    group: String,
    /// The number of ids of its kind in its group when it came, itself included.
    place: u64,
    expires_ms: u64,
}

/// The viewers of one livestream. The embedded store keeps it in memory; the scripts for Redis do the same.
#[derive(Default)]
pub(crate) struct Members {
    by_id: HashMap<String, Member>,
    by_expiry: BTreeSet<(u64, String)>,
    /// Ids of each kind in each group.
    groups: HashMap<String, HashMap<char, u64>>,
    viewers: u64,
}

impl Members {
    /// Notes a sighting. Returns the name under which its viewer counts among unique viewers, unless it has left.
    pub(crate) fn note(&mut self, sighting: &Sighting, now_ms: u64) -> Option<String> {
        self.forget_expired(now_ms);
        let Sighting { viewer, group, ttl } = sighting;
        if ttl.is_zero() {
            self.remove(viewer);
            return None;
        }
        if self.by_id.get(viewer).is_none_or(|known| known.group != *group) {
            self.remove(viewer);
            let place = self.change(group, kind(viewer), true);
            let member = Member { group: group.clone(), place, expires_ms: 0 };
            self.by_id.insert(viewer.clone(), member);
        }
        let expires_ms = now_ms + ttl.as_millis() as u64;
        let member = self.by_id.get_mut(viewer)?;
        self.by_expiry.remove(&(member.expires_ms, viewer.clone()));
        member.expires_ms = expires_ms;
        self.by_expiry.insert((expires_ms, viewer.clone()));
        Some(format!("{group}#{}", member.place))
    }

    /// Returns the number of viewers.
    pub(crate) fn count(&mut self, now_ms: u64) -> u64 {
        self.forget_expired(now_ms);
        self.viewers
    }

    /// Returns true if nothing is left of the audience.
    pub(crate) fn is_empty(&mut self, now_ms: u64) -> bool {
        self.forget_expired(now_ms);
        self.by_id.is_empty()
    }

    fn forget_expired(&mut self, now_ms: u64) {
        while let Some((expires_ms, viewer)) = self.by_expiry.first()
            && *expires_ms <= now_ms
        {
            let viewer = viewer.clone();
            self.remove(&viewer);
        }
    }

    fn remove(&mut self, viewer: &str) {
        let Some(member) = self.by_id.remove(viewer) else { return };
        self.by_expiry.remove(&(member.expires_ms, viewer.to_owned()));
        self.change(&member.group, kind(viewer), false);
    }

    /// Adds or takes an id of a kind in a group; returns how many there are then.
    fn change(&mut self, group: &str, kind: char, adds: bool) -> u64 {
        let kinds = self.groups.entry(group.to_owned()).or_default();
        let most = |kinds: &HashMap<char, u64>| kinds.values().copied().max().unwrap_or_default();
        let before = most(kinds);
        let ids = kinds.entry(kind).or_default();
        *ids = if adds { *ids + 1 } else { ids.saturating_sub(1) };
        let left = *ids;
        kinds.retain(|_, ids| *ids > 0);
        self.viewers = self.viewers + most(kinds) - before;
        if kinds.is_empty() {
            self.groups.remove(group);
        }
        left
    }
}

/// Returns the kind of an id.
fn kind(viewer: &str) -> char {
    viewer.chars().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn seen(viewer: &str, group: &str, seconds: u64) -> Sighting {
        Sighting { viewer: viewer.to_owned(), group: group.to_owned(), ttl: Duration::from_secs(seconds) }
    }

    #[test]
    fn audience_counts_a_viewer_of_several_kinds_once_and_several_of_one_kind_each() {
        let mut members = Members::default();
        for (viewer, viewers) in [("r-a", 1), ("b-1", 1), ("w-x", 1), ("b-2", 2), ("c-1", 2), ("b-3", 3)] {
            members.note(&seen(viewer, "home", 10), 0);
            assert_eq!(members.count(0), viewers, "{viewer}");
        }
        members.note(&seen("r-b", "office", 10), 0);
        assert_eq!(members.count(0), 4);
        for (viewer, viewers) in [("b-1", 3), ("b-2", 2), ("b-3", 2), ("r-a", 2), ("w-x", 2), ("c-1", 1)] {
            assert_eq!(members.note(&seen(viewer, "home", 0), 0), None);
            assert_eq!(members.count(0), viewers, "{viewer} has left");
        }
    }

    #[test]
    fn audience_forgets_viewers_that_are_not_seen_again_and_moves_those_whose_group_changes() {
        let mut members = Members::default();
        assert_eq!(members.note(&seen("b-1", "home", 10), 0), Some("home#1".to_owned()));
        assert_eq!(members.note(&seen("b-2", "home", 10), 0), Some("home#2".to_owned()));
        assert_eq!(members.note(&seen("b-2", "train", 30), 5_000), Some("train#1".to_owned()));
        assert_eq!(members.count(9_999), 2);
        assert_eq!(members.count(10_000), 1);
        assert_eq!(members.note(&seen("b-2", "train", 30), 20_000), Some("train#1".to_owned()));
        assert!(!members.is_empty(49_999));
        assert!(members.is_empty(50_000));
        assert!(members.groups.is_empty() && members.by_expiry.is_empty());
    }

    /// Counts anew by the definition.
    fn by_definition(alive: &HashMap<String, (String, u64)>, now_ms: u64) -> u64 {
        let mut groups: HashMap<&str, HashMap<char, u64>> = HashMap::new();
        for (viewer, (group, _)) in alive.iter().filter(|(_, (_, expires_ms))| *expires_ms > now_ms) {
            *groups.entry(group).or_default().entry(kind(viewer)).or_default() += 1;
        }
        groups.values().map(|kinds| kinds.values().max().copied().unwrap_or_default()).sum()
    }

    proptest! {
        #[test]
        fn audience_counts_by_its_definition_whatever_comes_and_goes(
            steps in proptest::collection::vec((0..3_usize, 0..4_u8, 0..3_u8, 0..5_u64, 0..4_u64), 1..200),
        ) {
            let (mut members, mut alive, mut now_ms) = (Members::default(), HashMap::new(), 0);
            for (kind, id, group, seconds, step_s) in steps {
                now_ms += step_s * 500;
                let viewer = format!("{}{id}", ["b", "c", "r"][kind]);
                let sighting = seen(&viewer, &format!("g{group}"), seconds);
                members.note(&sighting, now_ms);
                if seconds == 0 {
                    alive.remove(&viewer);
                } else {
                    alive.insert(viewer, (sighting.group, now_ms + seconds * 1_000));
                }
                prop_assert_eq!(members.count(now_ms), by_definition(&alive, now_ms));
            }
            prop_assert!(members.is_empty(now_ms + 10_000));
            prop_assert_eq!(members.count(now_ms + 10_000), 0);
        }
    }
}
