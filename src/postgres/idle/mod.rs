//! Idle markers: the server's word, kept in the repository, that no transaction ended between the last one that is archived
//! and a moment (docs/repository-format.md). Without it a time later than the last archived transaction cannot be
//! restored: another one may have ended in WAL that is not archived yet.

mod decide;
mod read;
mod store;

pub use decide::IdleMemory;
pub use store::{IdleProof, KIND, LONGEST, check, observe, proof, store};
