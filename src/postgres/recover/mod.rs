//! One table back: from a private server that was restored to a moment, or filled from a dump, into a database, beside the
//! table that is there now.
//!
//! [`source`] asks the private server, [`rename`] finds names that are free (pure), [`definitions`] has `pg_dump` say how the
//! table is made, [`load`] makes it in one transaction with what it needs ([`need`]), [`compare`] and [`put_back`] write the SQL (pure), [`after`] has it run, [`run`] joins them.

mod after;
mod columns;
mod compare;
mod definitions;
mod from_dump;
mod load;
mod need;
mod options;
mod private_server;
mod put_back;
mod refusals;
mod rename;
mod report;
mod run;
mod sessions;
mod source;

pub use from_dump::DumpOrigin;
pub use options::RecoverOptions;
pub use put_back::script;
pub use report::{Comparison, LeftOut, PutBack, TableRecovery};
pub use run::{Origin, recover};
