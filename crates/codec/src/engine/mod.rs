//! The transcoder of one stream: it decodes the source once and encodes every rung of the ladder from the same pictures.
//!
//! [`order`] and [`product`] are the engine's two ends: orders go in, products come out. Both are plain data, so that the
//! engine can run in a process of its own, with a socket pair between it and the job.

pub mod order;
pub mod product;
