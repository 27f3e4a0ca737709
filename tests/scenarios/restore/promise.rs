//! What a plan promises, the last transaction included and the first excluded, is what the restored server holds: random
//! targets on several timelines. One server a timeline goes forward from target to target by the plans' own settings.

use std::fs::OpenOptions;
use std::io::Write;

use serde_json::Value;

use super::{archiving, restore, take_backup};
use crate::harness::{Cluster, History, Major, Random, Rows, Scratch, Target, Walden, each_major};
use crate::harness::{is_long, lsn_number, time_text, wait_until};

each_major!(plans_promise_what_the_restored_server_holds, promises_hold);

/// A timeline and its commits.
struct Timeline {
    number: u32,
    history: History,
    /// Made on this timeline, or on one before.
    names: Vec<Target>,
}

/// A target, and whether the commits alone tell what it means: rollbacks end times, too, and they are not among them.
struct Wanted {
    target: Target,
    sure: bool,
}

fn promises_hold(major: Major) {
    let scratch = Scratch::new("promise");
    let mut random = Random::seeded("promise");
    // The seed is another in each run: over time few targets a run come to many.
    let count = match (major.number == Major::newest().number, is_long()) {
        (true, true) => 70,
        (true, false) => 24,
        (false, _) => 4,
    };
    let cluster = Cluster::builder(major.clone())
        .segment_mib(1)
        .with_history()
        .start(&scratch);
    let (cluster, walden) = archiving(&scratch, cluster);
    cluster.open_ledger_with_history();
    cluster.burst(2, 5);
    let backup = walden.json(["backup", "take"]);
    let backup_end = lsn_number(backup["stop_lsn"].as_str().expect("an LSN"));
    cluster.burst(3, 15);
    let mut names = vec![cluster.restore_point("one")];
    std::thread::sleep(std::time::Duration::from_millis(20));
    let quiet = cluster.insert_lsn();
    cluster.burst_of_commits(3, 15);
    take_backup(&walden);
    cluster.burst_of_commits(3, 15);

    // Three timelines; the old ones live on for a while.
    let second = follow(&cluster, &scratch);
    let switch = switch_of(&second, 2);
    cluster.burst_of_commits(2, 8);
    cluster.archive_now();
    second.burst_of_commits(3, 15);
    names.push(second.restore_point("two"));
    second.burst_of_commits(3, 10);
    let third = follow(&second, &scratch);
    let last_switch = switch_of(&third, 3);
    second.burst_of_commits(2, 8);
    second.archive_now();
    third.burst_of_commits(3, 15);
    third.archive_now();

    let first_history = cluster.history();
    let second_history = second.history_after(&first_history, switch);
    let third_history = third.history_after(&second_history, last_switch);
    let timelines = [
        Timeline {
            number: 1,
            history: first_history,
            names: names[..1].to_vec(),
        },
        Timeline {
            number: 2,
            history: second_history,
            names: names.clone(),
        },
        Timeline {
            number: 3,
            history: third_history,
            names,
        },
    ];
    for timeline in &timelines {
        assert_eq!(
            timeline.history.rows(),
            [&cluster, &second, &third][timeline.number as usize - 1].rows()
        );
        let wanted: Vec<Wanted> = (0..count)
            .map(|_| timeline.random(backup_end, quiet, &mut random))
            .collect();
        check(&walden, &major, &scratch, timeline, &wanted);
        check_ends(&walden, &major, &scratch, timeline);
    }
}

/// A standby that was promoted and records its commits.
fn follow(primary: &Cluster, scratch: &Scratch) -> Cluster {
    let standby = primary.standby(scratch);
    standby.wait_for_replay(&primary.sql("select pg_current_wal_lsn()"));
    standby.promote();
    standby.record_history();
    standby
}

/// Where a timeline left its parent.
fn switch_of(cluster: &Cluster, timeline: u32) -> u64 {
    let history = cluster.sql(&format!(
        "select pg_read_file('pg_wal/{timeline:08X}.history')"
    ));
    let last = history
        .lines()
        .rfind(|line| !line.trim().is_empty())
        .expect("an ancestor");
    lsn_number(last.split('\t').nth(1).expect("an LSN"))
}

impl Timeline {
    /// A random target behind a backup's end; times where no transaction was rolled back behind `quiet` are sure.
    fn random(&self, backup_end: u64, quiet: u64, random: &mut Random) -> Wanted {
        let commits = &self.history.commits;
        let first = commits
            .iter()
            .position(|commit| commit.lsn >= backup_end)
            .expect("commits behind the backup")
            + 1;
        let commit = &commits[first + random.below(commits.len() - first)];
        let (inclusive, sure) = (random.flip(), true);
        let time = |micros| Wanted {
            target: Target::Time { micros, inclusive },
            sure: commit.lsn > quiet,
        };
        match random.below(8) {
            0 | 1 => Wanted {
                target: Target::Xid {
                    xid: commit.xid,
                    inclusive,
                },
                sure,
            },
            2 => Wanted {
                target: Target::Lsn {
                    lsn: commit.lsn,
                    inclusive,
                },
                sure,
            },
            3 => Wanted {
                target: Target::Lsn {
                    lsn: commit.end,
                    inclusive: false,
                },
                sure,
            },
            4 => time(commit.time),
            5 => time(commit.time - 1 + random.below(40) as i64),
            6 => time(commit.time - random.below(5_000) as i64),
            _ => Wanted {
                target: random.pick(&self.names).clone(),
                sure,
            },
        }
    }

    /// The rows of all commits up to a promised one.
    fn rows_up_to(&self, included: &Value) -> Rows {
        let last = lsn_number(included["lsn"].as_str().expect("an LSN"));
        let commits = self
            .history
            .commits
            .iter()
            .filter(|commit| commit.lsn <= last);
        commits
            .flat_map(|commit| commit.rows.iter().copied())
            .collect()
    }

    /// `None`: a time that nothing archived is later than.
    fn plan(&self, walden: &Walden, target: &Target) -> Option<Value> {
        let options = [
            "--format",
            "json",
            "target",
            "--timeline",
            &self.number.to_string(),
        ]
        .map(String::from);
        let output = walden.run(options.iter().chain(&target.arguments()));
        if output.code == Some(4) && self.history.commits_at(target) == self.history.commits.len() {
            let is_time = matches!(target, Target::Time { .. });
            assert!(
                is_time && output.stderr.contains("after the end of the archived WAL"),
                "{}",
                output.stderr
            );
            return None;
        }
        assert!(output.success(), "{target:?}: {}", output.stderr);
        let said: Value = serde_json::from_str(&output.stdout).expect("a JSON document");
        Some(said["plan"].clone())
    }
}

/// Where a plan stops: the LSN, and whether the record there is replayed.
fn stop(plan: &Value) -> (u64, bool) {
    let lsn = lsn_number(
        plan["stop"]["lsn"]
            .as_str()
            .unwrap_or_else(|| panic!("no exact place: {plan}")),
    );
    (lsn, plan["stop"]["kind"] == "after")
}

fn check(
    walden: &Walden,
    major: &Major,
    scratch: &Scratch,
    timeline: &Timeline,
    wanted: &[Wanted],
) {
    let mut plans: Vec<(Value, &Wanted)> = Vec::new();
    for wanted in wanted {
        let plan = timeline.plan(walden, &wanted.target);
        // Behind the last commit nothing may be archived.
        plans.extend(
            plan.filter(|plan| plan["stop"]["kind"] != "end")
                .map(|plan| (plan, wanted)),
        );
    }
    assert!(
        plans.len() * 2 > wanted.len(),
        "most targets lie before the end"
    );
    plans.sort_by_key(|(plan, _)| stop(plan));
    let number = timeline.number.to_string();
    let data = scratch.join(&format!("path {number}"));
    let target = [
        "--immediate",
        "--target-action",
        "pause",
        "--timeline",
        &number,
        "--backup",
        &oldest(walden),
    ];
    let mut server = restore(walden, major, data, &target).cluster;
    for (plan, Wanted { target, sure }) in &plans {
        go_on(&mut server, plan);
        let rows = server.rows();
        let (included, excluded) = (&plan["last_included"], &plan["first_excluded"]);
        assert_eq!(rows, timeline.rows_up_to(included), "{target:?}: {plan}");
        if *sure {
            assert_eq!(rows, timeline.history.rows_at(target), "{target:?}: {plan}");
        }
        if let Some(lsn) = excluded["lsn"].as_str().map(lsn_number) {
            let commits = &timeline.history.commits;
            let next = commits.iter().find(|commit| !commit.rows.is_subset(&rows));
            assert!(
                next.is_none_or(|next| next.lsn >= lsn),
                "{target:?} leaves out {next:?}: {plan}"
            );
        }
        assert_eq!(
            server.sql("select pg_is_in_recovery()"),
            "t",
            "{target:?}: {plan}"
        );
    }
}

fn oldest(walden: &Walden) -> String {
    let backups = walden.json(["backup", "list"]);
    backups["backups"][0]["id"]
        .as_str()
        .unwrap_or_else(|| panic!("no backup: {backups}"))
        .to_string()
}

/// Lets a paused server replay up to where a plan stops, by the plan's own settings.
fn go_on(server: &mut Cluster, plan: &Value) {
    let mut text = "recovery_target = ''\nrecovery_target_action = pause\n".to_string();
    for setting in plan["settings"].as_array().expect("settings") {
        let part = |part: &str| setting[part].as_str().expect("a text").to_string();
        text += &format!("{} = '{}'\n", part("name"), part("value"));
    }
    let path = server.data.join("postgresql.auto.conf");
    let file = OpenOptions::new().append(true).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .expect("write postgresql.auto.conf");
    server.restart();
    wait_until("the target is reached", || {
        server.sql("select pg_is_wal_replay_paused()") == "t"
    });
}

/// Before the start, behind the last commit, and in the future.
fn check_ends(walden: &Walden, major: &Major, scratch: &Scratch, timeline: &Timeline) {
    let number = timeline.number.to_string();
    let last = timeline.history.commits.last().expect("commits");
    let behind = time_text(last.time + 1);
    let name = format!("end {number}");
    let restored = restore(
        walden,
        major,
        scratch.join(&name),
        &["--latest", "--timeline", &number],
    );
    assert_eq!(restored.cluster.rows(), timeline.history.rows());
    for (time, words) in [
        (
            "2020-01-01 00:00:00+00",
            "before the end of the oldest usable base backup",
        ),
        (&*behind, "after the end of the archived WAL"),
        (
            "2999-01-01 00:00:00+00",
            "after the end of the archived WAL",
        ),
    ] {
        let told = walden.refused(4, ["target", "--time", time, "--timeline", &number]);
        assert!(
            told.contains(words) && told.contains("nearest reachable moment"),
            "{told}"
        );
    }
}
