//! The playlists of one moment of a stream, as requests read them. The first request for a playlist renders it, once; a
//! moment that no request asks for costs nothing.

use std::sync::{Arc, OnceLock};

pub use millrace_protocol::playlist::{BlockingDecision, PlaylistPosition};
use millrace_protocol::playlist::{heads, media_with_reports, multivariant};
use millrace_wire::fact::StreamState;
use millrace_wire::ids::Rendition;

use crate::live::rendered::RenderedPlaylist;

/// The phase of a stream's broadcast, as viewers see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The stream exists and has nothing playable yet.
    Waiting,
    /// The broadcast runs, and the playlists grow.
    Live,
    /// The playlists end with ENDLIST.
    Ended,
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
    pub fn new(state: Arc<StreamState>, following: Following) -> Self {
        let shown = Shown { state, multivariant: OnceLock::new(), renditions: OnceLock::new() };
        Self { following, shown: Some(Arc::new(shown)) }
    }

    /// Returns the same playlists with another relation to the log.
    #[must_use]
    pub fn with_following(&self, following: Following) -> Self {
        Self { following, shown: self.shown.clone() }
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

    /// Returns the phase of the broadcast.
    pub fn phase(&self) -> Phase {
        match (&self.shown, self.renditions().is_empty()) {
            (None, _) | (_, true) => Phase::Waiting,
            (Some(shown), false) if shown.state.ended => Phase::Ended,
            (Some(_), false) => Phase::Live,
        }
    }

    /// Returns TARGETDURATION in seconds, which bounds the wait of a blocking reload; `None` while it is unknown.
    pub fn target_duration_s(&self) -> Option<u64> {
        let seconds = self.shown.as_deref()?.state.target_duration;
        (seconds > 0).then_some(seconds.into())
    }
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
