//! Load: many publishers and many viewers in one process, cheap enough that the server is what is measured.

pub mod publisher;
pub mod viewer;
