//! Repositories on S3: on a real server, on an emulator for what that does not have, and through the faults of networks
//! and stores.

mod backup_crash;
mod classes;
mod cold;
mod conformance;
mod end_to_end;
mod errors;
mod faults;
mod headers;
mod lifecycle;
mod parts;
mod proxy;
mod replay;
mod vanished;
mod wal_crash;
mod workload;
