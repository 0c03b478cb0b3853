//! The reasons a takeover fails.

use millrace_bus::BusError;
use millrace_link::LinkError;
use millrace_store::StoreError;
use millrace_wire::fragment::FragmentError;

use crate::repo::RepoError;

/// The reason a takeover failed; the reconciler tries again.
#[derive(Debug, thiserror::Error)]
pub(super) enum TakeoverError {
    /// The state store failed, or another control changed the claim first.
    #[error(transparent)]
    Repo(#[from] RepoError),
    /// The bus did not take a subscription.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The bus did not take a request.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The object store did not give an initialisation section.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A fact does not fit into a message.
    #[error(transparent)]
    Fragment(#[from] FragmentError),
}
