//! The output of the packager: announced as it comes, uploaded when a segment is complete, indexed once it is stored.
//! Parts and segments that a predecessor announced are not announced again, only stored if they were not.

use bytes::Bytes;
use millrace_buf::ByteChain;
use millrace_wire::fact::{Fact, Part, RenditionGap, RenditionSegment, Segment, TrackInfo};
use millrace_wire::fragment::FragmentError;
use millrace_wire::ids::{InitVersion, Msn, Rendition, RungId};
use millrace_wire::message::announce::IndexFact;
use millrace_wire::message::job::Grant;

use super::io::{Output, Packaged};
use super::machine::WorkerJob;
use crate::state::query::{are_parts_of, has_ended_before, resume_msn, window_start};
use crate::time::Millis;

/// Most bytes of a segment that travel with its fact: half of the largest message, and of a log's replay buffer. 4 s of
/// 32 Mb/s are as many.
const MAX_SEGMENT_PAYLOAD: u64 = 16 << 20;

impl WorkerJob {
    /// Processes one product of `rung`. A superseded job takes none: of the segments that were open then, the rest alone would
    /// make a short object.
    pub(super) fn on_packaged(
        &mut self,
        now: Millis,
        rung: &RungId,
        packaged: Packaged,
    ) -> Result<(), FragmentError> {
        if !self.active {
            return Ok(());
        }
        let Some(packaged) = self.quiesce.hold_behind(rung, packaged) else { return Ok(()) };
        match packaged {
            Packaged::Init { rendition, version, info, bytes } => {
                self.on_init(now, rendition, version, info, bytes)
            }
            Packaged::PartTarget { rendition, target } => {
                let renditions = &self.writer.state().renditions;
                if renditions.get(&rendition).is_some_and(|known| known.part_target.is_some()) {
                    return Ok(());
                }
                self.announce(now, &Fact::PartTarget { rendition, target }, Bytes::new())
            }
            Packaged::Part(part, body) => self.on_part(now, part, body),
            Packaged::Segment(segment) => self.on_segment(now, segment),
            Packaged::Gap(gap) => self.on_rendition_gap(now, gap),
            Packaged::RenditionEnd { rendition, last } => self.on_rendition_end(now, rendition, last),
            Packaged::Flushed => self.on_flushed(now, rung),
        }
    }

    /// Announces an initialisation section. One that is given again is announced again if it declares a higher bandwidth
    /// than any generation before: what was declared once is never taken back.
    fn on_init(
        &mut self,
        now: Millis,
        rendition: Rendition,
        version: InitVersion,
        mut info: TrackInfo,
        bytes: Bytes,
    ) -> Result<(), FragmentError> {
        let epoch = self.grant.epoch;
        let described = self.writer.state().renditions.get(&rendition);
        let inits = described.map(|known| &known.inits[..]).unwrap_or_default();
        let known = inits.iter().find(|init| (init.epoch, init.version) == (epoch, version));
        let declared = known.map_or(0, |init| init.info.bandwidth);
        let declares_more = info.bandwidth > declared;
        info.bandwidth = info.bandwidth.max(declared);
        if self.objects.add_init(&rendition, version) {
            self.out.push_back(Output::UploadInit(rendition.clone(), version, bytes.clone()));
        } else if !declares_more {
            return Ok(());
        }
        self.announce(now, &Fact::Init { rendition, version, info }, bytes)
    }

    fn on_part(&mut self, now: Millis, part: Part, body: ByteChain) -> Result<(), FragmentError> {
        let key = (part.rendition.clone(), part.msn);
        if part.msn < self.intake.resume() || self.is_missing(&key) {
            return Ok(());
        }
        let is_known = self
            .track(&key)
            .is_some_and(|track| track.segment.is_some() || track.parts.len() > part.part.0 as usize);
        // The bytes that the replay buffer keeps for repair are the ones that are uploaded.
        let body = if is_known { body } else { self.writer.announce_chain(now, &Fact::Part(part), &body)? };
        self.publish_written();
        self.objects.push_part(key, body);
        Ok(())
    }

    fn on_segment(&mut self, now: Millis, segment: Segment) -> Result<(), FragmentError> {
        let key = (segment.rendition.clone(), segment.msn);
        let Some(body) = self.objects.take_open(&key) else { return Ok(()) };
        if self.is_missing(&key) || self.track(&key).is_some_and(|track| track.stored) {
            return Ok(());
        }
        let payload = if self.needs_payload(&key, &segment) { body.clone() } else { ByteChain::new() };
        self.objects.start_upload(key, segment.clone());
        self.out.push_back(Output::Upload(segment.clone(), body));
        self.writer.announce_chain(now, &Fact::Segment(segment), &payload)?;
        self.publish_written();
        self.trim(now)
    }

    /// True if readers cannot lay the segment together from the parts that the log lists, because a predecessor made some
    /// of them. A segment that no message holds is read from the store.
    fn needs_payload(&self, key: &(Rendition, Msn), segment: &Segment) -> bool {
        let own = self.grant.generation;
        let is_listed = |track: &RenditionSegment| are_parts_of(track, own, segment.parts);
        segment.bytes <= MAX_SEGMENT_PAYLOAD && !self.track(key).is_some_and(is_listed)
    }

    /// Announces a segment that one rendition failed to produce, even if a predecessor completed it but did not store it.
    /// Its parts are not uploaded: the object would be short.
    fn on_rendition_gap(&mut self, now: Millis, gap: RenditionGap) -> Result<(), FragmentError> {
        let key = (gap.rendition.clone(), gap.msn);
        self.objects.take_open(&key);
        let is_stored = self.track(&key).is_some_and(|track| track.stored);
        let is_kept = is_stored || self.objects.is_uploading(&key) || self.is_missing(&key);
        if gap.msn < self.intake.resume() || is_kept {
            return Ok(());
        }
        self.announce(now, &Fact::RenditionGap(gap), Bytes::new())?;
        self.trim(now)
    }

    fn on_rendition_end(
        &mut self,
        now: Millis,
        rendition: Rendition,
        last: Msn,
    ) -> Result<(), FragmentError> {
        let known = self.writer.state().renditions.get(&rendition);
        if known.is_none_or(|known| known.ended.is_some()) {
            return Ok(());
        }
        self.announce(now, &Fact::RenditionEnd { rendition, last }, Bytes::new())
    }

    /// Returns what the log shows of a segment in one rendition.
    fn track(&self, (rendition, msn): &(Rendition, Msn)) -> Option<&RenditionSegment> {
        let slot = self.writer.state().slots.iter().find(|slot| slot.msn == *msn)?;
        slot.tracks.get(rendition)
    }

    /// True if the log lists the segment as GAP in this rendition alone, or has ended the rendition before it.
    fn is_missing(&self, (rendition, msn): &(Rendition, Msn)) -> bool {
        let state = self.writer.state();
        let slot = state.slots.iter().find(|slot| slot.msn == *msn);
        slot.is_some_and(|slot| slot.rendition_gaps.contains_key(rendition))
            || has_ended_before(&state.renditions, rendition, *msn)
    }

    /// Announces and indexes a segment whose upload is finished.
    pub(super) fn on_stored(
        &mut self,
        now: Millis,
        rendition: Rendition,
        msn: Msn,
    ) -> Result<(), FragmentError> {
        let Some(segment) = self.objects.finish_upload(&(rendition.clone(), msn)) else { return Ok(()) };
        let Grant { stream, epoch, generation, .. } = self.grant;
        let broadcast = self.grant.open.broadcast;
        self.out.push_back(Output::Index(IndexFact { stream, broadcast, epoch, generation, segment }));
        self.announce(now, &Fact::Stored { rendition, msn }, Bytes::new())?;
        let oldest = resume_msn(self.writer.state(), epoch, self.grant.open.first_msn);
        self.writer.pin_from_segment(now, oldest);
        Ok(())
    }

    /// Moves the start of the window on, if it is longer than the settings ask for.
    pub(super) fn trim(&mut self, now: Millis) -> Result<(), FragmentError> {
        let window_ms = u64::from(self.grant.settings.window_s()) * 1000;
        match window_start(self.writer.state(), window_ms) {
            Some(first) => self.announce(now, &Fact::Trim { first }, Bytes::new()),
            None => Ok(()),
        }
    }
}
