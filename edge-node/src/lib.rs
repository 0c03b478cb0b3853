//! millrace-edge
#![forbid(unsafe_code)]
