//! The encoders of a job: a child process that decodes the source once and encodes its rungs.
//!
//! A decoder is the most likely part of the worker to be broken by a publisher's bytes, so it runs in a process of its own,
//! without network, files and environment, and its death costs the encoded rungs a moment ([`crash_policy`]). The worker gives
//! orders and takes products over a socket pair ([`frames`]); it checks each field of a product ([`ledger`]), since a broken
//! child may write any bytes. No call of [`Encoders`] waits for the child.

mod child;
mod command;
pub mod crash_policy;
pub mod frames;
pub mod ledger;
pub mod overload;
mod probe;
mod process;
mod sandbox;
mod shared;
mod spawner;
mod speed;
mod stderr_tail;
mod transcoder;
mod watchdog;

use std::fmt::{Debug, Display, Formatter};
use std::task::{Context, Poll};

use millrace_codec::engine::order::{Order, Plan, RungIndex};
use millrace_codec::engine::product::Product;

pub use self::child::run_if_ordered;
pub use self::probe::{EncoderTrial, Isolation, ProbeReport, probe};
pub use self::transcoder::{ChildSettings, ProcessEncoders};

/// The encoders of one job, for the job's whole life. No call waits.
pub trait Encoders: Debug + Send {
    /// Hands an order in. [`Order::Start`] begins a new transcoder and drops the one before with everything that it has not
    /// handed in. Orders before the first start, and between the end of a transcoder and the next start, are dropped.
    ///
    /// # Errors
    /// When the order was not taken, because too much waits already. This transcoder has lost its place in the source: the rungs
    /// are out until a new one starts.
    fn send(&mut self, order: Order) -> Result<(), Behind>;

    /// Gives the next event, or arranges for `context`'s waker to be woken.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Event>;
}

/// Opens the encoders of jobs.
pub trait EncoderFactory: Debug + Send + Sync {
    /// Opens the encoders of one job that makes `plan`. Nothing runs before the first [`Order::Start`].
    fn open(&self, plan: &Plan) -> Box<dyn Encoders>;
}

/// The transcoder is too far behind: it did not take the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the encoders are too far behind the source")]
pub struct Behind;

/// An event of a job's encoders.
#[derive(Debug)]
pub enum Event {
    /// A product that the orders allow.
    Product(Product),
    /// The transcoder has ended; no event follows until the next start.
    Ended(Ended),
    /// The encoders fall behind the source, or have been calm for long enough: only these rungs are to be encoded. The rung
    /// hands in [`Order::Encode`] with the list before the next place that starts a segment.
    Encode(Vec<RungIndex>),
}

/// The end of a transcoder that was not asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The kind of end.
    pub cause: EndCause,
    /// The end in words: the exit status, and the last lines that the process wrote.
    pub text: String,
}

/// The kind of a transcoder's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndCause {
    /// The process could not be started.
    NotStarted,
    /// The process died: by a signal, by an exit of its own, or for want of memory.
    Died,
    /// The process made nothing of what waited, and was killed.
    Hung,
    /// The process handed in something that no order allows, and was killed.
    Misbehaved,
}

impl EndCause {
    /// Returns the name of the cause in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotStarted => "not_started",
            Self::Died => "died",
            Self::Hung => "hung",
            Self::Misbehaved => "misbehaved",
        }
    }
}

impl Display for Ended {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}
