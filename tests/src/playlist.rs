//! A small reader of HLS playlists (RFC 8216bis), independent of the product's own.

use anyhow::{Context, Result, bail};

/// The variants and renditions of a multivariant playlist.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Multivariant {
    /// Media playlists of the variants, in order.
    pub variants: Vec<String>,
    /// Their `BANDWIDTH`, bits per second.
    pub bandwidths: Vec<u64>,
    /// Their other attributes, as they are written.
    pub attributes: Vec<String>,
    /// Media playlists of audio renditions, in order.
    pub audio: Vec<String>,
}

/// One segment of a media playlist.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// The media sequence number of the segment.
    pub msn: u64,
    /// The URI of the segment's bytes.
    pub uri: String,
    /// Reference to its initialisation section.
    pub init: String,
    /// The EXTINF duration in seconds.
    pub duration: f64,
    /// True if an `EXT-X-DISCONTINUITY` tag stands before it.
    pub discontinuity: bool,
    /// The number of discontinuities before it since the stream began.
    pub discontinuity_sequence: u64,
    /// `EXT-X-GAP`: its bytes do not exist.
    pub gap: bool,
    /// The `EXT-X-PROGRAM-DATE-TIME` value as written.
    pub program_date_time: Option<String>,
}

/// A media playlist as a player reads it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Media {
    /// The `EXT-X-TARGETDURATION` value in seconds.
    pub target_duration: u64,
    /// The `EXT-X-MEDIA-SEQUENCE` value of the playlist.
    pub media_sequence: u64,
    /// The `EXT-X-DISCONTINUITY-SEQUENCE` value of the playlist.
    pub discontinuity_sequence: u64,
    /// The complete segments of the playlist.
    pub segments: Vec<Segment>,
    /// References of the parts, complete segments' and the open one's.
    pub parts: Vec<String>,
    /// Parts of the segment that is not complete yet.
    pub open_parts: usize,
    /// The duration of these parts in seconds.
    pub open_seconds: f64,
    /// True if the playlist has `EXT-X-ENDLIST`.
    pub ended: bool,
}

fn attribute<'a>(list: &'a str, name: &str) -> Option<&'a str> {
    let at = list.match_indices(name).map(|(at, _)| at).find(|&at| {
        (at == 0 || list.as_bytes()[at - 1] == b',') && list[at + name.len()..].starts_with('=')
    })?;
    let value = &list[at + name.len() + 1..];
    value.strip_prefix('"').map_or_else(|| value.split(',').next(), |quoted| quoted.split('"').next())
}

fn lines(text: &str) -> Result<impl Iterator<Item = &str>> {
    let mut lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty());
    if lines.next() != Some("#EXTM3U") {
        bail!("a playlist starts with #EXTM3U: {text:?}");
    }
    Ok(lines)
}

impl Multivariant {
    /// Returns an attribute of a variant, without its quotation marks.
    pub fn attribute(&self, variant: usize, name: &str) -> Option<&str> {
        attribute(self.attributes.get(variant)?, name)
    }

    /// Reads the text of a multivariant playlist.
    pub fn parse(text: &str) -> Result<Self> {
        let mut found = Self::default();
        let mut variant_follows = false;
        for line in lines(text)? {
            if let Some(list) = line.strip_prefix("#EXT-X-STREAM-INF:") {
                let bandwidth = attribute(list, "BANDWIDTH").and_then(|text| text.parse().ok());
                found.bandwidths.push(bandwidth.with_context(|| format!("no BANDWIDTH in {line}"))?);
                found.attributes.push(list.to_owned());
                variant_follows = true;
            } else if let Some(list) = line.strip_prefix("#EXT-X-MEDIA:") {
                if attribute(list, "TYPE") == Some("AUDIO") {
                    found.audio.extend(attribute(list, "URI").map(str::to_owned));
                }
            } else if !line.starts_with('#') && variant_follows {
                found.variants.push(line.to_owned());
                variant_follows = false;
            }
        }
        if found.variants.is_empty() {
            bail!("no variant in {text}");
        }
        Ok(found)
    }
}

/// The tags read so far that apply to the next segment's URI.
#[derive(Default)]
struct Pending {
    duration: Option<f64>,
    discontinuity: bool,
    gap: bool,
    program_date_time: Option<String>,
}

impl Media {
    /// Reads the text of a media playlist.
    pub fn parse(text: &str) -> Result<Self> {
        let mut playlist = Self::default();
        let mut pending = Pending::default();
        let mut init = String::new();
        let mut discontinuities = 0;
        for line in lines(text)? {
            let (tag, value) = line.split_once(':').unwrap_or((line, ""));
            let number = || value.parse::<u64>().with_context(|| line.to_owned());
            match tag {
                "#EXT-X-TARGETDURATION" => playlist.target_duration = number()?,
                "#EXT-X-MEDIA-SEQUENCE" => playlist.media_sequence = number()?,
                "#EXT-X-DISCONTINUITY-SEQUENCE" => playlist.discontinuity_sequence = number()?,
                "#EXT-X-ENDLIST" => playlist.ended = true,
                "#EXT-X-DISCONTINUITY" => {
                    pending.discontinuity = true;
                    discontinuities += 1;
                }
                "#EXT-X-GAP" => pending.gap = true,
                "#EXT-X-PROGRAM-DATE-TIME" => pending.program_date_time = Some(value.to_owned()),
                "#EXT-X-MAP" => attribute(value, "URI").context("MAP without URI")?.clone_into(&mut init),
                "#EXT-X-PART" => {
                    playlist.parts.push(attribute(value, "URI").context("PART without URI")?.to_owned());
                    playlist.open_parts += 1;
                    let seconds = attribute(value, "DURATION").context("PART without DURATION")?;
                    playlist.open_seconds += seconds.parse::<f64>().with_context(|| line.to_owned())?;
                }
                "#EXTINF" => {
                    let seconds = value.split(',').next().unwrap_or_default();
                    pending.duration = Some(seconds.parse().with_context(|| line.to_owned())?);
                }
                _ if !line.starts_with('#') => {
                    let said = std::mem::take(&mut pending);
                    (playlist.open_parts, playlist.open_seconds) = (0, 0.0);
                    playlist.segments.push(Segment {
                        msn: playlist.media_sequence + playlist.segments.len() as u64,
                        uri: line.to_owned(),
                        init: init.clone(),
                        duration: said.duration.with_context(|| format!("{line} without EXTINF"))?,
                        discontinuity: said.discontinuity,
                        discontinuity_sequence: playlist.discontinuity_sequence + discontinuities,
                        gap: said.gap,
                        program_date_time: said.program_date_time,
                    });
                }
                _ => {}
            }
        }
        Ok(playlist)
    }

    /// Returns the URIs a viewer fetches: parts where the playlist has them, else segments.
    pub fn references(&self) -> Vec<&str> {
        if self.parts.is_empty() {
            self.segments.iter().filter(|segment| !segment.gap).map(|segment| segment.uri.as_str()).collect()
        } else {
            self.parts.iter().map(String::as_str).collect()
        }
    }

    /// Returns the media sequence number behind the last complete segment.
    pub fn next_msn(&self) -> u64 {
        self.media_sequence + self.segments.len() as u64
    }

    /// Returns the faults of `self`, served after `earlier`: a viewer's playlist never goes backwards and
    /// never changes what it has listed.
    pub fn violations_after(&self, earlier: &Self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut hold = |holds: bool, what: String| {
            if !holds {
                wrong.push(what);
            }
        };
        hold(
            self.media_sequence >= earlier.media_sequence,
            format!("MEDIA-SEQUENCE fell from {} to {}", earlier.media_sequence, self.media_sequence),
        );
        hold(
            self.discontinuity_sequence >= earlier.discontinuity_sequence,
            format!(
                "DISCONTINUITY-SEQUENCE fell from {} to {}",
                earlier.discontinuity_sequence, self.discontinuity_sequence
            ),
        );
        hold(
            self.target_duration == earlier.target_duration,
            format!("TARGETDURATION went from {} to {}", earlier.target_duration, self.target_duration),
        );
        hold(!earlier.ended || self == earlier, "changed after ENDLIST".to_owned());
        hold(
            self.next_msn() >= earlier.next_msn(),
            format!("the last segment fell from {} to {}", earlier.next_msn(), self.next_msn()),
        );
        for segment in &self.segments {
            let before = earlier.segments.iter().find(|before| before.msn == segment.msn);
            if let Some(before) = before {
                hold(
                    (before.uri == segment.uri && before.init == segment.init || before.gap || segment.gap)
                        && before.discontinuity_sequence == segment.discontinuity_sequence,
                    format!("segment {} went from {before:?} to {segment:?}", segment.msn),
                );
            }
            hold(
                segment.duration.round() <= self.target_duration as f64,
                format!(
                    "segment {} of {} s exceeds TARGETDURATION {}",
                    segment.msn, segment.duration, self.target_duration
                ),
            );
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIVE: &str = "#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-TARGETDURATION:4\n#EXT-X-MEDIA-SEQUENCE:7\n\
        #EXT-X-DISCONTINUITY-SEQUENCE:2\n#EXT-X-MAP:URI=\"1/init-0.mp4\"\n#EXT-X-GAP\n#EXTINF:2.0,\n1/7.1.m4s\n\
        #EXT-X-DISCONTINUITY\n#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:00Z\n#EXT-X-PART:DURATION=0.5,URI=\"1/8.1.0.m4s\"\n\
        #EXTINF:2.5,\n1/8.1.m4s\n";

    #[test]
    fn reads_media_playlists() {
        let playlist = Media::parse(LIVE).unwrap();
        assert_eq!((playlist.media_sequence, playlist.segments.len(), playlist.ended), (7, 2, false));
        assert!(playlist.segments[0].gap && !playlist.segments[1].gap);
        let last = &playlist.segments[1];
        assert_eq!((last.msn, last.uri.as_str(), last.init.as_str()), (8, "1/8.1.m4s", "1/init-0.mp4"));
        assert_eq!((last.discontinuity, last.discontinuity_sequence), (true, 3));
        assert_eq!((playlist.references(), playlist.open_parts), (vec!["1/8.1.0.m4s"], 0));
    }

    #[test]
    fn reads_multivariant_playlists() {
        let text = "#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"a\",NAME=\"x\",URI=\"audio.m3u8\"\n\
            #EXT-X-STREAM-INF:BANDWIDTH=1,CODECS=\"avc1.64001f,mp4a.40.2\",AUDIO=\"a\"\nvideo.m3u8\n";
        let found = Multivariant::parse(text).unwrap();
        assert_eq!(
            (found.variants, found.audio),
            (vec!["video.m3u8".to_owned()], vec!["audio.m3u8".to_owned()])
        );
    }

    #[test]
    fn sees_a_playlist_go_backwards() {
        let earlier = Media::parse(LIVE).unwrap();
        assert_eq!(earlier.violations_after(&earlier), Vec::<String>::new());
        for (from, to) in
            [("SEQUENCE:7", "SEQUENCE:6"), ("1/8.1.m4s", "1/8.2.m4s"), ("DURATION:4", "DURATION:5")]
        {
            let later = Media::parse(&LIVE.replace(from, to)).unwrap();
            assert!(!later.violations_after(&earlier).is_empty(), "{from} -> {to}");
        }
    }
}
