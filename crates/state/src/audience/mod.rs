//! Audiences: the viewers of one livestream, of whom one that shows himself in several ways counts once.
//!
//! A viewer's player makes requests, its page may send heartbeats or hold a WebSocket, and each of these has an id of its own
//! kind. They meet in a *group*, the viewers at one address with one user agent. A group counts as many viewers as the kind
//! names that names most of them: a page's heartbeats and the requests of its player are one viewer, ten heartbeats
//! behind one address are ten, and requests of players without any id are one. The ids of a group may have come to different edges.

mod members;
mod sketch;

use std::time::Duration;

pub(crate) use self::members::Members;
pub(crate) use self::sketch::Sketch;
use crate::StateError;
use crate::key::check_key;

/// The kinds of ids, by the first character of an id.
pub const VIEWER_KINDS: [char; 4] = ['b', 'c', 'r', 'w'];
/// Sightings noted in one call: the state store is busy with them for some milliseconds.
pub const MAX_SIGHTINGS: usize = 1_000;
/// The longest time for which a viewer stays without being seen again; the audience is forgotten that long after its last
/// sighting.
pub const MAX_VIEWER_TTL: Duration = Duration::from_mins(10);
/// The time for which a set of unique viewers is kept after its last sighting.
pub(crate) const UNIQUES_TTL: Duration = Duration::from_hours(72);

/// A viewer that was seen, or that has left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// The viewer's id; its first character names the kind of the id, one of [`VIEWER_KINDS`].
    pub viewer: String,
    /// The group that it was seen in.
    pub group: String,
    /// The time after which the viewer has left unless it is seen again. Zero says that it has left.
    pub ttl: Duration,
}

/// Checks the names of a call.
pub(crate) fn check(audience: &str, uniques: Option<&str>, sightings: &[Sighting]) -> Result<(), StateError> {
    check_key(audience)?;
    uniques.map_or(Ok(()), check_key)?;
    if sightings.len() > MAX_SIGHTINGS {
        return Err(StateError::invalid(format!("{} sightings in one call", sightings.len())));
    }
    sightings.iter().try_for_each(|sighting| {
        check_key(&sighting.viewer)?;
        check_key(&sighting.group)?;
        let is_plain = sighting.viewer.starts_with(VIEWER_KINDS)
            && !sighting.group.contains('#')
            && sighting.ttl <= MAX_VIEWER_TTL;
        let refused =
            || StateError::invalid("sighting of an unknown kind, with # in its group, or with a long ttl");
        is_plain.then_some(()).ok_or_else(refused)
    })
}
