//! The storyboard of a stream: sheets of small pictures in the bucket, and WebVTT whose cues name their tiles.
//!
//! ```text
//! WEBVTT
//!
//! NOTE start=2026-11-27T10:00:00.000Z: cue times count from this time, which playlists give as EXT-X-PROGRAM-DATE-TIME
//!
//! 00:00:10.000 --> 00:00:20.000
//! storyboard/1790000000000/1-0-2.jpg#xywh=160,0,160,90
//! ```
//!
//! A sheet gets a tile every ten seconds, and another name with it, so that caches keep each for ever.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use millrace_buf::ByteChain;
use millrace_media::hls::format_date_time;
use millrace_store::{Meta, SharedStore, StoreError};
use millrace_wire::ids::{Epoch, Generation, PlaybackId, UnixMillis};
use millrace_wire::object_names;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::pictures::Sheet;

/// The media types of a sheet and of the cues.
const JPEG: &str = "image/jpeg";
const VTT: &str = "text/vtt";
/// A sheet never changes under its name; the cues change every ten seconds.
const SHEET_CACHE: &str = "public, max-age=31536000, immutable";
const VTT_CACHE: &str = "public, max-age=10";
/// Milliseconds between two tiles, as the transcoder makes them.
const TILE_MS: u64 = 10_000;
/// Tiles in a row of a sheet, and the size of a tile in pixels.
const COLUMNS: u8 = 5;
const TILE: (u32, u32) = (160, 90);
/// Sheets that the cues of a recorded stream name: of 250 s each, about four hours. Older ones are deleted.
const RECORDED_SHEETS: usize = 60;
/// Sheets of a stream that is not recorded: its live window is shorter than one.
const LIVE_SHEETS: usize = 2;
/// The longest time one request to the store may take. What is late is left out; the next tile follows in ten seconds.
const LIMIT: Duration = Duration::from_secs(10);
/// Sheets that may wait for the store.
const QUEUE: usize = 2;

/// The task that stores a stream's sheets and cues.
pub(crate) struct StoryboardWriter {
    sheets: mpsc::Sender<Sheet>,
    task: JoinHandle<()>,
}

impl StoryboardWriter {
    /// Starts the task for the stream of `playback`, whose job writes the log `(epoch, generation)`.
    pub(crate) fn start(
        store: SharedStore,
        playback: PlaybackId,
        (epoch, generation): (Epoch, Generation),
        recorded: bool,
    ) -> Self {
        let (sheets, queue) = mpsc::channel(QUEUE);
        let kept = if recorded { RECORDED_SHEETS } else { LIVE_SHEETS };
        let board = Storyboard { epoch, generation, kept, sheets: VecDeque::new(), next: 0 };
        let task = tokio::spawn(run(store, playback, board, queue));
        Self { sheets, task }
    }

    /// Hands a sheet to the task and returns at once; one that finds no room is left out.
    pub(crate) fn put(&self, sheet: Sheet) {
        if self.sheets.try_send(sheet).is_err() {
            tracing::debug!("sheet of the storyboard left out: the store is slow; the next one follows");
        }
    }
}

impl Drop for StoryboardWriter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(
    store: SharedStore,
    playback: PlaybackId,
    mut board: Storyboard,
    mut queue: mpsc::Receiver<Sheet>,
) {
    while let Some(sheet) = queue.recv().await {
        let stored = tokio::time::timeout(LIMIT, store_sheet(&store, playback, &mut board, sheet)).await;
        match stored {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "storyboard not stored; the next sheet follows"),
            Err(_) => tracing::debug!("storyboard not stored in time; the next sheet follows"),
        }
    }
}

/// Stores a sheet, then the cues that name it, and deletes what no cues of the last seconds name.
async fn store_sheet(
    store: &SharedStore,
    playback: PlaybackId,
    board: &mut Storyboard,
    sheet: Sheet,
) -> Result<(), StoreError> {
    let jpeg = sheet.jpeg.clone();
    let (name, unused) = board.add(&sheet);
    let key = |name: &str| format!("{}{name}", object_names::stream_prefix(playback));
    let put = |key: String, body: Bytes, meta: Meta| async move {
        store.put(&key, ByteChain::from(body), meta).await
    };
    put(key(&name), jpeg, Meta::of_type(JPEG).cache(SHEET_CACHE)).await?;
    let cues = board.cues().into();
    put(object_names::storyboard(playback), cues, Meta::of_type(VTT).cache(VTT_CACHE)).await?;
    for name in unused {
        store.delete(&key(&name)).await?;
    }
    Ok(())
}

/// One sheet with all names it has had that may still be read.
#[derive(Debug)]
struct Entry {
    /// Its number in its name, and the transcoder's own.
    named: u32,
    number: u32,
    tiles: u8,
    first: UnixMillis,
    names: VecDeque<String>,
}

/// The sheets that the cues name.
#[derive(Debug)]
struct Storyboard {
    epoch: Epoch,
    generation: Generation,
    kept: usize,
    sheets: VecDeque<Entry>,
    /// The number of the next sheet. A transcoder that starts anew counts from 0 again; names must not come again.
    next: u32,
}

impl Storyboard {
    /// Adds a sheet; returns its name, and the names of objects that are not needed any more. The name before the newest one is
    /// kept: clients may have read cues that name it.
    fn add(&mut self, sheet: &Sheet) -> (String, Vec<String>) {
        let Sheet { number, tiles, first, .. } = *sheet;
        let grows = |entry: &&mut Entry| entry.number == number && entry.tiles < tiles;
        let known = self.sheets.back_mut().filter(grows);
        let named = known.as_ref().map_or(self.next, |entry| entry.named);
        let name = object_names::storyboard_sheet(self.epoch, self.generation, named, tiles);
        let mut unused = Vec::new();
        if let Some(entry) = known {
            entry.tiles = tiles;
            entry.names.push_back(name.clone());
            if entry.names.len() > 2 {
                unused.extend(entry.names.pop_front());
            }
        } else {
            let names = VecDeque::from([name.clone()]);
            self.next = named.saturating_add(1);
            self.sheets.push_back(Entry { named, number, tiles, first, names });
        }
        while self.sheets.len() > self.kept {
            unused.extend(self.sheets.pop_front().into_iter().flat_map(|entry| entry.names));
        }
        (name, unused)
    }

    /// Returns the cues as WebVTT. Times count from the first tile.
    fn cues(&self) -> String {
        let Some(start) = self.sheets.front().map(|entry| entry.first) else { return "WEBVTT\n".to_owned() };
        let shown = format_date_time(i64::try_from(start.0).unwrap_or(i64::MAX));
        let mut text = format!(
            "WEBVTT\n\nNOTE start={shown}: cue times count from this time, which playlists give as EXT-X-PROGRAM-DATE-TIME\n"
        );
        for entry in &self.sheets {
            let Some(name) = entry.names.back() else { continue };
            for tile in 0..entry.tiles {
                let at = entry.first.0.saturating_sub(start.0) + u64::from(tile) * TILE_MS;
                let (x, y) = (u32::from(tile % COLUMNS) * TILE.0, u32::from(tile / COLUMNS) * TILE.1);
                let (from, to) = (time(at), time(at + TILE_MS));
                let _ = write!(text, "\n{from} --> {to}\n{name}#xywh={x},{y},{},{}\n", TILE.0, TILE.1);
            }
        }
        text
    }
}

/// Returns a time as WebVTT writes it: `01:02:03.004`.
fn time(ms: u64) -> String {
    let (seconds, ms) = (ms / 1_000, ms % 1_000);
    format!("{:02}:{:02}:{:02}.{ms:03}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use millrace_store::{DirStore, SyncPolicy, list_all};

    use super::*;

    fn sheet(number: u32, tiles: u8) -> Sheet {
        let first = UnixMillis(1_790_000_000_000 + u64::from(number) * 25 * TILE_MS);
        Sheet { number, tiles, first, jpeg: Bytes::from(format!("{number}-{tiles}")) }
    }

    fn board(kept: usize) -> Storyboard {
        Storyboard { epoch: Epoch(7), generation: Generation(2), kept, sheets: VecDeque::new(), next: 0 }
    }

    #[test]
    fn cues_name_the_tiles_of_the_newest_sheets() {
        let mut board = board(2);
        board.add(&sheet(0, 24));
        let (name, unused) = board.add(&sheet(0, 25));
        assert_eq!(
            (name.as_str(), unused.len()),
            ("storyboard/7/2-0-25.jpg", 0),
            "readers may know the last name"
        );
        board.add(&sheet(1, 1));
        let cues = board.cues();
        assert!(cues.starts_with("WEBVTT\n\nNOTE start=2026-09-21T"), "{cues}");
        assert_eq!(cues.matches(" --> ").count(), 26);
        assert!(cues.contains("\n00:00:00.000 --> 00:00:10.000\nstoryboard/7/2-0-25.jpg#xywh=0,0,160,90\n"));
        assert!(
            cues.contains("\n00:01:00.000 --> 00:01:10.000\nstoryboard/7/2-0-25.jpg#xywh=160,90,160,90\n")
        );
        assert!(cues.contains("\n00:04:10.000 --> 00:04:20.000\nstoryboard/7/2-1-1.jpg#xywh=0,0,160,90\n"));
        let (_, unused) = board.add(&sheet(2, 1));
        assert_eq!(unused, ["storyboard/7/2-0-24.jpg", "storyboard/7/2-0-25.jpg"], "a sheet that is left");
    }

    #[test]
    fn sheets_of_a_transcoder_that_starts_anew_get_new_names() {
        let mut board = board(RECORDED_SHEETS);
        let mut names: Vec<String> = [(0, 1), (0, 2), (0, 1), (0, 2), (1, 1)]
            .map(|(number, tiles)| board.add(&sheet(number, tiles)).0)
            .to_vec();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 5, "{names:?}");
    }

    #[tokio::test]
    async fn writer_stores_sheets_before_cues_and_deletes_old_names() {
        let dir = tempfile::tempdir().unwrap();
        let store: SharedStore = Arc::new(DirStore::open(dir.path(), SyncPolicy::default()).await.unwrap());
        let playback: PlaybackId = "00112233445566778899aabbccddeeff".parse().unwrap();
        let mut board = board(LIVE_SHEETS);
        for tiles in 1..=4 {
            store_sheet(&store, playback, &mut board, sheet(0, tiles)).await.unwrap();
            let cues = store.get(&object_names::storyboard(playback), None).await.unwrap();
            let cues = String::from_utf8(cues.body.to_vec()).unwrap();
            assert!(cues.contains(&format!("storyboard/7/2-0-{tiles}.jpg#")), "{cues}");
        }
        let prefix = format!("live/{playback}/storyboard/");
        let stored = list_all(&*store, &prefix, 100).await.unwrap();
        let names: Vec<_> = stored.iter().map(|entry| entry.key.strip_prefix(&prefix).unwrap()).collect();
        assert_eq!(names, ["7/2-0-3.jpg", "7/2-0-4.jpg"]);
    }
}
