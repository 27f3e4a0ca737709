//! The domain of the tests: PostgreSQL clusters of every major, Walden beside them, and what must be true afterwards.
//!
//! ```ignore
//! let scratch = Scratch::new("archive");
//! let mut cluster = Cluster::builder(major).start(&scratch);
//! let walden = Walden::beside(&cluster);
//! walden.ok(["init"]);
//! let service = walden.serve();
//! cluster.archive_with(&walden);
//! cluster.commit("a");
//! ```

mod browser;
mod clock;
mod cluster;
mod history;
mod http;
mod initdb;
mod ledger;
mod majors;
mod process;
mod proxy;
mod random;
mod receiver;
mod s3;
mod scratch;
mod walden;

pub use browser::Browser;
pub use clock::clock_ahead;
pub use cluster::{Builder, Cluster, Stop};
pub use history::{History, Target, lsn_number, time_text};
pub use ledger::{Marker, Rows};
pub use majors::{Major, is_long, say_skipped};
pub(crate) use majors::{each_major, outer_majors};
pub use process::{Output, ServerUser, command, finish, run_as_server, server_user, wait_until};
pub use proxy::{Fault, Proxy, Vanished, When};
pub use random::Random;
pub use receiver::{Answers, Receiver};
pub use s3::{Bucket, ObjectStore};
pub use scratch::Scratch;
pub use walden::{Service, Walden};
