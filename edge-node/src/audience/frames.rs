//! The frames of a WebSocket's server side (RFC 6455 §5), without I/O: text, ping, pong and close. A client's message is short and
//! comes in one frame; a fragmented or longer one ends the connection.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as STANDARD;
use sha1::{Digest as _, Sha1};

/// The longest message of a client in bytes: a JSON object with two ids.
pub const MAX_MESSAGE: usize = 1_024;
/// The longest frame of a client: its message, a head of four bytes and a mask of four.
const MAX_FRAME: usize = MAX_MESSAGE + 8;

/// A frame of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A message of text.
    Text(String),
    /// A ping, to be answered with its bytes.
    Ping(Vec<u8>),
    /// An answer to a ping.
    Pong,
    /// The client closes.
    Close,
}

/// A client broke the protocol, or sent what is not taken here; the code says which (RFC 6455 §7.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused(pub u16);

const PROTOCOL: Refused = Refused(1002);
const UNSUPPORTED: Refused = Refused(1003);
const NOT_TEXT: Refused = Refused(1007);
const TOO_LONG: Refused = Refused(1009);

/// The bytes of a client that make no whole frame yet.
#[derive(Debug, Default)]
pub struct Frames(Vec<u8>);

impl Frames {
    /// Takes bytes of the client.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        // Several frames may come at once; a client that sends more than that floods.
        if self.0.len() + bytes.len() > 8 * MAX_FRAME {
            return Err(TOO_LONG);
        }
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    /// Returns the next whole frame.
    pub fn read(&mut self) -> Result<Option<Frame>, Refused> {
        let [first, second, ..] = self.0[..] else { return Ok(None) };
        let (is_final, reserved, opcode) = (first & 0x80 != 0, first & 0x70, first & 0x0f);
        let (is_masked, short) = (second & 0x80 != 0, usize::from(second & 0x7f));
        // Clients mask every frame (§5.3), and no extension was agreed on.
        if reserved != 0 || !is_masked || (opcode >= 8 && (!is_final || short > 125)) {
            return Err(PROTOCOL);
        }
        if !is_final || opcode == 0 {
            return Err(UNSUPPORTED);
        }
        let (head, len) = match (short, self.0.get(2..4)) {
            (127, _) => return Err(TOO_LONG),
            (126, Some([high, low])) => (4, usize::from(u16::from_be_bytes([*high, *low]))),
            (126, _) => return Ok(None),
            (len, _) => (2, len),
        };
        if len > MAX_MESSAGE {
            return Err(TOO_LONG);
        }
        let Some(rest) = self.0.get(head..head + 4 + len) else { return Ok(None) };
        let (mask, masked) = rest.split_at(4);
        let body: Vec<u8> = masked.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        self.0.drain(..head + 4 + len);
        match opcode {
            1 => String::from_utf8(body).map(|text| Some(Frame::Text(text))).map_err(|_| NOT_TEXT),
            2 => Err(UNSUPPORTED),
            8 => Ok(Some(Frame::Close)),
            9 => Ok(Some(Frame::Ping(body))),
            10 => Ok(Some(Frame::Pong)),
            _ => Err(PROTOCOL),
        }
    }
}

fn frame(opcode: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match u8::try_from(body.len()) {
        Ok(len) if len < 126 => frame.push(len),
        _ => {
            frame.push(126);
            frame.extend_from_slice(&(body.len().min(usize::from(u16::MAX)) as u16).to_be_bytes());
        }
    }
    frame.extend_from_slice(body);
    frame
}

/// Returns the frame of a short text.
pub fn text(text: &str) -> Vec<u8> {
    frame(1, text.as_bytes())
}

/// Returns a ping.
pub fn ping() -> Vec<u8> {
    frame(9, b"")
}

/// Returns the answer to a ping.
pub fn pong(body: &[u8]) -> Vec<u8> {
    frame(10, body)
}

/// Returns the frame that closes the connection with a code.
pub fn close(code: u16) -> Vec<u8> {
    frame(8, &code.to_be_bytes())
}

/// The text that a server adds to the client's key (RFC 6455 §1.3).
const KEY_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Returns the value of `Sec-WebSocket-Accept` for the client's key.
pub fn accept(key: &str) -> String {
    STANDARD.encode(Sha1::digest(format!("{key}{KEY_SUFFIX}")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn masked(opcode: u8, body: &[u8]) -> Vec<u8> {
        let mask = [1, 2, 3, 4];
        let mut bytes = frame(opcode, body);
        bytes[1] |= 0x80;
        let head = bytes.len() - body.len();
        bytes.splice(
            head..,
            mask.iter().copied().chain(body.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b)),
        );
        bytes
    }

    #[test]
    fn accept_answers_the_key_of_the_rfc() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn frames_are_read_whole_whatever_pieces_they_come_in() {
        let long = "x".repeat(300);
        let bytes = [
            masked(1, b"hello"),
            masked(9, b"p"),
            masked(10, b""),
            masked(1, long.as_bytes()),
            masked(8, b""),
        ];
        let bytes = bytes.concat();
        for size in [1, 3, 7, 200] {
            let (mut frames, mut read) = (Frames::default(), Vec::new());
            for piece in bytes.chunks(size) {
                frames.push(piece).unwrap();
                while let Some(frame) = frames.read().unwrap() {
                    read.push(frame);
                }
            }
            let text = |text: &str| Frame::Text(text.to_owned());
            assert_eq!(
                read,
                [text("hello"), Frame::Ping(b"p".to_vec()), Frame::Pong, text(&long), Frame::Close]
            );
        }
    }

    #[test]
    fn frames_that_break_the_protocol_or_are_too_long_end_the_connection() {
        let refused = |bytes: &[u8]| {
            let mut frames = Frames::default();
            frames.push(bytes).and_then(|()| frames.read()).err()
        };
        assert_eq!(refused(&text("unmasked")), Some(PROTOCOL));
        assert_eq!(refused(&masked(2, b"binary")), Some(UNSUPPORTED));
        assert_eq!(refused(&masked(3, b"")), Some(PROTOCOL));
        assert_eq!(refused(&masked(1, &[0xff])), Some(NOT_TEXT));
        assert_eq!(refused(&masked(1, &[b'a'; MAX_MESSAGE + 1])), Some(TOO_LONG));
        assert_eq!(refused(&[0x81, 0xff]), Some(TOO_LONG));
        assert_eq!(refused(&[0x01, 0x80]), Some(UNSUPPORTED));
        assert_eq!(refused(&vec![0; 9 * MAX_FRAME]), Some(TOO_LONG));
    }

    proptest! {
        #[test]
        fn frames_of_any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            let mut frames = Frames::default();
            if frames.push(&bytes).is_ok() {
                while let Ok(Some(_)) = frames.read() {}
            }
        }
    }
}
