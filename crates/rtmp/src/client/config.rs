//! The configuration of a publishing client.

use crate::limits::Limits;
use crate::server::StreamName;
use std::fmt;

/// Chunk size announced by default: one frame, one chunk.
const CHUNK_BYTES: u32 = 60_000;
/// Default TCP port of `rtmp://` URLs.
const PORT: u16 = 1935;
/// Default TCP port of `rtmps://` URLs.
const TLS_PORT: u16 = 443;

/// The fault of a refused URL. Holds none of its text: a URL carries the stream key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// The scheme is neither `rtmp://` nor `rtmps://`.
    #[error("the scheme is neither rtmp nor rtmps")]
    Scheme,
    /// The host is missing, or the port is no number.
    #[error("no valid host and port")]
    Host,
    /// The path is not of the form `/app/name`.
    #[error("the path is not /app/name")]
    Path,
}

/// The server, stream and limits of a publishing client.
#[derive(Clone)]
pub struct ClientConfig {
    /// Host name or address, without brackets.
    pub host: String,
    /// TCP port of the server.
    pub port: u16,
    /// True for `rtmps://`; the owner of the socket does TLS.
    pub tls: bool,
    /// Application name, the path before the stream name.
    pub app: String,
    /// `tcUrl` of the `connect` command.
    pub tc_url: String,
    /// Stream name with its query, if any.
    pub name: StreamName,
    /// `flashVer` of the `connect` command.
    pub flash_ver: String,
    /// Chunk size to announce; 0 leaves the protocol's 128.
    pub chunk_bytes: u32,
    /// Limits of the server's messages.
    pub limits: Limits,
}

impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfig")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("tls", &self.tls)
            .field("chunk_bytes", &self.chunk_bytes)
            .finish_non_exhaustive()
    }
}

impl ClientConfig {
    /// Reads `rtmp[s]://host[:port]/app[/instance…]/name[?query]`; the last path element is the name.
    pub fn from_url(url: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = url.split_once("://").ok_or(UrlError::Scheme)?;
        let tls = match scheme {
            "rtmp" => false,
            "rtmps" => true,
            _ => return Err(UrlError::Scheme),
        };
        let (authority, path) = rest.split_once('/').ok_or(UrlError::Path)?;
        let (host, port) = split_port(authority, if tls { TLS_PORT } else { PORT })?;
        let path_end = path.find('?').unwrap_or(path.len());
        let slash = path[..path_end].rfind('/').ok_or(UrlError::Path)?;
        let (app, name) = (path[..slash].trim_matches('/'), &path[slash + 1..]);
        if app.is_empty() || name.is_empty() {
            return Err(UrlError::Path);
        }
        Ok(Self {
            host,
            port,
            tls,
            app: app.to_owned(),
            tc_url: format!("{scheme}://{authority}/{app}"),
            name: StreamName::new(name),
            flash_ver: "FMLE/3.0 (compatible; millrace)".to_owned(),
            chunk_bytes: CHUNK_BYTES,
            limits: Limits::default(),
        })
    }
}

fn split_port(authority: &str, default: u16) -> Result<(String, u16), UrlError> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or(UrlError::Host)?;
            (host, rest.strip_prefix(':'))
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let port = port.map_or(Ok(default), |p| p.parse().map_err(|_| UrlError::Host))?;
    if host.is_empty() { Err(UrlError::Host) } else { Ok((host.to_owned(), port)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_from_url_reads_host_port_app_and_name() {
        let c = ClientConfig::from_url("rtmp://h/live/KEY?a=/b").unwrap();
        assert_eq!((c.host.as_str(), c.port, c.app.as_str()), ("h", 1935, "live"));
        assert_eq!((c.name.expose(), c.tc_url.as_str()), ("KEY?a=/b", "rtmp://h/live"));
        let c = ClientConfig::from_url("rtmps://[::1]:99/a/b/KEY").unwrap();
        assert_eq!((c.host.as_str(), c.port, c.app.as_str(), c.tls), ("::1", 99, "a/b", true));
        for bad in ["http://h/a/b", "rtmp://h/live", "rtmp://h:x/a/b", "rtmp:///a/b", "rtmp://h/a/", "x"] {
            assert!(ClientConfig::from_url(bad).is_err(), "{bad}");
        }
    }
}
