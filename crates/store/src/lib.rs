//! millrace-store
#![forbid(unsafe_code)]
