//! AAC as it comes: layouts in a program config element, object types, rates and channels.

use anyhow::Result;
use millrace_tests::tape::Tape;
use millrace_wire::close_reason::CloseReason;

use super::seconds;
use crate::seen::Case;
use crate::want::Want;

/// The numbered pictures with sound that ffmpeg made with these arguments.
async fn with_sound(name: &str, arguments: &str) -> Result<Tape> {
    let source = format!("-f lavfi -i anoisesrc=r=48000:a=0.2:seed=7:duration={} ", seconds());
    let sound = Tape::made(&format!("aac-{name}-{}", seconds()), &format!("{source}{arguments}")).await?;
    Ok(Tape::numbered(seconds(), 0).await?.with_sound_of(sound))
}

/// Replaces the audio object type (ISO/IEC 14496-3, 1.6.2.1): the five highest bits.
fn with_object_type(tape: &Tape, object_type: u8) -> Tape {
    tape.clone().map_audio_config(|config| config[0] = object_type << 3 | config[0] & 0x07)
}

/// Describes 5.1 by a program config element in the order of channel configuration 6: front centre, front pair, back
/// pair, LFE (ISO/IEC 14496-3, 1.6.2.1, 4.4.1.1 and table 1.19).
fn usual_order_by_pce() -> Vec<u8> {
    let mut bits = String::new();
    let mut put = |value: u32, count: usize| bits.extend([format!("{value:0count$b}")]);
    // Object type LC, 48 kHz, configuration 0, and the three flags of GASpecificConfig.
    for (value, count) in [(2, 5), (3, 4), (0, 4), (0, 3)] {
        put(value, count);
    }
    // Tag, profile, rate; front, side, back, LFE, data and coupling elements; no mix-downs.
    for (value, count) in [(0, 4), (1, 2), (3, 4), (2, 4), (0, 4), (1, 4), (1, 2), (0, 3), (0, 4), (0, 3)] {
        put(value, count);
    }
    // Single 0, pair 0; pair 1; LFE 0.
    for (value, count) in [(0, 1), (0, 4), (1, 1), (0, 4), (1, 1), (1, 4), (0, 4)] {
        put(value, count);
    }
    let aligned = bits.len().next_multiple_of(8);
    let text = format!("{bits:0<aligned$}{:08}", 0);
    text.as_bytes().chunks(8).map(|byte| byte.iter().fold(0, |all, bit| all << 1 | (bit - b'0'))).collect()
}

pub(crate) const REPAIRS: &[(&str, u64, u64)] = &[];

pub(crate) async fn cases() -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (name, arguments) in [
        ("5_1_by_number", "-ac 6 -c:a aac -b:a 256k"),
        ("mono_44100", "-ac 1 -ar 44100 -c:a aac -b:a 96k"),
        ("stereo_22050", "-ac 2 -ar 22050 -c:a aac -b:a 64k"),
    ] {
        cases.push(Case::new(name, with_sound(name, arguments).await?, Want::whole()));
    }
    let surround = with_sound("5_1_by_number", "-ac 6 -c:a aac -b:a 256k").await?;
    let by_pce = surround.map_audio_config(|config| *config = usual_order_by_pce());
    cases.push(Case::new("5_1_by_pce_in_the_usual_order", by_pce, Want::whole()));
    // Orders that no number stands for: players would not decode them.
    let refused = |words| Want::ends(CloseReason::CodecNotAccepted, words);
    let side = "-af pan=5.1(side)|FL=c0|FR=c0|FC=c0|LFE=c0|SL=c0|SR=c0 -c:a aac -b:a 256k";
    cases.push(Case::new(
        "5_1_side_by_pce",
        with_sound("side", side).await?,
        refused("choose stereo or 5.1"),
    ));
    let quad = "-af pan=quad|FL=c0|FR=c0|BL=c0|BR=c0 -c:a aac -b:a 192k";
    cases.push(Case::new("quad_by_pce", with_sound("quad", quad).await?, refused("choose stereo or 5.1")));
    let stereo = with_sound("stereo", "-ac 2 -c:a aac -b:a 96k").await?;
    for (object_type, name, words) in [
        (1, "main", "AAC Main (audio object type 1)"),
        (3, "ssr", "audio object type 3"),
        (4, "ltp", "audio object type 4"),
        (8, "celp", "audio object type 8"),
    ] {
        let tape = with_object_type(&stereo, object_type);
        cases.push(Case::new(format!("object_type_{name}"), tape, refused(words)));
    }
    Ok(cases)
}
