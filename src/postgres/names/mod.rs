//! What relations are called. WAL knows files only: their names are read from the server now and then, and news are
//! kept in the repository (docs/repository-format.md).

mod merge;
#[cfg(test)]
mod merge_tests;
mod read;
mod store;

pub use merge::{Merging, merge_a_day};
pub(super) use read::{ask, check_identity, read_timeline};
pub use store::{NamesMemory, record, record_alone};
