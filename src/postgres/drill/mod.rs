//! Drills: a restore by itself into a folder that goes away, a server that nobody else reaches, checks, and a verdict.
//!
//! [`run`] is the frame of all of them, [`physical`] restores base backups and WAL, [`dump`] dumps, [`round_trip`]
//! known data by way of a dump. [`scratch`] makes and removes the folder,
//! also what a killed drill left, [`server`] has the restored server's settings, [`restored`] restores and starts it, also for
//! others, [`look`] and [`checks`] look at what it holds, and [`asserts`] has one's own checks: SQL, [`http`], [`critical_table`].
//! [`canary`] judges rows that Walden wrote on the source (pure), [`canary_write`] writes them there;
//! [`counts`] compares rows that were counted there (pure), [`counts_take`] counts them.
//! [`after_restore`] looks in the same way at what `walden restore` restored.
//! [`verdict`] decides (pure); [`again`] asks the repository once more before it is blamed.

mod after_restore;
mod again;
mod asserts;
mod canary;
mod canary_table;
mod canary_write;
mod checks;
mod collations;
mod command;
mod counts;
mod counts_table;
mod counts_take;
mod critical_table;
pub mod database;
mod dump;
pub mod dumped;
mod filled;
mod http;
mod known;
mod look;
pub mod made;
mod pages;
mod physical;
mod report;
pub mod restored;
pub mod round_trip;
mod run;
pub mod scratch;
mod server;
mod source_server;
mod table_name;
mod tables;
pub mod target;
pub mod verdict;

pub use after_restore::{Checked, check_restored};
pub use asserts::{Asserts, parse as parse_asserts};
pub use canary_write::{WrittenCanary, write as write_canary};
pub use counts::Counts;
pub use counts_table::table as parse_table;
pub use counts_take::count as count_source;
pub use dump::{DumpDrill, run as run_dump};
pub use physical::{DrillOptions, run};
pub use report::{DrillKind, DrillReport};
