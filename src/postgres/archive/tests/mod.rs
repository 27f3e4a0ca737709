//! Archiving over real storage: what may be stored, what comes back, and what is left after a stop at any point.

mod aside;
mod crash;
mod fetching;
mod probes;
mod pushing;
mod summaries;
mod unreachable;
