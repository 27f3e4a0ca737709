//! Whether a repository in a folder has room for what comes.

use std::path::Path;

use super::{Check, CheckRequest, Verdict};
use crate::health::DiskUse;

/// Asks the file system that a folder lies in.
pub async fn disk_use(folder: &Path) -> anyhow::Result<DiskUse> {
    let folder = folder.to_path_buf();
    let stat = tokio::task::spawn_blocking(move || rustix::fs::statvfs(&folder)).await??;
    Ok(DiskUse {
        used_bytes: stat.f_blocks.saturating_sub(stat.f_bfree) * stat.f_frsize,
        free_bytes: stat.f_bavail * stat.f_frsize,
    })
}

pub(super) async fn check(request: &CheckRequest<'_>) -> Verdict {
    let Some(folder) = request.settings.repository.url.folder() else {
        return Check::Space.skipped("a bucket has no end that could be asked for");
    };
    let asked = request.within("the repository's file system", disk_use(folder));
    match asked.await {
        Ok(disk) => {
            let reason = disk.judge(&request.settings.health);
            Check::Space.judged(&Vec::from_iter(&reason), disk.to_string())
        }
        Err(error) => Check::Space.failed(&error),
    }
}
