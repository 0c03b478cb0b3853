//! The table of viewers against an embedded state store's way of counting, with the time in the test's hand.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use millrace_runtime::Secret;
use millrace_state::Sighting;
use millrace_wire::ids::{PlaybackId, StreamId};

use super::identity::{Client, Identity, Salt};
use super::table::{Arrival, Table};
use super::viewer_count::ViewerCount;

const STREAM: StreamId = StreamId::from_u128(9);
const TTL: Duration = Duration::from_secs(8);

fn playback() -> PlaybackId {
    "000102030405060708090a0b0c0d0e0f".parse().unwrap()
}

fn salt(day: u64) -> Salt {
    Salt { day, key: Secret::new(vec![day as u8; 32]) }
}

fn table(per_address: u32) -> Table {
    let table = Table::new(per_address);
    table.set_salt(salt(1));
    table
}

fn from(last: u8, agent: &str) -> Client<'_> {
    Client { address: IpAddr::from([192, 0, 2, last]), agent: agent.as_bytes() }
}

fn enter(table: &Table, identity: Identity<'_>, client: Client<'_>, now_ms: u64) -> bool {
    let arrival = Arrival { playback: playback(), stream: STREAM, identity, client, ttl: TTL };
    table.enter(&arrival, &Arc::new(ViewerCount::default()), now_ms)
}

fn due(table: &Table, now_ms: u64) -> Vec<Sighting> {
    table.due(now_ms).into_iter().flat_map(|report| report.sightings).collect()
}

#[test]
fn viewer_is_reported_when_it_comes_and_while_it_is_seen_and_forgotten_after_its_time() {
    let table = table(0);
    let (requests, client) = (Identity::Requests, from(1, "vlc"));
    assert!(!table.touch(playback(), &requests, &client, 0), "a playlist alone makes no viewer");
    assert!(enter(&table, requests, client, 0));
    let first = due(&table, 0);
    assert_eq!(first.iter().map(|sighting| sighting.ttl).collect::<Vec<_>>(), [TTL]);
    assert!(due(&table, 3_000).is_empty(), "the state store knows of it for another five seconds");
    assert!(table.touch(playback(), &requests, &client, 3_900));
    let again = due(&table, 5_000);
    assert_eq!((again.len(), again[0].ttl), (1, Duration::from_millis(3_900 + 8_000 - 5_000)));
    assert_eq!((&again[0].viewer, &again[0].group), (&first[0].viewer, &first[0].group));
    assert!(due(&table, 11_899).is_empty());
    assert_eq!(table.viewers(), 1);
    assert_eq!(table.due(11_900).len(), 1, "the count is read once more");
    assert!(table.due(12_900).is_empty());
    assert_eq!(table.viewers(), 0);
    assert!(!table.touch(playback(), &requests, &client, 13_000));
}

#[test]
fn viewer_that_leaves_is_reported_with_the_requests_of_its_player() {
    let table = table(0);
    let (client, other) = (from(1, "chrome"), from(1, "safari"));
    for (identity, client) in
        [(Identity::Beacon(7), client), (Identity::Requests, client), (Identity::Requests, other)]
    {
        assert!(enter(&table, identity, client, 0));
    }
    let came = due(&table, 0);
    assert_eq!(came.len(), 3);
    assert!(table.leave(playback(), &Identity::Beacon(7), &client));
    assert!(!table.leave(playback(), &Identity::Beacon(8), &from(2, "")));
    let left: Vec<_> = due(&table, 100).into_iter().map(|sighting| (sighting.viewer, sighting.ttl)).collect();
    assert_eq!(left.len(), 2);
    assert!(left.iter().all(|(viewer, ttl)| ttl.is_zero() && came.iter().any(|seen| seen.viewer == *viewer)));
    assert_eq!(table.viewers(), 1);
}

#[test]
fn viewer_has_one_group_whatever_it_sends_and_other_hashes_at_another_stream_and_day() {
    let client = from(1, "chrome");
    let (other_agent, other_address) = (from(1, "firefox"), from(2, "chrome"));
    let hash = |day, stream, client: &Client<'_>| salt(day).group(stream, client);
    let group = hash(1, STREAM, &client);
    for other in [
        hash(2, STREAM, &client),
        hash(1, StreamId::from_u128(8), &client),
        hash(1, STREAM, &other_agent),
        hash(1, STREAM, &other_address),
    ] {
        assert_ne!(other, group);
    }
    let mapped = Client { address: "::ffff:192.0.2.1".parse().unwrap(), agent: b"chrome" };
    assert_eq!(hash(1, STREAM, &mapped), group);
    let table = table(0);
    let kinds = [Identity::Requests, Identity::Cmcd("a"), Identity::Beacon(1), Identity::Watch("a")];
    for identity in kinds {
        assert!(enter(&table, identity, client, 0));
    }
    let seen = due(&table, 0);
    assert_eq!(seen.len(), kinds.len());
    assert!(seen.iter().all(|sighting| sighting.group == format!("{group:016x}")));
    assert!(!seen.iter().any(|sighting| format!("{sighting:?}").contains("192.0.2.1")));
}

#[test]
fn viewer_that_watches_past_midnight_or_changes_its_address_is_renamed_and_stays_one() {
    let table = table(0);
    let client = from(1, "vlc");
    assert!(enter(&table, Identity::Requests, client, 0) && enter(&table, Identity::Beacon(1), client, 0));
    let before = due(&table, 0);
    table.set_salt(salt(2));
    for identity in [Identity::Requests, Identity::Beacon(1)] {
        assert!(table.touch(playback(), &identity, &client, 1_000));
    }
    let renamed = due(&table, 1_000);
    let gone: Vec<_> = renamed.iter().filter(|sighting| sighting.ttl.is_zero()).collect();
    assert_eq!(gone.len(), 1, "requests have another id, the session keeps its own: {renamed:?}");
    assert!(before.iter().any(|sighting| sighting.viewer == gone[0].viewer));
    let group = format!("{:016x}", salt(2).group(STREAM, &client));
    assert_eq!(
        renamed.iter().filter(|sighting| !sighting.ttl.is_zero() && sighting.group == group).count(),
        2
    );
    let train = from(2, "vlc");
    assert!(table.touch(playback(), &Identity::Beacon(1), &train, 2_000));
    let moved = due(&table, 2_000);
    assert_eq!((moved.len(), &moved[0].group), (1, &format!("{:016x}", salt(2).group(STREAM, &train))));
}

#[test]
fn viewers_of_one_address_are_counted_up_to_the_limit_and_none_before_the_first_key() {
    let table = Table::new(2);
    assert!(!enter(&table, Identity::Requests, from(1, "a"), 0));
    table.set_salt(salt(1));
    assert!(enter(&table, Identity::Requests, from(1, "a"), 0));
    assert!(enter(&table, Identity::Cmcd("x"), from(1, "b"), 0));
    assert!(!enter(&table, Identity::Cmcd("y"), from(1, "b"), 0));
    assert!(enter(&table, Identity::Requests, from(2, "a"), 0));
    assert_eq!(due(&table, 0).len(), 3);
    table.due(8_000);
    assert!(enter(&table, Identity::Cmcd("y"), from(1, "b"), 8_000), "places are given back");
}

#[test]
fn viewers_are_all_reported_again_after_a_failed_write() {
    let table = table(0);
    (0..5).for_each(|n| assert!(enter(&table, Identity::Beacon(n), from(1, "a"), 0)));
    assert_eq!(due(&table, 0).len(), 5);
    assert!(due(&table, 1_000).is_empty());
    table.report_all();
    assert_eq!(due(&table, 2_000).len(), 5);
}
