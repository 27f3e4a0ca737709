//! Taking base backups, one file a step.

pub mod manifest;
pub mod tar;
