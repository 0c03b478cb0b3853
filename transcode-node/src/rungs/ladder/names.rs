//! The names of encoded renditions, and the transcoder's plan for a stream's ladder.

use millrace_codec::engine::order::{Plan, RungPlan};
use millrace_wire::ids::Rendition;
use millrace_wire::ladder::{LadderPlan, LadderRung};

/// The name of the encoded audio.
const ENCODED_AUDIO: &str = "aac";
/// Rungs of half the frame rate have at most so many frames per second: a source of more than this loses every second one.
const HALVED_FPS: u32 = 30;
/// Bits per second that a name counts in.
const KILOBIT: u64 = 1000;

/// Returns the rungs of a plan, highest first, each with the name of its rendition: `720p`, or `720p-2800k` where the plan
/// has several rungs of one height.
pub(super) fn named_rungs(plan: &LadderPlan) -> Vec<(Rendition, LadderRung)> {
    let mut rungs = plan.rungs.clone();
    rungs.sort_by_key(|rung| (std::cmp::Reverse(rung.height), std::cmp::Reverse(rung.bitrate)));
    let is_shared = |height| rungs.iter().filter(|rung| rung.height == height).count() > 1;
    let named = rungs.iter().filter_map(|rung| {
        let LadderRung { height, bitrate, .. } = rung;
        let name = match bitrate {
            _ if !is_shared(*height) => format!("{height}p"),
            bitrate if bitrate.is_multiple_of(KILOBIT) => format!("{height}p-{}k", bitrate / KILOBIT),
            bitrate => format!("{height}p-{bitrate}"),
        };
        Some((name.parse().ok()?, rung.clone()))
    });
    named.collect()
}

/// Returns the name of the rendition of encoded audio.
pub(super) fn encoded_audio() -> Rendition {
    ENCODED_AUDIO.parse().unwrap_or_else(|_| Rendition::audio())
}

/// Returns the plan of the transcoder for these rungs. The node adds its encoders and threads.
pub(super) fn transcoder_plan(plan: &LadderPlan, rungs: &[(Rendition, LadderRung)]) -> Plan {
    let halved = |rung: &LadderRung| plan.halve_fps_below.is_some_and(|lines| rung.height < lines);
    let rungs = rungs.iter().map(|(_, rung)| {
        let LadderRung { height, bitrate, fps, preset, .. } = rung.clone();
        let most = halved(rung).then_some(HALVED_FPS);
        RungPlan { height, bitrate, fps: fps.into_iter().chain(most).min(), preset }
    });
    Plan { rungs: rungs.collect(), audio: true, pictures: true, ..Plan::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rung(height: u32, bitrate: u64) -> LadderRung {
        LadderRung { height, bitrate, fps: None, preset: None, codec: None }
    }

    #[test]
    fn renditions_are_named_by_height_and_those_of_one_height_by_bitrate_too() {
        let plan =
            LadderPlan::of_rungs(vec![rung(480, 1_400_000), rung(720, 1_500_500), rung(720, 2_800_000)]);
        let names = named_rungs(&plan).into_iter().map(|(name, _)| name.to_string());
        assert_eq!(names.collect::<Vec<_>>(), ["720p-2800k", "720p-1500500", "480p"]);
    }

    #[test]
    fn plan_halves_the_frame_rate_below_the_template_s_height_only() {
        let ladder = LadderPlan {
            rungs: vec![
                rung(720, 2_800_000),
                rung(480, 1_400_000),
                LadderRung { fps: Some(15), ..rung(360, 800_000) },
            ],
            halve_fps_below: Some(720),
            ..LadderPlan::default()
        };
        let plan = transcoder_plan(&ladder, &named_rungs(&ladder));
        let fps: Vec<_> = plan.rungs.iter().map(|rung| rung.fps).collect();
        assert_eq!(fps, [None, Some(30), Some(15)]);
    }
}
