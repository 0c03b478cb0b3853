//! millrace-control
#![forbid(unsafe_code)]
