//! What an operator asks of a program that is not its work.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::Context;

/// A health check that takes longer has failed.
const HEALTH_LIMIT: Duration = Duration::from_secs(3);

/// The head of an answer; the status is in its first line.
const HEAD_BYTES: u64 = 512;

/// One plain HTTP request: a container's health check needs no client library.
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
