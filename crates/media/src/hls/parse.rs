//! Reading media playlists of untrusted origin, with bounded work.

use std::time::Duration;

use super::date::parse_date_time;
use super::model::{
    Map, MediaPlaylist, OpenSegment, Part, PreloadHint, RenditionReport, Segment, ServerControl, Start,
};
use super::tags::{Attributes, parse_integer, parse_seconds};

/// Largest playlist that is read. A day of one-second parts stays below it.
pub const MAX_PLAYLIST_BYTES: usize = 16 * 1024 * 1024;

/// The position and kind of an error in a playlist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {kind}")]
pub struct ParseError {
    /// Number of the line, from 1; 0 for the playlist as a whole.
    pub line: usize,
    /// The kind of error in that line.
    pub kind: ParseErrorKind,
}

/// The kinds of error in a playlist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseErrorKind {
    /// A playlist of more than [`MAX_PLAYLIST_BYTES`].
    #[error("the playlist is longer than {MAX_PLAYLIST_BYTES} bytes")]
    TooLong,
    /// A first line other than `#EXTM3U`.
    #[error("the first line is not #EXTM3U")]
    NoHeader,
    /// A required tag that the playlist lacks.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A tag with a malformed value.
    #[error("{0} has a malformed value")]
    Bad(&'static str),
    /// A URI without EXTINF before it.
    #[error("URI without EXTINF")]
    NoExtinf,
    /// A tag of the other kind of playlist, media or multivariant.
    #[error("{0} in the wrong kind of playlist")]
    WrongKind(&'static str),
}

type Line<T> = Result<T, ParseErrorKind>;

/// Returns the tags and URIs of a playlist with their line numbers, without comments and blank
/// lines.
pub(super) fn lines(text: &str) -> Result<impl Iterator<Item = (usize, &str)>, ParseError> {
    if text.len() > MAX_PLAYLIST_BYTES {
        return Err(ParseError { line: 0, kind: ParseErrorKind::TooLong });
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim_end()));
    if lines.next().is_none_or(|(_, first)| first != "#EXTM3U") {
        return Err(ParseError { line: 1, kind: ParseErrorKind::NoHeader });
    }
    Ok(lines.filter(|(_, line)| !line.is_empty() && (!line.starts_with('#') || line.starts_with("#EXT"))))
}

#[derive(Default)]
struct Reader {
    playlist: MediaPlaylist,
    next: OpenSegment,
    any: bool,
    duration: Option<Duration>,
    gap: bool,
    map: Option<Map>,
    target: bool,
}

impl MediaPlaylist {
    /// Reads a media playlist. Unknown tags are skipped (§6.3.1); a malformed known one is an
    /// error.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut reader = Reader::default();
        for (line, content) in lines(text)? {
            reader.line(content).map_err(|kind| ParseError { line, kind })?;
        }
        reader.finish().map_err(|kind| ParseError { line: 0, kind })
    }
}

impl Reader {
    fn line(&mut self, line: &str) -> Line<()> {
        if !line.starts_with('#') {
            return self.uri(line);
        }
        let (tag, value) = line.split_once(':').unwrap_or((line, ""));
        match tag {
            "#EXT-X-STREAM-INF" | "#EXT-X-MEDIA" => {
                return Err(ParseErrorKind::WrongKind("EXT-X-STREAM-INF"));
            }
            "#EXT-X-TARGETDURATION"
            | "#EXT-X-MEDIA-SEQUENCE"
            | "#EXT-X-DISCONTINUITY-SEQUENCE"
            | "#EXT-X-PART-INF"
            | "#EXT-X-SERVER-CONTROL"
            | "#EXT-X-SKIP" => return self.header(tag, value),
            "#EXT-X-INDEPENDENT-SEGMENTS" => self.playlist.independent_segments = true,
            "#EXT-X-START" => {
                self.playlist.start = Some(start(value).ok_or(ParseErrorKind::Bad("EXT-X-START"))?);
            }
            "#EXT-X-ENDLIST" => self.playlist.ended = true,
            "#EXT-X-PRELOAD-HINT" => self.playlist.preload_hint = preload_hint(value)?,
            "#EXT-X-RENDITION-REPORT" => self.playlist.rendition_reports.push(report(value)?),
            _ => return self.segment_tag(tag, value),
        }
        Ok(())
    }

    fn header(&mut self, tag: &str, value: &str) -> Line<()> {
        match tag {
            "#EXT-X-TARGETDURATION" => {
                self.playlist.target_duration = parse_integer(value)
                    .and_then(|seconds| u32::try_from(seconds).ok())
                    .ok_or(ParseErrorKind::Bad("EXT-X-TARGETDURATION"))?;
                self.target = true;
            }
            "#EXT-X-MEDIA-SEQUENCE" => {
                // Half the range, because numbers of segments are added to it.
                self.playlist.media_sequence = parse_integer(value)
                    .filter(|number| *number <= u64::MAX / 2)
                    .ok_or(ParseErrorKind::Bad("EXT-X-MEDIA-SEQUENCE"))?;
            }
            "#EXT-X-DISCONTINUITY-SEQUENCE" => {
                self.playlist.discontinuity_sequence =
                    parse_integer(value).ok_or(ParseErrorKind::Bad("EXT-X-DISCONTINUITY-SEQUENCE"))?;
            }
            "#EXT-X-PART-INF" => {
                let target =
                    Attributes::parse(value).and_then(|list| list.seconds("PART-TARGET").ok().flatten());
                self.playlist.part_target = Some(target.ok_or(ParseErrorKind::Bad("EXT-X-PART-INF"))?);
            }
            "#EXT-X-SERVER-CONTROL" => {
                self.playlist.server_control =
                    Some(control(value).ok_or(ParseErrorKind::Bad("EXT-X-SERVER-CONTROL"))?);
            }
            _ => {
                let count =
                    Attributes::parse(value).and_then(|list| list.integer("SKIPPED-SEGMENTS").ok().flatten());
                let count = count.filter(|count| u32::try_from(*count).is_ok());
                self.playlist.skipped_segments = count.ok_or(ParseErrorKind::Bad("EXT-X-SKIP"))?;
            }
        }
        Ok(())
    }

    fn segment_tag(&mut self, tag: &str, value: &str) -> Line<()> {
        match tag {
            "#EXTINF" => {
                let seconds = value.split(',').next().unwrap_or_default();
                self.duration = Some(parse_seconds(seconds.trim()).ok_or(ParseErrorKind::Bad("EXTINF"))?);
            }
            "#EXT-X-DISCONTINUITY" => self.next.discontinuity = true,
            "#EXT-X-GAP" => self.gap = true,
            "#EXT-X-MAP" => {
                let uri = Attributes::parse(value).and_then(|list| list.get("URI"));
                self.map = Some(Map { uri: uri.ok_or(ParseErrorKind::Bad("EXT-X-MAP"))?.into() });
            }
            "#EXT-X-PROGRAM-DATE-TIME" => {
                let time =
                    parse_date_time(value.trim()).ok_or(ParseErrorKind::Bad("EXT-X-PROGRAM-DATE-TIME"))?;
                self.next.program_date_time = Some(time);
            }
            "#EXT-X-PART" => {
                let part = part(value).ok_or(ParseErrorKind::Bad("EXT-X-PART"))?;
                self.next.parts.push(part);
            }
            _ => return Ok(()),
        }
        self.any = true;
        Ok(())
    }

    fn uri(&mut self, uri: &str) -> Line<()> {
        let duration = self.duration.take().ok_or(ParseErrorKind::NoExtinf)?;
        let head = std::mem::take(&mut self.next);
        self.any = false;
        self.playlist.segments.push(Segment {
            uri: uri.into(),
            duration,
            discontinuity: head.discontinuity,
            gap: std::mem::take(&mut self.gap),
            map: self.map.clone(),
            program_date_time: head.program_date_time,
            parts: head.parts,
        });
        Ok(())
    }

    fn finish(mut self) -> Line<MediaPlaylist> {
        if !self.target {
            return Err(ParseErrorKind::Missing("EXT-X-TARGETDURATION"));
        }
        if self.duration.is_some() {
            return Err(ParseErrorKind::Missing("a URI after EXTINF"));
        }
        if self.any {
            self.playlist.open = Some(OpenSegment { map: self.map, ..self.next });
        }
        Ok(self.playlist)
    }
}

fn control(value: &str) -> Option<ServerControl> {
    let list = Attributes::parse(value)?;
    Some(ServerControl {
        can_block_reload: list.yes("CAN-BLOCK-RELOAD"),
        part_hold_back: list.seconds("PART-HOLD-BACK").ok()?,
        hold_back: list.seconds("HOLD-BACK").ok()?,
        can_skip_until: list.seconds("CAN-SKIP-UNTIL").ok()?,
    })
}

fn start(value: &str) -> Option<Start> {
    let list = Attributes::parse(value)?;
    let offset = list.get("TIME-OFFSET")?;
    let (sign, digits) = offset.strip_prefix('-').map_or((1, offset), |digits| (-1, digits));
    let ms = i32::try_from(parse_seconds(digits)?.as_millis()).ok()?;
    Some(Start { time_offset_ms: sign * ms, precise: list.yes("PRECISE") })
}

fn part(value: &str) -> Option<Part> {
    let list = Attributes::parse(value)?;
    Some(Part {
        uri: list.get("URI")?.into(),
        duration: list.seconds("DURATION").ok()??,
        independent: list.yes("INDEPENDENT"),
        gap: list.yes("GAP"),
    })
}

fn preload_hint(value: &str) -> Line<Option<PreloadHint>> {
    let bad = ParseErrorKind::Bad("EXT-X-PRELOAD-HINT");
    let list = Attributes::parse(value).ok_or(bad)?;
    let uri = list.get("URI").ok_or(bad)?.into();
    match list.get("TYPE") {
        Some("PART") => Ok(Some(PreloadHint::Part(uri))),
        Some("MAP") => Ok(Some(PreloadHint::Map(uri))),
        Some(_) => Ok(None),
        None => Err(bad),
    }
}

fn report(value: &str) -> Line<RenditionReport> {
    let bad = ParseErrorKind::Bad("EXT-X-RENDITION-REPORT");
    let list = Attributes::parse(value).ok_or(bad)?;
    Ok(RenditionReport {
        uri: list.get("URI").ok_or(bad)?.into(),
        last_msn: list.integer("LAST-MSN").ok().flatten().ok_or(bad)?,
        last_part: list.integer("LAST-PART").map_err(|()| bad)?,
    })
}
