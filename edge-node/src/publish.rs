//! From the folded log to the view that requests read.

use std::sync::Arc;

use millrace_cluster::render::{all_media, multivariant};
use millrace_wire::fact::Snapshot;

use crate::stream::{LiveStream, MediaView, Phase, View};
use crate::text::Text;

/// Renders the playlists and wakes the waiters. A playlist whose text did not change keeps its bytes.
pub fn publish(stream: &LiveStream, snapshot: &Snapshot, current: bool) {
    let before = stream.view();
    let media: Vec<MediaView> = all_media(snapshot)
        .into_iter()
        .map(|(rendition, playlist, head)| {
            let old = before.rendition(rendition.as_str()).map(|m| &m.playlist);
            MediaView { playlist: text(playlist.render(), old), rendition, head }
        })
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
