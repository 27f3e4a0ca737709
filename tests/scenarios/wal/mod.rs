//! The WAL decoder against real WAL of every major that is there.

mod damage;
mod facts;
mod peers;
mod segments;
mod timelines;
mod workload;
