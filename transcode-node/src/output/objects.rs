//! A job's objects: their names and metadata, and their uploads, for which the live path does not wait.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use millrace_buf::ByteChain;
use millrace_store::{Meta, UploadError, Uploader};
use millrace_wire::fact::{self, TrackInfo, TrackMedia};
use millrace_wire::ids::{Epoch, Generation, InitVersion, PlaybackId, Rendition};
use millrace_wire::object_names::{ObjectKind, ObjectName};
use tokio::sync::mpsc;

use super::segment_metadata;

/// The Cache-Control of every media object: its name is never used for other bytes, so any cache may keep it for ever.
const CACHE_CONTROL: &str = "public, max-age=31536000, immutable";

/// The result of one upload.
#[derive(Debug)]
pub(crate) struct UploadReport {
    /// The upload's number, for [`Objects::settle`].
    pub(crate) number: u64,
    /// The segment that was uploaded; `None` for an init segment.
    pub(crate) segment: Option<fact::Segment>,
    /// `Ok` if the object is in the store.
    pub(crate) result: Result<(), UploadError>,
}

/// The objects of one generation of a stream's epoch.
pub(crate) struct Objects {
    uploader: Arc<Uploader>,
    playback: PlaybackId,
    epoch: Epoch,
    generation: Generation,
    content_types: HashMap<Rendition, &'static str>,
    /// The time at which each upload that has not ended was submitted, by its number.
    waiting: BTreeMap<u64, Instant>,
    next_number: u64,
    reports: mpsc::UnboundedSender<UploadReport>,
}

impl Objects {
    /// Returns the objects, and the channel on which the result of each upload arrives. The upload queue bounds how many
    /// can wait on it.
    pub(crate) fn new(
        uploader: Arc<Uploader>,
        playback: PlaybackId,
        epoch: Epoch,
        generation: Generation,
    ) -> (Self, mpsc::UnboundedReceiver<UploadReport>) {
        let (reports, results) = mpsc::unbounded_channel();
        let objects = Self {
            uploader,
            playback,
            epoch,
            generation,
            content_types: HashMap::new(),
            waiting: BTreeMap::new(),
            next_number: 0,
            reports,
        };
        (objects, results)
    }

    /// Takes a rendition's description, from which the content type of its objects follows.
    pub(crate) fn describe(&mut self, rendition: &Rendition, info: &TrackInfo) {
        self.content_types.insert(rendition.clone(), content_type(&info.media));
    }

    /// Uploads an init segment. The upload queue never drops it for room: no segment of its epoch plays without it.
    pub(crate) fn upload_init(&mut self, rendition: &Rendition, version: InitVersion, bytes: Bytes) {
        let name = self.name(rendition, ObjectKind::Init(version));
        self.submit(&name, bytes.into(), self.meta(rendition), true, None);
    }

    /// Uploads a complete segment. Its metadata holds the fields of its index entry, so that the index can be rebuilt from
    /// a listing of the bucket.
    pub(crate) fn upload_segment(&mut self, segment: fact::Segment, body: ByteChain) {
        let name = self.name(&segment.rendition, ObjectKind::Segment(segment.msn, self.generation));
        let meta = segment_metadata::write(self.meta(&segment.rendition), &segment);
        self.submit(&name, body, meta, false, Some(segment));
    }

    /// Notes that an upload has ended.
    pub(crate) fn settle(&mut self, number: u64) {
        self.waiting.remove(&number);
    }

    /// Returns the number of uploads that have not ended, and the age of the oldest.
    pub(crate) fn waiting(&self) -> (usize, Duration) {
        let oldest = self.waiting.first_key_value().map_or(Duration::ZERO, |(_, since)| since.elapsed());
        (self.waiting.len(), oldest)
    }

    fn name(&self, rendition: &Rendition, kind: ObjectKind) -> ObjectName {
        ObjectName { playback: self.playback, rendition: rendition.clone(), epoch: self.epoch, kind }
    }

    fn meta(&self, rendition: &Rendition) -> Meta {
        let meta = self.content_types.get(rendition).map_or_else(Meta::default, |kind| Meta::of_type(*kind));
        meta.cache(CACHE_CONTROL)
    }

    fn submit(
        &mut self,
        name: &ObjectName,
        body: ByteChain,
        meta: Meta,
        essential: bool,
        segment: Option<fact::Segment>,
    ) {
        let ticket = self.uploader.submit(name.key(), body, meta, essential);
        let (reports, number) = (self.reports.clone(), self.next_number);
        self.next_number += 1;
        self.waiting.insert(number, Instant::now());
        let key = name.key();
        tokio::spawn(async move {
            let result = match ticket {
                Ok(ticket) => ticket.done().await.map(|_| ()),
                Err(error) => Err(error),
            };
            if let Err(error) = &result {
                // The uploader's actor names it in its line of the minute.
                tracing::debug!(%key, %error, "object not stored; it is served from memory while live and then missing");
            }
            // The job may have ended before its upload did: then the result is of no use any more.
            let _ = reports.send(UploadReport { number, segment, result });
        });
    }
}

/// Returns the registered content type of an ISO/IEC 14496-12 file with this track (RFC 4337, RFC 8216 §3.3).
const fn content_type(media: &TrackMedia) -> &'static str {
    match media {
        TrackMedia::Video { .. } => "video/mp4",
        TrackMedia::Audio { .. } => "audio/mp4",
    }
}
