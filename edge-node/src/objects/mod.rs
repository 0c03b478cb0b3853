//! Media objects: those that feeds hold, those read back from the object store, and the reads themselves.

pub mod cache;
pub mod fetch;
pub mod live;
pub(crate) mod single_flight;
