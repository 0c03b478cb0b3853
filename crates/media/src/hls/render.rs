//! The text of media playlists.

use std::fmt::Write;

use super::date::write_date_time;
use super::model::{Map, MediaPlaylist, Part, PreloadHint, ServerControl};
use super::tags::{write_line, write_quoted, write_seconds};

/// The EXT-X-VERSION of playlists: low-latency tags and EXT-X-SKIP need 9 (RFC 8216bis §8),
/// EXT-X-MAP alone needs 6.
const VERSION_LOW_LATENCY: u8 = 9;
const VERSION_PLAIN: u8 = 6;
/// Expected bytes of the lines of a segment or part, so that most playlists need one allocation.
const BYTES_PER_ENTRY: usize = 192;

impl MediaPlaylist {
    /// Returns the playlist as text. Equal playlists give equal bytes.
    pub fn render(&self) -> String {
        let parts: usize = self.segments.iter().map(|segment| segment.parts.len()).sum();
        let open = self.open.as_ref().map_or(0, |open| open.parts.len());
        let mut out = String::with_capacity(512 + (self.segments.len() + parts + open) * BYTES_PER_ENTRY);
        self.render_head(&mut out);
        let mut map = None;
        for segment in &self.segments {
            head_of_segment(
                &mut out,
                segment.discontinuity,
                segment.map.as_ref(),
                &mut map,
                segment.program_date_time,
            );
            segment.parts.iter().for_each(|part| render_part(&mut out, part));
            if segment.gap {
                out.push_str("#EXT-X-GAP\n");
            }
            out.push_str("#EXTINF:");
            write_seconds(&mut out, segment.duration);
            out.push_str(",\n");
            write_line(&mut out, &segment.uri);
        }
        if let Some(open) = &self.open {
            head_of_segment(
                &mut out,
                open.discontinuity,
                open.map.as_ref(),
                &mut map,
                open.program_date_time,
            );
            open.parts.iter().for_each(|part| render_part(&mut out, part));
        }
        self.render_tail(&mut out);
        out
    }

    fn render_head(&self, out: &mut String) {
        let low_latency = self.part_target.is_some() || self.skipped_segments > 0;
        let version = if low_latency { VERSION_LOW_LATENCY } else { VERSION_PLAIN };
        let _ = write!(
            out,
            "#EXTM3U\n#EXT-X-VERSION:{version}\n#EXT-X-TARGETDURATION:{}\n",
            self.target_duration
        );
        if let Some(control) = &self.server_control {
            render_control(out, control);
        }
        if let Some(target) = self.part_target {
            out.push_str("#EXT-X-PART-INF:PART-TARGET=");
            write_seconds(out, target);
            out.push('\n');
        }
        let _ = writeln!(out, "#EXT-X-MEDIA-SEQUENCE:{}", self.media_sequence);
        if self.discontinuity_sequence > 0 {
            let _ = writeln!(out, "#EXT-X-DISCONTINUITY-SEQUENCE:{}", self.discontinuity_sequence);
        }
        if self.independent_segments {
            out.push_str("#EXT-X-INDEPENDENT-SEGMENTS\n");
        }
        if let Some(start) = self.start {
            let (sign, ms) =
                (if start.time_offset_ms < 0 { "-" } else { "" }, start.time_offset_ms.unsigned_abs());
            let _ = write!(out, "#EXT-X-START:TIME-OFFSET={sign}{}.{:03}", ms / 1000, ms % 1000);
            out.push_str(if start.precise { ",PRECISE=YES\n" } else { "\n" });
        }
        if self.skipped_segments > 0 {
            let _ = writeln!(out, "#EXT-X-SKIP:SKIPPED-SEGMENTS={}", self.skipped_segments);
        }
    }

    fn render_tail(&self, out: &mut String) {
        if let Some(hint) = &self.preload_hint {
            let (kind, uri) = match hint {
                PreloadHint::Part(uri) => ("PART", uri),
                PreloadHint::Map(uri) => ("MAP", uri),
            };
            let _ = write!(out, "#EXT-X-PRELOAD-HINT:TYPE={kind},URI=");
            write_quoted(out, uri);
            out.push('\n');
        }
        for report in &self.rendition_reports {
            out.push_str("#EXT-X-RENDITION-REPORT:URI=");
            write_quoted(out, &report.uri);
            let _ = write!(out, ",LAST-MSN={}", report.last_msn);
            if let Some(part) = report.last_part {
                let _ = write!(out, ",LAST-PART={part}");
            }
            out.push('\n');
        }
        if self.ended {
            out.push_str("#EXT-X-ENDLIST\n");
        }
    }
}

fn render_control(out: &mut String, control: &ServerControl) {
    let mut separator = ':';
    let mut name = |out: &mut String, name: &str| {
        out.push(std::mem::replace(&mut separator, ','));
        out.push_str(name);
        out.push('=');
    };
    out.push_str("#EXT-X-SERVER-CONTROL");
    if control.can_block_reload {
        name(out, "CAN-BLOCK-RELOAD");
        out.push_str("YES");
    }
    for (key, value) in [
        ("CAN-SKIP-UNTIL", control.can_skip_until),
        ("HOLD-BACK", control.hold_back),
        ("PART-HOLD-BACK", control.part_hold_back),
    ] {
        if let Some(value) = value {
            name(out, key);
            write_seconds(out, value);
        }
    }
    if separator == ':' {
        out.truncate(out.len() - "#EXT-X-SERVER-CONTROL".len()); // no attribute
    } else {
        out.push('\n');
    }
}

fn head_of_segment<'a>(
    out: &mut String,
    discontinuity: bool,
    map: Option<&'a Map>,
    last_map: &mut Option<&'a Map>,
    program_date_time: Option<i64>,
) {
    if discontinuity {
        out.push_str("#EXT-X-DISCONTINUITY\n");
    }
    if let Some(map) = map.filter(|map| *last_map != Some(*map)) {
        out.push_str("#EXT-X-MAP:URI=");
        write_quoted(out, &map.uri);
        out.push('\n');
        *last_map = Some(map);
    }
    if let Some(time) = program_date_time {
        out.push_str("#EXT-X-PROGRAM-DATE-TIME:");
        write_date_time(out, time);
        out.push('\n');
    }
}

fn render_part(out: &mut String, part: &Part) {
    out.push_str("#EXT-X-PART:DURATION=");
    write_seconds(out, part.duration);
    out.push_str(",URI=");
    write_quoted(out, &part.uri);
    if part.independent {
        out.push_str(",INDEPENDENT=YES");
    }
    if part.gap {
        out.push_str(",GAP=YES");
    }
    out.push('\n');
}
