//! Who may do what at the API: every route for every role, the life of tokens, the tokens of outside issuers, limits and the audit.
#![allow(clippy::unwrap_used, reason = "tests")]

mod audit;
#[path = "../common/mod.rs"]
mod common;
mod jwt;
mod limits;
mod matrix;
mod tokens;
