//! What a row of the table demands, and the comparison with what was seen.

use std::ops::RangeInclusive;

use millrace_wire::close_reason::CloseReason;

use crate::seen::Seen;

/// The demands of one row. [`Want::whole`] is the strictest; a row relaxes it by name.
#[derive(Debug, Clone)]
#[allow(clippy::struct_excessive_bools, reason = "each is a demand of its own, named where a row relaxes it")]
pub(crate) struct Want {
    /// The publish is refused or ended with this reason, and these words are in its description.
    pub(crate) ends: Option<(CloseReason, &'static str)>,
    /// Pictures and audio frames that may be missing.
    pub(crate) video_lost: RangeInclusive<usize>,
    pub(crate) audio_lost: RangeInclusive<usize>,
    /// Audio frames that may be made up.
    pub(crate) audio_invented: RangeInclusive<usize>,
    /// Pictures that may be made up.
    pub(crate) video_invented: RangeInclusive<usize>,
    pub(crate) discontinuities: RangeInclusive<usize>,
    /// The shortest picture and the longest, in milliseconds.
    pub(crate) shortest_ms: f64,
    pub(crate) longest_ms: f64,
    /// Distance between true and served times within a track, and between the tracks, in milliseconds.
    pub(crate) strayed_ms: f64,
    pub(crate) apart_ms: f64,
    /// Distance in seconds between the ends of both tracks' playlists at any moment.
    pub(crate) playlists_apart_s: f64,
    /// Seconds between the first frame and the first playable playlist.
    pub(crate) playable_within_s: f64,
    /// Every segment begins with a picture that decoding can start at.
    pub(crate) independent: bool,
    /// Parts that end at a boundary which cannot be foreseen: their hints may be broken.
    pub(crate) hints_broken: RangeInclusive<usize>,
    /// Parts may be shorter than 85 % of PART-TARGET, because pictures are missing in them.
    pub(crate) short_parts: bool,
    /// The health may say that something is repaired again and again.
    pub(crate) may_degrade: bool,
    /// Words that the health must show, and nothing but `ok` if there are none.
    pub(crate) health: Vec<&'static str>,
    /// Text that the multivariant playlist must have.
    pub(crate) multivariant: Vec<String>,
    /// Text that the multivariant playlist must have when the publish ends.
    pub(crate) multivariant_at_end: Vec<&'static str>,
    /// A viewer of the first multivariant playlist is not owed the tracks that came later.
    pub(crate) first_tracks_only: bool,
    /// Every picture can be decoded: those that it refers to were sent.
    pub(crate) decodes: bool,
    /// The clip's pictures carry their number.
    pub(crate) numbered: bool,
}

impl Want {
    /// Everything that is sent is served, in order, on time, without a repair.
    pub(crate) fn whole() -> Self {
        Self {
            ends: None,
            video_lost: 0..=0,
            audio_lost: 0..=0,
            audio_invented: 0..=0,
            video_invented: 0..=0,
            discontinuities: 0..=0,
            shortest_ms: 25.0,
            longest_ms: 42.0,
            strayed_ms: 20.0,
            apart_ms: 25.0,
            playlists_apart_s: 3.0,
            playable_within_s: 4.0,
            independent: true,
            hints_broken: 0..=0,
            short_parts: false,
            may_degrade: false,
            health: Vec::new(),
            multivariant: Vec::new(),
            multivariant_at_end: Vec::new(),
            first_tracks_only: false,
            decodes: true,
            numbered: true,
        }
    }

    /// The publish ends with `reason`, and its description holds `words`.
    pub(crate) fn ends(reason: CloseReason, words: &'static str) -> Self {
        Self { ends: Some((reason, words)), ..Self::whole() }
    }

    /// Everything about `seen` that is not as wanted.
    pub(crate) fn faults(&self, seen: &Seen) -> Vec<String> {
        let mut faults = Faults(Vec::new());
        if let Some((reason, words)) = self.ends {
            self.ended(reason, words, seen, &mut faults);
            return faults.0;
        }
        if let Some((code, description)) = &seen.told.refused {
            faults.0.push(format!("the encoder was told {code}: {description}"));
        }
        self.served(seen, &mut faults);
        faults.0.extend(seen.page_faults.iter().cloned());
        self.operator(seen, &mut faults);
        faults.0
    }

    fn ended(&self, reason: CloseReason, words: &str, seen: &Seen, faults: &mut Faults) {
        let Some((code, description)) = &seen.told.refused else {
            let closed = if seen.told.closed { "closed without a status" } else { "not ended" };
            faults.0.push(format!("the publish was {closed}, not ended with {reason}"));
            return;
        };
        let status = reason.rtmp_status().unwrap_or_default();
        faults.hold(code == status, || format!("the encoder was told {code}, not {status}: {description}"));
        faults.hold(description.contains(words), || format!("{description:?} has not the words {words:?}"));
        let last = &seen.last_status["last_disconnect"];
        let text = last["text"].as_str().unwrap_or_default();
        faults.hold(last["code"] == reason.code() && text.contains(words), || {
            format!("the status says {last} of an end with {reason}, {words:?}")
        });
        self.health_words(seen, faults);
    }

    fn health_words(&self, seen: &Seen, faults: &mut Faults) {
        for words in &self.health {
            faults.hold(seen.health.iter().any(|line| line.contains(words)), || {
                format!("the health never had the words {words:?}: {:?}", seen.health)
            });
        }
    }

    fn served(&self, seen: &Seen, faults: &mut Faults) {
        let Some(watched) = &seen.watched else {
            faults.0.push(format!("nothing could be watched: {}", seen.trouble.as_deref().unwrap_or("?")));
            return;
        };
        for (name, track, lost, invented) in [
            ("pictures", &seen.video, &self.video_lost, &self.video_invented),
            ("audio frames", &seen.audio, &self.audio_lost, &self.audio_invented),
        ] {
            if self.first_tracks_only && track.units.is_empty() {
                continue;
            }
            faults.within(&format!("{name} lost"), track.lost.len(), lost);
            faults.within(&format!("{name} made up"), track.invented, invented);
            faults.within(&format!("{name} served twice"), track.twice, &(0..=0));
            faults.within(&format!("{name} out of order"), track.out_of_order, &(0..=0));
            if track.units.is_empty() {
                continue;
            }
            faults.within(&format!("discontinuities of {name}"), track.periods - 1, &self.discontinuities);
            faults.below(&format!("hole between {name}, ms"), track.hole, 0.5);
            faults.below(&format!("overlap of {name}, ms"), track.overlap, 0.5);
            faults.below(&format!("straying of {name}, ms"), track.strayed, self.strayed_ms);
        }
        if !seen.video.units.is_empty() {
            faults.hold(seen.video.shortest >= self.shortest_ms, || {
                format!("a picture lasts {:.1} ms, at least {} wanted", seen.video.shortest, self.shortest_ms)
            });
            faults.below("longest picture, ms", seen.video.longest, self.longest_ms);
        }
        faults.below("pictures and sound apart, ms", seen.apart, self.apart_ms);
        if !seen.audio.units.is_empty() && !seen.video.units.is_empty() {
            faults.below("ends of the playlists apart, s", seen.playlists_apart, self.playlists_apart_s);
        }
        faults.below("playable after, s", watched.playable_after.as_secs_f64(), self.playable_within_s);
        if self.independent {
            faults.within(
                "segments that are not independent",
                seen.video.segments - seen.video.independent,
                &(0..=0),
            );
        }
        for text in &self.multivariant {
            faults.hold(watched.multivariant.contains(text.as_str()), || {
                format!("no {text} in\n{}", watched.multivariant)
            });
        }
        for text in &self.multivariant_at_end {
            faults.hold(seen.multivariant_at_end.contains(text), || {
                format!("no {text} at the end in\n{}", seen.multivariant_at_end)
            });
        }
        self.players(seen, faults);
    }

    fn players(&self, seen: &Seen, faults: &mut Faults) {
        let Some(watched) = &seen.watched else { return };
        for track in [&watched.video, &watched.audio] {
            faults.0.extend(track.violations.iter().take(3).cloned());
            faults.0.extend(track.unanswered.iter().take(3).cloned());
            let broken: Vec<_> = track.hints.iter().filter(|hint| hint.is_broken()).collect();
            faults.within("broken hints", broken.len(), &self.hints_broken);
            for hint in broken.iter().take(3).filter(|_| !self.hints_broken.contains(&broken.len())) {
                faults.0.push(format!("{} was answered {} after {:?}", hint.uri, hint.status, hint.took));
            }
        }
        let is_short = |fault: &&String| fault.contains("PartTooShort");
        let playlist = seen.playlist_faults.iter().filter(|fault| !self.short_parts || !is_short(fault));
        faults.0.extend(playlist.take(5).cloned());
        faults.0.extend(seen.decoded.complaints.iter().cloned());
        if !self.decodes {
            return;
        }
        let decoded = seen.decoded.pictures.len();
        faults.hold(decoded == seen.video.units.len(), || {
            format!("{decoded} pictures decoded of {} served", seen.video.units.len())
        });
        if self.numbered && !seen.video.units.is_empty() {
            let numbers: Vec<u16> = seen.decoded.pictures.iter().flatten().copied().collect();
            faults.hold(numbers.len() == decoded, || {
                format!("{} pictures have no readable number", decoded - numbers.len())
            });
            // A made-up picture repeats the one before it.
            let repeated = *self.video_invented.end() > 0;
            let in_order = |pair: &[u16]| pair[0] < pair[1] || repeated && pair[0] == pair[1];
            faults.hold(numbers.windows(2).all(in_order), || "pictures are decoded out of order".to_owned());
        }
    }

    fn operator(&self, seen: &Seen, faults: &mut Faults) {
        self.health_words(seen, faults);
        if self.health.is_empty() && !self.may_degrade {
            let bad: Vec<_> = seen.health.iter().filter(|line| line.starts_with("degraded")).collect();
            faults.hold(bad.is_empty(), || format!("the health says {bad:?}"));
        }
    }
}

struct Faults(Vec<String>);

impl Faults {
    fn hold(&mut self, holds: bool, text: impl FnOnce() -> String) {
        if !holds {
            self.0.push(text());
        }
    }

    fn within(&mut self, what: &str, value: usize, range: &RangeInclusive<usize>) {
        self.hold(range.contains(&value), || format!("{what}: {value}, wanted {range:?}"));
    }

    fn below(&mut self, what: &str, value: f64, limit: f64) {
        self.hold(value <= limit, || format!("{what}: {value:.1}, at most {limit} wanted"));
    }
}
