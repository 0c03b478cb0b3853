//! millrace-runtime
#![forbid(unsafe_code)]
