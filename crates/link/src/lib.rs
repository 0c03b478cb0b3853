//! The typed link between the bus and the protocol machines, used by every node.
//!
//! The bus ([`millrace_bus`]) moves bytes between subjects. The protocol machines ([`millrace_protocol`]) consume and
//! produce typed messages and do no I/O. This crate is what stands between the two:
//!
//! * [`Link`] publishes, requests and subscribes by [`Topic`](millrace_wire::topic::Topic): a subject, the type of its
//!   messages and the version of the wire format in one value. A message of another wire version, or a malformed one, is
//!   refused here, in one place: it is counted in the metric `link_refused_messages` and logged at a bounded rate, and the
//!   code above never sees it.
//! * [`LogReader`] receives the facts of one log: those published live and those retransmitted on request.
//!   [`MediaReader`] does the same for the media messages of one epoch.
//! * [`LogServer`] is the other side of a [`LogReader`]: it publishes what a log writer has encoded and receives the repair
//!   and snapshot requests of the log's readers.
//! * [`driver::Driver`] holds a machine with its clock and timer: the poll and timeout loop of every machine.
//! * [`media_convert`] converts between the media model of the parsers and the packager and media units on the wire.
//! * [`publisher_session`] runs the whole publisher session machine: media out, worker supervision, lease, repairs.
//!
//! A task that runs a machine is a loop over these parts: it waits for a message, an answer or the machine's next timeout,
//! hands it to the machine, and executes the outputs. What the bus drops is not an error here: readers find the hole by
//! sequence number and ask for a retransmission (ADR 1).
#![forbid(unsafe_code)]

pub mod driver;
mod error;
mod link;
mod log_server;
pub mod media_convert;
pub mod publisher_session;
mod reader;
mod refusals;
mod requests;
mod subscription;

pub use error::LinkError;
pub use link::Link;
pub use log_server::{LogRequest, LogServer};
pub use reader::{LogForm, LogReader, MediaReader, REPAIR_TIMEOUT, RepairedReader};
pub use requests::{Request, RequestSubscription};
pub use subscription::{FragmentSubscription, TypedSubscription};
