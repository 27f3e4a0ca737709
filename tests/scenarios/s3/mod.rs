//! Repositories on S3: a real server, and the faults of networks and stores before it.

mod proxy;
