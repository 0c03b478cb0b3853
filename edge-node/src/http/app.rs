//! The services that the request handlers share, and the waiting of requests.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_runtime::http::Observability;
use millrace_runtime::{ForwardedHeader, TrustedProxies, running_sleep};
use millrace_wire::ids::PlaybackId;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::aliases::Aliases;
use crate::audience::counting::Counting;
use crate::audience::signer::Signer;
use crate::catalog::{Catalog, NotServed};
use crate::config::AllowOrigin;
use crate::live::playlists::StreamPlaylists;
use crate::live::registry::{Registry, RegistryFull};
use crate::live::stream::LiveStream;
use crate::metrics::EdgeMetrics;
use crate::objects::answers::Answers;
use crate::objects::cache::ObjectCache;
use crate::objects::fetch::Fetcher;
use crate::objects::fresh::FreshObjects;

/// The time limits of requests that wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// The time a playlist request is held while the stream is starting or lags.
    pub(crate) start_hold: Duration,
    /// The time a hinted part is waited for.
    pub(crate) part_hold: Duration,
}

/// The services that the handlers share.
pub(crate) struct App {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) registry: Arc<Registry>,
    /// The livestreams behind stream keys in URLs, where they are taken.
    pub(crate) aliases: Option<Aliases>,
    pub(crate) cache: Arc<ObjectCache>,
    pub(crate) fetcher: Arc<Fetcher>,
    pub(crate) fresh: Arc<FreshObjects>,
    pub(crate) answers: Arc<Answers>,
    pub(crate) signer: Signer,
    pub(crate) allow_origin: AllowOrigin,
    pub(crate) counting: Arc<Counting>,
    /// True if players that announce nothing are counted by their requests.
    pub(crate) counts_requests: bool,
    pub(crate) trusted_proxies: TrustedProxies,
    pub(crate) forwarded_header: ForwardedHeader,
    pub(crate) waiters: Semaphore,
    /// WebSockets that are open.
    pub(crate) sockets: Arc<Semaphore>,
    /// Heartbeats that wait for a change of the stream.
    pub(crate) held_beacons: Semaphore,
    pub(crate) limits: Limits,
    pub(crate) metrics: EdgeMetrics,
    pub(crate) operations: Option<Observability>,
    pub(crate) stop: CancellationToken,
}

/// The wait ended before its condition held: its time was over, too many requests wait, or the node drains.
#[derive(Debug)]
pub(crate) struct NotYet;

impl App {
    /// Returns the stream that a playback id names, opening it if it is not open yet.
    pub(super) async fn open(&self, playback: PlaybackId) -> Result<Arc<LiveStream>, NotServed> {
        if let Some(stream) = self.registry.get(playback) {
            return Ok(stream);
        }
        let record = self.catalog.find(playback).await?;
        self.registry.open(playback, record.stream).await.map_err(|RegistryFull| NotServed::Busy)
    }

    /// Waits until the stream's playlists satisfy `ready`.
    pub(super) async fn wait(
        &self,
        stream: &LiveStream,
        limit: Duration,
        ready: impl Fn(&StreamPlaylists) -> bool,
    ) -> Result<(), NotYet> {
        let Ok(_permit) = self.waiters.try_acquire() else {
            self.metrics.waiters_refused.inc();
            return Err(NotYet);
        };
        let _gauge = Waiting::enter(self);
        let mut playlists = stream.watch();
        tokio::select! {
            changed = playlists.wait_for(|playlists| ready(playlists)) => changed.map(|_| ()).map_err(|_| NotYet),
            () = running_sleep(limit) => Err(NotYet),
            () = self.stop.cancelled() => Err(NotYet),
        }
    }
}

/// Counts one waiting request, also when its client leaves.
struct Waiting<'a>(&'a App, Instant);

impl<'a> Waiting<'a> {
    fn enter(app: &'a App) -> Self {
        app.metrics.waiters.add(1);
        Self(app, Instant::now())
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.metrics.waiters.add(-1);
        self.0.metrics.waited.observe(self.1.elapsed().as_secs_f64());
    }
}
