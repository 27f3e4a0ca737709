//! Random trees of timelines: whatever PostgreSQL makes of failovers, clones and recoveries to points of the past is archived,
//! and is restored to what PostgreSQL itself makes of plain copies.

use std::fs;
use std::path::PathBuf;

use super::forks::{archived_everything, hooks_and_copies, recover};
use super::{archiving, arguments, take_backup};
use crate::harness::{Cluster, Major, Random, Rows, Scratch, Stop, Walden, is_long, run_as_server};

struct Tree {
    major: Major,
    scratch: Scratch,
    walden: Walden,
    random: Random,
    /// A copy of the first server, made by PostgreSQL's own means.
    base: PathBuf,
    /// What archive_command copied.
    copies: PathBuf,
    /// Servers that run.
    live: Vec<Cluster>,
    points: Vec<String>,
    folders: usize,
}

#[test]
fn every_tree_of_timelines_is_archived_and_restored_as_postgresql_does_from_copies() {
    let majors: Vec<Major> = match is_long() {
        true => (13..=18).filter_map(Major::find).collect(),
        false => vec![Major::newest()],
    };
    for major in majors {
        let mut tree = Tree::planted(major);
        for _ in 0..if is_long() { 16 } else { 4 } {
            tree.grow();
        }
        tree.check();
    }
}

impl Tree {
    fn planted(major: Major) -> Self {
        let scratch = Scratch::new("tree");
        let random = Random::seeded("trees");
        let cluster = Cluster::builder(major.clone())
            .segment_mib(1)
            .setting("wal_keep_size", "64MB")
            .start(&scratch);
        let (mut cluster, walden) = archiving(&scratch, cluster);
        let (base, copies) = (scratch.join("base"), scratch.folder("copies"));
        let command = hooks_and_copies(&walden, &copies).replace('\'', "''");
        cluster.append_conf(&format!("archive_command = '{command}'\n"));
        cluster.restart();
        cluster.open_ledger();
        take_backup(&walden);
        cluster.copy_to(&base);
        let live = vec![cluster];
        let mut tree = Self {
            major,
            scratch,
            walden,
            random,
            base,
            copies,
            live,
            points: Vec::new(),
            folders: 0,
        };
        tree.write(0);
        tree
    }

    fn folder(&mut self) -> PathBuf {
        self.folders += 1;
        self.scratch.join(&format!("copy-{}", self.folders))
    }

    /// A copy of the base copy.
    fn copy(&mut self) -> PathBuf {
        let to = self.folder();
        run_as_server("cp", ["-a".as_ref(), self.base.as_os_str(), to.as_os_str()]);
        to
    }

    /// Some commits and a restore point; sometimes a segment ends.
    fn write(&mut self, at: usize) {
        let (point, server) = (format!("point {}", self.points.len()), &self.live[at]);
        server.commit("before");
        if self.random.flip() {
            server.switch_wal();
        }
        server.commit("more");
        server.sql(&format!("select pg_create_restore_point('{point}')"));
        server.commit("after");
        self.points.push(point);
    }

    fn grow(&mut self) {
        let at = self.random.below(self.live.len());
        match self.random.below(3) {
            0 => self.fail_over(at),
            _ => self.recover_to_a_point(),
        }
        let last = self.live.len() - 1;
        for at in [last, self.random.below(self.live.len())] {
            self.write(at);
        }
        // A timeline's first segment is archived, so that no older one's is taken in its place.
        self.live.iter().for_each(archived_everything);
    }

    /// A standby is promoted; its primary died before, or lives on, as that of a clone does.
    fn fail_over(&mut self, at: usize) {
        let primary = &mut self.live[at];
        let mut standby = primary.standby_to_start(&self.scratch);
        // The segment in which the copy begins is archived, so that no older timeline's is taken in its place.
        archived_everything(primary);
        let command = self.walden.restore_command().replace('\'', "''");
        // A target that its primary was recovered to is none of its own: unmet, it would end the promotion.
        let settings =
            format!("restore_command = '{command}'\nrecovery_target_timeline = current\n");
        standby.append_conf(&format!("{settings}recovery_target_name = ''\n"));
        standby.start();
        primary.commit("just before");
        standby.wait_for_replay(&primary.sql("select pg_current_wal_lsn()"));
        let dies = self.random.flip();
        if dies {
            primary.stop(*self.random.pick(&[Stop::Fast, Stop::Immediate]));
        }
        standby.promote();
        self.live.push(standby);
        if dies {
            self.live.remove(at);
        }
    }

    /// Recovery from the base copy, along a timeline of any kind; PostgreSQL itself may refuse.
    fn recover_to_a_point(&mut self) {
        let data = self.copy();
        let newest = self.timelines().len();
        let timeline = match self.random.below(3) {
            0 => "latest".to_string(),
            1 => "current".to_string(),
            _ => (1 + self.random.below(newest)).to_string(),
        };
        let point = self.random.pick(&self.points).clone();
        eprintln!("recovery to {point:?} along {timeline}");
        let command = self.walden.restore_command();
        let recovered = recover(
            &self.major,
            &data,
            &self.scratch,
            &command,
            &target(&point, &timeline),
        );
        if data.join("postmaster.pid").exists() {
            self.live.push(recovered);
        }
    }

    /// All timelines there are.
    fn timelines(&self) -> Vec<u32> {
        let names = fs::read_dir(&self.copies).expect("read the copies");
        let names = names.map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        });
        let histories =
            names.filter_map(|name| u32::from_str_radix(name.strip_suffix(".history")?, 16).ok());
        let mut all: Vec<u32> = histories.chain([1]).collect();
        all.sort_unstable();
        all
    }

    /// Both kinds of archive give the same, along each timeline to its end and to some points.
    fn check(&mut self) {
        let timelines = self.timelines();
        eprintln!("timelines {timelines:?}");
        self.live
            .iter_mut()
            .for_each(|server| server.stop(Stop::Immediate));
        for timeline in &timelines {
            let timeline = timeline.to_string();
            let expected = self.by_copies(&format!("recovery_target_timeline = '{timeline}'"));
            assert!(
                expected.is_some(),
                "PostgreSQL recovers along timeline {timeline}"
            );
            assert_eq!(
                self.by_walden(&["--latest", "--timeline", &timeline]),
                expected,
                "timeline {timeline}"
            );
        }
        for _ in 0..if is_long() { 12 } else { 2 } {
            let (point, timeline) = (
                self.random.pick(&self.points).clone(),
                self.random.pick(&timelines).to_string(),
            );
            let expected = self.by_copies(&target(&point, &timeline));
            let found = self.by_walden(&["--name", &point, "--timeline", &timeline]);
            assert_eq!(found, expected, "{point:?} along timeline {timeline}");
        }
    }

    /// The rows that PostgreSQL recovers with plain copies; `None` when it refuses.
    fn by_copies(&mut self, settings: &str) -> Option<Rows> {
        let data = self.copy();
        let command = format!("cp \"{}/%f\" %p", self.copies.display());
        let settings = format!("{settings}\narchive_mode = off");
        let mut recovered = recover(&self.major, &data, &self.scratch, &command, &settings);
        let rows = data
            .join("postmaster.pid")
            .exists()
            .then(|| recovered.rows());
        if rows.is_some() {
            recovered.stop(Stop::Immediate);
        }
        rows
    }

    /// The rows of what Walden restores; `None` when it refuses.
    fn by_walden(&mut self, target: &[&str]) -> Option<Rows> {
        let data = self.folder();
        let arguments = [
            vec!["--format".to_string(), "json".into()],
            arguments(&self.major, &data, target),
        ]
        .concat();
        let output = self.walden.run(&arguments);
        if output.code == Some(4) {
            return None;
        }
        assert!(
            output.success(),
            "{target:?}: {}\n{}",
            output.stdout,
            output.stderr
        );
        let said = serde_json::from_str(&output.stdout).expect("a JSON document");
        let mut restored = super::Restored::adopt(&self.major, data, said).cluster;
        let rows = restored.rows();
        restored.stop(Stop::Immediate);
        Some(rows)
    }
}

fn target(point: &str, timeline: &str) -> String {
    format!(
        "recovery_target_name = '{point}'\nrecovery_target_timeline = '{timeline}'\nrecovery_target_action = promote"
    )
}
