//! The write-ahead log, read: pages, records, what records say, and the summary of a segment.
//!
//! Pure and bounded: bytes are pushed in pieces of any size, and no input makes it panic. PostgreSQL 13 to 18 on
//! little-endian machines with blocks of 8 KiB. Record layouts are those of the headers named at each part.

mod bytes;
mod decoder;
mod facts;
mod heap;
mod join;
mod pages;
mod record;
mod rows;
mod stop;
mod summary;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod timestamp;
mod transactions;

pub use decoder::{Decoder, FirstRecord, KEPT};
pub use facts::{Checkpoint, Fact, List, Parameters, RowChange, Unreadable};
pub use join::{Head, Joined, JoinedRecord, Piece, Tail};
pub use record::{BlockRef, Header, Record, RelFileLocator, Xid, rmgr};
pub use rows::{ENTRIES, RowCounts, Rows, RowsOf};
pub use stop::{Stop, Why};
pub use summary::{Commit, Commits, Created, EVENTS, Event, NAMED, Seam, Summarizer, Summary, What, join};
pub use timestamp::Timestamp;
pub use transactions::{DroppedStatistics, TransactionEnd};
