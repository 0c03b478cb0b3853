//! The playlists of one moment of a stream, as requests read them. The first request for a playlist renders it, once; a
//! moment that no request asks for costs nothing.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub use millrace_protocol::playlist::{BlockingDecision, PlaylistPosition};
use millrace_protocol::playlist::{awaits_renditions, heads, media_with_reports, multivariant, offered};
use millrace_wire::fact::{RenditionSegment, StreamState};
use millrace_wire::ids::{Airing, Rendition};

use crate::live::rendered::RenderedPlaylist;

/// Rungs that are not described once this much media is there will not be described soon: a transcoder starts, decodes and encodes
/// its first part in less, even on a busy machine.
const LADDER_MEDIA: Duration = Duration::from_secs(4);

/// The phase of a stream's broadcast, as viewers see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Phase {
    /// No broadcast has started, or its last one is forgotten.
    #[default]
    Waiting,
    /// A publisher is there, and nothing is playable yet.
    Starting,
    /// The broadcast runs, and the playlists grow.
    Live,
    /// The publisher is away or stands still, and may come back; the playlists stay.
    Away,
    /// The playlists end with ENDLIST.
    Ended,
}

impl Phase {
    /// Returns the phase as players read it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Starting => "starting",
            Self::Live => "live",
            Self::Away => "away",
            Self::Ended => "ended",
        }
    }
}

/// The publisher's presence, as far as the edge knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Presence {
    /// The edge has not found out yet.
    #[default]
    Unknown,
    /// No log and no epoch were found.
    NoPublisher,
    /// An epoch is open, and media comes or is about to come.
    Publishing,
    /// Control has announced that the publisher is away, or its media stands still.
    Away,
}

/// What changes seldom of a stream: players hear of a change at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Status {
    /// The phase of the broadcast.
    pub phase: Phase,
    /// False while the edge has not found out what the stream is.
    pub known: bool,
    /// A hash of the phase and of the names of the offered renditions.
    pub tag: u64,
}

/// The relation between a stream's playlists and its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Following {
    /// No log is adopted: nothing is known of the stream, or its checkpoint is shown.
    #[default]
    NoLog,
    /// Every fact that is known to exist is folded, apart from those missing for less than a second.
    Current,
    /// Facts of the log have been missing for more than a second, and nothing newer can be shown without them.
    Lagging,
}

/// Everything a request needs of a stream. The feed replaces it as a whole at every change.
#[derive(Debug, Clone, Default)]
pub struct StreamPlaylists {
    /// The relation to the log.
    pub following: Following,
    /// The publisher's presence.
    pub presence: Presence,
    shown: Option<Arc<Shown>>,
}

#[derive(Debug)]
struct Shown {
    state: Arc<StreamState>,
    multivariant: OnceLock<Option<Arc<RenderedPlaylist>>>,
    renditions: OnceLock<Vec<RenditionPlaylist>>,
}

/// The media playlist of one rendition.
#[derive(Debug, Clone)]
pub struct RenditionPlaylist {
    /// The newest segment and part it lists.
    pub position: PlaylistPosition,
    rendition: Rendition,
    state: Arc<StreamState>,
    rendered: Arc<OnceLock<Option<Arc<RenderedPlaylist>>>>,
}

impl StreamPlaylists {
    /// Creates playlists from the state that they are rendered from.
    pub fn new(state: Arc<StreamState>, following: Following, presence: Presence) -> Self {
        let shown = Shown { state, multivariant: OnceLock::new(), renditions: OnceLock::new() };
        Self { following, presence, shown: Some(Arc::new(shown)) }
    }

    /// Returns the same playlists with another relation to the log and another presence of the publisher.
    #[must_use]
    pub fn with_following(&self, following: Following, presence: Presence) -> Self {
        Self { following, presence, shown: self.shown.clone() }
    }

    /// Returns the state that the playlists are rendered from.
    pub fn state(&self) -> Option<&StreamState> {
        self.shown.as_deref().map(|shown| &*shown.state)
    }

    /// Returns true if the playlists are rendered from this very state.
    pub(super) fn shows(&self, state: &StreamState) -> bool {
        let version =
            |state: &StreamState| (state.broadcast, state.epoch, state.generation, state.seq, state.ended);
        self.shown.as_deref().is_some_and(|shown| version(&shown.state) == version(state))
    }

    /// Returns true if `state` would take playlists back that clients have read: its epoch is older, or it starts or ends before
    /// them. A new epoch of another broadcast counts its segments anew.
    pub(super) fn is_beyond(&self, state: &StreamState) -> bool {
        let Some(shown) = self.shown.as_deref().map(|shown| &shown.state) else { return false };
        if state.epoch != shown.epoch && state.broadcast != shown.broadcast {
            return state.epoch < shown.epoch;
        }
        let heads = heads(state);
        let end = |position: &PlaylistPosition| (position.open_msn, position.open_parts);
        let is_shorter = |playlist: &RenditionPlaylist| {
            let head = heads.iter().find(|(rendition, _)| *rendition == playlist.rendition);
            head.map_or(state.epoch == shown.epoch, |(_, position)| end(position) < end(&playlist.position))
        };
        state.epoch < shown.epoch
            || state.first_msn < shown.first_msn
            || (shown.ended && !state.ended && state.epoch == shown.epoch)
            || self.renditions().iter().any(is_shorter)
    }

    /// Returns the media playlists that have something to play.
    pub fn renditions(&self) -> &[RenditionPlaylist] {
        let Some(Shown { state, renditions, .. }) = self.shown.as_deref() else { return &[] };
        let playlist = |(rendition, position)| RenditionPlaylist {
            position,
            rendition,
            state: state.clone(),
            rendered: Arc::default(),
        };
        renditions.get_or_init(|| heads(state).into_iter().map(playlist).collect())
    }

    /// Returns true if a later broadcast than `airing` is shown.
    pub fn is_after(&self, airing: Airing) -> bool {
        self.state().is_some_and(|state| state.airing > airing)
    }

    /// Returns one rendition's playlist in the broadcast `airing`; `None` while another one is shown.
    pub fn media(&self, name: &str, airing: Airing) -> Option<&RenditionPlaylist> {
        self.state().filter(|state| state.airing == airing)?;
        self.rendition(name)
    }

    /// Returns one rendition's playlist. Renditions are few, so a walk is the fastest look-up.
    pub fn rendition(&self, name: &str) -> Option<&RenditionPlaylist> {
        self.renditions().iter().find(|playlist| playlist.rendition.as_str() == name)
    }

    /// Returns the multivariant playlist once at least one rendition has something to play. Players read it once, so a
    /// request for it is held until then.
    pub fn multivariant(&self) -> Option<Arc<RenderedPlaylist>> {
        let Shown { state, multivariant: rendered, .. } = self.shown.as_deref()?;
        if self.renditions().is_empty() {
            return None;
        }
        let render =
            || multivariant(state).map(|playlist| Arc::new(RenderedPlaylist::new(playlist.render())));
        rendered.get_or_init(render).clone()
    }

    /// Returns true while the multivariant playlist is likely to offer more renditions soon: the broadcast has begun a moment ago,
    /// and rungs of its ladder are still missing. Players read the playlist once.
    pub fn awaits_renditions(&self) -> bool {
        self.state().is_some_and(|state| awaits_renditions(state) && media_of_epoch(state) < LADDER_MEDIA)
    }

    /// Returns the phase of the broadcast. Renders nothing.
    pub fn phase(&self) -> Phase {
        match (self.state().filter(|state| has_had_media(state)), self.presence) {
            (Some(state), _) if state.ended => Phase::Ended,
            (Some(_), Presence::Away) => Phase::Away,
            (Some(_), _) => Phase::Live,
            (None, Presence::Publishing | Presence::Away) => Phase::Starting,
            (None, Presence::Unknown | Presence::NoPublisher) => Phase::Waiting,
        }
    }

    /// Returns true once the edge knows what the stream is: it has media, or the edge has looked for it.
    pub fn is_known(&self) -> bool {
        self.presence != Presence::Unknown || self.phase() != Phase::Waiting
    }

    /// Returns the names of the renditions that the multivariant playlist offers, in their order.
    pub fn tracks(&self) -> impl Iterator<Item = &Rendition> {
        self.state().into_iter().flat_map(offered)
    }

    /// Returns what changes seldom.
    pub fn status(&self) -> Status {
        let phase = self.phase();
        let mut hasher = DefaultHasher::new();
        phase.hash(&mut hasher);
        self.tracks().for_each(|name| name.as_str().hash(&mut hasher));
        Status { phase, known: self.is_known(), tag: hasher.finish() }
    }

    /// Returns true if the stream's renditions are known and `name` is none of them. A rendition that is not known while the
    /// playlists lag behind the log may exist.
    pub fn lacks(&self, name: &str, airing: Airing) -> bool {
        self.following != Following::Lagging
            && self.state().is_some_and(|state| {
                state.airing == airing
                    && has_media(state)
                    && !state.renditions.keys().any(|rendition| rendition.as_str() == name)
            })
    }

    /// Returns TARGETDURATION in seconds, which bounds the wait of a blocking reload; `None` while it is unknown.
    pub fn target_duration_s(&self) -> Option<u64> {
        let seconds = self.shown.as_deref()?.state.target_duration;
        (seconds > 0).then_some(seconds.into())
    }
}

/// Returns true if any rendition has something to play. The newest segment decides nearly always.
fn has_media(state: &StreamState) -> bool {
    state.slots.iter().rev().any(|slot| {
        slot.tracks.iter().any(|(name, track)| {
            (track.segment.is_some() || !track.parts.is_empty()) && state.renditions.contains_key(name)
        })
    })
}

/// Returns true if viewers have had something to play, also if the publisher has been away since for longer than the window.
fn has_had_media(state: &StreamState) -> bool {
    let has_lost_it = || state.sealed && state.slots.iter().all(|slot| slot.gap.is_some());
    has_media(state)
        || (has_lost_it() && state.renditions.values().any(|rendition| rendition.part_target.is_some()))
}

/// Returns the duration of the media that the newest epoch has in the window, in the rendition that has most.
fn media_of_epoch(state: &StreamState) -> Duration {
    let of_track = |track: &RenditionSegment| match &track.segment {
        Some(segment) => segment.duration.as_millis(),
        None => track.parts.iter().map(|part| part.duration.as_millis()).sum(),
    };
    let slots = state.slots.iter().rev().take_while(|slot| slot.epoch == state.epoch);
    let of_slots = slots.map(|slot| slot.tracks.values().map(of_track).max().unwrap_or_default());
    Duration::from_millis(of_slots.sum())
}

impl RenditionPlaylist {
    /// Returns the playlist as text, which the first request renders. `None` if the rendition has nothing to play.
    pub fn rendered(&self) -> Option<Arc<RenderedPlaylist>> {
        let render = || {
            let playlist = media_with_reports(&self.state, &self.rendition);
            playlist.map(|playlist| Arc::new(RenderedPlaylist::new(playlist.render())))
        };
        self.rendered.get_or_init(render).clone()
    }
}
