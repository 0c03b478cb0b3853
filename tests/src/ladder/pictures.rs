//! The pictures of a rendition, decoded, by the numbers that they carry.

use std::collections::BTreeMap;
use std::io::Write as _;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use millrace_testkit::clip::read_numbers;

use super::media_of;
use crate::viewer::Track;

/// The size at which numbers are read: any picture is scaled to it.
const READ_SIZE: (usize, usize) = (320, 180);

/// A run of segments with one initialisation section, without a GAP between them.
struct Run<'a> {
    init: &'a Bytes,
    segments: Vec<(u64, &'a Bytes)>,
}

fn runs(track: &Track) -> Result<Vec<Run<'_>>> {
    let mut runs: Vec<(&str, Run<'_>)> = Vec::new();
    for (msn, (segment, bytes)) in &track.segments {
        let Some(bytes) = bytes else { continue };
        let follows = |(init, run): &(&str, Run<'_>)| {
            *init == segment.init && run.segments.last().is_some_and(|(last, _)| last + 1 == *msn)
        };
        if !runs.last().is_some_and(follows) {
            let init = track.inits.get(&segment.init).with_context(|| segment.init.clone())?;
            runs.push((&segment.init, Run { init, segments: Vec::new() }));
        }
        if let Some((_, run)) = runs.last_mut() {
            run.segments.push((*msn, bytes));
        }
    }
    Ok(runs.into_iter().map(|(_, run)| run).collect())
}

/// Decodes a rendition and returns the numbers of the pictures of each segment in the order of presentation; `None` stands for a
/// picture whose number cannot be read. GOPs must be closed.
pub async fn numbers(track: &Track) -> Result<BTreeMap<u64, Vec<Option<u16>>>> {
    let mut found = BTreeMap::new();
    for run in runs(track)? {
        let mut file = tempfile::Builder::new().suffix(".mp4").tempfile().context("a file to decode")?;
        file.write_all(run.init)?;
        for (_, bytes) in &run.segments {
            file.write_all(bytes)?;
        }
        file.flush()?;
        let path = file.path().to_string_lossy().into_owned();
        let (width, height) = READ_SIZE;
        let mut pictures = read_numbers(&path, width, height).await?.into_iter();
        for (msn, bytes) in &run.segments {
            let samples = media_of(bytes)?.samples;
            let own: Vec<_> = pictures.by_ref().take(samples).collect();
            ensure!(
                own.len() == samples,
                "{}: segment {msn} decodes to {} of {samples}",
                track.url,
                own.len()
            );
            found.insert(*msn, own);
        }
        let rest = pictures.count();
        ensure!(rest == 0, "{}: {rest} pictures more than samples", track.url);
    }
    Ok(found)
}

/// Fails unless every picture of `rung` is the one that `copy` has at its place, in every segment that the rung holds, and the
/// rung's frame rate is divided by `division`.
pub async fn same_pictures(copy: &Track, rung: &Track, division: usize) -> Result<usize> {
    let (copied, encoded) = (numbers(copy).await?, numbers(rung).await?);
    let mut compared = 0;
    for (msn, pictures) in &encoded {
        let source = copied.get(msn).with_context(|| format!("the source has no segment {msn}"))?;
        let wanted: Vec<_> = source.iter().step_by(division).copied().collect();
        ensure!(*pictures == wanted, "{}: segment {msn} shows {pictures:?}, the source {wanted:?}", rung.url);
        compared += pictures.len();
    }
    Ok(compared)
}

/// Returns the numbers that a rendition shows, in order.
pub async fn shown(track: &Track) -> Result<Vec<Option<u16>>> {
    Ok(numbers(track).await?.into_values().flatten().collect())
}
