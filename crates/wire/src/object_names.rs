//! Names of media objects: the same relative path is the viewer's URL (`/` + path) and the bucket key.

use std::fmt;
use std::str::FromStr;

use crate::ids::{Airing, BadId, Epoch, Generation, InitVersion, Msn, PartIndex, PlaybackId, Rendition};

/// First path element of everything that is served or stored.
pub const ROOT: &str = "live";

/// The name of one immutable object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName {
    /// The livestream's id in viewers' URLs.
    pub playback: PlaybackId,
    /// The rendition the object belongs to.
    pub rendition: Rendition,
    /// The epoch that made it.
    pub epoch: Epoch,
    /// Which object of the epoch.
    pub kind: ObjectKind,
}

/// The kind of object that an [`ObjectName`] names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectKind {
    /// `init-{version}.mp4`: its bytes follow from the codec parameters alone, so it carries no generation.
    Init(InitVersion),
    /// The object of a segment: `{msn}.{generation}.m4s`.
    Segment(Msn, Generation),
    /// `{msn}.{generation}.{part}.m4s`: served by edges, never stored.
    Part(Msn, Generation, PartIndex),
}

impl ObjectName {
    /// The object's path under the rendition: what a relative URL in a media playlist holds.
    pub fn tail(&self) -> String {
        let epoch = self.epoch;
        match self.kind {
            ObjectKind::Init(v) => format!("{epoch}/init-{v}.mp4"),
            ObjectKind::Segment(m, g) => format!("{epoch}/{m}.{g}.m4s"),
            ObjectKind::Part(m, g, p) => format!("{epoch}/{m}.{g}.{p}.m4s"),
        }
    }
    /// Returns the key in the bucket: `live/{playback}/{rendition}/{epoch}/…`.
    pub fn key(&self) -> String {
        self.to_string()
    }
    /// URL path: the key with a leading slash.
    pub fn url(&self) -> String {
        format!("/{self}")
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ROOT}/{}/{}/{}", self.playback, self.rendition, self.tail())
    }
}

impl FromStr for ObjectName {
    type Err = BadId;
    /// Parses a key or a URL path (one leading slash is allowed). Accepts exactly what [`ObjectName::key`] writes.
    fn from_str(path: &str) -> Result<Self, BadId> {
        const BAD: BadId = BadId("ObjectName");
        let mut it = path.strip_prefix('/').unwrap_or(path).split('/');
        let mut next = || it.next().ok_or(BAD);
        if next()? != ROOT {
            return Err(BAD);
        }
        let (playback, rendition) = (next()?.parse()?, next()?.parse()?);
        let (epoch, file) = (next()?.parse()?, next()?);
        if it.next().is_some() {
            return Err(BAD);
        }
        Ok(Self { playback, rendition, epoch, kind: parse_file(file)? })
    }
}

fn parse_file(file: &str) -> Result<ObjectKind, BadId> {
    const BAD: BadId = BadId("ObjectName");
    if let Some(version) = file.strip_prefix("init-").and_then(|f| f.strip_suffix(".mp4")) {
        return Ok(ObjectKind::Init(version.parse()?));
    }
    let mut it = file.strip_suffix(".m4s").ok_or(BAD)?.split('.');
    let mut next = || it.next().ok_or(BAD);
    let (msn, generation) = (next()?.parse()?, next()?.parse()?);
    match (it.next(), it.next()) {
        (None, _) => Ok(ObjectKind::Segment(msn, generation)),
        (Some(part), None) => Ok(ObjectKind::Part(msn, generation, part.parse()?)),
        (Some(_), Some(_)) => Err(BAD),
    }
}

/// Path of the multivariant playlist.
pub fn multivariant(playback: PlaybackId) -> String {
    format!("{ROOT}/{playback}/index.m3u8")
}
/// Path of a rendition's media playlist in the livestream's first broadcast.
pub fn media_playlist(playback: PlaybackId, rendition: &Rendition) -> String {
    format!("{ROOT}/{playback}/{rendition}/index.m3u8")
}
/// Path of a rendition's media playlist in a later broadcast. Each broadcast has its own, because a playlist that has ended does
/// not change any more.
pub fn later_media_playlist(playback: PlaybackId, rendition: &Rendition, airing: Airing) -> String {
    format!("{ROOT}/{playback}/{rendition}/index-{airing}.m3u8")
}
/// Path of a rendition's media playlist in any broadcast.
pub fn airing_media_playlist(playback: PlaybackId, rendition: &Rendition, airing: Airing) -> String {
    if airing.is_first() {
        return media_playlist(playback, rendition);
    }
    later_media_playlist(playback, rendition, airing)
}
/// Returns the broadcast whose media playlist has this file name: `index.m3u8`, `index-1.m3u8`, …
pub fn airing_of_playlist(file: &str) -> Option<Airing> {
    let number = file.strip_prefix("index")?.strip_suffix(".m3u8")?;
    if number.is_empty() {
        return Some(Airing::FIRST);
    }
    number.strip_prefix('-')?.parse().ok().filter(|airing: &Airing| !airing.is_first())
}
/// Path of the newest picture of a stream.
pub fn thumbnail(playback: PlaybackId) -> String {
    format!("{ROOT}/{playback}/thumbnail.jpg")
}
/// Path of the storyboard of a stream: WebVTT, whose cues name the tiles of its sheets.
pub fn storyboard(playback: PlaybackId) -> String {
    format!("{ROOT}/{playback}/storyboard.vtt")
}
/// Path of a sheet of the storyboard, relative to the storyboard's own. A sheet that gets another tile gets another name.
pub fn storyboard_sheet(epoch: Epoch, generation: Generation, number: u32, tiles: u8) -> String {
    format!("storyboard/{epoch}/{generation}-{number}-{tiles}.jpg")
}
/// Returns true if `path` is that of a sheet, relative to the storyboard's own path.
pub fn is_storyboard_sheet(path: &str) -> bool {
    let parse = || {
        let (epoch, file) = path.strip_prefix("storyboard/")?.split_once('/')?;
        let mut numbers = file.strip_suffix(".jpg")?.split('-');
        let epoch: Epoch = epoch.parse().ok()?;
        let generation: Generation = numbers.next()?.parse().ok()?;
        let (number, tiles) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
        numbers.next().is_none().then(|| storyboard_sheet(epoch, generation, number, tiles))
    };
    parse().is_some_and(|name| name == path)
}
/// Prefix of everything a stream has stored.
pub fn stream_prefix(playback: PlaybackId) -> String {
    format!("{ROOT}/{playback}/")
}
/// Prefix of everything stored of a rendition.
pub fn rendition_prefix(playback: PlaybackId, rendition: &Rendition) -> String {
    format!("{ROOT}/{playback}/{rendition}/")
}
/// Prefix of everything one epoch has stored for a rendition.
pub fn epoch_prefix(playback: PlaybackId, rendition: &Rendition, epoch: Epoch) -> String {
    format!("{ROOT}/{playback}/{rendition}/{epoch}/")
}

/// User metadata stored with every segment, so that the index can be rebuilt by listing.
pub mod meta {
    /// Duration of the segment in ticks.
    pub const DURATION: &str = "millrace-duration";
    /// Ticks per second of the track.
    pub const TIMESCALE: &str = "millrace-timescale";
    /// Number of parts the segment is made of.
    pub const PARTS: &str = "millrace-parts";
    /// `true` if the segment starts with a random access point.
    pub const INDEPENDENT: &str = "millrace-independent";
    /// Media sequence number of the segment.
    pub const MSN: &str = "millrace-msn";
    /// Absolute discontinuity sequence number of the segment.
    pub const DISCONTINUITY: &str = "millrace-discontinuity-sequence";
    /// Program date time, unix milliseconds.
    pub const PDT: &str = "millrace-program-date-time";
    /// Version of the segment's initialisation section.
    pub const INIT: &str = "millrace-init";
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(n: u64, kind: u8) -> ObjectName {
        let kind = match kind % 3 {
            0 => ObjectKind::Init(InitVersion(n as u32)),
            1 => ObjectKind::Segment(Msn(n), Generation(n ^ 5)),
            _ => ObjectKind::Part(Msn(n), Generation(n), PartIndex(n as u32)),
        };
        let playback = "00112233445566778899aabbccddeeff".parse().unwrap();
        ObjectName { playback, rendition: Rendition::audio(), epoch: Epoch(n), kind }
    }

    proptest! {
        #[test]
        fn names_round_trip(n: u64, kind: u8) {
            let name = name(n, kind);
            prop_assert_eq!(name.key().parse(), Ok(name.clone()));
            prop_assert_eq!(name.url().parse(), Ok(name));
        }

        #[test]
        fn a_path_is_refused_or_comes_back_unchanged(
            path in "live/[0-9a-f]{32}/(video|a.b|audio)/[0-9]{1,3}/(init-)?[0-9.]{1,8}(\\.m4s|\\.mp4|/)"
        ) {
            if let Ok(name) = path.parse::<ObjectName>() { prop_assert_eq!(name.key(), path); }
        }

        #[test]
        fn sheets_are_known_by_their_names_and_nothing_else_is(epoch: u64, generation: u64, number: u32, tiles: u8) {
            let name = storyboard_sheet(Epoch(epoch), Generation(generation), number, tiles);
            prop_assert!(is_storyboard_sheet(&name));
            let dotted = name.replace("storyboard/", "storyboard/../");
            prop_assert!(!is_storyboard_sheet(&dotted) && !is_storyboard_sheet(&name[1..]));
            prop_assert!(!is_storyboard_sheet(&name.replace('-', "-0")));
        }

        #[test]
        fn garbage_does_not_panic(path in "\\PC{0,80}") {
            let _ = path.parse::<ObjectName>();
        }
    }
}
