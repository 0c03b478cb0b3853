//! Counting viewers: how a viewer shows itself (`identity`), the table of those that this edge sees (`table`), and the writes to
//! the state store, where all edges' viewers meet (`counting`); signed sessions for players that report themselves.

pub mod cmcd;
pub mod counting;
pub mod frames;
pub mod identity;
mod places;
pub mod signer;
mod table;
#[cfg(test)]
mod table_tests;
pub mod viewer_count;
