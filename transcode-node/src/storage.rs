//! A job's objects: names, metadata, uploads behind the live path's back, and deletion past the window.

use std::sync::Arc;

use bytes::Bytes;
use millrace_store::{Meta, PutBody, SharedStore, UploadError, Uploader};
use millrace_wire::fact;
use millrace_wire::ids::{Epoch, Generation, InitVersion, Msn, PlaybackId, Rendition};
use millrace_wire::object_names::{ObjectKind, ObjectName};
use tokio::sync::mpsc;

/// Names never repeat, so any cache may keep them for ever.
const IMMUTABLE: &str = "public, max-age=31536000, immutable";
/// RFC 8216 §3.3 and the registrations of ISO/IEC 14496-12.
const VIDEO_TYPE: &str = "video/mp4";
const AUDIO_TYPE: &str = "audio/mp4";

/// An upload that ended.
#[derive(Debug)]
pub(crate) struct Stored {
    /// What was stored; `None` for an init segment.
    pub(crate) segment: Option<fact::Segment>,
    /// Whether it is in the store.
    pub(crate) result: Result<(), UploadError>,
}

/// The objects of one generation.
#[derive(Clone)]
pub(crate) struct Storage {
    store: SharedStore,
    uploader: Arc<Uploader>,
    playback: PlaybackId,
    epoch: Epoch,
    generation: Generation,
    stored: mpsc::UnboundedSender<Stored>,
}

impl Storage {
    /// Uploads are reported on the channel; the upload queue bounds how many can be.
    pub(crate) fn new(
        store: SharedStore,
        uploader: Arc<Uploader>,
        playback: PlaybackId,
        epoch: Epoch,
        generation: Generation,
    ) -> (Self, mpsc::UnboundedReceiver<Stored>) {
        let (stored, reports) = mpsc::unbounded_channel();
        (Self { store, uploader, playback, epoch, generation, stored }, reports)
    }

    /// Uploads an init segment; without it nothing of its epoch plays, so it is never dropped for room.
    pub(crate) fn init(&self, rendition: &Rendition, version: InitVersion, bytes: Bytes) {
        let name = self.name(rendition, ObjectKind::Init(version));
        self.submit(&name, vec![bytes], meta(rendition), true, None);
    }

    /// Uploads a complete segment. Its metadata lets the index be rebuilt from a listing.
    pub(crate) fn segment(&self, segment: fact::Segment, pieces: Vec<Bytes>) {
        let name = self.name(&segment.rendition, ObjectKind::Segment(segment.msn, self.generation));
        let meta = meta(&segment.rendition)
            .with("msn", segment.msn.to_string())
            .with("duration", format!("{}/{}", segment.duration.ticks, segment.duration.timescale))
            .with("discontinuity-sequence", segment.discontinuity_sequence.to_string())
            .with("program-date-time", segment.program_date_time.to_string())
            .with("init-version", segment.init_version.to_string());
        self.submit(&name, pieces, meta, false, Some(segment));
    }

    /// Deletes a segment that left the window. A failure leaves an object for the next sweep, nothing else.
    pub(crate) fn delete(&self, rendition: &Rendition, epoch: Epoch, msn: Msn, generation: Generation) {
        let kind = ObjectKind::Segment(msn, generation);
        let name = ObjectName { playback: self.playback, rendition: rendition.clone(), epoch, kind };
        let store = self.store.clone();
        tokio::spawn(async move {
            if let Err(error) = store.delete(&name.key()).await {
                tracing::warn!(key = %name, %error, "segment past the window not deleted");
            }
        });
    }

    fn name(&self, rendition: &Rendition, kind: ObjectKind) -> ObjectName {
        ObjectName { playback: self.playback, rendition: rendition.clone(), epoch: self.epoch, kind }
    }

    fn submit(
        &self,
        name: &ObjectName,
        pieces: Vec<Bytes>,
        meta: Meta,
        essential: bool,
        segment: Option<fact::Segment>,
    ) {
        let ticket = self.uploader.submit(name.key(), PutBody(pieces), meta, essential);
        let reports = self.stored.clone();
        let key = name.key();
        tokio::spawn(async move {
            let result = match ticket {
                Ok(ticket) => ticket.done().await.map(|_| ()),
                Err(error) => Err(error),
            };
            if let Err(error) = &result {
                tracing::error!(%key, %error, "object is not in the store");
            }
            // The job may have ended; the object is stored all the same.
            let _ = reports.send(Stored { segment, result });
        });
    }
}

fn meta(rendition: &Rendition) -> Meta {
    let kind = if *rendition == Rendition::audio() { AUDIO_TYPE } else { VIDEO_TYPE };
    Meta::of_type(kind).cache(IMMUTABLE)
}
