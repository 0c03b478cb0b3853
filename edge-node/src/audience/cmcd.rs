//! The session id of Common Media Client Data (CTA-5004): a player that sends it names its playback session in each request.

use std::borrow::Cow;

/// The longest session id in bytes (CTA-5004, table 1: 64 characters); a longer one is ignored.
const MAX_SID: usize = 64;

/// Returns the session id in the value of the header `CMCD-Session`, which may hold other keys as well.
pub fn sid_in_header(value: &str) -> Option<&str> {
    let mut rest = value;
    loop {
        let (key, after) = rest.split_once(['=', ','])?;
        let has_text = rest.as_bytes().get(key.len()) == Some(&b'=') && after.starts_with('"');
        if has_text {
            // Texts may hold commas and escaped quotes (RFC 8941 §3.3.3).
            let text = after.get(1..)?;
            let end = end_of_text(text)?;
            let sid = text.get(..end)?;
            if key.trim() == "sid" {
                return (!sid.is_empty() && sid.len() <= MAX_SID).then_some(sid);
            }
            rest = text.get(end + 1..)?.trim_start().strip_prefix(',')?;
        } else {
            rest =
                if rest.as_bytes().get(key.len()) == Some(&b'=') { after.split_once(',')?.1 } else { after };
        }
    }
}

/// Returns the length of a text up to its closing quote.
fn end_of_text(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}

/// Returns the session id in a query string with the parameter `CMCD`.
pub fn sid_in_query(query: &str) -> Option<Cow<'_, str>> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix("CMCD="))?;
    let decoded = decode(value)?;
    Some(Cow::Owned(sid_in_header(&decoded)?.to_owned()))
}

/// Decodes percent-encoding (RFC 3986 §2.1). `None` for a malformed one.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            bytes.push((digit(rest.next())? * 16 + digit(rest.next())?) as u8);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cmcd_sid_is_found_among_other_keys_in_header_and_query() {
        for (header, sid) in [
            ("sid=\"6e2fb550-c457-11e9-bb97-0800200c9a66\"", Some("6e2fb550-c457-11e9-bb97-0800200c9a66")),
            ("cid=\"a,sid=\\\"x\",pr=1.08,sf=h,sid=\"b\",st=l", Some("b")),
            ("bl=21300,su,sid=\"c\"", Some("c")),
            ("cid=\"d\", sid=\"e\"", Some("e")),
            ("cid=\"d\"", None),
            ("sid=f", None),
            ("sid=\"\"", None),
            ("sid=\"g", None),
            ("", None),
        ] {
            assert_eq!(sid_in_header(header), sid, "{header}");
        }
        assert_eq!(sid_in_header(&format!("sid=\"{}\"", "x".repeat(65))), None);
        let query = |query| sid_in_query(query).map(Cow::into_owned);
        assert_eq!(query("_HLS_msn=4&CMCD=bl%3D21300%2Csid%3D%22b%22").as_deref(), Some("b"));
        assert_eq!(query("CMCD=sid%3D%22b%2"), None);
        assert_eq!(query("sid=\"b\""), None);
    }

    proptest! {
        #[test]
        fn cmcd_of_any_bytes_is_read_without_a_panic(text in "\\PC{0,80}", query in "(CMCD=)?[%a-z0-9=\",\\\\]{0,80}") {
            let _ = (sid_in_header(&text), sid_in_query(&query));
        }
    }
}
