//! The protocols that publishers speak. Each one implements [`crate::session::source::Source`].

pub(crate) mod rtmp;
