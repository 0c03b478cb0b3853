//! Entity tags of livestreams, and the preconditions of requests (RFC 9110 §8.8.3, §13.1).

use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse};
use millrace_wire::to_hex;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::problem::Problem;

/// Bytes of the digest in an entity tag: enough that two versions never share one.
const TAG_BYTES: usize = 16;

/// Returns the strong entity tag of a representation: a digest of its bytes, so that every control gives the same one for the same
/// record.
pub(super) fn tag(view: &impl Serialize) -> String {
    // The views have no maps with non-text keys and no failing serializers.
    let digest = Sha256::digest(serde_json::to_vec(view).unwrap_or_default());
    let (kept, _) = digest.split_at(TAG_BYTES);
    format!("\"{}\"", to_hex(kept))
}

/// Answers with a representation and its tag, or with 304 if the client has it already (RFC 9110 §13.1.2).
pub(super) fn answer(request: &HttpRequest, view: &impl Serialize) -> HttpResponse {
    let tag = tag(view);
    let known = texts(request, &header::IF_NONE_MATCH)
        .any(|list| list.trim() == "*" || tags(list).any(|it| it.strip_prefix("W/").unwrap_or(it) == tag));
    let mut response = if known { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    // A client may keep the answer, and asks again with its tag each time.
    response.insert_header((header::ETAG, tag)).insert_header((header::CACHE_CONTROL, "private, no-cache"));
    if known { response.finish() } else { response.json(view) }
}

/// The representations over which a request may write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expected {
    /// Any: the request has no `If-Match`, or it is `*`.
    Any,
    /// One that has one of these strong tags.
    Tags(Vec<String>),
}

impl Expected {
    /// Reads `If-Match`. Weak tags match nothing there (RFC 9110 §13.1.1).
    pub(super) fn of(request: &HttpRequest) -> Result<Self, Problem> {
        let lists: Vec<&HeaderValue> = request.headers().get_all(header::IF_MATCH).collect();
        if lists.is_empty() {
            return Ok(Self::Any);
        }
        let mut expected = Vec::new();
        for list in lists {
            let malformed = || Problem::bad_request("If-Match must be * or a list of entity tags");
            let list = list.to_str().map_err(|_| malformed())?;
            if list.trim() == "*" {
                return Ok(Self::Any);
            }
            for tag in tags(list) {
                let opaque = tag.strip_prefix("W/").unwrap_or(tag);
                if opaque.len() < 2 || !opaque.starts_with('"') || !opaque.ends_with('"') {
                    return Err(malformed());
                }
                expected.push(tag.to_owned());
            }
        }
        Ok(Self::Tags(expected))
    }

    /// Returns true if a representation with this tag may be written over.
    pub(super) fn allows(&self, tag: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Tags(tags) => tags.iter().any(|expected| expected == tag),
        }
    }
}

/// Splits a list of entity tags. The tags of this API have no comma in them; part of another one's tag matches nothing.
fn tags(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|tag| !tag.is_empty())
}

fn texts<'a>(request: &'a HttpRequest, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    request.headers().get_all(name).filter_map(|value: &HeaderValue| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn with(name: &'static str, value: &str) -> HttpRequest {
        TestRequest::get().insert_header((name, value)).to_http_request()
    }

    #[test]
    fn if_match_allows_the_tags_it_lists_and_never_weak_ones() {
        let tag = tag(&serde_json::json!({ "a": 1 }));
        assert_eq!((tag.len(), tag.as_str()), (34, super::tag(&serde_json::json!({ "a": 1 })).as_str()));
        let allows = |list: &str| Expected::of(&with("if-match", list)).unwrap().allows(&tag);
        assert!(allows(&tag) && allows("*") && allows(&format!("\"other\" , {tag}")));
        assert!(!allows("\"other\"") && !allows(&format!("W/{tag}")));
        assert!(Expected::of(&with("if-match", "other")).is_err());
        assert_eq!(Expected::of(&TestRequest::get().to_http_request()).unwrap(), Expected::Any);
    }

    #[test]
    fn if_none_match_answers_304_for_the_same_representation_also_by_a_weak_tag() {
        let view = serde_json::json!({ "a": 1 });
        let tag = tag(&view);
        for (list, status) in [
            (tag.clone(), 304),
            (format!("W/{tag}"), 304),
            ("*".to_owned(), 304),
            ("\"other\"".to_owned(), 200),
        ] {
            let answer = answer(&with("if-none-match", &list), &view);
            assert_eq!(answer.status().as_u16(), status, "{list}");
            assert_eq!(answer.headers().get("etag").unwrap().to_str().unwrap(), tag);
        }
    }
}
