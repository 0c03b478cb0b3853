//! The kinds of repair: nothing is dropped, invented or moved in silence.
//!
//! Each stage that a frame passes ([`Timeline`](crate::timeline::Timeline),
//! [`Segmenter`](crate::segmenter::Segmenter), [`Packager`](crate::packager::Packager), and the source before them)
//! holds one [`RepairCounts`] and adds to it whenever it changes what the encoder sent. The node that runs the stage
//! turns the counts into its metrics, log lines and the stream's health; the words for all three stand here.
//!
//! The text of a kind is one sentence: the condition, a colon, and the cause, which also stands alone ([`Repair::cause`]).
//! The code of a kind that concerns the audio track holds the word `audio`.

/// What happens to the media by a repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RepairClass {
    /// Media keep their bytes and get another time or another place.
    Moved,
    /// Media that arrived are not sent on.
    Dropped,
    /// Media or boundaries are made up that the encoder did not send.
    Invented,
}

macro_rules! repairs {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $class:ident, $text:literal;)*) => {
        /// A kind of repair. Codes are stable: they are the label `reason` of metrics.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Repair {
            $($(#[$doc])* $name,)*
        }
        impl Repair {
            /// All kinds, in the order of their declaration.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
            /// Returns the stable code of the kind.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }
            /// Returns what the repair does to the media.
            pub const fn class(self) -> RepairClass {
                match self { $(Self::$name => RepairClass::$class,)* }
            }
            /// Returns one sentence for the log and the stream's health: what is wrong, and the likely cause.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

// One line per kind keeps this a table.
#[rustfmt::skip]
repairs! {
    /// A configuration record that cannot be read was ignored.
    ConfigRefused = "config_refused", Dropped,
        "A sequence header cannot be read and is ignored: the configuration before it stays in force.";
    /// A picture was dropped because no video configuration came before it.
    UnconfiguredPicture = "unconfigured_picture", Dropped,
        "Pictures cannot be used: the encoder sends no sequence header.";
    /// An audio frame was dropped because no audio configuration came before it.
    UnconfiguredAudio = "unconfigured_audio", Dropped,
        "Audio cannot be used: the encoder sends no sequence header for audio.";
    /// A picture was dropped because the lengths of its NAL units do not add up.
    MalformedPicture = "malformed_picture", Dropped,
        "Pictures cannot be read: the lengths of their NAL units do not add up.";
    /// An access unit with start codes was given length prefixes.
    StartCodesReplaced = "start_codes_replaced", Moved,
        "Pictures have start codes (Annex B) in place of lengths: they are given lengths.";
    /// Zero bytes or empty NAL units that no length counts were removed from an access unit.
    StrayBytesRemoved = "stray_bytes_removed", Dropped,
        "Pictures have stray zero bytes between or behind their NAL units, which are removed.";
    /// A configuration was made of parameter sets that came with the pictures.
    ConfigFromPictures = "config_from_pictures", Invented,
        "The sequence header is missing or differs from the pictures: the parameter sets among the pictures are used.";
    /// A sequence header without parameter sets, which configures nothing, was left out.
    EmptyConfig = "empty_config", Dropped,
        "The sequence header is empty: the parameter sets among the pictures are waited for.";
    /// NAL units that came in a message without a picture were joined to the next picture.
    MessageWithoutPicture = "message_without_picture", Moved,
        "Messages hold parameter sets and no picture: they are joined to the next picture.";
    /// A picture was dropped because it refers to pictures before the first one of the stream.
    LeadingPicture = "leading_picture", Dropped,
        "Pictures that refer to pictures before the start of the stream are left out.";
    /// The ADTS header in front of an AAC frame was removed.
    AdtsHeaderRemoved = "adts_header_removed", Dropped,
        "AAC frames have ADTS headers, which are removed.";
    /// A message without any media was left out.
    EmptyMessage = "empty_message", Dropped,
        "Messages without media are left out.";
    /// A message of a further track of a multitrack publish was left out.
    ExtraTrack = "extra_track", Dropped,
        "The publish has several video or audio tracks: track 0 is used, the others are left out.";
    /// A message of metadata inside the video or audio, such as of colours or channels, was left out.
    TrackMetadata = "track_metadata", Dropped,
        "Metadata inside the video or audio track is not used.";
    /// A picture's decoding time was moved forward, because decoding times must grow.
    DecodingTimeMoved = "decoding_time_moved", Moved,
        "The times of pictures do not grow: they are moved forward by the smallest step.";
    /// A picture that repeats the last one was added, because the encoder sends none.
    RepeatedPicture = "repeated_picture", Invented,
        "The last picture is repeated: the encoder sends no pictures for a while.";
    /// The pictures paused for so long that a hole is left in their decoding times.
    PictureHole = "picture_hole", Moved,
        "The pictures pause for longer than the last one can stand: the encoder sends no pictures.";
    /// A picture was put on the grid of a steady rate that the times of pictures jitter around.
    PictureTimeSteadied = "picture_time_steadied", Moved,
        "The times of pictures jitter around a steady rate: pictures are put on its grid.";
    /// A picture's decoding time was recovered: the encoder sends presentation times.
    DecodingTimeRecovered = "decoding_time_recovered", Moved,
        "The encoder sends presentation times as decoding times: decoding times are made from their order.";
    /// A picture was timed by its arrival, because the encoder's clock stands still.
    ClockStandsStill = "clock_stands_still", Moved,
        "The encoder's clock stands still: pictures are timed by their arrival.";
    /// A composition offset beyond the limit was replaced by zero or by the limit.
    CompositionOffsetReset = "composition_offset_reset", Moved,
        "A picture's composition offset is beyond 8 s: it is not used.";
    /// A picture or audio frame does not continue its track's clock: a discontinuity.
    ClockJump = "clock_jump", Moved,
        "The encoder's clock jumps: playback goes on behind a discontinuity.";
    /// An audio frame was dropped because there are more samples than time passes.
    AudioOverlap = "audio_overlap", Dropped,
        "Audio has more samples than time passes: single frames are left out, to stay with the pictures.";
    /// An audio frame was dropped because silence was sent for its time.
    AudioBehindSilence = "audio_behind_silence", Dropped,
        "Audio comes so late that silence was sent for its time: it is left out until it has caught up.";
    /// The offset of audio times was corrected, because the count of samples is right.
    AudioTimesStray = "audio_times_stray", Moved,
        "The encoder's audio times stray from the samples it sends: audio is timed by its samples.";
    /// The audio has a hole, which is filled with silence or left.
    AudioHole = "audio_hole", Moved,
        "The audio has holes: the encoder leaves audio frames out, or its audio times stray.";
    /// A silent frame was added in a hole between two audio frames.
    SilenceInHole = "silence_in_hole", Invented,
        "Holes of the audio are filled with silence.";
    /// A silent frame was added because announced audio stays away.
    SilenceForAbsentAudio = "silence_for_absent_audio", Invented,
        "Audio is replaced by silence: the encoder announced audio and sends none.";
    /// Silence was left out of a hole, because a sender may only have so much of it made up.
    SilenceLimit = "silence_limit", Moved,
        "Audio has holes beyond the limit of silence: they stay holes.";
    /// Repeated pictures were left out of a pause, because a sender may only have so many of them made up.
    RepeatLimit = "repeat_limit", Moved,
        "Pauses of the pictures go beyond the limit of repeated pictures: they stay holes.";
    /// A message with further slices of a picture was joined to it.
    SlicesJoined = "slices_joined", Moved,
        "The slices of a picture come in messages of their own: they are joined, and the picture is one frame later.";
    /// A picture was dropped because no keyframe came since the newest configuration.
    PictureBeforeKeyframe = "picture_before_keyframe", Dropped,
        "Pictures cannot be decoded: no keyframe has come since the encoder's newest configuration.";
    /// An audio frame was dropped because it was too old when the first segment began.
    EarlyAudio = "early_audio", Dropped,
        "Audio from before the first keyframe is left out.";
    /// A segment was begun without a keyframe in a stream with pictures.
    SegmentWithoutKeyframe = "segment_without_keyframe", Invented,
        "Segments begin without a keyframe: set the encoder's keyframe interval to 2 s.";
    /// A segment was begun with the first picture of a gradual refresh, in place of a keyframe.
    SegmentOnRefresh = "segment_on_refresh", Invented,
        "Segments begin with a gradual refresh in place of a keyframe, and browsers can join at keyframes only: turn intra refresh off in the encoder and set its keyframe interval to 2 s.";
    /// A media message was dropped because it breaks the format of its container or codec.
    UnreadableMessage = "unreadable_message", Dropped,
        "Media messages cannot be read: the encoder's output is damaged, or of an unknown form.";
    /// A frame was left out because its segment was closed already, or no boundary came before it.
    LateFrame = "late_frame", Dropped,
        "Frames come after their segment was closed, and are left out.";
}

impl Repair {
    /// Returns the likely cause alone, without its full stop: the text behind the colon.
    pub fn cause(self) -> &'static str {
        let text = self.text();
        text.split_once(": ").map_or(text, |(_, cause)| cause).trim_end_matches('.')
    }

    /// True if the repair concerns the audio track.
    pub fn is_audio(self) -> bool {
        self.code().contains("audio")
    }

    /// True if the repair makes good a habit of the encoder, or is part of any publish, without loss to viewers: it is counted
    /// and logged, and no condition to tell an operator of.
    pub const fn is_routine(self) -> bool {
        matches!(
            self,
            Self::EarlyAudio
                | Self::LeadingPicture
                | Self::StartCodesReplaced
                | Self::StrayBytesRemoved
                | Self::ConfigFromPictures
                | Self::MessageWithoutPicture
                | Self::SlicesJoined
                | Self::AdtsHeaderRemoved
                | Self::EmptyMessage
                | Self::EmptyConfig
                | Self::ExtraTrack
                | Self::TrackMetadata
                | Self::PictureTimeSteadied
                // A clock that stands still is told by a kind of its own.
                | Self::DecodingTimeMoved
                | Self::DecodingTimeRecovered
                | Self::AudioTimesStray
                // The hole is told.
                | Self::SilenceInHole
        )
    }
}

/// The number of repairs by kind since a stage began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RepairCounts([u64; Repair::ALL.len()]);

impl Default for RepairCounts {
    fn default() -> Self {
        Self::new()
    }
}

impl RepairCounts {
    /// Creates counts of zero.
    pub const fn new() -> Self {
        Self([0; Repair::ALL.len()])
    }

    /// Counts `n` more repairs of one kind.
    pub fn add(&mut self, repair: Repair, n: u64) {
        self.0[repair as usize] += n;
    }

    /// Returns the repairs of one kind.
    pub const fn get(&self, repair: Repair) -> u64 {
        self.0[repair as usize]
    }

    /// Returns the sum of all kinds.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Adds all counts of another stage.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count += more;
        }
    }

    /// Returns the counts that came after `earlier`, an older copy of these counts.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut counts = *self;
        for (count, before) in counts.0.iter_mut().zip(earlier.0) {
            *count = count.saturating_sub(before);
        }
        counts
    }

    /// Returns the kinds that occurred, with their counts, in the order of their declaration.
    pub fn iter(&self) -> impl Iterator<Item = (Repair, u64)> + '_ {
        Repair::ALL.iter().map(|repair| (*repair, self.get(*repair))).filter(|(_, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_metric_labels_and_texts_are_sentences() {
        let mut codes: Vec<&str> = Repair::ALL.iter().map(|repair| repair.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Repair::ALL.len());
        for repair in Repair::ALL {
            assert!(
                repair.code().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
                "{repair:?}"
            );
            assert!(
                repair.text().ends_with('.') && repair.text().starts_with(char::is_uppercase),
                "{repair:?}"
            );
        }
    }

    #[test]
    fn counts_since_an_older_copy_hold_the_difference_only() {
        let mut counts = RepairCounts::new();
        counts.add(Repair::ClockJump, 2);
        let earlier = counts;
        counts.add(Repair::LateFrame, 3);
        counts.add(Repair::ClockJump, 1);
        let since: Vec<_> = counts.since(&earlier).iter().collect();
        assert_eq!(since, [(Repair::ClockJump, 1), (Repair::LateFrame, 3)]);
        let mut sum = earlier;
        sum.merge(&counts.since(&earlier));
        assert_eq!((sum, sum.total()), (counts, 6));
    }
}
