//! Replays every input of the fuzzer's corpus on the stable toolchain, and variations of it.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "common/fuzz.rs"]
#[allow(unreachable_pub)]
mod fuzz;
#[path = "../../../tests/fuzz/replay.rs"]
#[allow(unreachable_pub)]
mod replay;

use proptest::prelude::*;
use replay::replay;

#[test]
fn media_bodies_survive_the_corpus() {
    replay("media_bodies", fuzz::media_bodies);
}

/// A headerless H.264 keyframe with start codes, its successor with stray bytes, a record of AAC and an ADTS frame.
const SEED: &str = "annex-b-adts";

proptest! {
    #[test]
    fn media_bodies_survive_bytes_that_are_changed_or_missing(
        at in 0usize..400, flip in 1u8.., cut in 0usize..400, noise in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let mut input = std::fs::read(format!("../../tests/fuzz/seeds/media_bodies/{SEED}")).unwrap();
        let at = at % input.len();
        input[at] ^= flip;
        fuzz::media_bodies(&input);
        input.truncate(cut);
        input.extend(noise);
        fuzz::media_bodies(&input);
    }
}
