//! The rate of configuration changes of one publish. Knows no clock: the caller passes the time.

use std::collections::VecDeque;
use std::time::Duration;

use millrace_media::frame::{TrackConfig, TrackKind};

use crate::limits::{CONFIG_CHANGE_WINDOW, MAX_CONFIG_CHANGES};

/// Counts the configurations that differ from the one before and compares their number within the window with the limit.
#[derive(Debug, Default)]
pub(crate) struct ConfigChanges {
    video: Option<TrackConfig>,
    audio: Option<TrackConfig>,
    /// The times of the changes within the window, oldest first; at most one more than the limit.
    changes: VecDeque<Duration>,
}

impl ConfigChanges {
    /// Takes a configuration that comes at `now`; returns false if there are too many changes within the window.
    pub(crate) fn add(&mut self, now: Duration, config: &TrackConfig) -> bool {
        let newest = match config.track() {
            TrackKind::Video => &mut self.video,
            TrackKind::Audio => &mut self.audio,
        };
        if newest.as_ref() == Some(config) {
            return true;
        }
        // The first configuration of a track changes nothing.
        if newest.replace(config.clone()).is_none() {
            return true;
        }
        while self.changes.front().is_some_and(|change| now.saturating_sub(*change) >= CONFIG_CHANGE_WINDOW) {
            self.changes.pop_front();
        }
        self.changes.push_back(now);
        self.changes.len() <= MAX_CONFIG_CHANGES
    }
}

#[cfg(test)]
mod tests {
    use millrace_media::frame::AudioConfig;

    use super::*;

    fn config(number: usize) -> TrackConfig {
        TrackConfig::Audio(AudioConfig::aac_lc([48_000, 44_100][number % 2], 2).unwrap())
    }

    #[test]
    fn changes_beyond_the_limit_within_the_window_are_too_many() {
        let mut changes = ConfigChanges::default();
        assert!((0..=MAX_CONFIG_CHANGES).all(|number| changes.add(Duration::ZERO, &config(number))));
        assert!(!changes.add(Duration::ZERO, &config(MAX_CONFIG_CHANGES + 1)));
    }

    #[test]
    fn changes_at_every_second_keyframe_and_repeated_configurations_are_no_trouble() {
        let mut changes = ConfigChanges::default();
        for number in 0..1_000 {
            let now = Duration::from_secs(2 * number as u64);
            assert!(changes.add(now, &config(number)));
            assert!(changes.add(now, &config(number)), "the same again");
        }
        assert!(changes.changes.len() <= MAX_CONFIG_CHANGES);
    }
}
