//! The services that an edge is started with.

use millrace_node::Backends;

/// The bus, on which facts and parts arrive; the object store, which has the stored segments; the state store, which has playback
/// records, checkpoints and the sets of viewers; and the services that all nodes of the process share.
pub type Deps = millrace_node::Deps<Backends>;
