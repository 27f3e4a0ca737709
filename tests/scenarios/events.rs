//! What the index finds in the WAL of a real server, by the names that held then.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use walden::postgres::catalog::{EventKind, Filter, FoundEvent};
use walden::postgres::cluster::Cluster as Archived;
use walden::postgres::index::Index;
use walden::postgres::index::update::{Scope, complete};
use walden::repo::Repository;
use walden::storage::LocalStorage;

use crate::harness::{Cluster, Major, Scratch, Stop, Walden, each_major, wait_until};

/// All events of an archive, from an index that is made for this.
fn events(repository: &Path, all: bool) -> Vec<FoundEvent> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let repository = Repository::open(Arc::new(LocalStorage::new(repository))).await.expect("the repository");
        let cluster = Archived::open(repository, "main".parse().expect("a name")).await.expect("the cluster");
        let index = Arc::new(Index::temporary(&cluster).expect("an index"));
        complete(&index, &cluster, Scope::All, &|_| ()).await.expect("an index of the archive");
        index.events(&Filter { all, ..Filter::default() }).expect("events").events
    })
}

fn told(events: &[FoundEvent]) -> Vec<(EventKind, String, Option<u64>)> {
    let name = |event: &FoundEvent| {
        let named = event.relation.clone().or(event.name.clone());
        named.or(event.database.clone()).unwrap_or_else(|| format!("{:?}", event.file))
    };
    events.iter().map(|event| (event.kind, name(event), event.rows)).collect()
}

fn indexing(walden: &Walden) -> Value {
    walden.json(["status"])["indexing"].clone()
}

/// Waits until the service has read the names of what is there now.
pub fn names_are_recorded(walden: &Walden) {
    let read_at = |status: &Value| status["names_read_at"].as_str().unwrap_or_default().to_string();
    for _ in 0..2 {
        let before = read_at(&indexing(walden));
        wait_until("names are recorded", || read_at(&indexing(walden)) > before);
    }
}

each_major!(accidents_are_found_by_name, accidents);

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
    cluster.sql("create temp table passing as select generate_series(1, 1000) x; drop table passing");
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
    let expected: Vec<_> = expected.iter().map(|(kind, name, rows)| (*kind, name.to_string(), *rows)).collect();
    assert_eq!(seen, expected, "{found:#?}");
    let all = told(&events(&walden.repository, true));
    // Files that were made since names were recorded have none.
    assert!(all.contains(&(EventKind::Rewrite, "public.rewritten".to_string(), None)), "{all:#?}");
    assert!(all.iter().filter(|(kind, ..)| *kind == EventKind::Rewrite).count() >= 5, "{all:#?}");
    let status = indexing(&walden);
    assert_eq!((&status["not_indexed"], &status["failed"]["count"]), (&0.into(), &0.into()), "{status:#}");
    assert!(status["segments"].as_u64() > Some(0), "{status:#}");
    assert!(walden.ok(["status"]).contains("\nindex      "));
    cluster.stop(Stop::Fast);
    service.stop();
}

each_major!(a_backup_records_names, backup_records_names);

fn backup_records_names(major: Major) {
    let scratch = Scratch::new("names");
    let mut cluster = Cluster::builder(major).segment_mib(1).start(&scratch);
    let walden = Walden::beside(&scratch, &cluster);
    walden.ok(["init"]);
    cluster.archive_with(&walden);
    cluster.sql("create table orders as select generate_series(1, 100) id");
    walden.ok(["backup", "take"]);
    let objects = || std::fs::read_dir(walden.repository.join("main/names")).expect("names").count();
    assert_eq!(objects(), 1);
    walden.ok(["backup", "take"]);
    assert_eq!(objects(), 1, "nothing is new");
    cluster.sql("drop table orders");
    cluster.archive_now();
    let found = events(&walden.repository, false);
    let seen: Vec<_> = told(&found).into_iter().filter(|(kind, ..)| *kind != EventKind::RestorePoint).collect();
    assert_eq!(seen, [(EventKind::Drop, "public.orders".to_string(), None)], "{found:#?}");
    walden.ok(["repo", "verify"]);
}
