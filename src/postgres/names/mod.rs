//! What relations are called: WAL knows files only, so their names are read from the server now and then, and what is
//! new is kept in the repository (docs/repository-format.md).

mod read;
mod store;

pub use read::{Resolve, read};
pub use store::{KIND, LONGEST, NamesDescription, load, record, record_alone};
