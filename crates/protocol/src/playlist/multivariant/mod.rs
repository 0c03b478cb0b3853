//! The multivariant playlist: which renditions a stream has, and what their descriptions declare.

use std::collections::BTreeMap;

use millrace_media::hls::{MediaRendition, MultivariantPlaylist, Variant};
use millrace_wire::fact::{RenditionState, StreamState, TrackInfo, TrackMedia};
use millrace_wire::ids::{Airing, Rendition};

use crate::playlist::names::playlist_uri;

/// GROUP-ID of the audio renditions of a stream whose audio has one codec.
const AUDIO_GROUP: &str = "audio";

/// The encoded audio, which takes the place of the source's [`Rendition::audio`].
const ENCODED_AUDIO: &str = "aac";
/// Sampling rate in Hz, channels and codec of audio that is copied into a ladder; a worker encodes any other audio once.
const COPIED_AUDIO: (u32, u8, &str) = (48_000, 2, "mp4a.40.2");
/// A variant with encoded renditions declares this share of its peak more, in percent: headers of segments, and the first
/// pictures of an encoder.
const ENCODED_MARGIN_PERCENT: u64 = 5;
/// AVERAGE-BANDWIDTH is declared once a rendition has this many segments.
const MEASURED_SEGMENTS: usize = 3;

/// A rendition and its newest description.
#[derive(Debug, Clone, Copy)]
struct Described<'a> {
    name: &'a Rendition,
    airing: Airing,
    info: &'a TrackInfo,
    /// Average bits per second of the segments in the window.
    average: Option<u64>,
}

/// Returns the names of the renditions that the multivariant playlist offers. A rendition that has ended while others go on is
/// left out: a player that begins now could not follow it. Encoded audio takes the place of the source's.
pub fn offered(state: &StreamState) -> impl Iterator<Item = &Rendition> {
    let any_live = state.renditions.values().any(|rendition| rendition.ended.is_none());
    let is_described = move |rendition: &RenditionState| {
        !rendition.inits.is_empty() && (rendition.ended.is_none() || !any_live)
    };
    let has_encoded_audio =
        state.renditions.iter().any(|(name, it)| name.as_str() == ENCODED_AUDIO && is_described(it));
    let audio = Rendition::audio();
    state
        .renditions
        .iter()
        .filter(move |(name, it)| is_described(it) && !(has_encoded_audio && **name == audio))
        .map(|(name, _)| name)
}

/// Returns the multivariant playlist; `None` while no rendition is described. The first variant, with which players start, is one
/// from the middle of the ladder; the others follow by bandwidth.
pub fn multivariant(state: &StreamState) -> Option<MultivariantPlaylist> {
    let described = offered(state).filter_map(|name| {
        let info = &state.renditions.get(name)?.inits.last()?.info;
        Some(Described { name, airing: state.airing, info, average: average_bandwidth(state, name) })
    });
    let (audio, mut video): (Vec<Described<'_>>, Vec<_>) =
        described.partition(|it| matches!(it.info.media, TrackMedia::Audio { .. }));
    video.sort_by_key(|it| std::cmp::Reverse(it.info.bandwidth));
    if !video.is_empty() {
        let middle = video.len() / 2;
        video[..=middle].rotate_right(1);
    }
    let mut playlist = MultivariantPlaylist::default();
    if video.is_empty() {
        playlist.variants = audio.iter().map(|it| variant(it, None)).collect();
        return (!playlist.variants.is_empty()).then_some(playlist);
    }
    let groups = audio_groups(&audio);
    playlist.audio = groups.iter().flat_map(AudioGroup::renditions).collect();
    for it in &video {
        if groups.is_empty() {
            playlist.variants.push(variant(it, None));
        }
        playlist.variants.extend(groups.iter().map(|group| variant(it, Some(group))));
    }
    align_frame_rates(&mut playlist.variants, state.airing);
    if state.plan.audio_only {
        playlist.variants.extend(groups.iter().filter_map(AudioGroup::variant));
    }
    Some(playlist)
}

/// Makes the FRAME-RATE of variants with pictures comparable: none is declared above that of the source, and none at all if one is
/// unknown. hls.js never moves up to a variant of a lower or unknown rate, nor down to one of a higher rate.
fn align_frame_rates(variants: &mut [Variant], airing: Airing) {
    let is_source = |it: &&Variant| it.uri == playlist_uri(&Rendition::video(), airing);
    let most = variants.iter().find(is_source).map_or(Some(u32::MAX), |it| it.frame_rate_milli);
    let all_known = variants.iter().all(|it| it.frame_rate_milli.is_some());
    for it in variants {
        it.frame_rate_milli = if all_known { it.frame_rate_milli.min(most) } else { None };
    }
}

/// Returns true while renditions of the stream's plan are likely to be described soon: players read the multivariant playlist once,
/// so an edge waits a moment for them.
pub fn awaits_renditions(state: &StreamState) -> bool {
    if !state.plan.encodes() || state.ended || state.sealed {
        return false;
    }
    let infos = || state.renditions.values().filter_map(|it| Some(&it.inits.last()?.info));
    let lines = |info: &TrackInfo| match info.media {
        TrackMedia::Video { height, .. } => Some(height),
        TrackMedia::Audio { .. } => None,
    };
    let copied = Rendition::video();
    let source = state.renditions.get(&copied).and_then(|it| lines(&it.inits.last()?.info));
    // A rung above the source is never made.
    let expected =
        source.map_or(0, |source| state.plan.rungs.iter().filter(|rung| rung.height <= source).count());
    let is_rung = |(name, it): &(&Rendition, &RenditionState)| {
        **name != copied && it.inits.last().is_some_and(|init| lines(&init.info).is_some())
    };
    let made = state.renditions.iter().filter(is_rung).count();
    let is_copied = |info: &TrackInfo| match info.media {
        TrackMedia::Audio { channels, sample_rate } => {
            (sample_rate, channels, info.codecs.as_str()) == COPIED_AUDIO
        }
        TrackMedia::Video { .. } => true,
    };
    let has_encoded_audio = state.renditions.keys().any(|name| name.as_str() == ENCODED_AUDIO);
    made < expected || (!has_encoded_audio && !infos().all(is_copied))
}

/// Returns the average bits per second of a rendition's segments in the window, rounded up to two digits: a playlist that
/// changed with every segment would be stored anew with every segment.
fn average_bandwidth(state: &StreamState, rendition: &Rendition) -> Option<u64> {
    let segments = state.slots.iter().filter_map(|slot| slot.tracks.get(rendition)?.segment.as_ref());
    let (mut count, mut bytes, mut seconds) = (0, 0_u64, 0.0);
    for segment in segments {
        count += 1;
        bytes += segment.bytes;
        seconds += segment.duration.as_secs_f64();
    }
    if count < MEASURED_SEGMENTS || seconds <= 0.0 {
        return None;
    }
    let bits = (bytes as f64 * 8.0 / seconds).ceil() as u64;
    let step = 10_u64.pow(bits.checked_ilog10()?.saturating_sub(1));
    Some(bits.div_ceil(step) * step)
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
    for it in audio {
        by_codec.entry(&it.info.codecs).or_default().push(*it);
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
        self.renditions.iter().enumerate().map(|(index, it)| MediaRendition {
            group_id: self.id.clone(),
            name: it.name.to_string(),
            uri: Some(playlist_uri(it.name, it.airing)),
            language: None,
            default: index == 0,
            autoselect: true,
            channels: match it.info.media {
                TrackMedia::Audio { channels, .. } => Some(channels),
                TrackMedia::Video { .. } => None,
            },
        })
    }

    /// Returns the bandwidth of the heaviest rendition of the group: a variant's BANDWIDTH includes it.
    fn bandwidth(&self) -> u64 {
        self.renditions.iter().map(|it| it.info.bandwidth).max().unwrap_or_default()
    }

    /// Returns the average bandwidth of the heaviest rendition of the group.
    fn average(&self) -> Option<u64> {
        self.renditions.iter().map(|it| it.average).max()?
    }

    /// Returns the variant of the audio alone.
    fn variant(&self) -> Option<Variant> {
        let variant = variant(self.renditions.first()?, None);
        Some(Variant { bandwidth: self.bandwidth(), audio: Some(self.id.clone()), ..variant })
    }
}

fn variant(it: &Described<'_>, audio: Option<&AudioGroup<'_>>) -> Variant {
    let Described { name, airing, info, average } = it;
    let (resolution, frame_rate_milli) = match info.media {
        TrackMedia::Video { width, height, frame_rate_milli } => (Some((width, height)), frame_rate_milli),
        TrackMedia::Audio { .. } => (None, None),
    };
    let peak = info.bandwidth + audio.map_or(0, AudioGroup::bandwidth);
    let is_encoded = resolution.is_some() && **name != Rendition::video();
    let margin = if is_encoded { peak * ENCODED_MARGIN_PERCENT / 100 } else { 0 };
    let average_bandwidth = match audio {
        Some(audio) => average.zip(audio.average()).map(|(video, audio)| video + audio),
        None => *average,
    };
    Variant {
        uri: playlist_uri(name, *airing),
        bandwidth: peak + margin,
        // An average over few segments may exceed the declared peak, which a player would take for an error.
        average_bandwidth: average_bandwidth.map(|average| average.min(peak + margin)),
        codecs: audio
            .map_or_else(|| info.codecs.clone(), |audio| format!("{},{}", info.codecs, audio.codecs)),
        resolution,
        frame_rate_milli,
        audio: audio.map(|audio| audio.id.clone()),
    }
}

#[cfg(test)]
mod tests;
