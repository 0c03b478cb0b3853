//! millrace-state
#![forbid(unsafe_code)]
