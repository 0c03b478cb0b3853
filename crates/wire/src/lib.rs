//! millrace-wire
#![forbid(unsafe_code)]
