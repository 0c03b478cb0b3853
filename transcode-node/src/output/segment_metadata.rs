//! The metadata that a stored segment carries, so that its index entry can be rebuilt from a listing of the bucket.

use millrace_store::{Meta, ObjectInfo};
use millrace_wire::fact::{MediaDuration, Segment};
use millrace_wire::ids::{Msn, Rendition};
use millrace_wire::object_names::meta;

/// Adds the fields of a segment's index entry that its object's name and size do not give.
pub(super) fn write(meta: Meta, segment: &Segment) -> Meta {
    meta.with(meta::MSN, segment.msn.to_string())
        .with(meta::DURATION, segment.duration.ticks.to_string())
        .with(meta::TIMESCALE, segment.duration.timescale.to_string())
        .with(meta::PARTS, segment.parts.to_string())
        .with(meta::INDEPENDENT, segment.independent.to_string())
        .with(meta::DISCONTINUITY, segment.discontinuity_sequence.to_string())
        .with(meta::PDT, segment.program_date_time.to_string())
        .with(meta::INIT, segment.init_version.to_string())
}

/// Returns the segment that an object's metadata describes; `None` if a value is missing or malformed, or if the metadata
/// are of another segment.
pub(super) fn read(rendition: &Rendition, msn: Msn, info: &ObjectInfo) -> Option<Segment> {
    let text = |name: &str| info.meta.user.get(name).map(String::as_str);
    if text(meta::MSN)?.parse() != Ok(msn) {
        return None;
    }
    let timescale = text(meta::TIMESCALE)?.parse().ok().filter(|timescale| *timescale > 0)?;
    Some(Segment {
        rendition: rendition.clone(),
        msn,
        parts: text(meta::PARTS)?.parse().ok()?,
        duration: MediaDuration { ticks: text(meta::DURATION)?.parse().ok()?, timescale },
        independent: text(meta::INDEPENDENT)?.parse().ok()?,
        bytes: info.size,
        discontinuity_sequence: text(meta::DISCONTINUITY)?.parse().ok()?,
        program_date_time: text(meta::PDT)?.parse().ok()?,
        init_version: text(meta::INIT)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use millrace_wire::ids::{DiscontinuitySeq, InitVersion, UnixMillis};

    use super::*;

    fn segment() -> Segment {
        Segment {
            rendition: Rendition::video(),
            msn: Msn(1_700_000_000),
            parts: 6,
            duration: MediaDuration { ticks: 180_000, timescale: 90_000 },
            independent: true,
            bytes: 12_345,
            discontinuity_sequence: DiscontinuitySeq(3),
            program_date_time: UnixMillis(1_700_000_000_123),
            init_version: InitVersion(2),
        }
    }

    fn object(meta: Meta) -> ObjectInfo {
        ObjectInfo { size: 12_345, modified: SystemTime::UNIX_EPOCH, meta }
    }

    #[test]
    fn segment_metadata_round_trips() {
        let segment = segment();
        let info = object(write(Meta::of_type("video/mp4"), &segment));
        assert_eq!(read(&segment.rendition, segment.msn, &info), Some(segment));
    }

    #[test]
    fn segment_metadata_of_another_segment_or_with_a_malformed_value_is_refused() {
        let segment = segment();
        let meta = write(Meta::default(), &segment);
        assert_eq!(read(&segment.rendition, segment.msn.next(), &object(meta.clone())), None);
        for name in meta.user.keys() {
            let mut malformed = meta.clone();
            malformed.user.insert(name.clone(), "x".to_owned());
            assert_eq!(read(&segment.rendition, segment.msn, &object(malformed)), None, "{name}");
        }
    }
}
