//! Compares the media that was sent with the media that was received, byte for byte.

use anyhow::{Result, bail};
use bytes::Bytes;

/// Fails unless `got` is exactly `sent`, in order, once; the error names the first difference.
pub fn same(what: &str, sent: &[Bytes], got: &[Bytes]) -> Result<()> {
    let equal = sent.iter().zip(got).take_while(|(a, b)| a == b).count();
    if equal == sent.len() && equal == got.len() {
        return Ok(());
    }
    let place = |unit: Option<&Bytes>, list: &[Bytes]| match unit {
        None => "nothing more".to_owned(),
        Some(unit) => list.iter().position(|other| other == unit).map_or_else(
            || format!("{} bytes found nowhere there", unit.len()),
            |at| format!("number {at} of the other"),
        ),
    };
    bail!(
        "{what}: sent {}, got {}; equal up to number {equal}, where {} was sent and {} came",
        sent.len(),
        got.len(),
        place(sent.get(equal), got),
        place(got.get(equal), sent),
    )
}

/// Fails unless `got` is a beginning of `sent` at least `least` long: an encoder was cut off, what it sent came whole.
pub fn beginning(what: &str, sent: &[Bytes], got: &[Bytes], least: usize) -> Result<()> {
    if got.len() < least || got.len() > sent.len() {
        bail!("{what}: got {} of {}, at least {least} expected", got.len(), sent.len());
    }
    same(what, &sent[..got.len()], got)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_where_lists_part() {
        let [a, b, c] = [&b"a"[..], b"b", b"c"].map(Bytes::from_static);
        let sent = [a.clone(), b.clone(), c.clone()];
        assert!(same("x", &sent, &sent).is_ok());
        let error = same("x", &sent, &[a.clone(), c]).unwrap_err().to_string();
        assert!(error.contains("equal up to number 1"), "{error}");
        assert!(same("x", &sent, &[a.clone(), b.clone(), b.clone()]).is_err());
        assert!(beginning("x", &sent, &[a, b], 2).is_ok());
        assert!(beginning("x", &sent, &[], 1).is_err());
    }
}
