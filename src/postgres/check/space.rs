//! Whether a repository in a folder has room for what comes.

use super::{Check, CheckRequest, Verdict};

/// Asks the file system.
pub(super) async fn check(request: &CheckRequest<'_>) -> Verdict {
    let Some(folder) = request.settings.repository.url.folder() else {
        return Check::Space.skipped("a bucket has no end that could be asked for");
    };
    let (folder, limit) = (folder.to_path_buf(), request.settings.health.disk_used);
    let ask = async {
        let stat = tokio::task::spawn_blocking(move || rustix::fs::statvfs(&folder)).await?;
        anyhow::Ok(stat?)
    };
    match request.within("the repository's file system", ask).await {
        Ok(stat) => {
            // As df counts: what only root may use is neither.
            let used = stat.f_blocks.saturating_sub(stat.f_bfree);
            decide(used * stat.f_frsize, stat.f_bavail * stat.f_frsize, limit)
        }
        Err(error) => Check::Space.failed(&error),
    }
}

fn decide(used: u64, free: u64, limit: u64) -> Verdict {
    let all = (u128::from(used) + u128::from(free)).max(1);
    let percent = (u128::from(used) * 100).div_ceil(all);
    let told = format!(
        "the repository's file system is {percent} % full, {} MiB are free",
        free >> 20
    );
    match percent > u128::from(limit) {
        true => Check::Space
            .warning(format!("{told}; health.disk_used is {limit} %"))
            .hint("make room: a larger disk, or a shorter `[retention]`"),
        false => Check::Space.ok(told),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::check::CheckStatus;

    #[test]
    fn a_full_file_system_is_told_before_it_is_full() {
        for (used, free, status) in [
            (80, 20, CheckStatus::Ok),
            (81, 19, CheckStatus::Warning),
            (1, 0, CheckStatus::Warning),
            (0, 0, CheckStatus::Ok),
            (u64::MAX, 1, CheckStatus::Warning),
        ] {
            assert_eq!(decide(used, free, 80).status, status, "{used} {free}");
        }
    }
}
