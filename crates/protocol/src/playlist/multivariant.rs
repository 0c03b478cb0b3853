//! The multivariant playlist: what the renditions declare.

use millrace_media::hls::{MediaRendition, MultivariantPlaylist, Variant};
use millrace_wire::fact::{RenditionState, StreamState, TrackInfo, TrackMedia};
use millrace_wire::ids::Rendition;

use super::playlist_uri;

/// The audio group of every variant.
const AUDIO_GROUP: &str = "audio";

/// The multivariant playlist; `None` while no rendition is described.
pub fn multivariant(snapshot: &StreamState) -> Option<MultivariantPlaylist> {
    let described = |(r, state): (&Rendition, &RenditionState)| {
        state.inits.last().map(|init| (r.clone(), init.info.clone()))
    };
    let (audio, mut video): (Vec<_>, Vec<_>) = snapshot
        .renditions
        .iter()
        .filter_map(described)
        .partition(|(_, info)| matches!(info.media, TrackMedia::Audio { .. }));
    video.sort_by_key(|(_, info)| std::cmp::Reverse(info.bandwidth));
    let mut playlist = MultivariantPlaylist::default();
    if video.is_empty() {
        playlist.variants = audio.iter().map(|(r, info)| variant(r, info, None)).collect();
    } else {
        playlist.audio =
            audio.iter().enumerate().map(|(i, (r, info))| audio_rendition(r, info, i == 0)).collect();
        let heaviest = audio.iter().map(|(_, info)| info).max_by_key(|info| info.bandwidth);
        playlist.variants = video.iter().map(|(r, info)| variant(r, info, heaviest)).collect();
    }
    (!playlist.variants.is_empty()).then_some(playlist)
}

fn audio_rendition(rendition: &Rendition, info: &TrackInfo, default: bool) -> MediaRendition {
    let channels = match info.media {
        TrackMedia::Audio { channels, .. } => Some(channels),
        TrackMedia::Video { .. } => None,
    };
    MediaRendition {
        group_id: AUDIO_GROUP.to_owned(),
        name: rendition.to_string(),
        uri: Some(playlist_uri(rendition)),
        language: None,
        default,
        autoselect: true,
        channels,
    }
}

fn variant(rendition: &Rendition, info: &TrackInfo, audio: Option<&TrackInfo>) -> Variant {
    let (resolution, frame_rate_milli) = match info.media {
        TrackMedia::Video { width, height, frame_rate_milli } => (Some((width, height)), frame_rate_milli),
        TrackMedia::Audio { .. } => (None, None),
    };
    let codecs = audio.map_or_else(|| info.codecs.clone(), |a| format!("{},{}", info.codecs, a.codecs));
    Variant {
        uri: playlist_uri(rendition),
        bandwidth: info.bandwidth + audio.map_or(0, |a| a.bandwidth),
        average_bandwidth: None,
        codecs,
        resolution,
        frame_rate_milli,
        audio: audio.map(|_| AUDIO_GROUP.to_owned()),
    }
}
