//! Free ports for servers that can't choose one themselves.

use std::net::TcpListener;

/// A TCP port on the loopback interface that nobody listens on now.
///
/// Somebody else may take it before the server does: start such servers with a retry. Programs of our own get
/// port 0 instead and say what they chose.
pub fn free() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind a loopback port");
    listener.local_addr().expect("address of a bound socket").port()
}
