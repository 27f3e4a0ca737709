//! What the files of a data directory say of its server, for programs that PostgreSQL runs. Standard library only, so that
//! the two hook programs mount this file as it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `restore_command` does not know whether there is such a file: above 125 PostgreSQL stops, where it would end
/// recovery early at any other code.
pub const UNKNOWN: u8 = 200;
/// The same where no answer ends recovery early: a standby streams and asks again, at any code up to 125 (this is
/// `EX_TEMPFAIL`).
pub const UNKNOWN_GOES_ON: u8 = 75;
/// A standby that waits for an answer does not stream meanwhile, and asks again anyway.
pub const STANDBY_PATIENCE: Duration = Duration::from_secs(5);
/// While the server is stopping a call of `archive_command` waits no longer: PostgreSQL keeps the file. It makes up to
/// six calls then, and who stops it waits for all of them.
pub const STOPPING_PATIENCE: Duration = Duration::from_secs(3);
/// How often to check whether the server is stopping.
pub const STOP_CHECK: Duration = Duration::from_millis(500);

/// The data directory of the server that runs this program: where `file` lies below its `pg_wal`, else the working
/// directory. `None`: neither is one, as for a program that was started by hand.
pub fn of_asker(file: Option<&Path>) -> Option<PathBuf> {
    let around = file
        .and_then(Path::parent)
        .and_then(Path::parent)
        .map(Path::to_path_buf);
    // Behind a link to pg_wal it is the folder around another disk's.
    around
        .into_iter()
        .chain([PathBuf::new()])
        .find(|folder| folder.join("global/pg_control").exists())
}

/// Whether no answer ends the recovery of the server that asks for `file`.
pub fn goes_on(file: Option<&Path>) -> bool {
    let exists = |data: &Path, name: &str| data.join(name).exists();
    of_asker(file).is_some_and(|data| {
        no_answer_ends(
            exists(&data, "standby.signal"),
            exists(&data, "recovery.signal"),
            || in_archive_recovery(&data),
        )
    })
}

/// A standby follows until it is promoted; recovery.signal beside standby.signal changes nothing. With neither left
/// recovery has ended: PostgreSQL removes them before it asks for the history of the timeline that it leaves, which it
/// has in pg_wal. Stopped there, it would go on without a new timeline when it starts again.
fn no_answer_ends(
    standby: bool,
    recovery: bool,
    in_archive_recovery: impl FnOnce() -> bool,
) -> bool {
    standby || !recovery && in_archive_recovery()
}

/// The state in pg_control (pg_control.h: `DB_IN_ARCHIVE_RECOVERY`).
fn in_archive_recovery(data: &Path) -> bool {
    const AT: usize = 16;
    const IN_ARCHIVE_RECOVERY: [u8; 4] = 5u32.to_ne_bytes();
    fs::read(data.join("global/pg_control"))
        .is_ok_and(|bytes| bytes.get(AT..AT + 4) == Some(&IN_ARCHIVE_RECOVERY))
}

/// Whether a question for `file` waits only [`STANDBY_PATIENCE`] for an answer: that of a standby, which asks again.
pub fn is_in_haste(file: Option<&Path>, history: bool) -> bool {
    goes_on(file) && !decides(file, history)
}

/// Whether no answer would decide what a standby becomes. Not known when it is promoted, a segment ends it before that
/// segment; not known when it starts, a history file leaves it on the old timeline.
pub fn decides(file: Option<&Path>, history: bool) -> bool {
    let starts = |data: &Path| {
        fs::read(data.join("postmaster.pid"))
            .is_ok_and(|text| status(&text) == Some(b"starting".as_slice()))
    };
    // "promote" is PROMOTE_SIGNAL_FILE of PostgreSQL, which is there until the startup process looks after it.
    let is_promoted = |data: &Path| data.join("promote").exists();
    goes_on(file)
        && of_asker(file).is_some_and(|data| {
            if history {
                starts(&data)
            } else {
                is_promoted(&data)
            }
        })
}

/// `restore_command`'s exit code when it is not known whether there is such a file.
pub fn unknown(file: Option<&Path>) -> u8 {
    if goes_on(file) {
        UNKNOWN_GOES_ON
    } else {
        UNKNOWN
    }
}

/// Whether a call of `archive_command` for `file` that has waited so long gives up, because the server is stopping.
pub fn gives_up(file: &Path, waited: Duration) -> bool {
    waited >= STOPPING_PATIENCE
        && of_asker(Some(file))
            .and_then(|data| stopping_for(&data))
            .is_some_and(|stopping| is_over(waited, stopping))
}

/// How long the server has been stopping; `None` when it is not.
fn stopping_for(data: &Path) -> Option<Duration> {
    let file = data.join("postmaster.pid");
    let text = fs::read(&file).ok()?;
    let since = fs::metadata(&file).and_then(|meta| meta.modified());
    // A clock that was set back tells nothing.
    let age = since
        .ok()
        .and_then(|since| since.elapsed().ok())
        .unwrap_or(STOPPING_PATIENCE);
    is_stopping(&text).then_some(age)
}

/// Whether this postmaster.pid says so.
fn is_stopping(postmaster_pid: &[u8]) -> bool {
    status(postmaster_pid) == Some(b"stopping".as_slice())
}

/// The state on the eighth line of a postmaster.pid (miscadmin.h, `LOCK_FILE_LINE_PM_STATUS`).
fn status(postmaster_pid: &[u8]) -> Option<&[u8]> {
    postmaster_pid
        .split(|byte| *byte == b'\n')
        .nth(7)
        .map(<[u8]>::trim_ascii)
}

/// A stop that lasts waits for something else, such as clients, or a large checkpoint: then a slow store gets more time.
fn is_over(waited: Duration, stopping: Duration) -> bool {
    waited.min(stopping) >= STOPPING_PATIENCE.max(stopping / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Data(PathBuf);

    impl Data {
        fn new(name: &str, files: &[&str]) -> Self {
            let data = Self(
                std::env::temp_dir().join(format!("walden data {name} {}", std::process::id())),
            );
            fs::create_dir_all(data.0.join("global")).unwrap();
            fs::create_dir_all(data.0.join("pg_wal")).unwrap();
            for file in files {
                fs::write(data.0.join(file), "").unwrap();
            }
            data
        }

        fn in_state(self, state: u32) -> Self {
            fs::write(
                self.0.join("global/pg_control"),
                [[0; 16].as_slice(), &state.to_ne_bytes()].concat(),
            )
            .unwrap();
            self
        }

        fn wanted(&self) -> PathBuf {
            self.0.join("pg_wal/RECOVERYXLOG")
        }
    }

    impl Drop for Data {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_is_not_known_stops_recovery_where_it_could_end_early_and_nowhere_else() {
        let (archive_recovery, production) = (5, 6);
        for (name, files, state, expected) in [
            ("standby", &["standby.signal"][..], archive_recovery, 75),
            (
                "both",
                &["standby.signal", "recovery.signal"],
                archive_recovery,
                75,
            ),
            ("recovery", &["recovery.signal"], archive_recovery, 200),
            ("just ended", &[], archive_recovery, 75),
            ("by hand", &[], production, 200),
        ] {
            let data = Data::new(name, files).in_state(state);
            assert_eq!(unknown(Some(&data.wanted())), expected, "{name}");
        }
        let nobody = Data::new("no data directory", &["standby.signal"]);
        for file in [
            None,
            Some(&*nobody.wanted()),
            Some(Path::new("/x")),
            Some(Path::new("")),
            Some(Path::new("x")),
        ] {
            assert_eq!(unknown(file), 200, "{file:?}");
        }
    }

    #[test]
    fn a_standby_waits_where_no_answer_would_decide_what_it_becomes() {
        let data = Data::new("deciding", &["standby.signal", "global/pg_control"]);
        let place = data.wanted();
        let haste = |history| is_in_haste(Some(&place), history);
        let status = |status: &str| {
            fs::write(
                data.0.join("postmaster.pid"),
                format!("1\n2\n3\n4\n5\n6\n7\n{status}\n"),
            )
        };
        assert!(haste(false) && haste(true));
        status("starting").unwrap();
        assert!(
            haste(false) && !haste(true),
            "which timeline it follows is asked once"
        );
        status("ready   ").unwrap();
        assert!(haste(false) && haste(true), "it asks again");
        fs::write(data.0.join("promote"), "").unwrap();
        assert!(!haste(false), "it asks for the last time");
        assert!(haste(true), "it asks again when recovery has ended");
        let recovery = Data::new("decides nothing", &["recovery.signal", "promote"]).in_state(5);
        assert!(
            !decides(Some(&recovery.wanted()), true)
                && !is_in_haste(Some(&recovery.wanted()), false)
        );
    }

    #[test]
    fn the_eighth_line_says_whether_the_server_is_stopping() {
        let file = |status: &str| {
            format!("42\n/data\n1790000000\n5432\n/run\n127.0.0.1\n  5432001         3\n{status}\n")
        };
        assert!(
            is_stopping(file("stopping").as_bytes()) && is_stopping(file("stopping  ").as_bytes())
        );
        assert!(
            is_stopping(file("stopping").trim_end().as_bytes()),
            "before its line is ended"
        );
        for text in [
            "",
            "42\n",
            &file("ready   "),
            &file("standby"),
            &file(""),
            "stopping\n",
        ] {
            assert!(!is_stopping(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn a_call_gives_up_soon_after_the_stop_began_and_later_in_one_that_lasts() {
        let over =
            |waited, stopping| is_over(Duration::from_secs(waited), Duration::from_secs(stopping));
        assert!(!over(60, 2) && over(60, 3), "it had waited long before");
        assert!(!over(2, 20) && over(3, 20));
        assert!(!over(11, 120) && over(12, 120), "clients are still there");
    }

    #[test]
    fn only_a_server_that_is_stopping_is_not_waited_for() {
        let data = Data::new("stopping", &["global/pg_control"]);
        let (segment, long) = (
            data.0.join("pg_wal/000000010000000000000001"),
            Duration::from_secs(9),
        );
        let status = |status: &str| {
            fs::write(
                data.0.join("postmaster.pid"),
                format!("1\n2\n3\n4\n5\n6\n7\n{status}\n"),
            )
        };
        assert!(!gives_up(&segment, long), "it does not run");
        status("ready   ").unwrap();
        assert!(!gives_up(&segment, long));
        status("stopping").unwrap();
        assert!(!gives_up(&segment, long), "it began just now");
        let before = std::time::SystemTime::now() - Duration::from_secs(4);
        fs::File::open(data.0.join("postmaster.pid"))
            .unwrap()
            .set_modified(before)
            .unwrap();
        assert!(gives_up(&segment, long) && !gives_up(&segment, Duration::from_secs(1)));
    }
}
