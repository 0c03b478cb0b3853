//! Commands for operators.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::Context;
use millrace_runtime::ConfigTree;
use millrace_runtime::logging::LogConfig;

use crate::backends::{BusConfig, StateConfig, StoreConfig};
use crate::process::NodeConfig;

/// A health check that takes longer has failed.
const HEALTH_LIMIT: Duration = Duration::from_secs(3);

/// The head of an answer; the status is in its first line.
const HEAD_BYTES: u64 = 512;

/// Reads every section as its owner would.
pub(crate) fn read_all(tree: &ConfigTree) -> anyhow::Result<()> {
    tree.section::<LogConfig>()?;
    tree.section::<NodeConfig>()?;
    tree.section::<BusConfig>()?;
    tree.section::<StateConfig>()?;
    tree.section::<StoreConfig>()?;
    tree.section::<millrace_ingest::Config>()?;
    tree.section::<millrace_transcode::Config>()?;
    tree.section::<millrace_edge::Config>()?;
    tree.section::<millrace_control::Config>()?;
    Ok(())
}

pub(crate) fn check_config(tree: &ConfigTree) -> anyhow::Result<()> {
    read_all(tree)?;
    println!("the configuration is valid");
    Ok(())
}

/// One plain HTTP request: a container's health check needs no client library.
pub(crate) fn healthcheck(url: &str) -> anyhow::Result<()> {
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
