//! HTTP servers: one listener with deadlines for every state of a connection (`server`), and the operations routes that
//! every node has (`operations`).
//!
//! actix-http limits the time of a connection's first request head and of an idle connection, by a clock that goes on while
//! the process is stopped, and nothing else. So all limits are here, beneath it: heads, bodies, idle connections, and clients
//! that do not read their answer. `connection`
//! wraps the socket and ends connections, `progress` decides which, `exchange` tells them when a handler runs and answers
//! 408 for a body that does not come.

mod admission;
mod connection;
mod cut;
mod exchange;
mod operations;
mod progress;
mod server;

pub use self::admission::admission;
pub use self::connection::{Connection, Permit};
pub use self::cut::Cut;
pub use self::operations::{ActorsQuery, MAX_LISTED_ACTORS, Observability, actors, routes, serve};
pub use self::progress::{BODY_DEADLINE, Deadlines};
pub use self::server::{Admit, HttpHandle, ServerOptions, bind, connection, listen};

#[cfg(test)]
mod tests;
