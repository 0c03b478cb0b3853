//! Viewer sessions: random ids that this cluster has signed, so that an invented id is never counted.

use std::fmt::Write;

use hmac::{Hmac, Mac};
use millrace_runtime::Secret;
use millrace_wire::ids::StreamId;
use rand::RngCore;
use sha2::Sha256;

/// Bytes of the random part of a session id.
const SESSION_BYTES: usize = 16;
/// Bytes of the signature: 64 bits are enough against guessing one request at a time.
const SIGNATURE_BYTES: usize = 8;

/// Issues and checks session ids, which have the form `{random}.{signature}` in hex digits.
#[derive(Debug)]
pub struct Signer(Secret<Vec<u8>>);

impl Signer {
    /// Creates a signer with `secret`, or with a random secret when it is empty.
    pub fn new(secret: &Secret<String>) -> Self {
        // Exposed only as the key of the MAC.
        let mut key = secret.expose().clone().into_bytes();
        if key.is_empty() {
            key = vec![0; 32];
            rand::rng().fill_bytes(&mut key);
        }
        Self(Secret::new(key))
    }

    fn sign(&self, stream: StreamId, id: &str) -> String {
        // Exposed only as the key of the MAC; HMAC takes keys of any length (RFC 2104 §2).
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.0.expose()) else { return String::new() };
        mac.update(b"millrace viewer session\0");
        mac.update(stream.to_string().as_bytes());
        mac.update(id.as_bytes());
        hex(&mac.finalize().into_bytes()[..SIGNATURE_BYTES])
    }

    /// Issues a new session for a viewer of `stream`.
    pub fn issue(&self, stream: StreamId) -> String {
        let mut bytes = [0; SESSION_BYTES];
        rand::rng().fill_bytes(&mut bytes);
        let id = hex(&bytes);
        let signature = self.sign(stream, &id);
        format!("{id}.{signature}")
    }

    /// Returns the random part of a session that was issued for `stream`; `None` for any other text.
    pub fn check<'a>(&self, stream: StreamId, session: &'a str) -> Option<&'a str> {
        let (id, signature) = session.split_once('.')?;
        if id.len() != 2 * SESSION_BYTES || signature.len() != 2 * SIGNATURE_BYTES {
            return None;
        }
        let expected = self.sign(stream, id);
        // All bytes are compared, so that the time does not depend on the first difference.
        let difference = expected.bytes().zip(signature.bytes()).fold(0, |bits, (a, b)| bits | (a ^ b));
        (difference == 0 && !expected.is_empty()).then_some(id)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signer_accepts_only_sessions_it_issued_for_the_same_stream() {
        let signer = Signer::new(&Secret::default());
        let (stream, other) = (StreamId::from_u128(1), StreamId::from_u128(2));
        let session = signer.issue(stream);
        assert_eq!(signer.check(stream, &session), session.split('.').next());
        assert_eq!(signer.check(other, &session), None);
        assert_eq!(Signer::new(&Secret::default()).check(stream, &session), None);
        for bad in ["", ".", "x.y", "00112233445566778899aabbccddeeff.0011223344556677"] {
            assert_eq!(signer.check(stream, bad), None, "{bad:?}");
        }
        let shared = Secret::new("s".to_owned());
        assert!(Signer::new(&shared).check(stream, &Signer::new(&shared).issue(stream)).is_some());
    }
}
