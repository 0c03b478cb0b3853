//! The state that a log of facts folds into, and the checkpoint of it that outlives its writer.

pub mod apply;
pub mod checkpoint;
