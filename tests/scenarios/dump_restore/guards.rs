//! What asks first, what is kept, and what drops it.

use super::shop::dump;
use super::{databases, restore_of, walden};
use crate::harness::{Cluster, Major, Scratch, finish};

#[test]
fn production_asks_for_the_name_and_the_old_database_is_kept_until_it_is_dropped() {
    let scratch = Scratch::new("dump guard");
    let cluster = Cluster::builder(Major::newest())
        .setting("max_prepared_transactions", "2")
        .start(&scratch);
    let walden = walden(&scratch, &cluster, "cluster.production = true\n");
    cluster.sql("create database shop");
    cluster.sql_in("shop", "create table stock as select 1 as a");
    let path = dump(
        &cluster,
        "shop",
        &scratch,
        "shop.dump",
        &["--format=custom"],
    );
    cluster.sql_in("shop", "update stock set a = 2");
    for options in [
        &[][..],
        &["--yes-restore", "Shop"],
        &["--yes-restore", "postgres"],
    ] {
        let told = walden.refused(1, restore_of(&path, options));
        assert!(
            told.contains("in production") && told.contains("add --yes-restore 'shop'"),
            "{told}"
        );
    }
    walden.ok(restore_of(&path, &["--verify-only"]));
    assert_eq!(databases(&cluster), ["postgres", "shop"]);
    let yes = ["--yes-restore", "shop"];
    walden.ok(restore_of(&path, &yes));
    assert_eq!(cluster.sql_in("shop", "select a from stock"), "1");

    // A prepared transaction cannot be ended.
    cluster.sql_in(
        "shop",
        "begin; update stock set a = 3; prepare transaction 'p'",
    );
    let told = walden.refused(4, restore_of(&path, &yes));
    assert!(
        told.contains("1 prepared transaction in \"shop\""),
        "{told}"
    );
    cluster.sql_in("shop", "rollback prepared 'p'");
    let second = walden.json(restore_of(&path, &yes));
    let second = second["kept_as"].as_str().expect("a name").to_string();

    // Put back by hand, the old one is a database like any other.
    let kept = walden.json(["dump", "drop-old", "--dry-run"]);
    let kept: Vec<&str> = kept
        .as_array()
        .expect("a list")
        .iter()
        .map(|kept| kept["name"].as_str().expect("a name"))
        .collect();
    assert_eq!((kept.len(), kept[1]), (2, second.as_str()), "{kept:?}");
    let first = kept[0].to_string();
    cluster.sql_each(&format!(
        "drop database shop; alter database {first} rename to shop"
    ));
    cluster.sql("create database shop_before_20260101_000000");
    assert!(
        walden
            .refused(1, ["dump", "drop-old"])
            .contains("add --yes")
    );
    walden.ok(["dump", "drop-old", "--yes", "--database", "other"]);
    assert_eq!(
        databases(&cluster),
        ["postgres", "shop", "shop_before_20260101_000000", &second]
    );
    walden.ok(["dump", "drop-old", "--yes"]);
    assert_eq!(
        databases(&cluster),
        ["postgres", "shop", "shop_before_20260101_000000"]
    );
    assert_eq!(cluster.sql_in("shop", "select a from stock"), "2");
    // The database that the settings name need not be there.
    let mut absent = walden.command(["dump", "drop-old", "--dry-run"]);
    let dsn = format!("{} dbname=absent", cluster.dsn());
    let output = finish(absent.env("WALDEN_POSTGRESQL__DSN", dsn));
    assert!(output.success(), "{}", output.stderr);

    // Once more restored, its comment does not gather marks.
    cluster.sql("comment on database shop is 'mine'");
    let kept = walden.json(restore_of(&path, &yes))["kept_as"]
        .as_str()
        .expect("a name")
        .to_string();
    let comment = cluster.sql(&format!(
        "select shobj_description(oid, 'pg_database') from pg_database where datname = '{kept}'"
    ));
    assert_eq!(
        (comment.lines().count(), comment.lines().next()),
        (2, Some("mine"))
    );
    walden.ok(restore_of(&path, &["--yes-restore", "shop", "--drop-old"]));
    assert_eq!(
        databases(&cluster),
        ["postgres", "shop", "shop_before_20260101_000000", &kept]
    );
}

#[test]
fn a_script_that_leads_out_of_its_database_is_never_run() {
    let scratch = Scratch::new("dump script");
    let cluster = Cluster::builder(Major::newest()).start(&scratch);
    let walden = walden(&scratch, &cluster, "");
    cluster.sql("create database shop");
    let end = "-- PostgreSQL database dump complete\n";
    let made = scratch.join("made");
    for line in [
        "\\connect postgres",
        "DROP DATABASE shop;",
        "SELECT 2; DROP DATABASE shop;",
        &format!("\\! touch '{}'", made.display()),
    ] {
        let script = scratch.write("shop.sql", &format!("SELECT 1;\n{line}\n{end}"));
        let told = walden.refused(4, restore_of(&script, &["--database", "shop"]));
        assert!(told.contains("would leave its new database"), "{told}");
    }
    let script = scratch.write("shop.sql", &format!("CREATE TABLE a (b int);\n{end}"));
    for wish in [
        &["--table", "a", "--as", "x"][..],
        &["--no-owner"],
        &["--schema-only"],
        &["--role-map", "a=b"],
    ] {
        let told = walden.refused(
            4,
            restore_of(&script, &[&["--database", "shop"][..], wish].concat()),
        );
        assert!(told.contains("not possible with a plain dump"), "{told}");
    }
    let told = walden.refused(2, restore_of(&script, &[]));
    assert!(told.contains("--database"), "{told}");
    let script = scratch.write(
        "shop.sql",
        &format!("CREATE TABLE a (b int);\nSELECT 1/0;\n{end}"),
    );
    let told = walden.refused(1, restore_of(&script, &["--database", "shop"]));
    assert!(
        told.contains("division by zero") && told.contains("\"shop\" is as it was"),
        "{told}"
    );
    assert_eq!(databases(&cluster), ["postgres", "shop"]);
    assert!(!made.exists());
}
