//! millrace-testkit
#![forbid(unsafe_code)]
