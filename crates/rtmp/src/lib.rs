//! millrace-rtmp
#![forbid(unsafe_code)]
