//! The order of commits in the WAL, as PostgreSQL itself decodes it, and what a cluster restored to a target must hold.
//!
//! Rows, transaction ids, commit positions and commit times come from a logical slot, so every commit of concurrent
//! writers has its exact place, on every major. From that the rules of recovery targets say which rows a target
//! promises (<https://www.postgresql.org/docs/current/runtime-config-wal.html#RUNTIME-CONFIG-WAL-RECOVERY-TARGET>).

use std::collections::HashMap;

use super::{Builder, Cluster, Random, Rows};

/// A commit of ledger rows.
#[derive(Debug, Clone)]
pub struct Commit {
    pub xid: u32,
    /// Where its record begins and where the next may begin.
    pub lsn: u64,
    pub end: u64,
    /// Microseconds since 2000-01-01 UTC.
    pub time: i64,
    pub rows: Rows,
}

/// Commits in the order of the WAL, which is not always that of their times.
#[derive(Debug, Clone)]
pub struct History {
    pub commits: Vec<Commit>,
}

/// A moment to restore to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Microseconds since 2000-01-01 UTC. Aborts end recovery, too, and decoding does not show them: ask only where no
    /// transaction was rolled back at about that time.
    Time {
        micros: i64,
        inclusive: bool,
    },
    Xid {
        xid: u32,
        inclusive: bool,
    },
    Lsn {
        lsn: u64,
        inclusive: bool,
    },
    /// A restore point, with its position.
    Name {
        name: String,
        lsn: u64,
    },
}

/// `16/B374D848`.
pub fn lsn_text(lsn: u64) -> String {
    format!("{:X}/{:X}", lsn >> 32, lsn & 0xFFFF_FFFF)
}

/// The number behind `16/B374D848`.
pub fn lsn_number(text: &str) -> u64 {
    let (high, low) = text
        .split_once('/')
        .unwrap_or_else(|| panic!("\"{text}\" is no LSN"));
    let part =
        |text| u64::from_str_radix(text, 16).unwrap_or_else(|error| panic!("\"{text}\": {error}"));
    part(high) << 32 | part(low)
}

/// `2026-01-31T12:00:00.000001+00:00` from microseconds since 2000-01-01 UTC. PostgreSQL refuses a `Z` in its settings:
/// abbreviations of time zones are not known yet when it reads them.
pub fn time_text(micros: i64) -> String {
    let since_1970 = micros + 946_684_800_000_000;
    let time = chrono::DateTime::from_timestamp_micros(since_1970).expect("a time");
    time.to_rfc3339_opts(chrono::SecondsFormat::Micros, false)
}

impl Builder {
    /// Records what [`Cluster::history`] asks for. No autovacuum: it would commit unseen.
    pub fn with_history(self) -> Self {
        self.setting("wal_level", "logical")
            .setting("autovacuum", "off")
    }
}

impl Cluster {
    /// Makes the ledger and records its commits from here on.
    pub fn open_ledger_with_history(&self) {
        self.open_ledger();
        self.sql("create publication history for all tables");
        self.record_history();
    }

    /// All commits of ledger rows since the ledger was opened.
    pub fn history(&self) -> History {
        self.history_with(Vec::new())
    }

    /// The history of a timeline that left `parent`'s at `switch`, recorded since by [`record_history`](Self::record_history).
    pub fn history_after(&self, parent: &History, switch: u64) -> History {
        self.history_with(
            parent
                .commits
                .iter()
                .filter(|commit| commit.lsn < switch)
                .cloned()
                .collect(),
        )
    }

    /// Records commits from here on.
    pub fn record_history(&self) {
        self.sql("select pg_create_logical_replication_slot('history', 'pgoutput')");
    }

    fn history_with(&self, mut commits: Vec<Commit>) -> History {
        let known: Rows = commits
            .iter()
            .flat_map(|commit| commit.rows.iter().copied())
            .collect();
        let mut rows: HashMap<u32, Rows> = HashMap::new();
        for line in self.sql("select xmin, id from ledger").lines() {
            let (xid, id) = line.split_once('|').expect("xmin and id");
            let id = id.parse().expect("an id");
            if !known.contains(&id) {
                rows.entry(xid.parse().expect("an xid"))
                    .or_default()
                    .insert(id);
            }
        }
        // A commit message: `C`, flags, then position, end and time, eight bytes each.
        let decoded = self.sql(
            "select xid, encode(substr(data, 3, 8), 'hex'), encode(substr(data, 11, 8), 'hex'), \
             encode(substr(data, 19, 8), 'hex') \
             from pg_logical_slot_peek_binary_changes('history', null, null, 'proto_version', '1', \
             'publication_names', 'history') where get_byte(data, 0) = 67",
        );
        let number = |text: &str| u64::from_str_radix(text, 16).expect("eight bytes");
        for line in decoded.lines() {
            let fields: Vec<&str> = line.split('|').collect();
            let xid = fields[0].parse().expect("an xid");
            // Before 15 transactions without ledger rows are shown, too.
            if let Some(rows) = rows.remove(&xid) {
                let (lsn, end, time) = (
                    number(fields[1]),
                    number(fields[2]),
                    number(fields[3]) as i64,
                );
                commits.push(Commit {
                    xid,
                    lsn,
                    end,
                    time,
                    rows,
                });
            }
        }
        assert!(
            rows.is_empty(),
            "rows whose commit was not decoded: {rows:?}"
        );
        assert!(
            commits.is_sorted_by_key(|commit| commit.lsn),
            "decoding goes by commit position"
        );
        History { commits }
    }

    /// Makes a restore point.
    pub fn restore_point(&self, name: &str) -> Target {
        let lsn = lsn_number(&self.sql(&format!("select pg_create_restore_point('{name}')")));
        Target::Name {
            name: name.to_string(),
            lsn,
        }
    }

    /// Where the next record goes.
    pub fn insert_lsn(&self) -> u64 {
        lsn_number(&self.sql("select pg_current_wal_insert_lsn()"))
    }
}

impl History {
    /// How many commits, in the order of the WAL, a cluster restored to `target` holds.
    pub fn commits_at(&self, target: &Target) -> usize {
        let first = |stops: &dyn Fn(&Commit) -> bool| {
            self.commits
                .iter()
                .position(stops)
                .unwrap_or(self.commits.len())
        };
        match target {
            Target::Time {
                micros,
                inclusive: true,
            } => first(&|commit| commit.time > *micros),
            Target::Time {
                micros,
                inclusive: false,
            } => first(&|commit| commit.time >= *micros),
            Target::Xid { xid, inclusive } => {
                first(&|commit| commit.xid == *xid) + usize::from(*inclusive)
            }
            Target::Lsn {
                lsn,
                inclusive: false,
            } => first(&|commit| commit.lsn >= *lsn),
            // The first record that begins there or later is applied, too.
            Target::Lsn {
                lsn,
                inclusive: true,
            } => first(&|commit| commit.lsn > record_at(*lsn)),
            Target::Name { lsn, .. } => first(&|commit| commit.lsn >= *lsn),
        }
    }

    /// The rows that a cluster restored to `target` holds: these, all of them, and no others.
    pub fn rows_at(&self, target: &Target) -> Rows {
        self.commits[..self.commits_at(target)]
            .iter()
            .flat_map(|commit| commit.rows.iter().copied())
            .collect()
    }

    /// The rows there are after all commits.
    pub fn rows(&self) -> Rows {
        self.commits
            .iter()
            .flat_map(|commit| commit.rows.iter().copied())
            .collect()
    }

    /// A random target that recovery from a backup which ends at `backup_end` reaches: the commits there it stops at lie
    /// after the backup, and one follows so that it notices. With `times` also a time; see [`Target::Time`].
    pub fn random_target(&self, backup_end: u64, times: bool, random: &mut Random) -> Target {
        let first = self
            .commits
            .iter()
            .position(|commit| commit.lsn >= backup_end)
            .expect("commits after the backup");
        let last = self.commits.len() - 2;
        assert!(first <= last, "at least two commits after the backup");
        loop {
            let commit = &self.commits[first + random.below(last - first + 1)];
            let inclusive = random.flip();
            let target = match random.below(if times { 5 } else { 3 }) {
                0 => Target::Xid {
                    xid: commit.xid,
                    inclusive,
                },
                1 => Target::Lsn {
                    lsn: commit.lsn,
                    inclusive,
                },
                2 => Target::Lsn {
                    lsn: commit.end,
                    inclusive,
                },
                3 => Target::Time {
                    micros: commit.time,
                    inclusive,
                },
                _ => Target::Time {
                    micros: commit.time - 1 + random.below(40) as i64,
                    inclusive,
                },
            };
            // Times are not sorted: one may stop recovery before the backup is consistent.
            if (first..=last + 1).contains(&self.commits_at(&target)) {
                return target;
            }
        }
    }
}

/// Where a record begins that follows position `end`: behind the header, when a page begins there.
fn record_at(end: u64) -> u64 {
    // The long header of a segment's first page has 40 bytes; no record is that short, so both cases are one.
    if end.is_multiple_of(8192) {
        end + 40
    } else {
        end
    }
}

impl Target {
    /// The options of `walden restore`.
    pub fn arguments(&self) -> Vec<String> {
        let (mut arguments, inclusive) = match self {
            Target::Time { micros, inclusive } => {
                (vec!["--time".into(), time_text(*micros)], *inclusive)
            }
            Target::Xid { xid, inclusive } => (vec!["--xid".into(), xid.to_string()], *inclusive),
            Target::Lsn { lsn, inclusive } => (vec!["--lsn".into(), lsn_text(*lsn)], *inclusive),
            Target::Name { name, .. } => (vec!["--name".into(), name.clone()], true),
        };
        if !inclusive {
            arguments.push("--exclusive".into());
        }
        arguments
    }

    /// The lines of postgresql.conf that say the same to PostgreSQL.
    pub fn settings(&self) -> String {
        let on = |inclusive: &bool| if *inclusive { "on" } else { "off" };
        match self {
            Target::Time { micros, inclusive } => format!(
                "recovery_target_time = '{}'\nrecovery_target_inclusive = {}\n",
                time_text(*micros),
                on(inclusive)
            ),
            Target::Xid { xid, inclusive } => {
                format!(
                    "recovery_target_xid = '{xid}'\nrecovery_target_inclusive = {}\n",
                    on(inclusive)
                )
            }
            Target::Lsn { lsn, inclusive } => {
                format!(
                    "recovery_target_lsn = '{}'\nrecovery_target_inclusive = {}\n",
                    lsn_text(*lsn),
                    on(inclusive)
                )
            }
            Target::Name { name, .. } => format!("recovery_target_name = '{name}'\n"),
        }
    }
}
