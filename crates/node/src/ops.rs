//! The health check that containers run.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::Context;

/// A health check that takes longer than this has failed.
const HEALTH_LIMIT: Duration = Duration::from_secs(3);

/// The bytes of an answer that are read; the status is in its first line.
const HEAD_BYTES: u64 = 512;

/// Sends one plain HTTP request to `url`, and succeeds if the status is 200.
///
/// # Errors
/// When the URL is not `http://host:port/path`, the node does not answer, or its status is another.
pub fn healthcheck(url: &str) -> anyhow::Result<()> {
    let rest = url.strip_prefix("http://").context("the URL must begin with http://")?;
    let (authority, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
    let addr =
        authority.to_socket_addrs().with_context(|| format!("{authority}: expected host:port"))?.next();
    let addr = addr.with_context(|| format!("{authority} has no address"))?;
    let mut stream = TcpStream::connect_timeout(&addr, HEALTH_LIMIT).with_context(|| url.to_owned())?;
    stream.set_read_timeout(Some(HEALTH_LIMIT))?;
    stream.set_write_timeout(Some(HEALTH_LIMIT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n")?;
    let mut head = Vec::new();
    stream.take(HEAD_BYTES).read_to_end(&mut head).with_context(|| url.to_owned())?;
    let line = String::from_utf8_lossy(&head);
    let line = line.lines().next().unwrap_or_default();
    anyhow::ensure!(line.split(' ').nth(1) == Some("200"), "{url}: {line}");
    Ok(())
}
