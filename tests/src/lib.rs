//! millrace-tests
#![forbid(unsafe_code)]
