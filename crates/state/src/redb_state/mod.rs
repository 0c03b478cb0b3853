//! Embedded state, durable on local disk.

mod audiences;
mod database;
mod file;
mod table;
mod writer;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use redb::Database;
use tokio::sync::{mpsc, oneshot};

use crate::audience::{Sighting, check};
use crate::key::{check_key, check_prefix};
use crate::{Record, SCAN_PAGE, StateError, StateStore, Tx, Version, Versioned};
use audiences::Audiences;
use database::SharedDatabase;
use table::unix_ms;
use writer::Order;

/// Commits that may wait for the writer; more push back on their callers.
const WRITER_QUEUE: usize = 256;
/// A redb file. Every commit is on the disk (`fsync`) before it returns; commits that wait together share one
/// flush. Audiences live in memory: viewers are seen again within seconds of a restart.
///
/// The file has space on the disk reserved. When the disk takes no more, commits fail with [`StateError::NotWritable`],
/// reads go on, and commits succeed again as soon as there is space.
pub struct RedbState {
    database: Arc<SharedDatabase>,
    orders: mpsc::Sender<Order>,
    audiences: Audiences,
    /// Resolves when the writer thread has ended and let go of the file.
    writer_gone: oneshot::Receiver<()>,
}

impl RedbState {
    /// Opens the file, made if absent. It is locked: a second process gets [`StateError::Unavailable`]. Only its owner may
    /// read it, because it holds the secret of the key hashes.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, StateError> {
        let path = path.as_ref().to_path_buf();
        let opened = tokio::task::spawn_blocking(move || SharedDatabase::open(&path));
        let (database, version) = opened.await.map_err(StateError::unavailable)??;
        let database = Arc::new(database);
        let (orders, inbox) = mpsc::channel(WRITER_QUEUE);
        let (done, writer_gone) = oneshot::channel();
        let writer = writer::Writer::new(database.clone(), version);
        std::thread::Builder::new()
            .name("state-writer".into())
            .spawn(move || {
                writer.run(inbox);
                // The receiver exists only while the store is being closed.
                let _ = done.send(());
            })
            .map_err(StateError::unavailable)?;
        Ok(Self { database, orders, audiences: Audiences::default(), writer_gone })
    }

    /// Finishes what waits and lets go of the file; merely dropped, the store does so a moment later.
    pub async fn close(self) {
        let Self { database, orders, writer_gone, .. } = self;
        drop(orders);
        // An error means that the writer has ended already.
        let _ = writer_gone.await;
        database.close();
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, StateError> + Send + 'static,
    ) -> Result<T, StateError> {
        let database = match self.database.get() {
            Ok(database) => database,
            Err(error) => {
                // With a full queue the writer has enough reason to look already.
                drop(self.orders.try_send(Order::Reopen));
                return Err(error);
            }
        };
        tokio::task::spawn_blocking(move || work(&database)).await.map_err(StateError::unavailable)?
    }
}

#[async_trait]
impl StateStore for RedbState {
    async fn get(&self, key: &str) -> Result<Option<Versioned>, StateError> {
        check_key(key)?;
        let key = key.to_owned();
        self.read(move |db| table::get(db, &key, unix_ms())).await
    }

    async fn commit(&self, tx: Tx) -> Result<Version, StateError> {
        tx.validate()?;
        let (answer, answered) = oneshot::channel();
        let gone = || StateError::unavailable("state writer has ended");
        self.orders.send(Order::Commit { tx, answer }).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    async fn scan(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Record>, StateError> {
        check_prefix(prefix)?;
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        let limit = limit.min(SCAN_PAGE);
        self.read(move |db| table::scan(db, &prefix, after.as_deref(), limit, unix_ms())).await
    }

    async fn audience_note(
        &self,
        audience: &str,
        uniques: Option<&str>,
        sightings: &[Sighting],
    ) -> Result<u64, StateError> {
        check(audience, uniques, sightings)?;
        Ok(self.audiences.note(audience, uniques, sightings))
    }

    async fn audience_count(&self, audience: &str) -> Result<u64, StateError> {
        check_key(audience)?;
        Ok(self.audiences.count(audience))
    }

    async fn audience_uniques(&self, uniques: &str) -> Result<u64, StateError> {
        check_key(uniques)?;
        Ok(self.audiences.uniques(uniques))
    }

    async fn ready(&self) -> Result<(), StateError> {
        if self.orders.is_closed() {
            return Err(StateError::unavailable("state writer has ended"));
        }
        self.read(|_| Ok(())).await?;
        self.database.refusal().map_or(Ok(()), |reason| Err(StateError::NotWritable { reason }))
    }
}
