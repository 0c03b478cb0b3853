//! The inputs and the outputs of a reader.

use millrace_wire::fact::{FactMessage, StreamState};
use millrace_wire::ids::{Epoch, Generation};
use millrace_wire::message::announce::{EpochAnnouncement, SessionAnnouncement};
use millrace_wire::message::repair::{RepairReply, RepairRequest};

use super::media::Media;

/// An input of a reader.
#[derive(Debug)]
pub enum Input {
    /// An announcement of control, from `epoch.{stream}`.
    Epoch(EpochAnnouncement),
    /// An announcement of the session, from `session.{stream}`.
    Session(SessionAnnouncement),
    /// A message from the `live` or `repair.live` subject of any log; those of other logs than the adopted one are dropped.
    Fact(FactMessage),
    /// One of the replies to [`Output::AskSnapshot`].
    Snapshot(Box<StreamState>),
    /// The log writer's reply to [`Output::Repair`] of this log.
    RepairReply(Epoch, Generation, RepairReply),
    /// Time has passed; nothing else has happened.
    Tick,
}

/// An output of a reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Subscribe to `live` and `repair.live` of this log, and unsubscribe from those of earlier logs.
    Follow(Epoch, Generation),
    /// Send a request on `snap.{stream}`, and hand every reply in.
    AskSnapshot,
    /// Send a request on `ring.live` of this log, and hand the reply in.
    Repair(Epoch, Generation, RepairRequest),
    /// Keep these bytes under this name.
    Bytes(Media),
    /// The state to render, [`super::StreamReader::shown`], has changed.
    Changed,
}
