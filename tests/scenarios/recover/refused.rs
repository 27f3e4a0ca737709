//! What cannot be recovered or put back is refused with the reason; what the refusal advises then works.

use serde_json::{Value, json};

use super::{Damaged, damaged, is_empty, left};
use crate::harness::{Cluster, Major, Scratch, Walden};

fn refuses_what_would_be_published(cluster: &Cluster, walden: &Walden) {
    for of in ["all tables", "tables in schema shop"] {
        cluster.sql(&format!("create publication p for {of}"));
        for table in ["orders", "shop.orders"] {
            let arguments = ["recover", "table", table, "--name", "before"];
            let said = walden.refused(1, arguments);
            assert!(said.contains("another database with --into"), "{said}");
        }
        cluster.sql("drop publication p");
    }
}

#[test]
fn what_cannot_be_recovered_changes_nothing_and_says_why() {
    let scratch = Scratch::new("recoverno");
    let Damaged { cluster, walden } = damaged(&scratch, &Major::newest());
    let tables = "select count(*) from pg_class where relkind in ('r', 'p')";
    let before = cluster.sql(tables);
    let table = |name: &str, more: &[&str], code: i32| {
        let arguments = [&["recover", "table", name], more].concat();
        walden.refused(code, arguments)
    };
    let at = ["--name", "before"];
    for (name, more, code, why) in [
        ("orders", &[][..], 2, "the moment is missing"),
        (
            "orders",
            &["--latest", "--from-dump"],
            2,
            "a dump has one moment",
        ),
        (
            "orders",
            &["--lsn", "FF/0"],
            4,
            "walden recover table 'orders' --",
        ),
        ("SHOP.Orders", &at, 1, "is \"shop.orders\" meant?"),
        ("shop.open_orders", &at, 1, "\"shop.open_orders\" is a view"),
        (
            "orders",
            &["--name", "before", "--where", "state = open"],
            1,
            "--where is SQL",
        ),
        (
            "orders",
            &["--name", "before", "--as", "customers"],
            1,
            "\"shop.customers\" already",
        ),
        (
            "orders",
            &["--name", "before", "--database", "nowhere"],
            1,
            "nowhere",
        ),
        ("nothing", &["--from-dump"], 1, "has no table \"nothing\""),
        (
            "orders",
            &["--name", "before", "--as", &"é".repeat(32)],
            1,
            "has 64 bytes",
        ),
        // Functions of an owner who is gone are nobody's to run.
        ("shop.of_gone", &at, 1, "role \"gone\" does not exist"),
    ] {
        let said = table(name, more, code);
        assert!(said.contains(why), "{why}: {said}");
    }
    refuses_what_would_be_published(&cluster, &walden);
    assert_eq!(cluster.sql(tables), before);
    // One row that refers to what is gone keeps all of them out; the copy stays.
    cluster.sql(
        "alter table shop.orders add foreign key (customer) references shop.customers not valid",
    );
    let said = table("orders", &["--name", "before", "--put-back"], 1);
    assert!(
        said.contains("nothing was put back") && said.contains("foreign key"),
        "{said}"
    );
    assert_eq!(cluster.sql("select count(*) from shop.orders"), "973");
    assert!(is_empty(&scratch.join("drills")));

    // A partition alone, into a database that has neither its schema nor its types.
    cluster.sql("create database other");
    let report = walden.json([
        "recover",
        "table",
        "events_2a",
        "--name",
        "before",
        "--into",
        "other",
    ]);
    assert_eq!(report["comparison"], Value::Null);
    assert_eq!(
        left(&report, "place as a partition")[0]["name"],
        "of public.events_2"
    );
    let count = "select count(*) from events_2a_recovered";
    assert_eq!(
        cluster.sql_in("other", count),
        cluster.sql("select count(*) from kept_events where day >= '2026-02-01'")
    );
    let dsn = cluster.dsn().replace("dbname=postgres", "dbname=other");
    let arguments = [
        "recover",
        "table",
        "shop.orders",
        "--name",
        "before",
        "--into",
        &dsn,
    ];
    let report = walden.json(arguments);
    let made = report["also_made"].as_array().unwrap();
    assert!(
        made.contains(&json!("schema shop")) && made.contains(&json!("type shop.state")),
        "{report:#}"
    );
    assert_eq!(
        cluster.sql_in("other", "select count(*) from shop.orders_recovered"),
        "1000"
    );
}
