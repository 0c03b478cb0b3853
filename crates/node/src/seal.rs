//! Secrets that are stored and have to be read again: sealed with a key that is made from the cluster's secret.

use std::fmt;

use millrace_runtime::Secret;
use millrace_wire::to_hex;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};

/// Separates the key from other uses of the same secret.
const SALT: &[u8] = b"millrace sealed secrets 1";

/// Seals secrets and opens them again (ChaCha20-Poly1305, RFC 8439). Each sealed text has a random nonce of its own: few enough
/// are sealed with one key that two never share one.
pub struct Sealer(LessSafeKey);

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer")
    }
}

impl Sealer {
    /// Makes the key from the cluster's secret (HKDF, RFC 5869).
    ///
    /// # Errors
    /// The cryptographic library refused the key, which it does for no key of the right length.
    pub fn new(secret: &Secret<Vec<u8>>) -> anyhow::Result<Self> {
        let prk = Salt::new(HKDF_SHA256, SALT).extract(secret.expose());
        let okm = prk.expand(&[b"key"], &CHACHA20_POLY1305);
        let okm = okm.map_err(|_| anyhow::anyhow!("the key that seals secrets cannot be made"))?;
        Ok(Self(LessSafeKey::new(UnboundKey::from(okm))))
    }

    /// Returns the sealed text of a secret, in hexadecimal. It opens for the same `purpose` alone, such as the id of its record.
    pub fn seal(&self, purpose: &str, secret: &str) -> Option<String> {
        let nonce: [u8; NONCE_LEN] = rand::random();
        let mut bytes = secret.as_bytes().to_vec();
        let aad = Aad::from(purpose.as_bytes());
        self.0.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut bytes).ok()?;
        Some(to_hex(&nonce) + &to_hex(&bytes))
    }

    /// Returns the secret of a sealed text; `None` if it was sealed for another purpose or with another cluster's secret.
    pub fn open(&self, purpose: &str, sealed: &str) -> Option<Secret<String>> {
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let bytes: Vec<u8> = sealed.as_bytes().chunks(2).map(byte).collect::<Option<_>>()?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = sealed.to_vec();
        let opened = self.0.open_in_place(nonce, Aad::from(purpose.as_bytes()), &mut sealed).ok()?;
        String::from_utf8(opened.to_vec()).ok().map(Secret::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_secret_opens_with_the_same_secret_and_purpose_alone() {
        let sealer = |secret: &str| Sealer::new(&Secret::new(secret.as_bytes().to_vec())).unwrap();
        let one = sealer("the cluster's");
        let sealed = one.seal("w1", "whsec_1").unwrap();
        assert!(!sealed.contains("whsec"), "{sealed}");
        assert_ne!(one.seal("w1", "whsec_1").unwrap(), sealed, "nonces differ");
        assert_eq!(sealer("the cluster's").open("w1", &sealed).unwrap().expose(), "whsec_1");
        assert!(one.open("w2", &sealed).is_none() && sealer("other").open("w1", &sealed).is_none());
        let damaged = format!("{}00", &sealed[..sealed.len() - 2]);
        assert!(one.open("w1", "zz").is_none() && one.open("w1", "").is_none());
        assert!(damaged == sealed || one.open("w1", &damaged).is_none());
    }
}
