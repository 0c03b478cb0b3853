//! The start of a transcoder, and what follows from its end: the next one encodes again what is owed.
//!
//! The rungs lose nothing of it that was not announced. A rung goes on behind its last complete part with an IDR picture;
//! what it had announced of the open segment stays. Until the new transcoder has caught up the rungs are late, and list no GAP:
//! players wait for late parts, and skip a GAP.

use millrace_codec::engine::order::{Order, RungIndex};
use millrace_media::time::Timescale;
use millrace_wire::ids::Msn;

use super::recent::Kept;
use super::{LadderRung, Transcoder};
use crate::encoders::{Behind, Ended};

/// Segments that ended so many 90 kHz ticks ago are not encoded again, but listed as GAP: players are six seconds behind the
/// source (three target durations), and have run dry by then.
const MAX_OWED_TICKS: i64 = 10 * Timescale::VIDEO.ticks_per_second() as i64;

/// The decoding times from which on pictures and sound are encoded; what lies before is only decoded.
#[derive(Debug, Clone, Copy)]
struct EncodeFrom {
    pictures: i64,
    sound: i64,
}

impl LadderRung {
    /// Starts a transcoder before the first frame of segment `msn`, if none runs and the policy allows it. Unless that frame is a
    /// keyframe, the transcoder first decodes the pictures since one.
    pub(super) fn start(&mut self, msn: u64, keyframe: bool) -> Result<(), Behind> {
        if self.transcoder != Transcoder::Absent || !self.policy.may_start(Msn(msn)) {
            return Ok(());
        }
        if keyframe {
            self.recent.forget_all();
        }
        self.start_transcoder()?;
        self.owe_sound(msn);
        Ok(())
    }

    /// Starts a transcoder, which decodes the newest media and encodes of them what is owed.
    fn start_transcoder(&mut self) -> Result<(), Behind> {
        self.transcoder = Transcoder::Runs;
        self.places = super::Places::default();
        self.configured.clear();
        self.encoders.send(Order::Start(self.plan.clone()))?;
        if self.rungs.iter().any(|rung| rung.is_shed) {
            let kept = self.rungs.iter().filter(|rung| !rung.is_shed).map(|rung| rung.index);
            self.encoders.send(Order::Encode(kept.collect::<Vec<RungIndex>>()))?;
        }
        let from = self.encode_from();
        let mut sounds = self.recent.sounds();
        for step in self.recent.steps() {
            match step {
                Kept::Video(start) => self.configure_video(start)?,
                Kept::Audio(config) => self.configure_audio(config)?,
                Kept::Picture(picture) => {
                    let encode = picture.place.dts >= from.pictures;
                    self.send_picture(picture, encode)?;
                }
                Kept::Sound(sound) => {
                    for before in sounds.drain(..) {
                        self.send_sound(before, false)?;
                    }
                    let encode = sound.ticks >= from.sound;
                    self.send_sound(sound, encode)?;
                }
            }
        }
        sounds.into_iter().try_for_each(|sound| self.send_sound(sound, false))
    }

    /// Returns the times from which on something is owed.
    fn encode_from(&self) -> EncodeFrom {
        let pictures = self.rungs.iter().filter_map(|rung| rung.needs_from(&self.segments)).min();
        let sound = self.sound.track.owed.first().and_then(|msn| self.segments.get(msn));
        EncodeFrom {
            pictures: pictures.unwrap_or(i64::MAX),
            sound: sound.map_or(i64::MAX, |span| span.start),
        }
    }

    /// Takes the end of a transcoder: another one encodes again what is owed, unless transcoders have died too often.
    pub(super) fn transcoder_ended(&mut self, ended: &Ended) {
        let open = self.segments.newest().unwrap_or_default();
        let flushes = self.transcoder == Transcoder::Flushes;
        let is_tried_again = self.policy.died(Msn(open), flushes);
        let first = self.first_to_repeat().filter(|_| is_tried_again);
        let (cause, first_again) = (ended.cause.name(), first.unwrap_or_default());
        let Some(first) = first else {
            tracing::warn!(
                msn = open,
                cause,
                "{ended}; the encoded rungs are left out until a later segment"
            );
            self.lose_transcoder();
            if flushes {
                self.end();
            }
            return;
        };
        tracing::warn!(msn = open, cause, first_again, "{ended}; another one encodes again what is owed");
        self.health.ended();
        for rung in &mut self.rungs {
            if rung.is_wanted() {
                rung.rewind(first);
            } else {
                rung.lose();
            }
        }
        self.sound.rewind(first);
        if self.encode_again(flushes) == Err(Behind) {
            self.fall_behind();
            if flushes {
                self.end();
            }
        }
    }

    fn encode_again(&mut self, flushes: bool) -> Result<(), Behind> {
        self.start_transcoder()?;
        if flushes {
            self.encoders.send(Order::Flush)?;
            self.transcoder = Transcoder::Flushes;
        }
        Ok(())
    }

    /// Returns the oldest segment that is encoded again if it is owed; `None` if the media that are kept begin too late.
    fn first_to_repeat(&self) -> Option<u64> {
        let now = self.source.end();
        let is_recent = |span: &super::segments::Span| {
            let ended = self.segments.duration(span).map(|ticks| span.start + ticks as i64);
            ended.is_none_or(|ended| now - ended <= MAX_OWED_TICKS)
        };
        self.segments.first(|span| is_recent(span) && self.recent.covers(span)).map(|span| span.msn)
    }

    /// Gives the transcoder up, because it is too far behind.
    pub(super) fn fall_behind(&mut self) {
        let msn = self.segments.newest().unwrap_or_default();
        tracing::warn!(
            msn,
            "the encoders are too far behind: the encoded rungs are left out for some segments"
        );
        self.policy.fell_behind(Msn(msn));
        self.lose_transcoder();
    }

    /// Loses everything that the transcoder has not handed in.
    fn lose_transcoder(&mut self) {
        self.transcoder = Transcoder::Absent;
        self.health.ended();
        self.rungs.iter_mut().for_each(super::VideoRung::lose);
        self.sound.reset();
        self.sound.track.owed.lose_through(u64::MAX);
    }
}
