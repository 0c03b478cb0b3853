//! The audio of the newest segment: it may run ahead of the pictures, but must not outgrow the target duration.

/// The audio of the segment that audio was added to last, in 90 kHz ticks.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct AudioSpan {
    /// The segment and the start of its first audio frame; `None` before any audio.
    first: Option<(u64, i64)>,
    end: i64,
}

impl AudioSpan {
    /// Adds a frame of segment `msn`.
    pub(super) fn add(&mut self, msn: u64, start: i64, end: i64) {
        self.first = self.first.filter(|(segment, _)| *segment == msn).or(Some((msn, start)));
        self.end = end;
    }

    /// Returns the end of the newest frame.
    pub(super) const fn end(&self) -> i64 {
        self.end
    }

    /// Returns the duration of the audio of segment `msn` up to `end`; 0 if it has none yet.
    pub(super) fn length_to(&self, end: i64, msn: u64) -> i64 {
        self.first.filter(|(segment, _)| *segment == msn).map_or(0, |(_, start)| end - start)
    }
}
