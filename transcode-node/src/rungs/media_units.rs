//! Media units as they come over the bus to the events that the packager takes.

use millrace_media::frame::{
    AccessUnit, AudioConfig, AudioFrame, MediaEvent, MediaFrame, SegmentTag, TaggedFrame, TrackConfig,
    VideoConfig,
};
use millrace_wire::message::media::{MediaUnit, Track, UnitKind};
use thiserror::Error;

/// A media unit that cannot be packaged. Only that unit is lost; the fault is its sender's.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("segment {msn}, {track:?}: {record} with {length} bytes is malformed: {reason}")]
pub(super) struct BadUnit {
    /// Media sequence number of the segment that the unit is tagged with.
    pub(super) msn: u64,
    /// The track that the unit belongs to.
    pub(super) track: Track,
    /// Name of the configuration record.
    pub(super) record: &'static str,
    /// Length of the record in bytes.
    pub(super) length: usize,
    /// The error of the record's parser.
    pub(super) reason: String,
}

/// Converts a unit to the event that the packager takes; media bytes are shared.
///
/// # Errors
/// Fails if the unit is a configuration record that cannot be read.
pub(super) fn media_event(unit: MediaUnit) -> Result<MediaEvent, BadUnit> {
    match unit.kind {
        UnitKind::Config { .. } => config_event(&unit),
        UnitKind::Frame => {
            Ok(MediaEvent::Frame(TaggedFrame { tag: segment_tag(&unit), frame: media_frame(unit) }))
        }
    }
}

const fn segment_tag(unit: &MediaUnit) -> SegmentTag {
    SegmentTag {
        msn: unit.msn.0,
        discontinuity: unit.discontinuity,
        boundary: unit.boundary,
        independent: unit.independent,
        init_version: unit.init_version.0,
    }
}

fn media_frame(unit: MediaUnit) -> MediaFrame {
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
    let (track, data) = (unit.track, unit.data.contiguous());
    let length = data.len();
    let bad = |record, reason: String| BadUnit { msn, track, record, length, reason };
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
