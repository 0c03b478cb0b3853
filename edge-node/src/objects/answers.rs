//! The answers under way that hold media, and the bound of what they hold.
//!
//! An answer keeps its object in memory until the client has taken all of it. Objects in the cache are bounded there. An
//! object that has left the cache meanwhile is held by slow answers alone; beyond the bound of all such objects the
//! connections of the oldest answers are ended.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use millrace_runtime::http::{Connection, Cut};
use millrace_runtime::metrics::Gauge;
use millrace_runtime::{ActorContext, LogLimit};

use crate::objects::media::Media;

/// Time between two checks of the bound.
const CHECK_EVERY: Duration = Duration::from_millis(250);

#[derive(Debug)]
struct Answer {
    media: Arc<Media>,
    connection: Arc<Connection>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    /// By age, the oldest first.
    answers: BTreeMap<u64, Answer>,
}

/// The answers under way whose rest is not in the connection's write buffer yet.
#[derive(Debug)]
pub struct Answers {
    open: Mutex<Open>,
    held: Gauge,
    limit: usize,
    log: LogLimit,
}

/// An answer under way. Dropping it ends its entry.
#[derive(Debug)]
pub struct OpenAnswer {
    answers: Arc<Answers>,
    number: u64,
}

impl Answers {
    /// Creates an empty list. `held` counts the bytes of [`Media`] that left the cache; `limit` bounds them.
    pub fn new(held: Gauge, limit: usize) -> Arc<Self> {
        Arc::new(Self { open: Mutex::default(), held, limit, log: LogLimit::default() })
    }

    /// Notes an answer that sends `media` on `connection`.
    pub fn open(self: &Arc<Self>, media: Arc<Media>, connection: Arc<Connection>) -> OpenAnswer {
        let number = {
            let mut open = self.lock();
            let number = open.next;
            open.next += 1;
            open.answers.insert(number, Answer { media, connection });
            number
        };
        OpenAnswer { answers: self.clone(), number }
    }

    /// Checks the bound until the actor is stopped.
    pub(crate) async fn run(self: Arc<Self>, actor: ActorContext) -> anyhow::Result<()> {
        actor.status.set_state("bounding the media that unfinished answers hold");
        loop {
            tokio::select! {
                () = tokio::time::sleep(CHECK_EVERY) => self.enforce(),
                () = actor.stop.cancelled() => return Ok(()),
            }
        }
    }

    /// Ends the connections of the oldest answers until those that stay hold no more than the bound. Answers that send the
    /// same object are ended together, as they hold it together.
    pub fn enforce(&self) {
        let mut excess = self.held.get() - self.limit as i64;
        if excess <= 0 {
            return;
        }
        let (mut ended, open) = (0_u64, self.lock());
        for oldest in open.answers.values() {
            if excess <= 0 {
                break;
            }
            if !oldest.media.is_held() || oldest.connection.reason().is_some() {
                continue;
            }
            excess -= oldest.media.len() as i64;
            for answer in open.answers.values().filter(|answer| Arc::ptr_eq(&answer.media, &oldest.media)) {
                answer.connection.cut(Cut::Memory);
                ended += 1;
            }
        }
        drop(open);
        if ended > 0
            && let Some(suppressed) = self.log.due()
        {
            let (held_bytes, limit_bytes) = (self.held.get(), self.limit);
            tracing::warn!(
                held_bytes,
                limit_bytes,
                ended,
                suppressed,
                "unfinished answers hold more media than they may; the connections of the oldest were closed"
            );
        }
    }

    /// Returns the number of answers under way.
    pub fn len(&self) -> usize {
        self.lock().answers.len()
    }

    /// Returns true if no answer is under way.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OpenAnswer {
    fn drop(&mut self) {
        let ended = self.answers.lock().answers.remove(&self.number);
        // Its media may be the last reference: freed after the lock.
        drop(ended);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use millrace_runtime::Metrics;
    use millrace_runtime::metrics::Unit;

    use super::*;

    struct World {
        held: Gauge,
        answers: Arc<Answers>,
    }

    fn world(limit: usize) -> World {
        let held = Metrics::new().gauge("held", Unit::Bytes, "Held");
        World { answers: Answers::new(held.clone(), limit), held }
    }

    impl World {
        fn answer(&self, media: &Arc<Media>) -> (OpenAnswer, Arc<Connection>) {
            let connection: Arc<Connection> = Arc::default();
            (self.answers.open(media.clone(), connection.clone()), connection)
        }
    }

    fn media(size: usize) -> Arc<Media> {
        Arc::new(Media::new(Bytes::from(vec![7; size])))
    }

    #[test]
    fn answers_beyond_the_bound_are_ended_from_the_oldest_and_those_of_cached_objects_are_not() {
        let world = world(150);
        let (cached, old, newer, newest) = (media(1_000), media(100), media(100), media(100));
        let of_cached = world.answer(&cached);
        let first = world.answer(&old);
        let second = world.answer(&newer);
        let third = world.answer(&newest);
        let also_old = world.answer(&old);
        world.answers.enforce();
        assert!(first.1.reason().is_none(), "all objects are in the cache");
        for media in [&old, &newer, &newest] {
            media.leave_cache(&world.held);
        }
        assert_eq!(world.held.get(), 300);
        world.answers.enforce();
        let ended = |answer: &(OpenAnswer, Arc<Connection>)| answer.1.reason() == Some(Cut::Memory);
        assert_eq!(
            [&of_cached, &first, &second, &third, &also_old].map(ended),
            [false, true, true, false, true],
            "the two oldest objects"
        );
        drop((first, second, also_old, old, newer));
        assert_eq!(world.held.get(), 100);
        drop((third, newest));
        assert_eq!((world.held.get(), world.answers.len()), (0, 1));
    }

    #[test]
    fn media_counts_as_held_from_leaving_the_cache_until_it_is_freed() {
        let world = world(0);
        let object = media(70);
        let other = object.clone();
        object.leave_cache(&world.held);
        object.leave_cache(&world.held);
        drop(object);
        assert_eq!(world.held.get(), 70);
        drop(other);
        assert_eq!(world.held.get(), 0);
    }
}
