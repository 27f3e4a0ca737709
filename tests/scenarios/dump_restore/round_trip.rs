//! Round trips: schema text, rows and properties of the restored database equal those of the dumped one.

use std::process::Stdio;

use super::shop::{self, ODD, dump, fingerprint, quoted};
use super::{databases, restore_of, walden};
use crate::harness::{Cluster, Major, Scratch, command, finish, is_long, wait_until};

#[test]
fn pg13() {
    Major::find(13).into_iter().for_each(comes_back);
}

#[test]
fn pg15() {
    Major::find(15).into_iter().for_each(comes_back);
}

#[test]
fn pg18() {
    Major::find(18).into_iter().for_each(comes_back);
}

#[test]
fn the_other_majors() {
    if is_long() {
        [14, 16, 17]
            .into_iter()
            .filter_map(Major::find)
            .for_each(comes_back);
    }
}

/// A custom dump comes back under open connections, in the place of a database that changed since.
fn comes_back(major: Major) {
    let scratch = Scratch::new("dump restore");
    let cluster = Cluster::builder(major)
        .setting("max_prepared_transactions", "2")
        .start(&scratch);
    let walden = walden(&scratch, &cluster, "");
    shop::roles(&cluster);
    shop::make(&cluster, ODD);
    let before = fingerprint(&cluster, ODD);
    let path = dump(&cluster, ODD, &scratch, "odd.dump", &["--format=custom"]);
    cluster.sql_in(
        ODD,
        "drop table documents; create table later(a int); delete from child_log",
    );
    let changed = fingerprint(&cluster, ODD);

    let mut open = Vec::new();
    for statement in [
        "select pg_sleep(600)",
        "begin; lock table customers; select pg_sleep(600)",
    ] {
        let mut psql = command(Major::with_clients().program("psql"));
        psql.args(["-X", "-c", statement, "-d"])
            .arg(shop::conninfo(&cluster, ODD));
        open.push(
            psql.stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("start psql"),
        );
    }
    // Who is in another database stays there.
    let mut bystander = command(Major::with_clients().program("psql"));
    bystander.args(["-X", "-c", "select pg_sleep(600)", "-d", &cluster.dsn()]);
    bystander.stdout(Stdio::null()).stderr(Stdio::null());
    let mut bystander = bystander.spawn().expect("start psql");
    let sessions = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
    wait_until("all sessions are there", || cluster.sql(sessions) == "3");
    let restored = walden.json(restore_of(&path, &["--jobs", "2"]));
    for session in &mut open {
        assert!(!session.wait().expect("wait for psql").success());
    }
    assert_eq!(cluster.sql(sessions), "1");
    bystander.kill().expect("end psql");
    bystander.wait().expect("wait for psql");

    assert_eq!(fingerprint(&cluster, ODD), before, "{restored:#}");
    let names: Vec<&str> = restored["phases"]
        .as_array()
        .expect("phases")
        .iter()
        .map(|phase| phase["name"].as_str().expect("a name"))
        .collect();
    assert_eq!(
        names,
        ["validate", "create", "fill", "end_connections", "swap"]
    );
    assert!(
        restored["ended_connections"].as_u64() >= Some(2),
        "{restored:#}"
    );
    let kept = restored["kept_as"]
        .as_str()
        .expect("the old database's name");
    assert!(kept.len() <= 63 && kept.contains("_before_2"), "{kept}");
    assert_eq!(databases(&cluster), [ODD, kept, "postgres"], "{restored:#}");
    // Under its new name the old one is what it was, but for that name and the mark in its comment.
    cluster.sql_each(&format!(
        "drop database {odd}; alter database {} rename to {odd}; comment on database {odd} is 'on database \"x\" it''s'",
        quoted(kept),
        odd = quoted(ODD)
    ));
    assert_eq!(fingerprint(&cluster, ODD), changed);
    let left: Vec<_> = std::fs::read_dir(scratch.join("spool"))
        .into_iter()
        .flatten()
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn every_format_of_pg_dump_comes_back_where_no_database_is() {
    let scratch = Scratch::new("dump formats");
    let cluster = Cluster::builder(Major::newest()).start(&scratch);
    let walden = walden(&scratch, &cluster, "");
    shop::roles(&cluster);
    shop::make(&cluster, "shop");
    let before = fingerprint(&cluster, "shop");
    let directory = dump(
        &cluster,
        "shop",
        &scratch,
        "shop.dir",
        &["--format=directory", "--jobs=2"],
    );
    let tar = dump(&cluster, "shop", &scratch, "shop.tar", &["--format=tar"]);
    let plain = dump(&cluster, "shop", &scratch, "shop.sql", &["--format=plain"]);
    let packed = |program: &str, ending: &str| {
        let path = scratch.join(&format!("packed.sql{ending}"));
        let script = format!("{program} < \"$0\" > \"$1\"");
        let output = finish(
            command("/bin/sh")
                .args(["-c", &script])
                .arg(&plain)
                .arg(&path),
        );
        assert!(output.success(), "{}", output.stderr);
        path
    };
    let zstd = packed("zstd -q", ".zst");
    let gzip = packed("gzip", ".gz");
    let sums = finish(
        command("/bin/sh")
            .args(["-c", "cd \"$0\" && sha256sum shop.tar > shop.tar.sha256"])
            .arg(scratch.path()),
    );
    assert!(sums.success());

    cluster.sql("drop database shop");
    for path in [&directory, &tar] {
        let restored = walden.json(restore_of(path, &[]));
        assert!(restored["kept_as"].is_null(), "{restored:#}");
        assert_eq!(fingerprint(&cluster, "shop"), before, "{}", path.display());
        cluster.sql("drop database shop");
    }
    // A script says nothing of its database as a whole: that stays as it was.
    walden.ok(restore_of(&directory, &[]));
    for path in [&plain, &zstd, &gzip] {
        walden.ok(restore_of(path, &["--database", "shop", "--drop-old"]));
        assert_eq!(databases(&cluster), ["postgres", "shop"]);
        assert_eq!(fingerprint(&cluster, "shop"), before, "{}", path.display());
    }
    let said = walden.ok(restore_of(&tar, &["--verify-only"]));
    assert!(said.contains("its digest is right"), "{said}");
}
