//! The multivariant playlist (RFC 8216bis §4.4.6).

use std::fmt::Write;

use super::parse::{ParseError, ParseErrorKind, lines};
use super::tags::{Attributes, parse_seconds, write_line, write_quoted};

/// The multivariant playlist, which a player loads first and once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MultivariantPlaylist {
    /// True if every segment of every media playlist starts with a keyframe
    /// (EXT-X-INDEPENDENT-SEGMENTS).
    pub independent_segments: bool,
    /// The audio renditions (EXT-X-MEDIA of TYPE=AUDIO).
    pub audio: Vec<MediaRendition>,
    /// The variant streams, best first (EXT-X-STREAM-INF).
    pub variants: Vec<Variant>,
}

/// An audio rendition (EXT-X-MEDIA of TYPE=AUDIO).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MediaRendition {
    /// The group that variant streams refer to (GROUP-ID).
    pub group_id: String,
    /// The name for viewers (NAME).
    pub name: String,
    /// URI of the media playlist; `None` if the variant stream contains the audio.
    pub uri: Option<String>,
    /// The language as a BCP 47 tag (LANGUAGE).
    pub language: Option<String>,
    /// True if a player starts with it (DEFAULT=YES).
    pub default: bool,
    /// True if a player may choose it by the environment (AUTOSELECT=YES).
    pub autoselect: bool,
    /// The number of audio channels (CHANNELS).
    pub channels: Option<u8>,
}

/// A variant stream of the presentation (EXT-X-STREAM-INF).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Variant {
    /// URI of the media playlist.
    pub uri: String,
    /// Peak bits per second, audio included (BANDWIDTH).
    pub bandwidth: u64,
    /// Average bits per second, audio included (AVERAGE-BANDWIDTH).
    pub average_bandwidth: Option<u64>,
    /// RFC 6381 codec strings, separated by commas (CODECS).
    pub codecs: String,
    /// Width and height in pixels (RESOLUTION).
    pub resolution: Option<(u32, u32)>,
    /// Thousandths of a frame per second (FRAME-RATE).
    pub frame_rate_milli: Option<u32>,
    /// The group of its audio renditions (AUDIO).
    pub audio: Option<String>,
}

impl MultivariantPlaylist {
    /// Returns the playlist as text.
    pub fn render(&self) -> String {
        let mut out = String::with_capacity(256 * (1 + self.audio.len() + self.variants.len()));
        out.push_str("#EXTM3U\n#EXT-X-VERSION:6\n");
        if self.independent_segments {
            out.push_str("#EXT-X-INDEPENDENT-SEGMENTS\n");
        }
        self.audio.iter().for_each(|rendition| render_audio(&mut out, rendition));
        self.variants.iter().for_each(|variant| render_variant(&mut out, variant));
        out
    }

    /// Reads a multivariant playlist; tags that are not modelled are skipped.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut playlist = Self::default();
        let mut variant = None;
        for (line, content) in lines(text)? {
            let error = |kind| ParseError { line, kind };
            let (tag, value) = content.split_once(':').unwrap_or((content, ""));
            match tag {
                "#EXT-X-INDEPENDENT-SEGMENTS" => playlist.independent_segments = true,
                "#EXT-X-MEDIA" => {
                    let bad = error(ParseErrorKind::Bad("EXT-X-MEDIA"));
                    let list = Attributes::parse(value).ok_or_else(|| bad.clone())?;
                    // Only audio is modelled; other types are skipped.
                    if list.get("TYPE") == Some("AUDIO") {
                        playlist.audio.push(parse_audio(&list).ok_or(bad)?);
                    }
                }
                "#EXT-X-STREAM-INF" => {
                    let bad = error(ParseErrorKind::Bad("EXT-X-STREAM-INF"));
                    variant = Some(parse_variant(value).ok_or(bad)?);
                }
                "#EXTINF" | "#EXT-X-TARGETDURATION" => {
                    return Err(error(ParseErrorKind::WrongKind("EXTINF")));
                }
                _ if content.starts_with('#') => {}
                _ => {
                    let missing = error(ParseErrorKind::Missing("EXT-X-STREAM-INF before a URI"));
                    let variant = variant.take().ok_or(missing)?;
                    playlist.variants.push(Variant { uri: content.to_owned(), ..variant });
                }
            }
        }
        let kind = ParseErrorKind::Missing("a URI after EXT-X-STREAM-INF");
        if variant.is_some() { Err(ParseError { line: 0, kind }) } else { Ok(playlist) }
    }
}

fn render_audio(out: &mut String, rendition: &MediaRendition) {
    let text = |out: &mut String, name: &str, value: &str| {
        out.push_str(name);
        write_quoted(out, value);
    };
    let yes = |value| if value { "YES" } else { "NO" };
    out.push_str("#EXT-X-MEDIA:TYPE=AUDIO");
    text(out, ",GROUP-ID=", &rendition.group_id);
    text(out, ",NAME=", &rendition.name);
    if let Some(language) = &rendition.language {
        text(out, ",LANGUAGE=", language);
    }
    let _ = write!(out, ",DEFAULT={},AUTOSELECT={}", yes(rendition.default), yes(rendition.autoselect));
    if let Some(channels) = rendition.channels {
        let _ = write!(out, ",CHANNELS=\"{channels}\"");
    }
    if let Some(uri) = &rendition.uri {
        text(out, ",URI=", uri);
    }
    out.push('\n');
}

fn render_variant(out: &mut String, variant: &Variant) {
    let _ = write!(out, "#EXT-X-STREAM-INF:BANDWIDTH={}", variant.bandwidth);
    if let Some(average) = variant.average_bandwidth {
        let _ = write!(out, ",AVERAGE-BANDWIDTH={average}");
    }
    out.push_str(",CODECS=");
    write_quoted(out, &variant.codecs);
    if let Some((width, height)) = variant.resolution {
        let _ = write!(out, ",RESOLUTION={width}x{height}");
    }
    if let Some(rate) = variant.frame_rate_milli {
        let _ = write!(out, ",FRAME-RATE={}.{:03}", rate / 1000, rate % 1000);
    }
    if let Some(group) = &variant.audio {
        out.push_str(",AUDIO=");
        write_quoted(out, group);
    }
    out.push('\n');
    write_line(out, &variant.uri);
}

fn parse_audio(list: &Attributes<'_>) -> Option<MediaRendition> {
    Some(MediaRendition {
        group_id: list.get("GROUP-ID")?.to_owned(),
        name: list.get("NAME")?.to_owned(),
        uri: list.get("URI").map(str::to_owned),
        language: list.get("LANGUAGE").map(str::to_owned),
        default: list.yes("DEFAULT"),
        autoselect: list.yes("AUTOSELECT"),
        channels: list.get("CHANNELS").and_then(|channels| channels.split('/').next()?.parse().ok()),
    })
}

fn parse_variant(value: &str) -> Option<Variant> {
    let list = Attributes::parse(value)?;
    let resolution = match list.get("RESOLUTION") {
        Some(text) => {
            let (width, height) = text.split_once('x')?;
            Some((width.parse().ok()?, height.parse().ok()?))
        }
        None => None,
    };
    let frame_rate_milli = match list.get("FRAME-RATE") {
        Some(text) => Some(u32::try_from(parse_seconds(text)?.as_millis()).ok()?),
        None => None,
    };
    Some(Variant {
        uri: String::new(),
        bandwidth: list.integer("BANDWIDTH").ok()??,
        average_bandwidth: list.integer("AVERAGE-BANDWIDTH").ok()?,
        codecs: list.get("CODECS").unwrap_or_default().to_owned(),
        resolution,
        frame_rate_milli,
        audio: list.get("AUDIO").map(str::to_owned),
    })
}
