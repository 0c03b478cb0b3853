//! The publisher's session: it numbers and keeps the media of one publisher connection, finds a worker that packages
//! them, supervises that worker, and replaces it.
//!
//! ```text
//! initial state ──▶ bidding ──▶ primary ──▶ primary + standby ──▶ …  ──▶ draining ──▶ done
//! (of the last     (offer,      (announced,  (the primary drains          (publisher gone: until
//!  epoch)           bid, grant)  supervised)  or is silent)                all media are stored)
//! ```
//!
//! [`Session`] is the machine (`machine.rs`, `dispatch.rs`); the other files each hold one of its parts: the lease at
//! control, the rounds of bids, the pair of primary and standby, the failure detector that decides when one is silent,
//! the media that a successor decodes first, and the state that the first grant builds on.

mod assignment;
mod bidding;
mod dispatch;
mod failure_detector;
mod initial_state;
mod io;
mod lease;
mod machine;
mod pre_roll;

pub use self::assignment::{GRANT_ACCEPT_MS, REGRANT_MS, SILENCE_MS};
pub use self::bidding::{BID_MS, NO_BID_MS, REOFFER_MS};
pub use self::dispatch::{QUIESCE_WAIT_MS, REDISPATCH_MS};
pub use self::failure_detector::{LATE_MS, LOOPBACK_FRESH_MS, LOOPBACK_MS};
pub use self::initial_state::{INITIAL_STATE_ASK_MS, INITIAL_STATE_MS};
pub use self::io::{Input, Output, SessionConfig};
pub use self::machine::{ANNOUNCE_MS, LINGER_MS, NAMED_MS, Session};
pub use self::pre_roll::{PRE_ROLL_MS, PRE_ROLL_SOUNDS};
