//! The typed link between the bus and the protocol machines, and the tasks around both that more than one node needs.
//!
//! The bus ([`millrace_bus`]) moves bytes between subjects. The protocol machines ([`millrace_protocol`]) consume and
//! produce typed messages and do no I/O. This crate converts between bus bytes and typed messages and drives the machines:
//!
//! * [`Link`] publishes, requests and subscribes by [`Topic`](millrace_wire::topic::Topic): a subject, the type of its
//!   messages and the version of the wire format in one value. A message of another wire version, or a malformed one, is
//!   refused here, in one place: it is counted in the metric `link_refused_messages` and logged once a minute and topic, and the
//!   code above never sees it. A refused request gets no answer, so its sender runs into its own time limit. A
//!   [`LinkError`] means that the bus is closed, that a message could not be encoded, or that an answer did not come or
//!   could not be read.
//! * A subscription ([`TypedSubscription`], [`RequestSubscription`], [`FragmentSubscription`] for messages that are split
//!   below the server's largest payload) has the capacity its opener states; a subscriber that falls further behind loses
//!   the newest messages, which the bus counts.
//! * [`LogReader`] receives the facts of one log, with the parts' bytes or as a digest without them ([`LogForm`]): those
//!   published live and those retransmitted on request. [`MediaReader`] does the same for the media messages of one epoch.
//! * [`LogServer`] is used by the writer of a log: it publishes the messages that the log writer has encoded and receives
//!   the repair and snapshot requests of the log's readers.
//! * [`driver::Driver`] holds a machine with its clock and its timer, and bounds how long the task that runs it sleeps.
//! * [`media_convert`] converts between [`millrace_media`]'s frames and configurations and the media units on the wire.
//! * [`publisher_session`] runs a publisher's session: it sends the media, supervises the workers, renews the lease and
//!   answers repair requests. An ingest node uses it for its publishers; a node that makes a stream of its own can, too.
//!
//! The task that runs a machine is a loop: it waits for a message, an answer or the machine's next timeout, hands it to the
//! machine, and executes the outputs. A message that the bus drops is no error here: the machine that misses it finds the
//! hole by sequence number and asks the producer to publish it once more.
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
