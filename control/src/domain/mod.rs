//! What a livestream is and which moves it allows: pure rules, no I/O and no clock.

pub mod claim;
pub mod ending;
pub mod stream;
pub mod validate;
