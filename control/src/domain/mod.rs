//! The rules of livestreams and claims, and the records control keeps: no I/O and no clock.

pub mod access;
pub mod airings;
pub mod audience;
pub mod claim;
pub mod delivery;
pub mod disconnect;
pub mod event;
pub mod keys;
pub mod purge;
pub mod retention;
pub mod stream;
pub mod validate;
pub mod visible_text;
pub mod webhook;
