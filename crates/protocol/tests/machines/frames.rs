//! Frames without a picture or a sound in them.

use millrace_wire::ids::{DiscontinuitySeq, InitVersion, Msn};
use millrace_wire::message::media::{FrameUnit, Track};

/// Returns the picture that begins an independent segment.
pub(crate) fn first_of(msn: Msn) -> FrameUnit {
    FrameUnit {
        track: Track::Video,
        msn,
        discontinuity_sequence: DiscontinuitySeq(0),
        init_version: InitVersion(0),
        dts: 0,
        cts: 0,
        keyframe: true,
        boundary: true,
        independent: true,
        discontinuity: false,
        duration: 0,
        may_be_last: false,
        data: bytes::Bytes::from_static(b"frame").into(),
    }
}
