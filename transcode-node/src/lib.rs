//! millrace-transcode
#![forbid(unsafe_code)]
