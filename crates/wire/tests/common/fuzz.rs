//! The body of the fuzz target, replayed over its seeds by `tests/corpus.rs` on stable.

use bytes::{Buf, Bytes};
use millrace_buf::Arena;
use millrace_wire::fact::FactReader;
use millrace_wire::message::media::MediaReader;

/// Small, so that what is written again takes several frames.
const MAX_PAYLOAD: usize = 256;

/// The input is a row of bus messages, each behind its length (16 bits, little-endian). A reader that accepts a message reads
/// the same from its own encoding.
pub fn bus_messages(input: &[u8]) {
    let (mut media, mut facts) = (MediaReader::default(), FactReader::default());
    for message in messages(Bytes::copy_from_slice(input)) {
        if let Ok(Some(read)) = media.push(message.clone()) {
            let frames =
                read.encode(MAX_PAYLOAD, &mut Arena::default()).expect("what was read can be written");
            let mut again = MediaReader::default();
            let read_again = frames.into_iter().filter_map(|frame| again.push(frame).expect("our own frame"));
            assert_eq!(read_again.last(), Some(read));
        }
        if let Ok(Some(read)) = facts.push(message) {
            let frames = read.encode(MAX_PAYLOAD).expect("what was read can be written");
            let mut again = FactReader::default();
            let read_again = frames.into_iter().filter_map(|frame| again.push(frame).expect("our own frame"));
            assert_eq!(read_again.last(), Some(read));
        }
    }
}

fn messages(mut rest: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        let length = usize::from(rest.try_get_u16_le().ok()?).min(rest.len());
        Some(rest.split_to(length))
    })
}
