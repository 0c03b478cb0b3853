//! millrace-ingest
#![forbid(unsafe_code)]
