//! millrace
#![forbid(unsafe_code)]
