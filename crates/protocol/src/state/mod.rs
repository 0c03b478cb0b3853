//! The state that a log of facts folds into, and the checkpoint of it that outlives its writer.
//!
//! [`apply`] is the fold. [`query`] answers what playlists, writers and readers ask of a state, [`gaps`] lists what is
//! missing from it, and [`position`] orders two states by age. [`checkpoint`] is what the state store keeps, and
//! [`rebuild`] makes a state from the segment index when even that is gone.

pub mod apply;
pub mod checkpoint;
pub mod gaps;
pub mod position;
pub mod query;
pub mod rebuild;
