//! The repository changes between a plan and its replay: what the started server came to is compared with the plan.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{Restored, archiving, arguments, register, take_backup};
use crate::harness::{Cluster, Major, Marker, Scratch, Stop, Walden, outer_majors, run_as_server};

/// Restores to a target and starts the server; `instead` takes the place of an object of the repository once the files are
/// restored, or nothing does.
fn restore_while(
    (scratch, walden, major): (&Scratch, &Walden, &Major),
    target: &[&str],
    (object, instead): (&Path, Option<&Path>),
) -> Restored {
    let change = match instead {
        Some(instead) => format!("cp '{}' '{}'", instead.display(), object.display()),
        None => format!("rm -f '{}'", object.display()),
    };
    // In front of the real program: it is asked for a setting when the plan is made and replay is to come.
    let programs = scratch.folder("programs");
    let real = major.program("postgres");
    let script = format!(
        "#!/bin/sh\ncase \" $* \" in *' -C '*) {change};; esac\nexec '{}' \"$@\"\n",
        real.display()
    );
    let program = scratch.write("programs/postgres", &script);
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).expect("make it a program");
    let data = scratch.join("restored");
    let mut all = vec!["--format".to_string(), "json".into()];
    all.extend(arguments(major, &data, target));
    let at = all
        .iter()
        .position(|argument| argument == "--pg-bin")
        .expect("--pg-bin");
    all[at + 1] = programs.display().to_string();
    let output = walden.run(all);
    assert_eq!(output.code, Some(3), "{}\n{}", output.stdout, output.stderr);
    Restored::adopt(
        major,
        data,
        serde_json::from_str(&output.stdout).expect("a JSON document"),
    )
}

/// What makes the result doubtful.
fn doubts(restored: &Restored) -> String {
    restored.said["recovered"]["doubts"].to_string()
}

/// A server that goes its own way from here on, on the same timeline, first as `alone` has it, then into an archive of its
/// own.
fn twin(
    scratch: &Scratch,
    cluster: &mut Cluster,
    alone: impl FnOnce(&mut Cluster),
) -> (Cluster, Walden) {
    let data = scratch.join("twin");
    cluster.stop(Stop::Fast);
    run_as_server("cp", [Path::new("-a"), &cluster.data, &data]);
    cluster.start();
    let mut twin = Cluster::of(cluster.major.clone(), data, scratch.path().to_path_buf());
    twin.append_conf("archive_mode = off\n");
    twin.start();
    alone(&mut twin);
    let archive = Walden::named(scratch, &twin, "twin", "");
    register(&mut twin, &archive);
    (twin, archive)
}

outer_majors!(a_segment_that_is_lost_after_the_plan_is_told, lost);

fn lost(major: Major) {
    let scratch = Scratch::new("lost");
    let cluster = Cluster::builder(major.clone())
        .segment_mib(1)
        .start(&scratch);
    let (cluster, walden) = archiving(&scratch, cluster);
    cluster.open_ledger();
    take_backup(&walden);
    let kept = cluster.mark("kept");
    cluster.archive_now();
    let lost = cluster.mark("lost");
    let segment = cluster.archive_now();
    // It is the last one, so that nothing in the repository shows that it is missing.
    let object = walden.segment_object(&segment);
    let content = scratch.join("content");
    run_as_server("cp", [&object, &content]);
    let doubts_of = || {
        let restored = restore_while((&scratch, &walden, &major), &["--latest"], (&object, None));
        assert_eq!(restored.cluster.rows(), kept.with());
        let data = scratch.join("restored");
        let doubts = doubts(&restored);
        drop(restored);
        fs::remove_dir_all(data).expect("remove what was restored");
        doubts
    };
    for has_index in [true, false] {
        if !has_index {
            run_as_server("cp", [&content, &object]);
            fs::remove_dir_all(scratch.join("cache")).expect("remove the index");
        }
        let told = doubts_of();
        assert!(
            told.contains(&format!("transaction {}", lost.xid)) && told.contains("as planned"),
            "{told}"
        );
    }
}

outer_majors!(
    a_segment_that_does_not_follow_is_no_end_also_without_an_index,
    not_following
);

fn not_following(major: Major) {
    let scratch = Scratch::new("follow");
    let cluster = Cluster::builder(major.clone())
        .segment_mib(1)
        .start(&scratch);
    let (mut cluster, walden) = archiving(&scratch, cluster);
    cluster.open_ledger();
    take_backup(&walden);
    let (twin, other) = twin(&scratch, &mut cluster, |_| ());
    cluster.mark("lost");
    let segment = cluster.archive_now();
    cluster.mark("behind");
    cluster.archive_now();
    twin.mark("of the other server");
    assert_eq!(twin.archive_now(), segment);
    fs::copy(of_twin(&other, &segment), walden.segment_object(&segment))
        .expect("another server's segment");
    let _ = fs::remove_dir_all(scratch.join("cache"));
    let data = scratch.join("restored");
    let output = walden.run(arguments(&major, &data, &["--latest"]));
    assert_eq!(output.code, Some(4), "{}\n{}", output.stdout, output.stderr);
    assert!(
        output.stderr.contains("cannot be replayed beyond"),
        "{}",
        output.stderr
    );
    assert!(!data.exists(), "nothing is written");
}

/// A segment in the archive of the twin.
fn of_twin(archive: &Walden, segment: &str) -> PathBuf {
    archive
        .repository
        .join("twin/wal")
        .join(&segment[..16])
        .join(format!("{segment}.zst"))
}

outer_majors!(
    a_server_that_stops_elsewhere_than_planned_is_told,
    elsewhere
);

fn elsewhere(major: Major) {
    let scratch = Scratch::new("elsewhere");
    let (restored, strange) = restored_with_anothers_segment(&scratch, &major, |_| ());
    assert_eq!(restored.cluster.rows(), strange.before);
    let (doubts, planned) = (
        doubts(&restored),
        restored.said["plan"]["stop"]["lsn"]
            .as_str()
            .expect("an LSN"),
    );
    assert!(
        doubts.contains(&format!("not after the WAL record at {planned} as planned")),
        "{doubts}"
    );
}

/// Newer ones do not go on there.
#[test]
fn that_13_replayed_what_was_written_at_minimal_level_is_told() {
    let Some(major) = Major::find(13) else { return };
    let scratch = Scratch::new("minimal");
    let (restored, _) = restored_with_anothers_segment(&scratch, &major, |twin| {
        twin.append_conf("wal_level = minimal\nmax_wal_senders = 0\n");
        twin.restart();
        twin.append_conf("wal_level = replica\nmax_wal_senders = 5\n");
        twin.restart();
    });
    assert!(
        doubts(&restored).contains("WAL was generated with wal_level=minimal"),
        "{}",
        doubts(&restored)
    );
}

/// A restore to a transaction whose segment is replaced after the plan by that of a twin, which has another record there;
/// and a commit behind that record.
fn restored_with_anothers_segment(
    scratch: &Scratch,
    major: &Major,
    alone: impl FnOnce(&mut Cluster),
) -> (Restored, Marker) {
    let cluster = Cluster::builder(major.clone())
        .segment_mib(1)
        .start(scratch);
    let (mut cluster, walden) = archiving(scratch, cluster);
    cluster.open_ledger();
    take_backup(&walden);
    cluster.mark("kept");
    let (twin, other) = twin(scratch, &mut cluster, alone);
    cluster.sql("insert into ledger(note) select repeat('x', 200) from generate_series(1, 300)");
    let target = cluster.mark("target");
    let segment = cluster.archive_now();
    // One record, so that none begins where the target is.
    twin.sql("select pg_logical_emit_message(false, 'long', repeat('x', 600000))");
    let strange = twin.mark("of the other server");
    assert_eq!(twin.archive_now(), segment);
    let object = walden.segment_object(&segment);
    let instead = of_twin(&other, &segment);
    let target = ["--xid", target.xid.as_str()];
    let restored = restore_while(
        (scratch, &walden, major),
        &target,
        (&object, Some(&instead)),
    );
    (restored, strange)
}
