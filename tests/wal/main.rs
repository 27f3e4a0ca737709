//! The WAL decoder against real WAL of every major that is there.

#[path = "../harness/mod.rs"]
mod harness;

mod damage;
mod facts;
mod peers;
mod segments;
mod timelines;
mod workload;
