//! The multivariant playlist: which renditions a stream has, and what their descriptions declare.

use std::collections::BTreeMap;

use millrace_media::hls::{MediaRendition, MultivariantPlaylist, Variant};
use millrace_wire::fact::{RenditionState, StreamState, TrackInfo, TrackMedia};
use millrace_wire::ids::Rendition;

use super::names::playlist_uri;

/// GROUP-ID of the audio renditions of a stream whose audio has one codec.
const AUDIO_GROUP: &str = "audio";

/// A rendition and its newest description.
type Described<'a> = (&'a Rendition, &'a TrackInfo);

/// Returns the multivariant playlist; `None` while no rendition is described. A rendition that has ended while others go
/// on is left out: a player that begins now could not follow it.
pub fn multivariant(state: &StreamState) -> Option<MultivariantPlaylist> {
    let is_live = |rendition: &RenditionState| rendition.ended.is_none();
    let any_live = state.renditions.values().any(is_live);
    let offered = state.renditions.iter().filter(|(_, rendition)| is_live(rendition) || !any_live);
    let described = offered.filter_map(|(name, rendition)| Some((name, &rendition.inits.last()?.info)));
    let (audio, mut video): (Vec<Described<'_>>, Vec<_>) =
        described.partition(|(_, info)| matches!(info.media, TrackMedia::Audio { .. }));
    video.sort_by_key(|(_, info)| std::cmp::Reverse(info.bandwidth));
    let mut playlist = MultivariantPlaylist::default();
    if video.is_empty() {
        playlist.variants = audio.iter().map(|(name, info)| variant(name, info, None)).collect();
    } else {
        let groups = audio_groups(&audio);
        playlist.audio = groups.iter().flat_map(AudioGroup::renditions).collect();
        for (name, info) in &video {
            if groups.is_empty() {
                playlist.variants.push(variant(name, info, None));
            }
            playlist.variants.extend(groups.iter().map(|group| variant(name, info, Some(group))));
        }
    }
    (!playlist.variants.is_empty()).then_some(playlist)
}

/// Audio renditions of one codec. A player plays the renditions of one group only, so that it needs one audio decoder.
struct AudioGroup<'a> {
    id: String,
    codecs: &'a str,
    renditions: Vec<Described<'a>>,
}

/// Returns the audio renditions by codec, in the order of the codec strings.
fn audio_groups<'a>(audio: &[Described<'a>]) -> Vec<AudioGroup<'a>> {
    let mut by_codec: BTreeMap<&str, Vec<Described<'a>>> = BTreeMap::new();
    for (name, info) in audio {
        by_codec.entry(&info.codecs).or_default().push((name, info));
    }
    let is_only = by_codec.len() == 1;
    let group = |(codecs, renditions)| {
        let id = if is_only { AUDIO_GROUP.to_owned() } else { format!("{AUDIO_GROUP}-{codecs}") };
        AudioGroup { id, codecs, renditions }
    };
    by_codec.into_iter().map(group).collect()
}

impl AudioGroup<'_> {
    /// Returns EXT-X-MEDIA of each rendition; the first one of the group is its default.
    fn renditions(&self) -> impl Iterator<Item = MediaRendition> {
        self.renditions.iter().enumerate().map(|(index, (name, info))| MediaRendition {
            group_id: self.id.clone(),
            name: name.to_string(),
            uri: Some(playlist_uri(name)),
            language: None,
            default: index == 0,
            autoselect: true,
            channels: match info.media {
                TrackMedia::Audio { channels, .. } => Some(channels),
                TrackMedia::Video { .. } => None,
            },
        })
    }

    /// Returns the bandwidth of the heaviest rendition of the group: a variant's BANDWIDTH includes it.
    fn bandwidth(&self) -> u64 {
        self.renditions.iter().map(|(_, info)| info.bandwidth).max().unwrap_or_default()
    }
}

fn variant(rendition: &Rendition, info: &TrackInfo, audio: Option<&AudioGroup<'_>>) -> Variant {
    let (resolution, frame_rate_milli) = match info.media {
        TrackMedia::Video { width, height, frame_rate_milli } => (Some((width, height)), frame_rate_milli),
        TrackMedia::Audio { .. } => (None, None),
    };
    Variant {
        uri: playlist_uri(rendition),
        bandwidth: info.bandwidth + audio.map_or(0, AudioGroup::bandwidth),
        average_bandwidth: None,
        codecs: audio
            .map_or_else(|| info.codecs.clone(), |audio| format!("{},{}", info.codecs, audio.codecs)),
        resolution,
        frame_rate_milli,
        audio: audio.map(|audio| audio.id.clone()),
    }
}

#[cfg(test)]
mod tests {
    use millrace_wire::fact::InitEntry;
    use millrace_wire::ids::{BroadcastId, Epoch, FactSeq, Generation, InitVersion, Msn};

    use super::*;
    use crate::state::apply;

    fn rendition(media: TrackMedia, codecs: &str, bandwidth: u64) -> RenditionState {
        let info = TrackInfo { media, codecs: codecs.to_owned(), bandwidth, timescale: 90_000 };
        let (version, seq) = (InitVersion(0), FactSeq(1));
        let init = InitEntry { epoch: Epoch(1), version, generation: Generation(1), seq, info };
        RenditionState { inits: vec![init], ..RenditionState::default() }
    }

    fn stream(renditions: &[(&str, RenditionState)]) -> StreamState {
        let named = renditions.iter().map(|(name, rendition)| (name.parse().unwrap(), rendition.clone()));
        StreamState { renditions: named.collect(), ..apply::empty(BroadcastId::from_u128(1)) }
    }

    const AUDIO: TrackMedia = TrackMedia::Audio { channels: 2, sample_rate: 48_000 };
    const VIDEO: TrackMedia = TrackMedia::Video { width: 1280, height: 720, frame_rate_milli: None };

    #[test]
    fn multivariant_lists_each_video_once_per_audio_codec_with_the_codecs_of_both() {
        let state = stream(&[
            ("german", rendition(AUDIO, "mp4a.40.2", 128_000)),
            ("english", rendition(AUDIO, "mp4a.40.2", 192_000)),
            ("low-delay", rendition(AUDIO, "opus", 96_000)),
            ("main", rendition(VIDEO, "av01.0.05M.08", 2_000_000)),
            ("small", rendition(VIDEO, "hvc1.1.6.L93.B0", 500_000)),
        ]);
        let playlist = multivariant(&state).unwrap();
        let variants: Vec<_> = playlist
            .variants
            .iter()
            .map(|v| (v.uri.as_str(), v.codecs.as_str(), v.bandwidth, v.audio.as_deref().unwrap()))
            .collect();
        let expected = [
            ("main/index.m3u8", "av01.0.05M.08,mp4a.40.2", 2_192_000, "audio-mp4a.40.2"),
            ("main/index.m3u8", "av01.0.05M.08,opus", 2_096_000, "audio-opus"),
            ("small/index.m3u8", "hvc1.1.6.L93.B0,mp4a.40.2", 692_000, "audio-mp4a.40.2"),
            ("small/index.m3u8", "hvc1.1.6.L93.B0,opus", 596_000, "audio-opus"),
        ];
        assert_eq!(variants, expected);
        let audio: Vec<_> =
            playlist.audio.iter().map(|a| (a.group_id.as_str(), a.name.as_str(), a.default)).collect();
        let expected = [
            ("audio-mp4a.40.2", "english", true),
            ("audio-mp4a.40.2", "german", false),
            ("audio-opus", "low-delay", true),
        ];
        assert_eq!(audio, expected);
    }

    #[test]
    fn multivariant_leaves_out_an_ended_rendition_unless_all_have_ended() {
        let ended = |rendition: RenditionState| {
            let span = millrace_wire::fact::RenditionSpan { first: Msn(1), last: Msn(2) };
            RenditionState { ended: Some(span), ..rendition }
        };
        let (main, small) = (rendition(VIDEO, "avc1.64001f", 2), rendition(VIDEO, "avc1.64001e", 1));
        let uris = |state: &StreamState| {
            multivariant(state).unwrap().variants.iter().map(|v| v.uri.clone()).collect::<Vec<_>>()
        };
        let one = stream(&[("main", main.clone()), ("small", ended(small.clone()))]);
        assert_eq!(uris(&one), ["main/index.m3u8"]);
        let both = stream(&[("main", ended(main)), ("small", ended(small))]);
        assert_eq!(uris(&both), ["main/index.m3u8", "small/index.m3u8"]);
    }
}
