//! Drills: a restore by itself into a folder that goes away, a server that nobody else reaches, checks, and a verdict.
//!
//! [`verdict`] decides (pure), [`scratch`] makes and removes the folder, also what a killed drill left, [`server`] has the
//! restored server's settings, [`restored`] restores and starts it, also for others, [`checks`] look at what it holds, [`run`] joins them.

mod asserts;
mod checks;
mod command;
pub mod database;
pub mod restored;
mod run;
pub mod scratch;
mod server;
pub mod target;
pub mod verdict;

pub use asserts::{Assert, Expected, parse as parse_asserts};
pub use run::{DrillOptions, DrillReport, run};
pub use scratch::remove_own;
