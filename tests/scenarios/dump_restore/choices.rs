//! A part of a dump, and a dump for others than it was made of.

use super::shop::{self, dump, schema};
use super::{databases, restore_of, walden};
use crate::harness::{Cluster, Major, Scratch};

#[test]
fn roles_are_mapped_in_owners_grants_policies_and_settings() {
    let scratch = Scratch::new("dump roles");
    let cluster = Cluster::builder(Major::newest()).start(&scratch);
    let walden = walden(&scratch, &cluster, "");
    shop::roles(&cluster);
    shop::make(&cluster, "shop");
    let custom = dump(
        &cluster,
        "shop",
        &scratch,
        "shop.dump",
        &["--format=custom"],
    );
    let directory = dump(
        &cluster,
        "shop",
        &scratch,
        "shop.dir",
        &["--format=directory"],
    );
    let tar = dump(&cluster, "shop", &scratch, "shop.tar", &["--format=tar"]);
    let before = schema(&cluster, "shop");
    cluster.sql_each("drop database shop; alter role owner rename to keeper; alter role reader rename to \"it's = me\"");
    let said = walden.refused(4, restore_of(&custom, &[]));
    assert!(
        said.contains("no role \"owner\"")
            && said.contains("no role \"reader\"")
            && said.contains("--role-map"),
        "{said}"
    );
    let map = [
        "--role-map",
        "owner=keeper",
        "--role-map",
        "reader=it's = me",
    ];
    for path in [&custom, &directory, &tar] {
        walden.ok(restore_of(path, &[&map[..], &["--jobs", "3"]].concat()));
        let text = schema(&cluster, "shop");
        cluster.sql_each(
            "alter role keeper rename to owner; alter role \"it's = me\" rename to reader",
        );
        assert_eq!(
            schema(&cluster, "shop"),
            before,
            "{}\n{text}",
            path.display()
        );
        assert_eq!(
            cluster.sql_in("shop", "select count(*) from customers"),
            "200"
        );
        assert_eq!(
            cluster
                .sql_in(
                    "shop",
                    "select md5(string_agg(lo_get(file)::text, '' order by id)) from documents"
                )
                .len(),
            32
        );
        cluster.sql_each("drop database shop; alter role owner rename to keeper; alter role reader rename to \"it's = me\"");
    }
    let unknown = walden.refused(4, restore_of(&custom, &["--role-map", "owner=nobody"]));
    assert!(unknown.contains("no role \"owner\""), "{unknown}");
    assert_eq!(
        walden
            .refused(
                2,
                restore_of(&custom, &["--role-map", "a=b", "--role-map", "a=c"])
            )
            .lines()
            .count(),
        2
    );
    walden.refused(2, restore_of(&custom, &["--role-map", "a"]));

    walden.ok(restore_of(
        &custom,
        &[
            "--no-owner",
            "--role-map",
            "owner=keeper",
            "--role-map",
            "reader=it's = me",
        ],
    ));
    let owners = "select string_agg(distinct pg_get_userbyid(relowner), ',') from pg_class";
    assert_eq!(cluster.sql_in("shop", owners), "walden");
    let granted =
        "select count(*) from information_schema.role_table_grants where grantee = 'it''s = me'";
    assert_ne!(cluster.sql_in("shop", granted), "0");
}

#[test]
fn tables_come_with_what_belongs_to_them_beside_the_database() {
    let scratch = Scratch::new("dump tables");
    let cluster = Cluster::builder(Major::newest()).start(&scratch);
    let walden = walden(&scratch, &cluster, "");
    shop::roles(&cluster);
    shop::make(&cluster, "shop");
    let path = dump(
        &cluster,
        "shop",
        &scratch,
        "shop.dump",
        &["--format=custom"],
    );
    let orders = "Sales & More.Orders \"2026\" ü";
    let refused = walden.refused(4, restore_of(&path, &["--table", orders]));
    assert!(refused.contains("--as NEWNAME"), "{refused}");
    let refused = walden.refused(
        4,
        restore_of(&path, &["--table", "nowhere", "--as", "part"]),
    );
    assert!(refused.contains("no table \"nowhere\""), "{refused}");

    walden.ok(restore_of(
        &path,
        &["--table", orders, "--table", "events", "--as", "part"],
    ));
    let relations = "select string_agg(relname, ', ' order by relname) from pg_class c join pg_namespace n on n.oid = relnamespace \
                     where relkind in ('r', 'p', 'v', 'm', 'S') and nspname in ('public', 'Sales & More')";
    assert_eq!(
        cluster.sql_in("part", relations),
        "Orders \"2026\" ü, Orders \"2026\" ü_id_seq, events, events_2025, events_2026, events_rest"
    );
    for (question, answer) in [
        (
            "select count(*) from \"Sales & More\".\"Orders \"\"2026\"\" ü\"",
            "3000",
        ),
        ("select count(*) from events", "700"),
        (
            "select count(*) from pg_trigger where tgname = 'touch'",
            "1",
        ),
        (
            "select nextval('\"Sales & More\".\"Orders \"\"2026\"\" ü_id_seq\"')",
            "3001",
        ),
        (
            "select count(*) from pg_indexes where schemaname = 'Sales & More'",
            "3",
        ),
        (
            "select count(*) from pg_constraint where contype = 'f' and conparentid = 0",
            "0",
        ),
    ] {
        assert_eq!(cluster.sql_in("part", question), answer, "{question}");
    }

    walden.ok(restore_of(
        &path,
        &["--schema-only", "--as", "bare", "--single-transaction"],
    ));
    assert_eq!(cluster.sql_in("bare", "select count(*) from events"), "0");
    let named = |text: String, name: &str| {
        let text = text.replace(&format!("DATABASE {name}"), "DATABASE x");
        let text = text.replace(&format!("Name: {name};"), "Name: x;");
        text.replace(&format!("\\connect {name}"), "\\connect x")
    };
    assert_eq!(
        named(schema(&cluster, "bare"), "bare"),
        named(schema(&cluster, "shop"), "shop")
    );
    assert_eq!(databases(&cluster), ["bare", "part", "postgres", "shop"]);
}
