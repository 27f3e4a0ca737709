//! Deleting what retention lets go: gather ([`gather`]), decide (`crate::retention`), have the planner of restores agree
//! ([`opinion`]), then delete exactly that ([`apply`]).
//!
//! What is deleted is written down first, and deleted in an order in which nothing looks whole that is not.

pub mod apply;
mod beside;
mod dumps;
mod engine;
mod gather;
mod opinion;
#[cfg(test)]
mod rest_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use dumps::{KeptFor, kept_dumps};
pub use engine::ExpiryProgress;
pub use gather::{Gathered, as_needs, gather, protect};
