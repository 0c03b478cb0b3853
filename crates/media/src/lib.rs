//! millrace-media
#![forbid(unsafe_code)]
