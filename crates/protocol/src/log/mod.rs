//! A stream's log of facts: its writer, its followers, the replay buffer that a producer keeps, and gap repair.

pub mod follower;
pub mod repair;
pub mod replay_buffer;
pub mod writer;
