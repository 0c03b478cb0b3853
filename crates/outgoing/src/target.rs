//! The address of a service: an absolute HTTP URL whose path and query are shown nowhere.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use reqwest::Url;

use crate::destinations::Destinations;

/// An absolute `http` or `https` URL. `Display` and `Debug` show its origin alone, because a path may carry a key.
#[derive(Clone, PartialEq, Eq)]
pub struct Target(Url);

/// The reason why a text is no [`Target`]. It never repeats the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// The text does not follow the grammar of URLs.
    #[error("not an absolute URL")]
    Malformed,
    /// The scheme is neither `http` nor `https`.
    #[error("the scheme must be http or https")]
    Scheme,
    /// The URL names no host.
    #[error("the URL names no host")]
    NoHost,
}

impl Target {
    /// Returns this URL with `segments` appended to its path, each percent-encoded as one element, and without query and
    /// fragment.
    #[must_use]
    pub fn with_path<'a>(&self, segments: impl IntoIterator<Item = &'a str>) -> Self {
        let mut url = self.0.clone();
        url.set_query(None);
        url.set_fragment(None);
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        Self(url)
    }

    /// Returns scheme, host and port: enough to name the service in a log line.
    pub fn origin(&self) -> String {
        self.0.origin().ascii_serialization()
    }

    /// Returns the address in the URL; `None` if it names its host.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.0.host_str()?.trim_matches(['[', ']']).parse().ok()
    }

    /// Returns false if the URL has an address that requests may not go to. The addresses of a name are found and checked with
    /// each request.
    pub fn may_lead_to(&self, destinations: Destinations) -> bool {
        self.address().is_none_or(|address| destinations.allows(address))
    }

    pub(crate) fn url(&self) -> &Url {
        &self.0
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let url = Url::parse(text.trim()).map_err(|_| TargetError::Malformed)?;
        if !["http", "https"].contains(&url.scheme()) {
            return Err(TargetError::Scheme);
        }
        if url.host().is_none() {
            return Err(TargetError::NoHost);
        }
        Ok(Self(url))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin())
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_shows_its_origin_alone() {
        let target: Target = "https://me:pw@hooks.example:8443/secret/path?token=1".parse().unwrap();
        assert_eq!(format!("{target} {target:?}"), "https://hooks.example:8443 https://hooks.example:8443");
    }

    #[test]
    fn target_refuses_other_schemes_and_relative_urls() {
        assert_eq!("ftp://h/x".parse::<Target>(), Err(TargetError::Scheme));
        assert_eq!("/api".parse::<Target>(), Err(TargetError::Malformed));
        assert_eq!("http://".parse::<Target>(), Err(TargetError::Malformed));
    }

    #[test]
    fn with_path_encodes_each_segment_and_keeps_a_prefix() {
        let base: Target = "http://localhost:3000/site/?x=1".parse().unwrap();
        let full = base.with_path(["api", "streams", "a/../b?c d"]);
        assert_eq!(full.url().as_str(), "http://localhost:3000/site/api/streams/a%2F..%2Fb%3Fc%20d");
        let bare: Target = "http://localhost:3000".parse().unwrap();
        assert_eq!(bare.with_path(["x"]).url().as_str(), "http://localhost:3000/x");
    }
}
