//! The write-ahead log, read: pages, records, what records say, and the summary of a segment.
//!
//! Pure and bounded: bytes are pushed in pieces of any size, and no input makes it panic. PostgreSQL 13 to 18 on
//! little-endian machines with blocks of 8 KiB. Record layouts are those of the headers named at each part.

mod boundary;
mod bytes;
mod checks;
mod checksum;
mod created;
mod decoder;
mod ends;
mod event;
mod event_overflow;
mod fact;
mod facts;
mod heap;
mod join;
mod pages;
mod parts;
mod record;
mod rows;
mod stop;
mod summary;
#[cfg(test)]
mod summary_tests;
mod tablespaces;
#[cfg(test)]
pub(in crate::postgres) mod testing;
#[cfg(test)]
mod tests;
mod timestamp;
mod transactions;
mod truncate;

pub use boundary::{Boundary, join};
pub use created::Created;
pub use decoder::Decoder;
pub use ends::{ENDED, Ended, Ends};
pub use event::{EVENTS, EventDetail, NAMED, WalEvent};
pub use event_overflow::EventOverflow;
pub use fact::{
    DroppedStatistics, Fact, List, Parameters, RowChange, TransactionEnd, UnknownRecord,
};
pub use facts::read_fact;
pub use join::{Head, Joined, JoinedRecord, RecordPart, Tail};
pub use pages::PAGE;
pub use parts::PartEnds;
pub use record::{BlockRef, FirstRecord, KEPT, Record, RecordHeader, RelFileLocator, Xid, rmgr};
pub use rows::{ENTRIES, RowChanges, RowCounts, RowsOf};
pub use stop::{StopReason, WalStop};
pub use summary::{Commit, Commits, Summarizer, Summary};
pub use tablespaces::{TablespaceMade, Tablespaces};
pub use timestamp::Timestamp;
pub use truncate::STORED;
