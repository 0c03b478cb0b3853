//! From the folded log to playlists: a pure function, so that all edges, and the author that publishes playlists into
//! the bucket, say the same.

mod media;
mod multivariant;
mod position;

use millrace_media::hls::{MediaPlaylist, RenditionReport};
use millrace_wire::fact::StreamState;
use millrace_wire::ids::Rendition;

use self::media::head_of;
pub use self::media::media;
pub use self::multivariant::multivariant;
pub use self::position::{BlockingDecision, PlaylistPosition};

/// Path of a rendition's playlist relative to the multivariant playlist.
fn playlist_uri(rendition: &Rendition) -> String {
    format!("{rendition}/index.m3u8")
}

/// How far each rendition that has something to play has come.
pub fn heads(snapshot: &StreamState) -> Vec<(Rendition, PlaylistPosition)> {
    let renditions = snapshot.renditions.keys();
    renditions.filter_map(|r| head_of(snapshot, r).map(|head| (r.clone(), head))).collect()
}

/// A rendition's media playlist, with the reports that tie it to the others (RFC 8216bis §4.4.5.4).
pub fn media_with_reports(snapshot: &StreamState, rendition: &Rendition) -> Option<MediaPlaylist> {
    let (mut playlist, _) = media(snapshot, rendition)?;
    if !snapshot.ended {
        let others = snapshot.renditions.keys().filter(|other| *other != rendition);
        let reported = |other| head_of(snapshot, other).map(|head| report(other, head));
        playlist.rendition_reports = others.filter_map(reported).collect();
    }
    Some(playlist)
}

fn report(rendition: &Rendition, head: PlaylistPosition) -> RenditionReport {
    let uri = format!("../{}", playlist_uri(rendition)).into();
    let (last_msn, parts) = match head.open_parts {
        0 => (head.open_msn.saturating_sub(1), head.previous_parts),
        parts => (head.open_msn, parts),
    };
    RenditionReport { uri, last_msn, last_part: parts.checked_sub(1).map(u64::from) }
}

/// All media playlists as a bucket serves them: nobody waits for anything there, so no parts, hints or reports.
pub fn plain_media(snapshot: &StreamState) -> Vec<(Rendition, MediaPlaylist)> {
    let plain = |rendition: &Rendition| {
        let (full, _) = media(snapshot, rendition)?;
        let mut segments = full.segments;
        if segments.iter().all(|s| s.gap) {
            return None;
        }
        for segment in &mut segments {
            segment.parts.clear();
        }
        let playlist = MediaPlaylist {
            target_duration: full.target_duration,
            media_sequence: full.media_sequence,
            discontinuity_sequence: full.discontinuity_sequence,
            independent_segments: full.independent_segments,
            segments,
            ended: full.ended,
            ..MediaPlaylist::default()
        };
        Some((rendition.clone(), playlist))
    };
    snapshot.renditions.keys().filter_map(plain).collect()
}
