//! What runs by itself, and when. Knows no source: a job is a name, a schedule, and the arguments of a child process.
//!
//! [`schedule`] says when (pure), [`decide`] what is due (pure), [`lease`] lets one runner do it, [`runs`] joins the three,
//! [`history`] keeps how runs ended. [`perform`] has a child process do the work ([`child`]), which writes only as long as
//! it has a [`permit`].

pub mod child;
pub mod clock;
pub mod decide;
pub mod format;
pub mod history;
mod job;
pub mod keys;
mod known;
pub mod lease;
pub mod perform;
pub mod permit;
pub mod record;
pub mod runs;
pub mod schedule;
pub mod status;

pub use job::{Job, Lane, Missing};
