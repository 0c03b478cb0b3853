//! What the packager made: to the log as it comes, to the store when a segment is complete, to the index once it is
//! stored. What a predecessor announced is not announced again, only stored when that had not been done.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use millrace_buf::ByteChain;
use millrace_wire::fact::{Fact, Part, Segment, TrackInfo};
use millrace_wire::fragment::FragmentError;
use millrace_wire::ids::{InitVersion, Msn, Rendition, RungId};
use millrace_wire::message::announce::IndexFact;
use millrace_wire::message::job::Grant;

use super::{Output, Packaged, WorkerJob};
use crate::Millis;
use crate::state::apply;

/// The objects of a job on their way to the store.
#[derive(Debug, Default)]
pub(super) struct Objects {
    inits: BTreeSet<(Rendition, InitVersion)>,
    bodies: BTreeMap<(Rendition, Msn), ByteChain>,
    uploading: BTreeMap<(Rendition, Msn), Segment>,
    stored: BTreeMap<Rendition, BTreeSet<Msn>>,
}

impl Objects {
    /// Segments that are not complete never will be.
    pub(super) fn drop_open(&mut self) {
        self.bodies.clear();
    }
    /// Nothing is on its way.
    pub(super) fn is_settled(&self) -> bool {
        self.uploading.is_empty()
    }
    /// The newest stored segment of each rendition.
    pub(super) fn stored(&self) -> impl Iterator<Item = (Rendition, Msn)> {
        self.stored.iter().filter_map(|(r, set)| Some((r.clone(), *set.last()?)))
    }
}

impl WorkerJob {
    pub(super) fn on_packaged(
        &mut self,
        now: Millis,
        rung: &RungId,
        packaged: Packaged,
    ) -> Result<(), FragmentError> {
        match packaged {
            Packaged::Init { rendition, version, info, bytes } => {
                self.on_init(now, rendition, version, info, bytes)
            }
            Packaged::PartTarget { rendition, target } => {
                let known =
                    self.author.view().renditions.get(&rendition).is_some_and(|r| r.part_target.is_some());
                if known {
                    Ok(())
                } else {
                    self.announce(now, &Fact::PartTarget { rendition, target }, Bytes::new())
                }
            }
            Packaged::Part(part, body) => self.on_part(now, part, body),
            Packaged::Segment(segment) => self.on_segment(now, segment),
            Packaged::Flushed => self.on_flushed(now, rung),
        }
    }

    /// A description that is given again is announced again when it declares more than before, by whichever author:
    /// what was declared once is never taken back.
    fn on_init(
        &mut self,
        now: Millis,
        rendition: Rendition,
        version: InitVersion,
        mut info: TrackInfo,
        bytes: Bytes,
    ) -> Result<(), FragmentError> {
        let epoch = self.grant.epoch;
        let inits = self.author.view().renditions.get(&rendition).map(|r| &r.inits[..]).unwrap_or_default();
        let known = inits.iter().find(|i| (i.epoch, i.version) == (epoch, version));
        let declared = known.map_or(0, |i| i.info.bandwidth);
        let more = info.bandwidth > declared;
        info.bandwidth = info.bandwidth.max(declared);
        if self.objects.inits.insert((rendition.clone(), version)) {
            self.out.push_back(Output::UploadInit(rendition.clone(), version, bytes.clone()));
        } else if !more {
            return Ok(());
        }
        self.announce(now, &Fact::Init { rendition, version, info }, bytes)
    }

    fn on_part(&mut self, now: Millis, part: Part, body: ByteChain) -> Result<(), FragmentError> {
        if part.msn < self.intake.resume() {
            return Ok(());
        }
        let key = (part.rendition.clone(), part.msn);
        let slot = self.author.view().slots.iter().find(|s| s.msn == part.msn);
        let track = slot.and_then(|s| s.tracks.get(&part.rendition));
        let known = track.is_some_and(|t| t.segment.is_some() || t.parts.len() > part.part.0 as usize);
        // What the ring keeps for repairs is what is uploaded.
        let body = if known || !self.active {
            body
        } else {
            self.author.announce_chain(now, &Fact::Part(part), &body)?
        };
        self.collect();
        self.objects.bodies.entry(key).or_default().extend(body);
        Ok(())
    }

    fn on_segment(&mut self, now: Millis, segment: Segment) -> Result<(), FragmentError> {
        let key = (segment.rendition.clone(), segment.msn);
        let Some(body) = self.objects.bodies.remove(&key) else { return Ok(()) };
        let slot = self.author.view().slots.iter().find(|s| s.msn == segment.msn);
        if slot.and_then(|s| s.tracks.get(&segment.rendition)).is_some_and(|t| t.stored) {
            return Ok(());
        }
        self.objects.uploading.insert(key, segment.clone());
        self.out.push_back(Output::Upload(segment.clone(), body));
        self.announce(now, &Fact::Segment(segment), Bytes::new())?;
        self.trim(now)
    }

    pub(super) fn on_stored(
        &mut self,
        now: Millis,
        rendition: Rendition,
        msn: Msn,
    ) -> Result<(), FragmentError> {
        let Some(segment) = self.objects.uploading.remove(&(rendition.clone(), msn)) else { return Ok(()) };
        let Grant { stream, epoch, generation, .. } = self.grant;
        let broadcast = self.grant.open.broadcast;
        self.out.push_back(Output::Index(IndexFact { stream, broadcast, epoch, generation, segment }));
        self.objects.stored.entry(rendition.clone()).or_default().insert(msn);
        self.announce(now, &Fact::Stored { rendition, msn }, Bytes::new())?;
        let (epoch, first) = (self.grant.epoch, self.grant.open.first_msn);
        let oldest = apply::resume_msn(self.author.view(), epoch, first);
        self.author.keep_from(now, oldest);
        Ok(())
    }

    pub(super) fn trim(&mut self, now: Millis) -> Result<(), FragmentError> {
        let window = u64::from(self.grant.settings.window) * 1000;
        match apply::trim_to(self.author.view(), window) {
            Some(first) => self.announce(now, &Fact::Trim { first }, Bytes::new()),
            None => Ok(()),
        }
    }
}
