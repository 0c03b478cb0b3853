//! The signature of a delivery: HMAC-SHA256 over the time stamp and the body.

use std::fmt::Write as _;

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// Returns the signature of `body`, sent at `seconds`, in hexadecimal: the HMAC-SHA256 of `{seconds}.{body}` with `secret`.
pub fn sign(secret: &str, seconds: u64, body: &[u8]) -> String {
    // HMAC takes keys of any length (RFC 2104 §2), so this never fails.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return String::new() };
    mac.update(seconds.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    mac.finalize().into_bytes().iter().fold(String::with_capacity(64), |mut hex, byte| {
        // Writing to a string never fails.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// Returns the value of the header `Millrace-Signature`: the time stamp, and a signature by each of the secrets.
pub fn signature_header<'a>(secrets: impl IntoIterator<Item = &'a str>, seconds: u64, body: &[u8]) -> String {
    let signatures = secrets.into_iter().map(|secret| format!(",v1={}", sign(secret, seconds, body)));
    signatures.fold(format!("t={seconds}"), |header, signature| header + &signature)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signature_header_has_the_time_and_a_signature_by_each_secret() {
        // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac whsec_test
        let signed = "38877139021993b830af32feea6e18a8da83eb2f6e49ee50bd9e4cf4ca4d3789";
        let header = signature_header(["whsec_test", "whsec_old"], 1_700_000_000, br#"{"a":1}"#);
        let parts: Vec<&str> = header.split(',').collect();
        assert_eq!((parts.len(), parts[0]), (3, "t=1700000000"));
        assert!(parts[1].starts_with("v1=") && parts[1].len() == 67 && parts[1] != parts[2], "{header}");
        assert_eq!(&parts[1][3..], signed);
    }
}
