//! `--check`: the restored server is looked at before people trust it, and nothing is written to it.

use serde_json::Value;

use super::{Restored, arguments, register, restore, take_backup};
use crate::harness::{Cluster, Major, Scratch, Walden, finish};

/// A check, and how it ended.
fn check<'a>(said: &'a Value, name: &str, verdict: &str) -> &'a str {
    let checks = said["checked"]["checks"].as_array().expect("checks");
    let found = checks.iter().find(|check| check["name"] == name);
    let found = found.unwrap_or_else(|| panic!("no check {name}: {said:#}"));
    assert_eq!(found["verdict"], verdict, "{said:#}");
    found["seen"].as_str().unwrap_or_default()
}

/// The newest record of a restore.
fn record(walden: &Walden) -> Value {
    let records = walden.json(["evidence", "list", "--act", "restore"]);
    records[0].clone()
}

fn orders(limits: &str) -> String {
    format!("[[table]]\ndatabase = \"postgres\"\ntable = \"public.orders\"\n{limits}\n")
}

#[test]
fn a_restored_server_is_looked_at_and_nothing_is_written_to_it() {
    let (scratch, major) = (Scratch::new("restorecheck"), Major::newest());
    let cluster = Cluster::builder(major.clone());
    let mut cluster = cluster.segment_mib(1).start(&scratch);
    let asserts = scratch.write("asserts.toml", &orders("min_rows = 100\nmax_behind = 0"));
    let psql = major.program("psql").display().to_string();
    let settings = format!(
        "drill.asserts = \"{}\"\ndrill.command = [\"{psql}\", \"-XAtc\", \"select count(*) from orders\"]\n",
        asserts.display()
    );
    let walden = Walden::with(&scratch, &cluster, &settings);
    register(&mut cluster, &walden);
    cluster.sql(
        "create extension amcheck; create table customers(id int primary key); insert into customers values (1);
         create table orders(id int primary key, customer int references customers);
         insert into orders select n, 1 from generate_series(1, 100) n",
    );
    take_backup(&walden);
    cluster.sql("insert into orders values (101, 1)");
    cluster.archive_now();

    // Paused before it is open, as far as the backup alone goes.
    let paused = ["--immediate", "--target-action", "pause", "--check"];
    let Restored {
        cluster: first,
        said,
    } = restore(&walden, &major, scratch.join("paused"), &paused);
    assert_eq!(said["checked"]["verdict"], "passed", "{said:#}");
    for name in [
        "stopped as planned",
        "indexes of \"postgres\"",
        "foreign keys of \"postgres\"",
    ] {
        check(&said, name, "passed");
    }
    assert_eq!(check(&said, "drill.command", "passed"), "100");
    assert_eq!(
        check(&said, "rows of public.orders of \"postgres\"", "passed"),
        "100"
    );
    let behind = "rows of public.orders of \"postgres\" against the source";
    assert!(check(&said, behind, "could-not-run").starts_with("not compared: "));
    assert!(
        check(&said, "indexes of \"template1\"", "could-not-run").contains("nothing is written")
    );
    assert_eq!(first.sql("select pg_is_in_recovery()"), "t");
    let kept = record(&walden);
    assert_eq!(kept["verdict"], "passed", "{kept:#}");
    assert_eq!(kept["checks"], said["checked"]["checks"]);
    drop(first);

    // Open for writing, and wrong in each way; who tries to write does not.
    let writes = "[[assert]]\nname = \"writes\"\ndatabase = \"postgres\"\nsql = \"delete from orders\"\nrows = 0\n";
    let text = orders("min_rows = 102\nmax_behind = 0") + writes;
    scratch.write("asserts.toml", &text);
    let data = scratch.join("open");
    let mut all = vec!["--format".to_string(), "json".into()];
    all.extend(arguments(&major, &data, &["--check"]));
    let deletes = format!("[\"{psql}\", \"-Xc\", \"delete from orders\"]");
    let output = finish(walden.command(all).env("WALDEN_DRILL__COMMAND", deletes));
    assert_eq!(output.code, Some(3), "{output:?}");
    let said: Value = serde_json::from_str(&output.stdout).expect("JSON");
    let Restored {
        cluster: second,
        said,
    } = Restored::adopt(&major, data, said);
    assert_eq!(said["checked"]["verdict"], "failed", "{said:#}");
    let few = check(&said, "rows of public.orders of \"postgres\"", "failed");
    assert_eq!(few, "101, expected at least 102");
    assert_eq!(
        check(&said, behind, "passed"),
        "0 behind: 101 rows, on the source 101"
    );
    for name in ["writes", "drill.command"] {
        let seen = check(&said, name, "failed");
        assert!(seen.contains("read-only transaction"), "{seen}");
    }
    assert_eq!(second.sql("select count(*) from orders"), "101");
    assert_eq!(
        second.sql_in(
            "template1",
            "select count(*) from pg_extension where extname = 'amcheck'"
        ),
        "0"
    );
    let kept = record(&walden);
    assert_eq!(kept["verdict"], "failed", "{kept:#}");
    let reason = kept["reason"].as_str().expect("a reason");
    assert!(reason.contains("101, expected at least 102"), "{reason}");

    refused_before_anything_is_written(&scratch, &walden, &major);
}

fn refused_before_anything_is_written(scratch: &Scratch, walden: &Walden, major: &Major) {
    let never = scratch.join("never");
    let shutdown = ["--immediate", "--target-action", "shutdown", "--check"];
    walden.refused(2, arguments(major, &never, &shutdown));
    scratch.write("asserts.toml", &orders("min_row = 1"));
    let refused = walden.refused(1, arguments(major, &never, &["--check"]));
    assert!(
        refused.contains("line 4: unknown field `min_row`"),
        "{refused}"
    );
    assert!(!never.exists());
}
