//! The child process: a loop around the engine, with the worker at the other end of its standard input.

use std::ffi::OsString;
use std::io::{IoSlice, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use bytes::{Buf, Bytes};
use millrace_codec::engine::{Engine, EngineInput, EngineOutput};

use super::command::{COMMAND, DEVICES, PROBE};
use super::frames::{Frame, FrameReader, decode_order, encode_failure, encode_product};
use super::probe;
use super::sandbox::{self, Limits};

/// Runs the child process if `args`, those of this process, ask for it. Programs that start workers call it first, before
/// anything is opened or started.
pub fn run_if_ordered(args: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut args = args.into_iter().skip(1);
    let command = args.next()?;
    let serve: fn(&Arc<UnixStream>) -> anyhow::Result<()> = match command.to_str()? {
        COMMAND => serve,
        PROBE => probe::report,
        _ => return None,
    };
    Some(match run(args, serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    })
}

fn run(
    args: impl Iterator<Item = OsString>,
    serve: fn(&Arc<UnixStream>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let limits = limits(args).context("arguments")?;
    let socket = std::io::stdin().as_fd().try_clone_to_owned().context("socket")?;
    let socket = Arc::new(UnixStream::from(socket));
    socket.peer_addr().context("the standard input is no socket: this command is started by the worker")?;
    sandbox::enter(limits, socket.as_raw_fd())?;
    serve(&socket)
}

fn limits(mut args: impl Iterator<Item = OsString>) -> anyhow::Result<Limits> {
    let mut next = || args.next().and_then(|text| text.into_string().ok());
    let memory_bytes = next().context("no memory limit")?.parse().context("memory limit")?;
    let nice = next().context("no nice value")?.parse().context("nice value")?;
    let devices = match next().as_deref() {
        None => false,
        Some(DEVICES) => true,
        Some(other) => bail!("{other} is unknown"),
    };
    Ok(Limits { memory_bytes, nice, devices })
}

/// Hands orders to an engine and its products to the worker, until the worker closes the socket.
fn serve(socket: &Arc<UnixStream>) -> anyhow::Result<()> {
    let (input, output) = Engine::start().context("engine")?.split();
    let to_worker = socket.clone();
    let writer = move || write_products(output, &to_worker);
    let writer = std::thread::Builder::new().name("products".to_owned()).spawn(writer).context("thread")?;
    if let Err(error) = read_orders(&input, socket) {
        // The worker reads the reason here, or in the error output.
        let _ = write_frame(socket, encode_failure(&format!("{error:#}")));
        return Err(error);
    }
    drop(input);
    // The engine ends with its input; the worker has closed the socket and reads nothing more.
    let _ = writer.join();
    Ok(())
}

fn read_orders(input: &EngineInput, mut socket: &UnixStream) -> anyhow::Result<()> {
    let mut frames = FrameReader::default();
    while frames.read_from(&mut socket)? > 0 {
        while let Some((kind, body)) = frames.next_frame()? {
            if input.push(decode_order(kind, body)?).is_err() {
                bail!("the engine has ended");
            }
        }
    }
    Ok(())
}

fn write_products(output: EngineOutput, socket: &UnixStream) {
    for product in output {
        if write_frame(socket, encode_product(product)).is_err() {
            // The worker has gone: the reader of the orders ends the process.
            return;
        }
    }
    // The engine has ended on its own: the worker learns of it by the end of the stream.
    let _ = socket.shutdown(std::net::Shutdown::Both);
}

fn write_frame(mut socket: &UnixStream, frame: Frame) -> std::io::Result<()> {
    if frame.is_too_long() {
        return Err(std::io::Error::other("a product beyond the largest frame"));
    }
    let mut slices: Vec<Bytes> = frame.into_slices().collect();
    while !slices.is_empty() {
        let parts: Vec<IoSlice<'_>> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
        let mut written = match socket.write_vectored(&parts) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            result => result?,
        };
        if written == 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        slices.retain_mut(|slice| {
            let part = written.min(slice.len());
            slice.advance(part);
            written -= part;
            !slice.is_empty()
        });
    }
    Ok(())
}
