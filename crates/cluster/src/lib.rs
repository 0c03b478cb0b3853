//! millrace-cluster
#![forbid(unsafe_code)]
