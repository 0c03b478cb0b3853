//! Media objects: those that feeds hold, those read back from the object store, and the reads themselves.

pub mod answers;
pub mod cache;
pub mod fetch;
pub mod fresh;
pub mod live;
pub mod media;
pub(crate) mod single_flight;
