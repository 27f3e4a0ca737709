//! The whole way of a segment: written, switched, archived, found in the repository, fetched back as replay would, and
//! compared with what the server has.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use chrono::Utc;

use super::archiver::Archiver;
use super::server::ServerFacts;
use super::{Check, CheckError, CheckRequest, CheckStatus, Verdict};
use crate::error::Hint;
use crate::postgres::archive::{Fetched, Fetcher};
use crate::postgres::backup::ask::ask;
use crate::postgres::backup::wal::is_proven;
use crate::postgres::catalog::OWN_RESTORE_POINT;
use crate::postgres::cluster::Cluster;
use crate::postgres::replication::Connection;
use crate::postgres::types::{SegmentName, WalFileName};

/// First and longest pause between two looks.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// The archiver pauses for a minute after so many failures (pgarch.c, NUM_ARCHIVE_RETRIES): no sense in waiting on.
const FAILURES: u64 = 3;
/// How long the server's counters may lag behind; 13 and 14 write them every half second.
const COUNTERS_LAG: Duration = Duration::from_secs(3);
/// What a WAL file is compared in.
const PIECE: usize = 1 << 20;

/// Why nothing is switched; `None`: it can be done. `causes` are the verdicts that must not be bad.
pub(super) fn hindrance(asked: bool, server: &ServerFacts, causes: &[&Verdict]) -> Option<Verdict> {
    let skipped = |why: &str| Some(Check::EndToEnd.skipped(why));
    if !asked {
        return skipped("left out (--no-probe)");
    }
    if server.standby {
        return skipped("the server is a standby: it writes no WAL of its own");
    }
    if !server.role.may_probe() {
        return skipped("the role may not switch WAL (see \"privileges\")");
    }
    let cause = causes
        .iter()
        .find(|verdict| verdict.status > CheckStatus::Warning)?;
    Some(Check::EndToEnd.because(cause.because.unwrap_or(cause.check)))
}

/// How far the segment came.
#[derive(Debug, Clone, PartialEq, Eq)]
enum SegmentOutcome {
    /// In the repository after so long.
    Arrived(Duration),
    /// archive_command fails, at this file.
    Failing(String),
    /// The archiver says it is archived, and the repository has no such file.
    Elsewhere,
    /// Not archived in time.
    Late,
}

/// How the fetched file and the server's own compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Same,
    Different,
    /// The server's file cannot be read from here, or was recycled.
    NotThere,
}

/// Does it all.
pub(super) async fn check(
    request: &CheckRequest<'_>,
    sql: &mut Connection,
    server: &ServerFacts,
    cluster: &Cluster,
) -> Verdict {
    // The switch, the wait and the fetch have their time each.
    match tokio::time::timeout(request.timeout * 3, probe(request, sql, server, cluster)).await {
        Ok(Ok((segment, outcome, compared))) => {
            decide(&segment, &outcome, compared, request.timeout)
        }
        Ok(Err(error)) => Check::EndToEnd.failed(&CheckError::from(&error)),
        Err(_) => Check::EndToEnd
            .critical("the server or the repository hangs")
            .hint("look at the server's log and the repository, or raise --timeout"),
    }
}

async fn probe(
    request: &CheckRequest<'_>,
    sql: &mut Connection,
    server: &ServerFacts,
    cluster: &Cluster,
) -> anyhow::Result<(SegmentName, SegmentOutcome, Comparison)> {
    let before = Archiver::ask(sql).await?;
    let segment = switch(sql).await?;
    let outcome = wait(request.timeout, sql, cluster, segment, &before).await?;
    let SegmentOutcome::Arrived(_) = outcome else {
        return Ok((segment, outcome, Comparison::NotThere));
    };
    let folder = Scratch::new()?;
    let (name, fetched) = (
        WalFileName::Segment(segment),
        folder.0.join(segment.to_string()),
    );
    let delivered = fetch(&request.fetcher(cluster.clone()), &name, &fetched).await;
    ensure!(
        delivered? == Fetched::Delivered,
        "\"{segment}\" vanished from the repository after it had arrived"
    );
    let data_directory = server.data_directory.as_ref().or(request
        .settings
        .cluster
        .data_directory
        .as_ref());
    let compared = match data_directory.filter(|_| server.here) {
        Some(data) => {
            let own = data.join("pg_wal").join(segment.to_string());
            tokio::task::spawn_blocking(move || compare(&fetched, &own)).await?
        }
        None => Comparison::NotThere,
    };
    Ok((segment, outcome, compared))
}

async fn fetch(fetcher: &Fetcher, name: &WalFileName, place: &Path) -> anyhow::Result<Fetched> {
    fetcher
        .fetch(name, place, None)
        .await
        .context("what was archived cannot be fetched back")
}

/// Marks a place in WAL and finishes its segment.
async fn switch(sql: &mut Connection) -> anyhow::Result<SegmentName> {
    let point = format!(
        "{OWN_RESTORE_POINT}{}",
        Utc::now().format("%Y%m%dT%H%M%S%.3fZ")
    );
    // Two statements: the switch must come after the point.
    let marked = ask(
        sql,
        &format!("SELECT pg_walfile_name(pg_create_restore_point('{point}')) AS segment"),
    )
    .await?;
    ask(sql, "SELECT pg_switch_wal()").await?;
    Ok(marked.parse(0, "segment")?)
}

/// Waits until the segment is in the repository, or shows that it will not be.
async fn wait(
    limit: Duration,
    sql: &mut Connection,
    cluster: &Cluster,
    segment: SegmentName,
    before: &Archiver,
) -> anyhow::Result<SegmentOutcome> {
    let (begun, mut pause) = (Instant::now(), FIRST_PAUSE);
    loop {
        // In this order: what is archived must be in the repository by then.
        let now = Archiver::ask(sql).await?;
        let name = WalFileName::Segment(segment);
        let proven = is_proven(cluster, &name);
        let left = limit.saturating_sub(begun.elapsed()).max(FIRST_PAUSE);
        let Ok(proven) = tokio::time::timeout(left, proven).await else {
            return Ok(SegmentOutcome::Late);
        };
        if proven.hint("repair that object: restores cannot use it")? {
            let after = begun.elapsed();
            until_told(sql, before).await?;
            return Ok(SegmentOutcome::Arrived(after));
        }
        if let Some(outcome) = given_up(before, &now, segment) {
            return Ok(outcome);
        }
        if begun.elapsed() >= limit {
            return Ok(SegmentOutcome::Late);
        }
        tokio::time::sleep(pause.min(limit)).await;
        pause = (pause * 3 / 2).min(LONGEST_PAUSE);
    }
}

/// After failures, waits a little until the server's own counters show the success, too: they lag behind.
async fn until_told(sql: &mut Connection, before: &Archiver) -> anyhow::Result<()> {
    let begun = Instant::now();
    while before.is_stuck()
        && begun.elapsed() < COUNTERS_LAG
        && Archiver::ask(sql).await?.is_stuck()
    {
        tokio::time::sleep(FIRST_PAUSE).await;
    }
    Ok(())
}

/// What the archiver's counters show while the repository does not have the segment.
fn given_up(before: &Archiver, now: &Archiver, segment: SegmentName) -> Option<SegmentOutcome> {
    if now.archived.count > before.archived.count
        && now
            .archived
            .file
            .as_ref()
            .is_some_and(|(file, _)| *file == segment.to_string())
    {
        return Some(SegmentOutcome::Elsewhere);
    }
    let failing = now.failed.count >= before.failed.count + FAILURES
        && now.archived.count == before.archived.count;
    let (file, _) = now.failed.file.as_ref().filter(|_| failing)?;
    Some(SegmentOutcome::Failing(file.clone()))
}

fn decide(
    segment: &SegmentName,
    outcome: &SegmentOutcome,
    compared: Comparison,
    limit: Duration,
) -> Verdict {
    let critical = |message: String, hint: &str| Check::EndToEnd.critical(message).hint(hint);
    match (outcome, compared) {
        (SegmentOutcome::Arrived(_), Comparison::Different) => critical(
            format!("what came back of {segment} is not what the server has in pg_wal"),
            "keep both, and compare them with pg_waldump: the archive cannot be trusted",
        ),
        (SegmentOutcome::Arrived(after), compared) => {
            let arrived = format!("{segment} arrived after {:.1} s", after.as_secs_f32());
            Check::EndToEnd.ok(match compared {
                Comparison::Same => format!("{arrived} and came back the same"),
                _ => format!(
                    "{arrived} and came back whole (not compared: it cannot be read in pg_wal)"
                ),
            })
        }
        (SegmentOutcome::Failing(file), _) => critical(
            format!("archive_command fails, at \"{file}\""),
            "search the server's log for \"archive command failed\"",
        ),
        (SegmentOutcome::Elsewhere, _) => critical(
            format!(
                "the server says that {segment} is archived, but the repository does not have it"
            ),
            "does archive_command store elsewhere, or nothing? Compare it with the line that `walden init` \
             prints",
        ),
        (SegmentOutcome::Late, _) => critical(
            format!("{segment} did not arrive within {} s", limit.as_secs_f32()),
            "look at \"archiver\" for a backlog and into the server's log, or raise --timeout",
        ),
    }
}

/// Compares two WAL files. The server recycles a file by renaming it before it writes to it again: what was read counts
/// only if the same file still has the name afterwards.
fn compare(fetched: &Path, own: &Path) -> Comparison {
    let same = || -> io::Result<Option<bool>> {
        let (mut one, mut other) = (File::open(own)?, File::open(fetched)?);
        let inode = one.metadata()?.ino();
        let same = same_content(&mut one, &mut other)?;
        Ok((fs::metadata(own)?.ino() == inode).then_some(same))
    };
    match same() {
        Ok(Some(true)) => Comparison::Same,
        Ok(Some(false)) => Comparison::Different,
        Ok(None) | Err(_) => Comparison::NotThere,
    }
}

fn same_content(one: &mut impl Read, other: &mut impl Read) -> io::Result<bool> {
    let mut pieces = [Vec::with_capacity(PIECE), Vec::with_capacity(PIECE)];
    loop {
        pieces.iter_mut().for_each(Vec::clear);
        one.by_ref()
            .take(PIECE as u64)
            .read_to_end(&mut pieces[0])?;
        other
            .by_ref()
            .take(PIECE as u64)
            .read_to_end(&mut pieces[1])?;
        if pieces[0] != pieces[1] || pieces[0].is_empty() {
            return Ok(pieces[0] == pieces[1]);
        }
    }
}

/// A private folder that goes away with this.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("walden-check-{:016x}", getrandom::u64()?));
        let made = fs::DirBuilder::new().mode(0o700).create(&path);
        made.with_context(|| format!("cannot make the folder \"{}\"", path.display()))
            .hint("set TMPDIR to a folder with space")?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Best effort: it lies where temporary files are swept.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::check::archiver::Last;
    use crate::postgres::check::testing::server;

    const SEGMENT: &str = "000000010000000000000005";

    fn segment() -> SegmentName {
        SEGMENT.parse().unwrap()
    }

    fn archiver(archived: (u64, &str), failed: (u64, &str)) -> Archiver {
        let last = |(count, file): (u64, &str)| Last {
            count,
            file: Some((file.into(), Duration::ZERO)),
        };
        Archiver {
            archived: last(archived),
            failed: last(failed),
            current: None,
        }
    }

    #[test]
    fn nothing_is_switched_in_vain() {
        let bad = Check::Identity.critical("another");
        let told = |asked, change: fn(&mut ServerFacts), cause: Option<&Verdict>| {
            let mut server = server();
            change(&mut server);
            hindrance(asked, &server, cause.as_slice())
                .map(|verdict| (verdict.status, verdict.because))
        };
        assert_eq!(told(true, |_| (), None), None);
        assert_eq!(told(true, |_| (), Some(&Check::Hook.warning("x"))), None);
        assert_eq!(
            told(false, |_| (), None),
            Some((CheckStatus::Skipped, None))
        );
        assert_eq!(
            told(true, |server| server.standby = true, Some(&bad)),
            Some((CheckStatus::Skipped, None))
        );
        assert_eq!(
            told(true, |server| server.role.switch_wal = false, None),
            Some((CheckStatus::Skipped, None))
        );
        assert_eq!(
            told(true, |_| (), Some(&bad)),
            Some((CheckStatus::Unknown, Some(Check::Identity)))
        );
        let second = Check::ArchiveCommand.because(Check::ArchiveMode);
        assert_eq!(
            told(true, |_| (), Some(&second)),
            Some((CheckStatus::Unknown, Some(Check::ArchiveMode)))
        );
    }

    #[test]
    fn the_wait_ends_when_the_archiver_failed_as_often_as_it_tries() {
        let before = archiver((4, "x"), (7, "y"));
        let after =
            |archived, failures| given_up(&before, &archiver(archived, (failures, "f")), segment());
        assert_eq!(after((4, "x"), 9), None);
        assert_eq!(
            after((4, "x"), 10),
            Some(SegmentOutcome::Failing("f".into()))
        );
        assert_eq!(after((5, "z"), 10), None, "it goes on");
    }

    #[test]
    fn the_wait_ends_when_the_segment_was_archived_elsewhere() {
        let before = archiver((4, "x"), (0, "y"));
        assert_eq!(
            given_up(&before, &archiver((5, SEGMENT), (0, "y")), segment()),
            Some(SegmentOutcome::Elsewhere)
        );
        assert_eq!(
            given_up(&before, &archiver((5, "other"), (0, "y")), segment()),
            None
        );
    }

    #[test]
    fn only_what_arrives_and_is_not_different_is_ok() {
        let status = |outcome, compared| {
            decide(&segment(), &outcome, compared, Duration::from_secs(60)).status
        };
        let arrived = || SegmentOutcome::Arrived(Duration::from_secs(1));
        assert_eq!(status(arrived(), Comparison::Same), CheckStatus::Ok);
        assert_eq!(status(arrived(), Comparison::NotThere), CheckStatus::Ok);
        assert_eq!(
            status(arrived(), Comparison::Different),
            CheckStatus::Critical
        );
        for outcome in [
            SegmentOutcome::Failing("f".into()),
            SegmentOutcome::Elsewhere,
            SegmentOutcome::Late,
        ] {
            assert_eq!(status(outcome, Comparison::NotThere), CheckStatus::Critical);
        }
    }

    #[test]
    fn files_are_compared_to_their_last_byte() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &[u8]| {
            let path = folder.path().join(name);
            fs::write(&path, content).unwrap();
            path
        };
        let long = vec![7; 3 * PIECE];
        let one = file("one", &long);
        assert_eq!(compare(&one, &file("same", &long)), Comparison::Same);
        let mut flipped = long.clone();
        flipped[3 * PIECE - 1] = 8;
        assert_eq!(
            compare(&one, &file("flipped", &flipped)),
            Comparison::Different
        );
        assert_eq!(
            compare(&one, &file("shorter", &long[1..])),
            Comparison::Different
        );
        assert_eq!(
            compare(&one, &folder.path().join("none")),
            Comparison::NotThere
        );
    }
}
