//! A cluster's objects as a whole: copied into another repository ([`copy`]), read and verified ([`verify`]), counted
//! ([`stats`]).

pub mod copy;
mod packs;
mod sample;
pub mod stats;
#[cfg(test)]
mod testing;
pub mod verify;

pub use sample::{Extent, Sample};
