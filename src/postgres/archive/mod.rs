//! Archiving: WAL files into the repository ([`push`]) and back out of it ([`fetch`]), and what they hold ([`summarize`]).
//!
//! Both are the same with and without the service; the service only decides what is done ahead of being asked.

pub mod absence;
pub mod aside;
mod encoded;
pub mod fetch;
pub mod file_identity;
mod first_history;
pub mod gap_evidence;
mod limit;
mod owner;
pub mod probe;
pub mod push;
pub mod recovery_order;
pub mod summarize;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod verify;

pub use encoded::{EncodedFile, Fingerprint};
pub use fetch::{Fetched, Fetcher, GapError, HistoryLost};
pub use file_identity::ForeignFile;
pub use first_history::store_first_history;
pub use gap_evidence::Untold;
pub use owner::refuse_other_cluster;
pub use push::{Conflict, PushOutcome, Pusher};
