//! What a summary has no room for is found all the same, or said to be missing.

use crate::harness::{Cluster, Major, Scratch, Walden, lsn_number, outer_majors};
use crate::restore::{register, restore};

outer_majors!(what_lies_behind_many_events_is_found, behind_many_events);

fn behind_many_events(major: Major) {
    let scratch = Scratch::new("left out");
    let mut cluster = Cluster::builder(major.clone())
        .segment_mib(1)
        .start(&scratch);
    let walden = Walden::beside(&scratch, &cluster);
    register(&mut cluster, &walden);
    cluster.sql(
        "create table dropped as select 1 id; create table five as select generate_series(1, 5) id",
    );
    cluster.sql("create table moments (id int)");
    cluster.sql(
        "create database plain encoding 'SQL_ASCII' template template0 lc_collate 'C' lc_ctype 'C'",
    );
    walden.ok(["backup", "take"]);
    cluster.sql("select pg_switch_wal()");
    cluster.sql("delete from five");
    cluster.sql("select pg_switch_wal()");
    cluster.sql("select count(pg_create_restore_point('p' || i)) from generate_series(1, 1500) i");
    cluster.sql("insert into moments values (1)");
    let wanted = cluster.sql("select pg_create_restore_point('wanted')");
    cluster.sql("insert into moments values (2)");
    let latin = cluster.sql_in("plain", r"select pg_create_restore_point(E'caf\xe9')");
    cluster.sql("select count(pg_create_restore_point('q' || i)) from generate_series(1, 500) i");
    cluster.sql("drop table dropped");
    cluster.archive_now();

    for (name, lsn) in [("wanted", &wanted), ("caf\u{FFFD}", &latin)] {
        let plan = &walden.json(["target", "--name", name])["plan"];
        assert_eq!(plan["stop"]["end"], **lsn, "{plan:#}");
    }
    let refused = walden.refused(4, ["target", "--name", "never made"]);
    assert!(
        refused.contains("no restore point \"never made\" was made"),
        "{refused}"
    );
    let restored = restore(
        &walden,
        &major,
        scratch.join("restored"),
        &["--name", "wanted"],
    );
    assert_eq!(
        restored
            .cluster
            .sql("select string_agg(id::text, ' ') from moments"),
        "1",
        "{}",
        restored.said
    );

    let drops = walden.json(["find", "--kind", "drop"]);
    assert_eq!(
        (
            drops["events"].as_array().map(Vec::len),
            &drops["events"][0]["exact"]
        ),
        (Some(1), &true.into())
    );
    assert!(drops["overfull_segments"].as_u64() >= Some(1), "{drops:#}");
    assert!(
        walden
            .ok(["find", "--kind", "drop"])
            .contains("more may have happened")
    );
    // Few rows are told to those who ask.
    let deletes = |arguments: &[&str]| {
        walden.json([&["find", "--kind", "delete"], arguments].concat())["events"].clone()
    };
    assert_eq!(deletes(&[]).as_array().map(Vec::len), Some(0));
    for arguments in [["--min-rows", "1"].as_slice(), &["--all"]] {
        let found = deletes(arguments);
        let five = found
            .as_array()
            .expect("events")
            .iter()
            .find(|event| event["rows"] == 5);
        assert!(
            five.is_some_and(|event| event["exact"] == true),
            "{found:#}"
        );
    }
}

outer_majors!(
    a_late_subtransaction_of_a_commit_that_crosses_a_segments_end_is_found,
    late_subtransaction
);

/// Of such a record summaries hold the beginning and the end: of 1500 bytes not all.
fn late_subtransaction(major: Major) {
    let scratch = Scratch::new("late");
    let builder = Cluster::builder(major.clone())
        .segment_mib(1)
        .setting("autovacuum", "off");
    let mut cluster = builder.start(&scratch);
    let walden = Walden::beside(&scratch, &cluster);
    register(&mut cluster, &walden);
    cluster.sql("create table parts (id int)");
    walden.ok(["backup", "take"]);
    // Each block with a handler is a subtransaction. The commit begins a few hundred bytes before the segment's end.
    cluster.sql(
        "do $$ declare room bigint; begin \
         for i in 1..300 loop begin insert into parts values (i); exception when others then raise; end; end loop; \
         loop room := 1048576 - pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint % 1048576; \
         exit when room between 250 and 800; \
         perform pg_logical_emit_message(false, '', repeat('x', greatest(1, least(room - 600, 8000))::int)); \
         end loop; end $$",
    );
    let xids = cluster.sql("select xmin from parts order by id");
    let xids: Vec<&str> = xids.lines().collect();
    cluster.archive_now();
    let mut stops = Vec::new();
    for xid in [xids[0], xids[150], xids[299]] {
        let plan = &walden.json(["target", "--xid", xid])["plan"];
        assert!(
            plan["notes"]
                .to_string()
                .contains(&format!("transaction {xid} is a subtransaction of")),
            "{plan}"
        );
        stops.push(plan["stop"].clone());
    }
    let number = |name: &str| lsn_number(stops[0][name].as_str().expect("an LSN"));
    assert!(
        number("lsn") >> 20 < (number("end") - 1) >> 20,
        "it does not cross: {stops:?}"
    );
    assert!(stops.iter().all(|stop| *stop == stops[0]), "{stops:?}");
    let restored = restore(
        &walden,
        &major,
        scratch.join("before"),
        &["--exclusive", "--xid", xids[299]],
    );
    assert_eq!(restored.cluster.sql("select count(*) from parts"), "0");
}
