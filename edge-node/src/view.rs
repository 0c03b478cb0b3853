//! One moment of a followed stream, as requests read it: made at the first request for it, and once. What nobody asks for
//! costs nothing.

use std::sync::{Arc, OnceLock};

pub use millrace_protocol::playlist::{BlockingDecision, PlaylistPosition};
use millrace_protocol::playlist::{heads, media_with_reports, multivariant};
use millrace_wire::fact::StreamState;
use millrace_wire::ids::Rendition;

use crate::text::Text;

/// Where a stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Known, and nothing playable yet.
    Waiting,
    /// Playlists grow.
    Live,
    /// Playlists end with ENDLIST.
    Ended,
}

/// Everything a request needs, replaced as a whole by the feed at every change.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Whether the feed follows its author without a gap.
    pub current: bool,
    shown: Option<Arc<Shown>>,
}

#[derive(Debug)]
struct Shown {
    snapshot: Arc<StreamState>,
    multivariant: OnceLock<Option<Arc<Text>>>,
    media: OnceLock<Vec<MediaView>>,
}

/// One rendition's playlist.
#[derive(Debug, Clone)]
pub struct MediaView {
    /// How far it has come.
    pub head: PlaylistPosition,
    rendition: Rendition,
    snapshot: Arc<StreamState>,
    text: Arc<OnceLock<Arc<Text>>>,
}

impl View {
    /// The state that the feed has folded.
    pub fn new(snapshot: Arc<StreamState>, current: bool) -> Self {
        let shown = Shown { snapshot, multivariant: OnceLock::new(), media: OnceLock::new() };
        Self { current, shown: Some(Arc::new(shown)) }
    }

    /// The same state, followed without a gap or not.
    #[must_use]
    pub fn with_current(&self, current: bool) -> Self {
        Self { current, shown: self.shown.clone() }
    }

    /// The media playlists that have something to play.
    pub fn media(&self) -> &[MediaView] {
        let Some(Shown { snapshot, media, .. }) = self.shown.as_deref() else { return &[] };
        let view = |(rendition, head)| MediaView {
            head,
            rendition,
            snapshot: snapshot.clone(),
            text: Arc::default(),
        };
        media.get_or_init(|| heads(snapshot).into_iter().map(view).collect())
    }

    /// One rendition's playlist. They are few, so a walk is the fastest look-up.
    pub fn rendition(&self, name: &str) -> Option<&MediaView> {
        self.media().iter().find(|m| m.rendition.as_str() == name)
    }

    /// The multivariant playlist, once there is something to play: players read it once, so it must not name what
    /// cannot be played yet.
    pub fn multivariant(&self) -> Option<Arc<Text>> {
        let Shown { snapshot, multivariant: text, .. } = self.shown.as_deref()?;
        if self.media().is_empty() {
            return None;
        }
        text.get_or_init(|| multivariant(snapshot).map(|p| Arc::new(Text::new(p.render())))).clone()
    }

    /// Where the stream stands.
    pub fn phase(&self) -> Phase {
        match (&self.shown, self.media().is_empty()) {
            (None, _) | (_, true) => Phase::Waiting,
            (Some(shown), false) if shown.snapshot.ended => Phase::Ended,
            (Some(_), false) => Phase::Live,
        }
    }

    /// TARGETDURATION in seconds, bounds how long a reload waits; `None` while unknown.
    pub fn target_duration_s(&self) -> Option<u64> {
        let seconds = self.shown.as_deref()?.snapshot.target_duration;
        (seconds > 0).then_some(seconds.into())
    }
}

impl MediaView {
    /// The playlist.
    pub fn playlist(&self) -> Arc<Text> {
        let render = || {
            let playlist = media_with_reports(&self.snapshot, &self.rendition);
            Arc::new(Text::new(playlist.map(|playlist| playlist.render()).unwrap_or_default()))
        };
        self.text.get_or_init(render).clone()
    }
}
