//! The requests of a publisher, and the status codes that refuse them.

use crate::amf::Value;
use std::fmt;

/// A secret stream name (the stream key); its text appears only through [`StreamName::expose`].
#[derive(Clone, PartialEq, Eq, Default)]
pub struct StreamName(String);

impl StreamName {
    /// Wraps the text of a stream name.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// Returns the text, for hashing or for the wire.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamName(****)")
    }
}

/// The properties of a `connect` command (RTMP 7.2.1.1).
#[derive(Clone, PartialEq, Default)]
pub struct ConnectInfo {
    /// First path element, without query: `live` of `live/KEY?x=y`.
    pub app: String,
    /// `app` as sent; may hold a stream key.
    pub raw_app: String,
    /// `tcUrl` as sent; may hold a stream key.
    pub tc_url: String,
    /// `flashVer`: the encoder's name and version.
    pub flash_ver: String,
    /// `objectEncoding`: 0 or 3. Answered with 0.
    pub object_encoding: f64,
    /// `fourCcList` of Enhanced RTMP: the codecs that the encoder can send.
    pub four_cc_list: Vec<String>,
    /// All properties in the sender's order; may hold a stream key.
    pub properties: Vec<(String, Value)>,
}

impl fmt::Debug for ConnectInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectInfo")
            .field("app", &self.app)
            .field("flash_ver", &self.flash_ver)
            .field("object_encoding", &self.object_encoding)
            .field("four_cc_list", &self.four_cc_list)
            .finish_non_exhaustive()
    }
}

impl ConnectInfo {
    pub(super) fn from_properties(properties: Vec<(String, Value)>) -> Self {
        let object = Value::Object(properties);
        let text = |name| object.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let raw_app = text("app");
        let (path, _) = split_query(&raw_app);
        let app = path.trim_matches('/').split('/').next().unwrap_or_default().to_owned();
        let four_cc_list = match object.get("fourCcList") {
            Some(Value::StrictArray(list)) => {
                list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
            }
            _ => Vec::new(),
        };
        let object_encoding = object.get("objectEncoding").and_then(Value::as_number).unwrap_or(0.0);
        let (tc_url, flash_ver) = (text("tcUrl"), text("flashVer"));
        let properties = if let Value::Object(properties) = object { properties } else { Vec::new() };
        Self { app, raw_app, tc_url, flash_ver, object_encoding, four_cc_list, properties }
    }
}

/// The recording mode that a publisher asks for (RTMP 7.2.2.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishMode {
    /// `live`: the stream is not recorded.
    Live,
    /// `record`: the stream is recorded into a new file.
    Record,
    /// `append`: the stream is appended to an earlier recording.
    Append,
}

/// The arguments of a `publish` command (RTMP 7.2.2.6).
#[derive(Clone, PartialEq, Eq)]
pub struct PublishRequest {
    /// Application: `live` of both `live` + `KEY` and `live/KEY`.
    pub app: String,
    /// The stream key, without query; never empty.
    pub stream_key: StreamName,
    /// The query string after the key (or after the app), without its `?`. May be secret.
    pub query: Option<StreamName>,
    /// The recording mode asked for.
    pub mode: PublishMode,
    /// Message stream id of the publish.
    pub stream: u32,
}

impl fmt::Debug for PublishRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublishRequest")
            .field("app", &self.app)
            .field("mode", &self.mode)
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

/// Finds application, key and query in `app` and the stream name; `None` if there is no key.
///
/// OBS with the key in its server field sends app `live/KEY` and an empty name; ffmpeg sends app `live` and
/// name `KEY`; some encoders put the query after the app.
pub(super) fn locate_key(raw_app: &str, name: &str) -> Option<(String, StreamName, Option<StreamName>)> {
    let (app, app_query) = split_query(raw_app);
    let (name, name_query) = split_query(name);
    let app = app.trim_matches('/');
    let name = name.trim_matches('/');
    let query = name_query.or(app_query).map(StreamName::new);
    if !name.is_empty() {
        return Some((app.to_owned(), StreamName::new(name), query));
    }
    let (app, key) = app.rsplit_once('/')?;
    (!key.is_empty()).then(|| (app.trim_end_matches('/').to_owned(), StreamName::new(key), query))
}

fn split_query(text: &str) -> (&str, Option<&str>) {
    match text.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (text, None),
    }
}

/// Status codes that refuse or end a publish; encoders show code and description to their user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// The key is unknown, malformed, revoked or expired.
    BadName,
    /// The key is known, but may not publish now (stopped, already live, no capacity).
    Denied,
    /// The server accepts no streams now.
    Failed,
    /// The application does not exist.
    InvalidApp,
    /// The connection as such is refused.
    ConnectRejected,
    /// The peer wants to play; this server has publishers only.
    PlayNotFound,
}

impl Rejection {
    /// Every status code of this type.
    pub const ALL: [Self; 6] = [
        Self::BadName,
        Self::Denied,
        Self::Failed,
        Self::InvalidApp,
        Self::ConnectRejected,
        Self::PlayNotFound,
    ];

    /// Returns the code on the wire.
    pub fn code(self) -> &'static str {
        match self {
            Self::BadName => "NetStream.Publish.BadName",
            Self::Denied => "NetStream.Publish.Denied",
            Self::Failed => "NetStream.Failed",
            Self::InvalidApp => "NetConnection.Connect.InvalidApp",
            Self::ConnectRejected => "NetConnection.Connect.Rejected",
            Self::PlayNotFound => "NetStream.Play.StreamNotFound",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locate_key_finds_the_key_in_name_or_app() {
        let cases = [
            ("live", "KEY", Some(("live", "KEY", None))),
            ("live/", "/KEY", Some(("live", "KEY", None))),
            ("live/KEY", "", Some(("live", "KEY", None))),
            ("live/KEY/", "", Some(("live", "KEY", None))),
            ("live", "KEY?a=b", Some(("live", "KEY", Some("a=b")))),
            ("live/KEY?a=b", "", Some(("live", "KEY", Some("a=b")))),
            ("live?a=b", "KEY", Some(("live", "KEY", Some("a=b")))),
            ("a/b", "KEY", Some(("a/b", "KEY", None))),
            ("live", "", None),
            ("live/", "?a=b", None),
            ("", "", None),
        ];
        for (app, name, expected) in cases {
            let found = locate_key(app, name);
            let found =
                found.as_ref().map(|(a, k, q)| (a.as_str(), k.expose(), q.as_ref().map(StreamName::expose)));
            assert_eq!(found, expected, "{app:?} + {name:?}");
        }
    }

    #[test]
    fn debug_output_hides_everything_that_may_hold_a_key() {
        let properties = vec![
            ("app".to_owned(), Value::from("live/SECRET")),
            ("tcUrl".to_owned(), Value::from("rtmp://host/live/SECRET")),
        ];
        let info = ConnectInfo::from_properties(properties);
        let (app, stream_key, query) = locate_key("live/SECRET?token=SECRET", "").unwrap();
        let request = PublishRequest { app, stream_key, query, mode: PublishMode::Live, stream: 1 };
        let text = format!("{info:?} {request:?} {:?}", request.stream_key);
        assert!(!text.contains("SECRET"), "{text}");
    }
}
