//! The media half of a publisher: what comes out of the mux goes to the session's machine, and so onto the bus, at once.

use std::sync::Arc;

use millrace_media::pieces::Pieces;
use millrace_protocol::session::Input;
use millrace_rtmp::StreamInfo;
use millrace_wire::close_reason::CloseReason;
use millrace_wire::message::control::ClaimGrant;

use super::core::Core;
use super::mux::{MediaError, Mux};
use crate::metrics::{Held, IngestMetrics};
use crate::node::Shared;

/// One publisher's media on its way to the bus. Dropping it ends the epoch's media.
pub(crate) struct Media {
    mux: Mux,
    core: Arc<Core>,
    metrics: IngestMetrics,
    ended: bool,
    synthetic: u64,
    _on_air: Held,
}

impl Media {
    pub(crate) fn new(shared: &Shared, grant: &ClaimGrant, core: Arc<Core>) -> Self {
        Self {
            mux: Mux::new(grant, grant.limits.max_bitrate.min(shared.config.max_bitrate)),
            core,
            metrics: shared.metrics.clone(),
            ended: false,
            synthetic: 0,
            _on_air: Held::new(&shared.metrics.publishers),
        }
    }

    pub(crate) fn mux(&self) -> &Mux {
        &self.mux
    }

    /// What the publisher says of its stream.
    pub(crate) fn metadata(&mut self, info: &StreamInfo) -> Result<(), MediaError> {
        let result = self.mux.metadata(info);
        self.send();
        result
    }

    /// An RTMP video message.
    pub(crate) fn video(&mut self, timestamp: u32, body: Pieces) -> Result<(), MediaError> {
        let result = self.mux.video(timestamp, body);
        self.send();
        result
    }

    /// An RTMP audio message.
    pub(crate) fn audio(&mut self, timestamp: u32, body: Pieces) -> Result<(), MediaError> {
        let result = self.mux.audio(timestamp, body);
        self.send();
        result
    }

    /// The publisher is gone: the epoch's last message leaves.
    pub(crate) fn end(&mut self, reason: CloseReason) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.mux.finish();
        self.send();
        self.core.handle(Input::PublisherGone(reason));
    }

    fn send(&mut self) {
        while let Some(units) = self.mux.poll() {
            self.core.handle(Input::Media(units));
        }
        let synthetic = self.mux.segments().synthetic_boundaries;
        if synthetic != self.synthetic {
            self.metrics.synthetic_boundaries.add(synthetic - self.synthetic);
            self.synthetic = synthetic;
        }
    }
}

impl Drop for Media {
    fn drop(&mut self) {
        // Only a panic comes here without an end.
        self.end(CloseReason::Internal);
    }
}
