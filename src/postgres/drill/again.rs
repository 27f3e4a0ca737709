//! What a failed restore lacked is asked of the repository once more: whether that is lost, or the way there is.

use std::time::Duration;

use anyhow::anyhow;

use super::scratch::Scratch;
use super::verdict::{Ended, Stage, of_error};
use crate::error::one_line;
use crate::evidence::record::Verdict;
use crate::postgres::archive::Fetcher;
use crate::postgres::cluster::Cluster;
use crate::postgres::dump_restore::target::free;
use crate::postgres::types::WalFileName;

/// Free bytes below which a disk counts as full.
const FULL: u64 = 1 << 20;

/// The verdict on a drill that ended early, and why. `limit`: for an answer of the repository.
pub async fn judge(
    cluster: &Cluster,
    limit: Duration,
    scratch: &Scratch,
    Ended(stage, error): Ended,
) -> (Verdict, String) {
    let (verdict, words) = of_error(stage, &error);
    if verdict != Verdict::Failed {
        return (verdict, words);
    }
    // On a full disk a server may not even be able to say so.
    let is_full = || free(scratch.path()).is_some_and(|bytes| bytes < FULL);
    if stage == Stage::Server && is_full() {
        let folder = scratch.path().display();
        let words = format!("{words}; the disk of \"{folder}\" is full: No space left on device");
        return (Verdict::CouldNotRun, words);
    }
    if let Err(away) = cluster.confirm().await {
        let away = one_line(&away);
        return (
            Verdict::CouldNotRun,
            format!("{words}; the repository cannot be reached: {away}"),
        );
    }
    let Some(name) = lacked(&words).filter(|_| stage == Stage::Server) else {
        return (verdict, words);
    };
    let fetcher = Fetcher::new(cluster.clone(), limit, 1).watching_gaps(Duration::ZERO);
    let path = scratch.join("asked-again");
    match fetcher.obtain(&name, &path, None).await {
        Ok(false) => (Verdict::Failed, words),
        Ok(true) => {
            let error =
                anyhow!("\"{name}\" can be read now: the way to the repository was interrupted");
            of_error(Stage::Prepare, &error.context(words))
        }
        Err(error) => of_error(Stage::Prepare, &error.context(words)),
    }
}

/// The WAL file that replay could not do without, from the server's words.
fn lacked(words: &str) -> Option<WalFileName> {
    let (_, after) = words.split_once("could not restore file \"")?;
    after.split('"').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lacking_file_is_in_the_servers_words() {
        let words = "the restored server did not reach the target: ERROR: cannot get | FATAL:  could not restore file \
                     \"000000010000000000000004\" from archive: child process exited with exit code 200";
        let name = lacked(words).map(|name| name.to_string());
        assert_eq!(name.as_deref(), Some("000000010000000000000004"));
        assert_eq!(lacked("PANIC: invalid page"), None);
    }
}
