//! Databases that are made, dropped and moved: told for what happened, and restored to before and after it.

use serde_json::Value;

use crate::harness::{Cluster, Major, Scratch, Walden, each_major, lsn_number, run_as_server};
use crate::restore::{register, restore};

each_major!(a_database_counts_from_its_commit_on, databases);

fn databases(major: Major) {
    let scratch = Scratch::new("databases");
    let mut cluster = Cluster::builder(major.clone())
        .segment_mib(1)
        .start(&scratch);
    let walden = Walden::beside(&scratch, &cluster);
    register(&mut cluster, &walden);
    let service = walden.serve();
    walden.ok(["backup", "take"]);
    for name in ["shop", "broken"] {
        cluster.sql(&format!("create database {name}"));
        cluster.sql_in(
            name,
            "create table stock as select generate_series(1, 77) id",
        );
    }
    let oid = |name: &str| {
        cluster.sql(&format!(
            "select oid from pg_database where datname = '{name}'"
        ))
    };
    let (shop, broken) = (oid("shop"), oid("broken"));
    // A template that cannot be copied.
    let stock = cluster
        .data
        .join(cluster.sql_in("broken", "select pg_relation_filepath('stock')"));
    cluster.sql("checkpoint");
    run_as_server("chmod", ["000".as_ref(), stock.as_os_str()]);
    let failed = cluster.try_sql("create database never template broken");
    assert!(!failed.success(), "{}", failed.stdout);
    cluster.sql("drop database shop");
    // After what is restored below, for its tablespace is the source's.
    cluster.sql("create database moved");
    let moved = oid("moved");
    let other = scratch.folder("other");
    cluster.sql(&format!(
        "create tablespace other location '{}'",
        other.display()
    ));
    cluster.sql("alter database moved set tablespace other");
    cluster.archive_now();
    service.stop();

    let found = walden.json(["find", "--kind", "database-create,database-drop"]);
    let mut events: Vec<&Value> = found["events"].as_array().expect("events").iter().collect();
    events.sort_by_key(|event| lsn_of(event, "lsn"));
    let told: Vec<(&str, String)> = events
        .iter()
        .map(|event| {
            (
                event["kind"].as_str().expect("a kind"),
                event["database_oid"].to_string(),
            )
        })
        .collect();
    let (made, dropped) = ("database-create", "database-drop");
    assert_eq!(
        told,
        [
            (made, shop.clone()),
            (made, broken),
            (dropped, shop),
            (made, moved)
        ],
        "{found:#}"
    );
    for event in &events {
        assert!(
            event["exact"] == true && lsn_of(event, "commit_lsn") > lsn_of(event, "lsn"),
            "{event}"
        );
    }
    if major.number >= 15 {
        assert!(
            lsn_of(events[0], "commit_lsn") >> 20 > lsn_of(events[0], "lsn") >> 20,
            "{}",
            events[0]
        );
    }

    let there =
        |cluster: &Cluster| cluster.sql("select count(*) from pg_database where datname = 'shop'");
    for (number, (event, how, expected)) in [
        (0, "--before", "0"),
        (0, "--after", "1"),
        (2, "--before", "1"),
        (2, "--after", "0"),
    ]
    .into_iter()
    .enumerate()
    {
        let id = events[event]["id"].as_str().expect("an id");
        let restored = restore(
            &walden,
            &major,
            scratch.join(&format!("r {number}")),
            &[how, id],
        );
        assert_eq!(
            there(&restored.cluster),
            expected,
            "{how} {id}: {}",
            restored.said
        );
        if (event, how) == (2, "--before") {
            assert_eq!(
                restored
                    .cluster
                    .sql_in("shop", "select count(*) from stock"),
                "77"
            );
        }
    }
}

fn lsn_of(event: &Value, member: &str) -> u64 {
    lsn_number(
        event[member]
            .as_str()
            .unwrap_or_else(|| panic!("no {member}: {event}")),
    )
}
