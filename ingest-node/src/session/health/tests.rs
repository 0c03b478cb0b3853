//! The judge, with seconds of publishes that go wrong in one way each.

use super::*;

const LIMIT: Duration = Duration::from_secs(30);

/// A publish of 30 pictures and 47 audio frames a second.
struct Publish {
    judge: HealthJudge,
    seen: Observation,
    second: u64,
}

/// What happens to one second of it.
#[derive(Default, Clone)]
struct Second<'a> {
    usable: (bool, bool),
    repairs: &'a [(Repair, u64)],
    no_audio: bool,
}

const GOOD: Second<'static> = Second { usable: (true, true), repairs: &[], no_audio: false };

impl Publish {
    fn new() -> Self {
        let judge = HealthJudge::new(4, LIMIT);
        Self { judge, seen: Observation::default(), second: 0 }
    }

    fn second(&mut self, second: &Second<'_>) -> Result<bool, PublishEnd> {
        self.second += 1;
        let seen = &mut self.seen;
        let audio = if second.no_audio { 0 } else { 47 };
        seen.received.video += 30;
        seen.received.audio += audio;
        seen.usable.video += if second.usable.0 { 30 } else { 0 };
        seen.usable.audio += if second.usable.1 { audio } else { 0 };
        for (repair, count) in second.repairs {
            seen.repairs.add(*repair, *count);
        }
        self.judge.observe(Duration::from_secs(self.second), seen)
    }

    fn seconds(&mut self, count: u32, second: &Second<'_>) -> &mut Self {
        for _ in 0..count {
            self.second(second).unwrap();
        }
        self
    }

    fn notes(&self) -> Vec<(&str, &str)> {
        self.judge.notes().iter().map(|note| (note.code.as_str(), note.text.as_str())).collect()
    }
}

#[test]
fn judge_is_silent_about_a_good_publish_about_hiccups_and_about_what_is_mended_without_loss() {
    let mut publish = Publish::new();
    let hiccup = Second { repairs: &[(Repair::AudioHole, 1), (Repair::LateFrame, 2)], ..GOOD };
    for _ in 0..3 {
        publish.seconds(10, &GOOD).seconds(2, &hiccup).seconds(12, &GOOD);
        assert_eq!(publish.notes(), []);
    }
    let mended = [(Repair::StrayBytesRemoved, 30), (Repair::PictureTimeSteadied, 30)];
    publish.seconds(60, &Second { repairs: &mended, ..GOOD });
    assert_eq!(publish.notes(), []);
}

#[test]
fn judge_names_the_cause_once_no_picture_was_usable_for_five_seconds_and_forgets_it_with_the_first_one() {
    let mut publish = Publish::new();
    let drops = [(Repair::UnconfiguredPicture, 30)];
    let bad = Second { usable: (false, true), repairs: &drops, no_audio: false };
    publish.seconds(4, &bad);
    assert_eq!(publish.notes(), []);
    assert!(publish.second(&bad).unwrap(), "the notes have changed");
    let text = "No usable picture for 5 s: the encoder sends no sequence header.";
    assert_eq!(publish.notes(), [("no_usable_picture", text)]);
    publish.seconds(20, &bad);
    assert_eq!(publish.notes(), [("no_usable_picture", text)]);
    publish.seconds(1, &GOOD);
    assert_eq!(publish.notes(), [], "the drops are told no longer either: none is made");
}

#[test]
fn judge_ends_a_publish_of_which_nothing_is_usable_after_the_limit_and_names_the_cause() {
    let mut publish = Publish::new();
    let drops = [(Repair::MalformedPicture, 30), (Repair::UnconfiguredAudio, 47)];
    let bad = Second { usable: (false, false), repairs: &drops, no_audio: false };
    publish.seconds(29, &bad);
    let end = publish.second(&bad).unwrap_err();
    assert_eq!(end.reason, CloseReason::NoUsableMedia);
    assert_eq!(end.text, "no usable media for 30 s: the lengths of their NAL units do not add up");
    // The same holds in mid-stream.
    let mut publish = Publish::new();
    publish.seconds(100, &GOOD).seconds(29, &bad);
    assert_eq!(publish.second(&bad).unwrap_err().reason, CloseReason::NoUsableMedia);
}

#[test]
fn judge_ends_a_publish_of_one_usable_track_when_the_other_was_useless_for_the_limit() {
    for (usable, repair, what) in [
        ((false, true), Repair::UnconfiguredPicture, "picture"),
        ((true, false), Repair::UnconfiguredAudio, "audio"),
    ] {
        let mut publish = Publish::new();
        let drops = [(repair, 30)];
        let bad = Second { usable, repairs: &drops, no_audio: false };
        publish.seconds(29, &bad);
        let end = publish.second(&bad).unwrap_err();
        assert_eq!(end.reason, CloseReason::NoUsableMedia);
        assert!(end.text.starts_with(&format!("no usable {what} for 30 s: ")), "{}", end.text);
        // A track that does not come at all is no reason to end.
        let mut publish = Publish::new();
        let silent = Second { no_audio: true, usable: (true, false), repairs: &[] };
        publish.seconds(60, &silent);
    }
}

#[test]
fn judge_ends_a_publish_without_keyframe_after_the_limit_though_its_audio_is_usable() {
    let mut publish = Publish::new();
    let drops = [(Repair::PictureBeforeKeyframe, 30)];
    let bad = Second { usable: (false, true), repairs: &drops, no_audio: false };
    publish.seconds(29, &bad);
    assert_eq!(publish.notes()[0].0, "no_usable_picture");
    let end = publish.second(&bad).unwrap_err();
    assert_eq!(end.reason, CloseReason::KeyframeInterval);
}

#[test]
fn judge_tells_a_repair_that_is_made_again_and_again_until_it_was_quiet_for_a_segment() {
    for (repair, every) in [
        (Repair::SilenceForAbsentAudio, 1),
        (Repair::SegmentWithoutKeyframe, 4),
        (Repair::AudioOverlap, 3),
        (Repair::ClockStandsStill, 1),
    ] {
        let mut publish = Publish::new();
        let repairs = [(repair, 1)];
        let bad = Second { repairs: &repairs, no_audio: repair == Repair::SilenceForAbsentAudio, ..GOOD };
        for _ in 0..5 {
            publish.seconds(every - 1, &GOOD).seconds(1, &bad);
        }
        assert_eq!(publish.notes(), [(repair.code(), repair.text())]);
        publish.seconds(12, &GOOD);
        assert_eq!(publish.notes(), [], "{repair:?}");
    }
}

#[test]
fn judge_advises_on_keyframes_further_apart_than_the_target_duration() {
    let mut publish = Publish::new();
    publish.seen.keyframe_distance = Some(360_000);
    publish.seconds(20, &GOOD);
    assert_eq!(publish.notes(), []);
    // One keyframe was lost on the way.
    publish.seen.keyframe_distance = Some(720_000);
    publish.seconds(4, &GOOD);
    publish.seen.keyframe_distance = Some(360_000);
    publish.seconds(1, &GOOD);
    assert_eq!(publish.notes(), []);
    publish.seen.keyframe_distance = Some(750_000);
    let repairs = [(Repair::SegmentWithoutKeyframe, 1)];
    publish.seconds(20, &Second { repairs: &repairs, ..GOOD });
    let text = "Keyframes are 8.3 s apart, more than the target duration of 4 s: set the encoder's keyframe interval to 2 s.";
    assert_eq!(publish.notes(), [("keyframe_distance", text)]);
}
