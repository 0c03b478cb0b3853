//! One execution for concurrent requests of the same thing: the first request starts the work, the others wait for its
//! result.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

type InProgress<V> = watch::Receiver<Option<V>>;

/// The executions under way, by key. A key is removed when its execution ends: results are not cached here.
#[derive(Debug)]
pub(crate) struct SingleFlight<K, V> {
    flights: Mutex<HashMap<K, InProgress<V>>>,
}

/// The result that [`SingleFlight::run`] gives to one request.
#[derive(Debug)]
pub(crate) struct Outcome<V> {
    /// The value that the execution gave; `None` when it panicked.
    pub(crate) value: Option<V>,
    /// True if another request had started the execution.
    pub(crate) shared: bool,
}

impl<K, V> Default for SingleFlight<K, V> {
    fn default() -> Self {
        Self { flights: Mutex::default() }
    }
}

impl<K, V> SingleFlight<K, V>
where
    K: Eq + Hash + Clone + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Waits for the execution of `key`. Without one under way, `known` is asked first, since an execution that ended a
    /// moment ago has left its value there; then `start` makes one. The execution is a task of its own: a request whose client
    /// leaves does not end it for the others.
    pub(crate) async fn run<Q, W>(
        self: &Arc<Self>,
        key: &Q,
        known: impl FnOnce() -> Option<V>,
        start: impl FnOnce() -> W,
    ) -> Outcome<V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
        W: Future<Output = V> + Send + 'static,
    {
        let (mut flight, shared) = match self.join(key, known, start) {
            Lookup::Known(value) => return Outcome { value: Some(value), shared: false },
            Lookup::InProgress(flight, shared) => (flight, shared),
        };
        let outcome = flight.wait_for(Option::is_some).await;
        Outcome { value: outcome.ok().and_then(|value| value.clone()), shared }
    }

    fn join<Q, W>(
        self: &Arc<Self>,
        key: &Q,
        known: impl FnOnce() -> Option<V>,
        start: impl FnOnce() -> W,
    ) -> Lookup<V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
        W: Future<Output = V> + Send + 'static,
    {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(key) {
            return Lookup::InProgress(flight.clone(), true);
        }
        if let Some(value) = known() {
            return Lookup::Known(value);
        }
        let (sender, flight) = watch::channel(None);
        flights.insert(key.to_owned(), flight.clone());
        let guard = InProgressGuard { flights: self.clone(), key: key.to_owned() };
        let work = start();
        tokio::spawn(async move {
            let value = work.await;
            drop(guard);
            sender.send_replace(Some(value));
        });
        Lookup::InProgress(flight, false)
    }
}

enum Lookup<V> {
    Known(V),
    InProgress(InProgress<V>, bool),
}

/// Removes an execution when its execution ends, even when it panics.
struct InProgressGuard<K: Eq + Hash, V> {
    flights: Arc<SingleFlight<K, V>>,
    key: K,
}

impl<K: Eq + Hash, V> Drop for InProgressGuard<K, V> {
    fn drop(&mut self) {
        self.flights.flights.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn single_flight_gives_concurrent_requests_of_one_key_one_execution() {
        let flights = Arc::new(SingleFlight::<String, u32>::default());
        let (runs, gate) = (Arc::new(AtomicU32::new(0)), Arc::new(Semaphore::new(0)));
        let ask = |key: &'static str| {
            let (flights, runs, gate) = (flights.clone(), runs.clone(), gate.clone());
            tokio::spawn(async move {
                let work = || async move {
                    let run = runs.fetch_add(1, Ordering::Relaxed) + 1;
                    gate.acquire().await.unwrap().forget();
                    run
                };
                flights.run(key, || None, work).await.value
            })
        };
        let same: Vec<_> = (0..5).map(|_| ask("a")).collect();
        let other = ask("b");
        while runs.load(Ordering::Relaxed) < 2 {
            tokio::task::yield_now().await;
        }
        gate.add_permits(2);
        let mut values = Vec::new();
        for task in same {
            values.push(task.await.unwrap().unwrap());
        }
        values.dedup();
        assert_eq!(values.len(), 1, "{values:?}");
        assert_ne!(other.await.unwrap(), Some(values[0]));
        assert_eq!(runs.load(Ordering::Relaxed), 2);
        let later = flights.run("a", || Some(77), || async { unreachable!() }).await;
        assert_eq!((later.value, later.shared), (Some(77), false));
    }

    #[tokio::test]
    async fn single_flight_forgets_an_execution_that_panics() {
        let flights = Arc::new(SingleFlight::<String, u32>::default());
        let outcome = flights.run("a", || None, || async { panic!("the execution fails") }).await;
        assert_eq!(outcome.value, None);
        assert_eq!(flights.run("a", || None, || async { 5 }).await.value, Some(5));
    }
}
