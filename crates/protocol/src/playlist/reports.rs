//! The media playlists of a stream together: tied to each other by rendition reports, or plain for a bucket.

use millrace_media::hls::{MediaPlaylist, RenditionReport};
use millrace_wire::fact::StreamState;
use millrace_wire::ids::Rendition;

use super::media::{goes_on_without_media, media, position_of};
use super::names::playlist_uri;
use super::position::PlaylistPosition;

/// Returns how far each rendition that has something to play has come.
pub fn heads(state: &StreamState) -> Vec<(Rendition, PlaylistPosition)> {
    let renditions = state.renditions.keys();
    renditions.filter_map(|name| position_of(state, name).map(|position| (name.clone(), position))).collect()
}

/// Returns a rendition's media playlist with the reports that tie it to the others (RFC 8216bis §4.4.5.4); `None` while it
/// has nothing to play.
pub fn media_with_reports(state: &StreamState, rendition: &Rendition) -> Option<MediaPlaylist> {
    let (mut playlist, position) = media(state, rendition)?;
    if !position.ended {
        let others = state.renditions.keys().filter(|other| *other != rendition);
        let live = others.filter_map(|other| Some((other, position_of(state, other).filter(|p| !p.ended)?)));
        playlist.rendition_reports = live.map(|(other, position)| report(state, other, position)).collect();
    }
    Some(playlist)
}

fn report(state: &StreamState, rendition: &Rendition, position: PlaylistPosition) -> RenditionReport {
    let uri = format!("../{}", playlist_uri(rendition, state.airing)).into();
    let (last_msn, parts) = match position.open_parts {
        0 => (position.open_msn.saturating_sub(1), position.previous_parts),
        parts => (position.open_msn, parts),
    };
    RenditionReport { uri, last_msn, last_part: parts.checked_sub(1).map(u64::from) }
}

/// Returns all media playlists as a bucket serves them: no request waits for anything there, so they have no parts, hints
/// or reports. A rendition without any media is left out.
pub fn plain_media(state: &StreamState) -> Vec<(Rendition, MediaPlaylist)> {
    let plain = |rendition: &Rendition| {
        let (full, _) = media(state, rendition)?;
        let mut segments = full.segments;
        let goes_on = || goes_on_without_media(state, &state.renditions[rendition]);
        if segments.iter().all(|segment| segment.gap) && !goes_on() {
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
    state.renditions.keys().filter_map(plain).collect()
}
