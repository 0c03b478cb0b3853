//! The command line of the child process. It is not meant for people, and the programs' help does not list it.

/// The command of a child that encodes, as the first argument.
pub(super) const COMMAND: &str = "encoder";
/// The command of a child that tries what it can do, writes the report to the socket, and ends.
pub(super) const PROBE: &str = "encoder-probe";
/// The argument that allows device files.
pub(super) const DEVICES: &str = "devices";
