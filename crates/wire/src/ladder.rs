//! The ladder of a livestream: the renditions that are made of its source.

use serde::{Deserialize, Serialize};

use crate::ids::MAX_NAME;

/// Most rungs of one ladder: encoders of one stream run on one worker, and players choose among few.
pub const MAX_RUNGS: usize = 8;
/// Lines of video of a rung, lowest and highest; both even, because 4:2:0 pictures have no odd height.
pub const HEIGHTS: (u32, u32) = (144, 4320);
/// Bits per second of a rung, lowest and highest.
pub const BITRATES: (u64, u64) = (50_000, 100_000_000);
/// Highest frame rate of a rung, frames per second.
pub const MAX_FPS: u32 = 120;
/// Presets of a rung, the fastest first: the names of x264, which other encoders translate into their own.
pub const PRESETS: [&str; 9] =
    ["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"];

/// The renditions that are made of a source besides the source's own bits. A ladder that this version does not know cannot be
/// read, so that a worker of an older version does not deliver a stream in fewer renditions than its settings ask for.
///
/// In JSON: `"copy"`, the name of a template, or a list of rungs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Form", into = "Form")]
pub enum Ladder {
    /// The source's own bits only; nothing is encoded.
    #[default]
    Copy,
    /// The ladder that the operator configured under this name.
    Template(String),
    /// The encoded renditions listed here.
    Rungs(Vec<LadderRung>),
}

/// One encoded rendition of video.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LadderRung {
    /// Lines of video; the width follows from the source's aspect ratio.
    pub height: u32,
    /// Bits per second of the rung.
    pub bitrate: u64,
    /// Highest frame rate in frames per second; the source's if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fps: Option<u32>,
    /// Preset of the encoder; the operator's default if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// Codec of the rung; H.264 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codec: Option<RungCodec>,
}

/// A ladder with its template resolved: the renditions that a worker makes beside the source's own bits.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LadderPlan {
    /// The encoded renditions, highest first; none for a stream that is copied only.
    pub rungs: Vec<LadderRung>,
    /// True if the audio alone is a variant of its own.
    pub audio_only: bool,
    /// Rungs of fewer lines than this have half the frame rate of a source of more than 30 frames per second.
    pub halve_fps_below: Option<u32>,
}

impl LadderPlan {
    /// Returns the plan of a ladder that names no template.
    pub fn of_rungs(mut rungs: Vec<LadderRung>) -> Self {
        rungs.sort_by_key(|rung| std::cmp::Reverse((rung.height, rung.bitrate)));
        Self { rungs, ..Self::default() }
    }

    /// True if the stream is delivered as its source is, and in no other way.
    pub fn is_copy(&self) -> bool {
        *self == Self::default()
    }

    /// True if anything is encoded.
    pub fn encodes(&self) -> bool {
        !self.rungs.is_empty()
    }
}

/// A codec that a rung can be encoded with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RungCodec {
    /// H.264 in the AVCC form.
    #[default]
    H264,
    /// HEVC (H.265) with length-prefixed NAL units.
    Hevc,
    /// AV1, as sequences of OBUs.
    Av1,
}

/// The JSON of a ladder.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Form {
    Name(String),
    Rungs(Vec<LadderRung>),
}

/// The name in JSON that stands for [`Ladder::Copy`].
const COPY: &str = "copy";

impl From<Form> for Ladder {
    fn from(form: Form) -> Self {
        match form {
            Form::Name(name) if name == COPY => Self::Copy,
            Form::Name(name) => Self::Template(name),
            Form::Rungs(rungs) => Self::Rungs(rungs),
        }
    }
}

impl From<Ladder> for Form {
    fn from(ladder: Ladder) -> Self {
        match ladder {
            Ladder::Copy => Self::Name(COPY.to_owned()),
            Ladder::Template(name) => Self::Name(name),
            Ladder::Rungs(rungs) => Self::Rungs(rungs),
        }
    }
}

/// A rule that a ladder breaks, and the place in the ladder where it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LadderFault {
    /// The place within the ladder, to be read after its name: empty, `[1]` or `[1].height`.
    pub place: String,
    /// The rule, to be read after the place.
    pub rule: &'static str,
}

impl Ladder {
    /// Checks the shape of the ladder; `Err` holds every rule that is broken. The existence of a template is not checked here.
    pub fn check(&self) -> Result<(), Vec<LadderFault>> {
        let whole = |rule| Err(vec![LadderFault { place: String::new(), rule }]);
        match self {
            Self::Copy => Ok(()),
            Self::Template(name) if is_template_name(name) => Ok(()),
            Self::Template(_) => whole("must name a template by 1 to 64 lower-case letters, digits, - or _"),
            Self::Rungs(rungs) if rungs.is_empty() || rungs.len() > MAX_RUNGS => {
                whole("must have 1 to 8 rungs")
            }
            Self::Rungs(rungs) => {
                let faults: Vec<_> = (0..rungs.len()).flat_map(|index| faults_of(rungs, index)).collect();
                if faults.is_empty() { Ok(()) } else { Err(faults) }
            }
        }
    }
}

/// Returns the rules that a rung of the list breaks.
fn faults_of(rungs: &[LadderRung], index: usize) -> impl Iterator<Item = LadderFault> {
    let rung = &rungs[index];
    // Renditions are told apart by height and kilobits per second.
    let same =
        |other: &LadderRung| (other.height, other.bitrate / 1_000) == (rung.height, rung.bitrate / 1_000);
    let repeated = rungs[..index].iter().any(same);
    let repeated =
        repeated.then_some(("", "must differ from the rungs before it in height or in kilobits per second"));
    let faults = rung.faults().into_iter().chain(repeated);
    faults.map(move |(field, rule)| LadderFault { place: format!("[{index}]{field}"), rule })
}

impl LadderRung {
    /// Returns the fields that break a rule, each with a point before it, and the rules.
    fn faults(&self) -> Vec<(&'static str, &'static str)> {
        let Self { height, bitrate, fps, preset, codec } = self;
        let mut faults = Vec::new();
        if !(HEIGHTS.0..=HEIGHTS.1).contains(height) || height % 2 != 0 {
            faults.push((".height", "must be even and from 144 to 4320 lines"));
        }
        if !(BITRATES.0..=BITRATES.1).contains(bitrate) {
            faults.push((".bitrate", "must be from 50000 to 100000000 bits per second"));
        }
        if fps.is_some_and(|fps| fps == 0 || fps > MAX_FPS) {
            faults.push((".fps", "must be from 1 to 120 frames per second"));
        }
        if preset.as_deref().is_some_and(|preset| !PRESETS.contains(&preset)) {
            faults.push((
                ".preset",
                "must be ultrafast, superfast, veryfast, faster, fast, medium, slow, slower or veryslow",
            ));
        }
        if codec.is_some_and(|codec| codec != RungCodec::H264) {
            faults.push((".codec", "must be h264: rungs are encoded in H.264 only"));
        }
        faults
    }
}

/// True if `text` can be the name of a template.
pub fn is_template_name(text: &str) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    !text.is_empty() && text.len() <= MAX_NAME && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Ladder {
        serde_json::from_str(json).unwrap()
    }

    fn rung(height: u32) -> LadderRung {
        LadderRung { height, bitrate: 3_000_000, fps: None, preset: None, codec: None }
    }

    #[test]
    fn ladder_is_a_name_or_a_list_of_rungs_in_json() {
        assert_eq!(parse("\"copy\""), Ladder::Copy);
        assert_eq!(parse("\"hd\""), Ladder::Template("hd".into()));
        let rungs =
            r#"[{"height":720,"bitrate":3000000},{"height":360,"bitrate":800000,"fps":30,"codec":"h264"}]"#;
        let ladder = parse(rungs);
        assert_eq!(serde_json::to_string(&ladder).unwrap(), rungs);
        assert_eq!(ladder.check(), Ok(()));
        for bad in ["7", "{}", r#"[{"height":720}]"#, r#"[{"height":720,"bitrate":1,"gop":2}]"#] {
            assert!(serde_json::from_str::<Ladder>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn check_refuses_ladders_out_of_bounds() {
        let bad = [
            Ladder::Template(String::new()),
            Ladder::Template("HD".into()),
            Ladder::Rungs(Vec::new()),
            Ladder::Rungs(vec![rung(720); 2]),
            Ladder::Rungs((0..9).map(|n| rung(144 + 2 * n)).collect()),
            Ladder::Rungs(vec![rung(721)]),
            Ladder::Rungs(vec![rung(100)]),
            Ladder::Rungs(vec![LadderRung { bitrate: 49_999, ..rung(720) }]),
            Ladder::Rungs(vec![LadderRung { fps: Some(0), ..rung(720) }]),
            Ladder::Rungs(vec![LadderRung { preset: Some("very fast".into()), ..rung(720) }]),
        ];
        for ladder in bad {
            assert!(ladder.check().is_err(), "{ladder:?}");
        }
        assert_eq!(Ladder::Rungs(vec![rung(720), rung(480)]).check(), Ok(()));
    }

    #[test]
    fn check_names_the_place_of_every_broken_rule() {
        let bad = LadderRung {
            height: 721,
            bitrate: 1,
            fps: Some(121),
            preset: Some("quick".into()),
            codec: Some(RungCodec::Av1),
        };
        let near = LadderRung { bitrate: 3_000_999, ..rung(720) };
        let places = |ladder: Ladder| -> Vec<String> {
            ladder.check().unwrap_err().into_iter().map(|fault| fault.place).collect()
        };
        let expected = ["[1].height", "[1].bitrate", "[1].fps", "[1].preset", "[1].codec"];
        assert_eq!(places(Ladder::Rungs(vec![rung(720), bad])), expected);
        assert_eq!(places(Ladder::Rungs(vec![rung(720), near])), ["[1]"], "two renditions of one name");
        assert_eq!(places(Ladder::Rungs(Vec::new())), [""]);
    }

    #[test]
    fn plan_of_rungs_has_the_highest_first() {
        let plan = LadderPlan::of_rungs(vec![rung(360), rung(1080), rung(720)]);
        assert_eq!(plan.rungs.iter().map(|rung| rung.height).collect::<Vec<_>>(), [1080, 720, 360]);
        assert!(plan.encodes() && !LadderPlan::default().encodes());
    }
}
