//! Whose data directory a WAL file lies in.

use std::path::Path;

use anyhow::anyhow;

use crate::error::with_hint;
use crate::postgres::types::{ControlFile, SystemIdentifier};

/// Refuses a file of, or for, the data directory of another cluster than the one that is asked: "absent" would end its
/// recovery early, and its history files, which do not say whose they are, would be taken for this cluster's. Files
/// outside a data directory are nobody's, and a pg_control that is being written tells nothing. `program` is the hook.
pub async fn refuse_other_cluster(
    file: &Path,
    ours: SystemIdentifier,
    program: &str,
) -> anyhow::Result<()> {
    let Some(data) = file.parent().and_then(Path::parent) else {
        return Ok(());
    };
    let Ok(bytes) = tokio::fs::read(data.join("global/pg_control")).await else {
        return Ok(());
    };
    match ControlFile::parse(&bytes) {
        Ok(control) if control.system_identifier != ours => {
            let found = control.system_identifier;
            let folder = std::path::absolute(data).unwrap_or_else(|_| data.to_path_buf());
            let error = anyhow!(
                "\"{}\" belongs to the cluster with system identifier {found}, {program} asks for that with {ours}",
                folder.display()
            );
            Err(with_hint(
                error,
                format!(
                    "give {program} the --config and the --socket of that data directory's cluster"
                ),
            ))
        }
        _ => Ok(()),
    }
}
