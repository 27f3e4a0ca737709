//! Facts about what is kept, and the decisions over them. Pure, but for `load`.

pub mod load;
mod model;
mod ranges;
#[cfg(test)]
pub mod testing;

pub use model::{
    BackupDescription, ClusterDescription, ConfigurationFile, MajorSince, TablespaceDescription, WAL_KIND,
    WalDescription,
};
pub use ranges::{Gap, WalRange, WalRanges};
