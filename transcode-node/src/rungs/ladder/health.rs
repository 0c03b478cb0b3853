//! The health of the encoded rungs: the transcoder's reports as figures for metrics and as the message for the session.

use std::collections::BTreeSet;

use millrace_codec::engine::order::RungIndex;
use millrace_codec::engine::product::{Condition, Report, RungReport};
use millrace_wire::ids::Rendition;
use millrace_wire::message::ladder_health::{LadderHealth, MediaCondition, RungHealth, RungState};

use crate::rungs::{LadderNews, RungFigures};

/// Figures that wait for the job, which takes them several times a second.
const MAX_FIGURES: usize = 64;
/// Microseconds of a second.
const SECOND_US: u64 = 1_000_000;

/// One rung's figures of the last report.
#[derive(Debug)]
struct Shown {
    rendition: Rendition,
    encoder: Option<String>,
    fps_milli: u32,
    bitrate: u64,
    speed_percent: u32,
    waiting_ms: u32,
    has_pictures: bool,
}

/// The health of the encoded rungs of one job.
#[derive(Debug)]
pub(super) struct Health {
    rungs: Vec<Shown>,
    conditions: BTreeSet<MediaCondition>,
    decoder_waiting_ms: u32,
    figures: Vec<RungFigures>,
    taken: Option<LadderHealth>,
}

impl Health {
    /// Creates the health of rungs that have not started, in the order of their numbers.
    pub(super) fn new(renditions: impl Iterator<Item = Rendition>) -> Self {
        let shown = |rendition| Shown {
            rendition,
            encoder: None,
            fps_milli: 0,
            bitrate: 0,
            speed_percent: 0,
            waiting_ms: 0,
            has_pictures: false,
        };
        Self {
            rungs: renditions.map(shown).collect(),
            conditions: BTreeSet::new(),
            decoder_waiting_ms: 0,
            figures: Vec::new(),
            taken: None,
        }
    }

    /// Notes the encoder that was opened for a rung.
    pub(super) fn started(&mut self, rung: RungIndex, encoder: &str) {
        if let Some(shown) = self.rungs.get_mut(usize::from(rung.0)) {
            shown.encoder = Some(encoder.to_owned());
        }
    }

    /// Notes that the transcoder has ended: its conditions are no longer known.
    pub(super) fn ended(&mut self) {
        self.conditions.clear();
        self.decoder_waiting_ms = 0;
        for shown in &mut self.rungs {
            (shown.fps_milli, shown.bitrate, shown.speed_percent, shown.waiting_ms) = (0, 0, 0, 0);
            shown.has_pictures = false;
        }
    }

    /// Takes the beginning or the end of a condition.
    pub(super) fn condition(&mut self, condition: Condition, begins: bool) {
        let condition = match condition {
            Condition::Black => MediaCondition::Black,
            Condition::Frozen => MediaCondition::Frozen,
            Condition::Silent => MediaCondition::Silent,
            Condition::DecodeErrors => MediaCondition::DecodeErrors,
        };
        if begins {
            self.conditions.insert(condition);
        } else {
            self.conditions.remove(&condition);
        }
    }

    /// Takes a report. A rung that it does not name has encoded nothing since the last one.
    pub(super) fn report(&mut self, report: &Report) {
        self.decoder_waiting_ms = u32::try_from(report.waiting_ms).unwrap_or(u32::MAX);
        for (index, shown) in self.rungs.iter_mut().enumerate() {
            let rung = report.rungs.iter().find(|rung| usize::from(rung.rung.0) == index);
            let Some(rung) = rung else {
                (shown.fps_milli, shown.bitrate, shown.speed_percent, shown.waiting_ms) = (0, 0, 0, 0);
                continue;
            };
            shown.take(report.media_us, rung);
            if self.figures.len() < MAX_FIGURES {
                self.figures.push(RungFigures {
                    rendition: shown.rendition.clone(),
                    pictures: rung.pictures,
                    bytes: rung.bytes,
                    media_us: report.media_us,
                    encode_us: rung.encode_us,
                    waiting_ms: rung.waiting_ms,
                });
            }
        }
    }

    /// Returns what has changed since the last call. `state` gives the state of a rung that has encoded pictures, if it is
    /// another than encoding.
    pub(super) fn take(&mut self, state: impl Fn(RungIndex) -> Option<RungState>) -> Option<LadderNews> {
        let rung = |(index, shown): (usize, &Shown)| {
            let own = if shown.has_pictures { RungState::Encoding } else { RungState::Starting };
            let index = RungIndex(u8::try_from(index).unwrap_or(u8::MAX));
            RungHealth {
                rendition: shown.rendition.clone(),
                state: state(index).unwrap_or(own),
                encoder: shown.encoder.clone(),
                fps_milli: shown.fps_milli,
                bitrate: shown.bitrate,
                speed_percent: shown.speed_percent,
                waiting_ms: shown.waiting_ms,
            }
        };
        let health = LadderHealth {
            rungs: self.rungs.iter().enumerate().map(rung).collect(),
            conditions: self.conditions.iter().copied().collect(),
            decoder_waiting_ms: self.decoder_waiting_ms,
        };
        let figures = std::mem::take(&mut self.figures);
        if self.taken.as_ref() == Some(&health) && figures.is_empty() {
            return None;
        }
        self.taken = Some(health.clone());
        Some(LadderNews { health, figures })
    }
}

impl Shown {
    fn take(&mut self, media_us: u64, rung: &RungReport) {
        let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        let per_second =
            |count: u64| count.saturating_mul(SECOND_US).checked_div(media_us).unwrap_or_default();
        self.fps_milli = narrow(per_second(rung.pictures.saturating_mul(1_000)));
        self.bitrate = per_second(rung.bytes.saturating_mul(8));
        let percent = media_us.saturating_mul(100).checked_div(rung.encode_us);
        self.speed_percent = narrow(percent.unwrap_or_default());
        self.waiting_ms = narrow(rung.waiting_ms);
        self.has_pictures |= rung.pictures > 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNG: RungReport =
        RungReport { rung: RungIndex(0), pictures: 30, bytes: 350_000, encode_us: 250_000, waiting_ms: 40 };

    fn health() -> Health {
        Health::new(["720p", "480p"].into_iter().map(|name| name.parse().unwrap()))
    }

    fn report(rungs: Vec<RungReport>) -> Report {
        Report { media_us: SECOND_US, waiting_ms: 12, rungs, ..Report::default() }
    }

    #[test]
    fn report_gives_figures_of_a_second_of_media() {
        let mut health = health();
        health.started(RungIndex(0), "x264");
        health.report(&report(vec![RUNG]));
        let LadderNews { health: shown, figures } = health.take(|_| None).unwrap();
        let first = &shown.rungs[0];
        assert_eq!((first.fps_milli, first.bitrate, first.speed_percent), (30_000, 2_800_000, 400));
        assert_eq!((first.state, first.encoder.as_deref()), (RungState::Encoding, Some("x264")));
        assert_eq!((shown.rungs[1].state, shown.decoder_waiting_ms), (RungState::Starting, 12));
        assert_eq!(figures.len(), 1);
        assert_eq!((figures[0].rendition.as_str(), figures[0].pictures), ("720p", 30));
        assert!(health.take(|_| None).is_none(), "nothing has changed");
        health.report(&Report::default());
        let news = health.take(|_| None).unwrap();
        assert_eq!((news.health.rungs[0].fps_milli, news.health.rungs[0].speed_percent), (0, 0));
    }

    #[test]
    fn states_and_conditions_are_news_and_end_with_the_transcoder() {
        let mut health = health();
        assert!(health.take(|_| None).is_some(), "the first report says what starts");
        health.condition(Condition::Silent, true);
        health.condition(Condition::Black, true);
        let news = health.take(|_| None).unwrap();
        assert_eq!(news.health.conditions, [MediaCondition::Black, MediaCondition::Silent]);
        health.condition(Condition::Black, false);
        health.take(|_| None).unwrap();
        let shed = |rung: RungIndex| (rung.0 == 0).then_some(RungState::Shed);
        assert_eq!(health.take(shed).unwrap().health.left_out(), 1);
        health.ended();
        assert!(health.take(shed).unwrap().health.conditions.is_empty());
    }
}
