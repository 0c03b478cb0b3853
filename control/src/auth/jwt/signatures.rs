//! The signatures of JWTs (RFC 7518 §3, RFC 8037 §3.1), checked by ring, which TLS uses already.

use ring::hmac;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};

/// A key, which belongs to one algorithm.
#[derive(Clone)]
pub(super) enum Key {
    /// HS256.
    Secret(hmac::Key),
    /// RS256; keys of less than 2048 bits check nothing.
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    /// ES256: the point, uncompressed.
    P256(Vec<u8>),
    /// EdDSA.
    Ed25519(Vec<u8>),
}

impl Key {
    /// Returns the key of a shared secret.
    pub(super) fn secret(secret: &[u8]) -> Self {
        Self::Secret(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// Returns true if the signature of the message is one of this key.
    pub(super) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let checked = match self {
            Self::Secret(key) => hmac::verify(key, message, signature),
            Self::Rsa { modulus, exponent } => RsaPublicKeyComponents { n: modulus, e: exponent }.verify(
                &RSA_PKCS1_2048_8192_SHA256,
                message,
                signature,
            ),
            Self::P256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature)
            }
            Self::Ed25519(point) => UnparsedPublicKey::new(&ED25519, point).verify(message, signature),
        };
        checked.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    fn bytes(text: &str) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(text).unwrap()
    }

    #[test]
    fn has_signed_accepts_the_examples_of_the_standards_and_refuses_a_changed_message() {
        // RFC 7515 appendix A.1, and RFC 8037 appendix A.4.
        let secret = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
        let hs256 = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6\
            Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let ed25519 = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
        for (key, message, signature) in [
            (Key::secret(&bytes(secret)), hs256, "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
            (
                Key::Ed25519(bytes("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")),
                ed25519,
                "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
            ),
        ] {
            assert!(key.has_signed(message.as_bytes(), &bytes(signature)), "{message}");
            assert!(!key.has_signed(&message.as_bytes()[1..], &bytes(signature)), "{message}");
            assert!(!key.has_signed(message.as_bytes(), &[]), "{message}");
        }
    }
}
