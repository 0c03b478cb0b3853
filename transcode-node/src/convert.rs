//! Media units of the bus to the events the packager takes.

use millrace_media::frame::{
    AccessUnit, AudioConfig, AudioFrame, MediaEvent, MediaFrame, SegmentTag, TaggedFrame, TrackConfig,
    VideoConfig,
};
use millrace_wire::message::media::{MediaUnit, Track, UnitKind};
use thiserror::Error;

/// A unit that cannot be packaged: its sender's fault, and only that unit is lost.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("segment {msn}: unreadable {what}: {reason}")]
pub(crate) struct BadUnit {
    /// Segment the unit was stamped with.
    pub(crate) msn: u64,
    /// Which configuration record.
    pub(crate) what: &'static str,
    /// The parser's words.
    pub(crate) reason: String,
}

/// What the packager takes for `unit`; media bytes are shared.
///
/// # Errors
/// When a configuration record cannot be read.
pub(crate) fn media_event(unit: MediaUnit) -> Result<MediaEvent, BadUnit> {
    match unit.kind {
        UnitKind::Config { .. } => config_event(&unit),
        UnitKind::Frame => Ok(MediaEvent::Frame(TaggedFrame { stamp: stamp(&unit), unit: media_unit(unit) })),
    }
}

const fn stamp(unit: &MediaUnit) -> SegmentTag {
    SegmentTag {
        msn: unit.msn.0,
        discontinuity: unit.discontinuity,
        boundary: unit.boundary,
        independent: unit.independent,
        init_version: unit.init_version.0,
    }
}

fn media_unit(unit: MediaUnit) -> MediaFrame {
    match unit.track {
        Track::Video => MediaFrame::Video(AccessUnit {
            dts: unit.dts,
            cts: unit.cts,
            keyframe: unit.keyframe,
            data: unit.data,
        }),
        Track::Audio => MediaFrame::Audio(AudioFrame { pts: unit.dts, data: unit.data }),
    }
}

fn config_event(unit: &MediaUnit) -> Result<MediaEvent, BadUnit> {
    let msn = unit.msn.0;
    let bad = |what, reason: String| BadUnit { msn, what, reason };
    let data = unit.data.contiguous();
    let config = match unit.track {
        Track::Video => VideoConfig::from_avcc(data)
            .map(TrackConfig::Video)
            .map_err(|error| bad("avcC record", error.to_string()))?,
        Track::Audio => AudioConfig::from_asc(data)
            .map(TrackConfig::Audio)
            .map_err(|error| bad("AudioSpecificConfig", error.to_string()))?,
    };
    Ok(MediaEvent::Init { version: unit.init_version.0, config })
}
