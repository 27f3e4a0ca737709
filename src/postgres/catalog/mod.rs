//! Facts about what is kept, and the decisions over them. Pure, but for `load`.

mod model;

pub use model::{
    BackupDescription, ClusterDescription, ConfigurationFile, MajorSince, TablespaceDescription, WalDescription,
};
