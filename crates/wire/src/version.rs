//! The version of the wire format.

/// Version of every message and record this crate encodes. A message of another version is refused
/// ([`crate::WireError::Version`]).
pub const WIRE_VERSION: u8 = 3;
