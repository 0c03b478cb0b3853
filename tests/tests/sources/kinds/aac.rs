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

pub(crate) async fn cases() -> Result<Vec<Case>> {
    let surround = "pan=5.1(side)|FL=c0|FR=c0|FC=c0|LFE=c0|SL=c0|SR=c0";
    let quad = "pan=quad|FL=c0|FR=c0|BL=c0|BR=c0";
    let mut cases = Vec::new();
    for (name, arguments) in [
        ("5_1_side_by_pce", format!("-af {surround} -c:a aac -b:a 256k")),
        ("quad_by_pce", format!("-af {quad} -c:a aac -b:a 192k")),
        ("5_1_by_number", "-ac 6 -c:a aac -b:a 256k".to_owned()),
        ("mono_44100", "-ac 1 -ar 44100 -c:a aac -b:a 96k".to_owned()),
        ("stereo_22050", "-ac 2 -ar 22050 -c:a aac -b:a 64k".to_owned()),
    ] {
        cases.push(Case::new(name, with_sound(name, &arguments).await?, Want::whole()));
    }
    let stereo = with_sound("stereo", "-ac 2 -c:a aac -b:a 96k").await?;
    // An LC stream is a Main stream that never predicts (ISO/IEC 14496-3, 4.5.2.1).
    cases.push(Case::new("object_type_main", with_object_type(&stereo, 1), Want::whole()));
    let refused = || Want::ends(CloseReason::CodecNotAccepted, "AAC");
    cases.push(Case::new("object_type_ssr", with_object_type(&stereo, 3), refused()));
    cases.push(Case::new("object_type_celp", with_object_type(&stereo, 8), refused()));
    Ok(cases)
}
