//! millrace-bus
#![forbid(unsafe_code)]
