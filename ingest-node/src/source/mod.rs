//! The protocols that publishers speak. Each one implements [`crate::session::source::Source`]: the trait stands with the
//! session, which uses it, so that imports point down only.

pub(crate) mod rtmp;
