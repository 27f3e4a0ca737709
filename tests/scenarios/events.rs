//! What the index finds in the WAL of a real server, by the names that held then.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use walden::postgres::catalog::{EventKind, Filter, FoundEvent};
use walden::postgres::cluster::Cluster as Archived;
use walden::postgres::index::Index;
use walden::postgres::index::update::{ListScope, complete};
use walden::repo::Repository;
use walden::storage::LocalStorage;

use crate::harness::{Cluster, Major, Scratch, Stop, Walden, outer_majors, wait_until};

/// All events of an archive, from an index that is made for this.
fn events(repository: &Path, all: bool) -> Vec<FoundEvent> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let repository = Repository::open(Arc::new(LocalStorage::new(repository)))
            .await
            .expect("the repository");
        let cluster = Archived::open(repository, "main".parse().expect("a name"))
            .await
            .expect("the cluster");
        let index = Arc::new(Index::temporary(&cluster).expect("an index"));
        complete(&index, &cluster, ListScope::All, &|_| ())
            .await
            .expect("an index of the archive");
        index
            .events(&Filter {
                all,
                ..Filter::default()
            })
            .expect("events")
            .events
    })
}

fn told(events: &[FoundEvent]) -> Vec<(EventKind, String, Option<u64>)> {
    let name = |event: &FoundEvent| {
        let named = event.relation.clone().or(event.name.clone());
        named
            .or(event.database.clone())
            .unwrap_or_else(|| format!("{:?}", event.file))
    };
    events
        .iter()
        .map(|event| (event.kind, name(event), event.rows))
        .collect()
}

fn indexing(walden: &Walden) -> Value {
    walden.json(["status"])["indexing"].clone()
}

/// Waits until the service has read the names of what is there now.
pub fn names_are_recorded(walden: &Walden) {
    let read_at = |status: &Value| {
        status["names_read_at"]
            .as_str()
            .unwrap_or_default()
            .to_string()
    };
    for _ in 0..2 {
        let before = read_at(&indexing(walden));
        wait_until("names are recorded", || read_at(&indexing(walden)) > before);
    }
}

outer_majors!(accidents_are_found_by_name, accidents);

fn accidents(major: Major) {
    let scratch = Scratch::new("events");
    let mut cluster = Cluster::builder(major).segment_mib(1).start(&scratch);
    let walden = Walden::with(&scratch, &cluster, "catalog.names_interval = \"200ms\"");
    walden.ok(["init"]);
    cluster.archive_with(&walden);
    let service = walden.serve();
    cluster.sql("create database shop");
    for table in ["kept", "emptied", "dropped", "cleared", "rewritten"] {
        cluster.sql(&format!(
            "create table {table} (id int primary key, note text); \
             insert into {table} select i, md5(i::text) from generate_series(1, 3000) i"
        ));
    }
    cluster.sql("create materialized view totals as select count(*) from kept; create unique index on totals (count)");
    names_are_recorded(&walden);
    // What is no accident.
    cluster.sql("vacuum full rewritten");
    cluster.sql("cluster rewritten using rewritten_pkey");
    cluster.sql("alter table rewritten alter id type bigint");
    cluster.sql("create index concurrently on kept (note)");
    cluster.sql("reindex table kept");
    cluster.sql("refresh materialized view totals");
    cluster.sql("refresh materialized view concurrently totals");
    cluster
        .sql("create temp table passing as select generate_series(1, 1000) x; drop table passing");
    cluster.sql("begin; create table never (id int); drop table never; commit");
    cluster.sql("begin; delete from kept; rollback");
    // Accidents.
    cluster.sql("delete from cleared");
    cluster.sql("select pg_create_restore_point('the end is near')");
    cluster.sql("update kept set note = 'lost' where id <= 2500");
    cluster.sql("truncate emptied");
    cluster.sql("drop table dropped");
    cluster.sql("drop database shop");
    cluster.archive_now();
    let found = events(&walden.repository, false);
    let expected = [
        (EventKind::Delete, "public.cleared", Some(3000)),
        (EventKind::RestorePoint, "the end is near", None),
        (EventKind::Update, "public.kept", Some(2500)),
        (EventKind::Truncate, "public.emptied", None),
        (EventKind::Drop, "public.dropped", None),
        (EventKind::DatabaseDrop, "shop", None),
    ];
    let mut seen = told(&found);
    // Its time is that of a commit near by.
    seen.retain(|(kind, name, _)| *kind != EventKind::DatabaseCreate && name != "archive_now");
    seen.sort_by_key(|(kind, ..)| *kind == EventKind::DatabaseDrop);
    let expected: Vec<_> = expected
        .iter()
        .map(|(kind, name, rows)| (*kind, name.to_string(), *rows))
        .collect();
    assert_eq!(seen, expected, "{found:#?}");
    let all = told(&events(&walden.repository, true));
    // Files that were made since names were recorded have none.
    assert!(
        all.contains(&(EventKind::Rewrite, "public.rewritten".to_string(), None)),
        "{all:#?}"
    );
    assert!(
        all.iter()
            .filter(|(kind, ..)| *kind == EventKind::Rewrite)
            .count()
            >= 5,
        "{all:#?}"
    );
    let status = indexing(&walden);
    assert_eq!(
        (&status["not_indexed"], &status["failed"]["count"]),
        (&0.into(), &0.into()),
        "{status:#}"
    );
    assert!(status["segments"].as_u64() > Some(0), "{status:#}");
    assert!(walden.ok(["status"]).contains("\nindex      "));
    cluster.stop(Stop::Fast);
    service.stop();
}

outer_majors!(a_backup_records_names, backup_records_names);

fn backup_records_names(major: Major) {
    let scratch = Scratch::new("names");
    let mut cluster = Cluster::builder(major).segment_mib(1).start(&scratch);
    let walden = Walden::beside(&scratch, &cluster);
    walden.ok(["init"]);
    cluster.archive_with(&walden);
    cluster.sql("create table orders as select generate_series(1, 100) id");
    walden.ok(["backup", "take"]);
    let objects = || {
        std::fs::read_dir(walden.repository.join("main/names"))
            .expect("names")
            .count()
    };
    assert_eq!(objects(), 1);
    walden.ok(["backup", "take"]);
    assert_eq!(objects(), 1, "nothing is new");
    cluster.sql("drop table orders");
    cluster.archive_now();
    let found = events(&walden.repository, false);
    let seen: Vec<_> = told(&found)
        .into_iter()
        .filter(|(kind, ..)| *kind != EventKind::RestorePoint)
        .collect();
    assert_eq!(
        seen,
        [(EventKind::Drop, "public.orders".to_string(), None)],
        "{found:#?}"
    );
    walden.ok(["repo", "verify"]);
}

/// Names are bytes in some databases, and some databases let nobody in: neither takes other names away, nor fills the
/// server's log.
#[test]
fn names_of_every_kind_are_read_and_closed_databases_left_alone() {
    let scratch = Scratch::new("odd names");
    let mut cluster = Cluster::builder(Major::newest())
        .segment_mib(1)
        .start(&scratch);
    let walden = Walden::with(&scratch, &cluster, "catalog.names_interval = \"200ms\"");
    walden.ok(["init"]);
    cluster.archive_with(&walden);
    cluster.sql_each(
        "create role reader login replication in role pg_read_all_settings; create database closed; \
         revoke connect on database closed from public; create database half_dropped; create database no_place; \
         update pg_database set datconnlimit = -2 where datname = 'half_dropped'; \
         update pg_database set datconnlimit = 0 where datname = 'no_place'; create database odd; \
         create database ascii encoding 'SQL_ASCII' lc_collate 'C' lc_ctype 'C' template template0",
    );
    let odd = "convert_from('\\x62e9'::bytea, 'SQL_ASCII')";
    cluster.sql_in(
        "ascii",
        &format!("do $$ begin execute format('create table %I (a int)', {odd}); end $$"),
    );
    cluster.sql_in(
        "ascii",
        &format!("update pg_database set datname = {odd}::name where datname = 'odd'"),
    );
    cluster.sql_in(
        "ascii",
        "create table beside_odd as select generate_series(1, 100) id",
    );
    // More than are asked for at once.
    cluster.sql("do $$ begin for i in 1..1200 loop execute format('create table many_%s (id int primary key)', i); end loop; end $$");
    cluster.sql("create schema old; create table old.moved as select generate_series(1, 100) id");
    let service = walden.serve_with(&[(
        "WALDEN_POSTGRESQL__DSN",
        &cluster.dsn().replace("user=walden", "user=reader"),
    )]);
    names_are_recorded(&walden);
    let before = indexing(&walden)["names"].as_u64().expect("a number");
    assert!(before > 2400, "{before}");
    cluster.sql(
        "alter schema old rename to new; create table late as select generate_series(1, 100) id",
    );
    names_are_recorded(&walden);
    let after = indexing(&walden)["names"].as_u64().expect("a number");
    assert_eq!(
        after - before,
        2,
        "what has not changed is not recorded again"
    );
    cluster.sql("drop table late, new.moved, many_1, many_1200");
    cluster.sql_in("ascii", "drop table beside_odd");
    cluster.archive_now();
    service.stop();
    let found = events(&walden.repository, true);
    let dropped: Vec<String> = told(&found)
        .into_iter()
        .filter(|(kind, ..)| *kind == EventKind::Drop)
        .map(|(_, name, _)| name)
        .collect();
    for name in [
        "public.late",
        "new.moved",
        "public.many_1",
        "public.many_1200",
        "public.beside_odd",
    ] {
        assert!(
            dropped.iter().any(|found| found == name),
            "{name}: {dropped:?}"
        );
    }
    let log = cluster.log();
    let is_refused = |line: &&str| {
        line.contains("FATAL") && line.contains("database \"") || line.contains("byte sequence")
    };
    assert_eq!(log.lines().filter(is_refused).collect::<Vec<_>>(), [""; 0]);
}
