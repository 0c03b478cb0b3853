//! From the folded log to the view that requests read.

use std::sync::Arc;

use millrace_cluster::render::{heads, multivariant};
use millrace_wire::fact::Snapshot;

use crate::stream::{LiveStream, MediaView, Phase, View};
use crate::text::Text;

/// Replaces the view and wakes the waiters. Media playlists are rendered by the first request for them; the multivariant,
/// whose text seldom changes, keeps its bytes.
pub fn publish(stream: &LiveStream, snapshot: &Arc<Snapshot>, current: bool) {
    let before = stream.view();
    let media: Vec<MediaView> = heads(snapshot)
        .into_iter()
        .map(|(rendition, head)| MediaView::new(snapshot.clone(), rendition, head))
        .collect();
    let phase = match (media.is_empty(), snapshot.ended) {
        (true, _) => Phase::Waiting,
        (false, true) => Phase::Ended,
        (false, false) => Phase::Live,
    };
    // The multivariant is read once: it must not name what cannot be played yet.
    let playlist = if media.is_empty() { None } else { multivariant(snapshot) };
    let multivariant = playlist.map(|p| text(p.render(), before.multivariant.as_ref()));
    let target_duration_s = u64::from(snapshot.target_duration);
    stream.publish(View { phase, current, multivariant, media, target_duration_s });
}

fn text(rendered: String, old: Option<&Arc<Text>>) -> Arc<Text> {
    match old {
        Some(old) if old.plain() == rendered.as_bytes() => old.clone(),
        _ => Arc::new(Text::new(rendered)),
    }
}
