//! Whatever happened to a table, its rows come back, and those that are gone are put back all or not at all.

use serde_json::{Value, json};

use super::{Damaged, damaged, is_empty, left};
use crate::harness::{Major, Scratch, outer_majors};

/// The SQL that puts back, as one transaction.
fn script(report: &Value) -> String {
    let sql = report["put_back"]["sql"].as_array().expect("statements");
    let sql: Vec<&str> = sql.iter().map(|sql| sql.as_str().unwrap()).collect();
    format!("begin; {}; commit", sql.join("; "))
}

fn recovers(major: Major) {
    let scratch = Scratch::new("recover");
    let damaged = damaged(&scratch, &major);
    deleted_and_updated(&damaged);
    truncated(&damaged);
    dropped(&damaged);
    without_a_key(&damaged);
    from_a_dump(&damaged);
    needing_what_is_gone(&damaged);
    all_rows_or_none(&damaged);
    assert!(is_empty(&scratch.join("drills")));
    let records = damaged
        .walden
        .json(["evidence", "list", "--act", "table-recovery"]);
    let verdicts = records.as_array().expect("records").iter();
    let passed = verdicts.filter(|record| record["verdict"] == "passed");
    assert_eq!(passed.count(), 8, "{records:#}");
}

outer_majors!(a_table_comes_back_row_for_row, recovers);

fn deleted_and_updated(damaged: &Damaged) {
    let report = damaged.recover("shop.orders", &[]);
    assert_eq!(report["recovered"], "shop.orders_recovered", "{report:#}");
    assert_eq!(report["rows"], 1000);
    assert!(damaged.same("kept", "shop.orders_recovered"));
    let comparison = &report["comparison"];
    let counts = ["missing", "changed", "same", "added"].map(|what| comparison[what].as_u64());
    assert_eq!(
        counts,
        [Some(30), Some(2), Some(968), Some(3)],
        "{report:#}"
    );
    assert_eq!(comparison["key"], json!(["id"]));
    // It has its own of all that belongs to it, and nothing that acts on others.
    let own = damaged.cluster.sql(
        "select string_agg(relname, ' ' order by relname) from pg_class where relname like '%recovered%' and relkind in ('i', 'S')",
    );
    assert_eq!(
        own,
        "by_state_recovered orders_recovered_id_seq orders_recovered_pkey"
    );
    let comments = "select obj_description(r) || col_description(r, 4) from (select 'shop.orders_recovered'::regclass as r) t";
    assert_eq!(damaged.cluster.sql(comments), "what is orderedin €");
    let acts = "select count(*) from pg_trigger where tgrelid = 'shop.orders_recovered'::regclass";
    assert_eq!(damaged.cluster.sql(acts), "0");
    let secure = "select relrowsecurity, relforcerowsecurity, has_table_privilege('clerk', oid, 'select') from pg_class where relname = 'orders_recovered'";
    assert_eq!(damaged.cluster.sql(secure), "t|f|t");
    let by_default = "select count(*) from pg_class, aclexplode(relacl) where relname = 'orders_recovered' and grantee = 0";
    assert_eq!(damaged.cluster.sql(by_default), "0");
    assert_eq!(
        left(&report, "forced row security")[0]["name"],
        "shop.orders"
    );
    assert_eq!(left(&report, "trigger")[0]["name"], "note");
    assert_eq!(left(&report, "policy")[0]["name"], "mine");
    assert_eq!(
        left(&report, "view that reads it")[0]["name"],
        "shop.open_orders"
    );
    assert!(
        left(&report, "privilege")[0]["why"]
            .as_str()
            .unwrap()
            .contains("no role \"gone\""),
        "{report:#}"
    );
    let key = left(&report, "foreign key")[0];
    assert_eq!(
        key["why"], "20 rows refer to rows of \"shop.customers\" that are gone",
        "{report:#}"
    );
    // The SQL that is printed is the SQL that --put-back runs.
    let again = damaged
        .walden
        .refused(1, ["recover", "table", "orders", "--name", "before"]);
    assert!(
        again.contains("\"shop.orders_recovered\" already"),
        "{again}"
    );
    let script = script(&report);
    damaged.cluster.sql(&script.replace("commit", "rollback"));
    let done = damaged.recover(
        "orders",
        &[
            "--as",
            "orders2",
            "--where",
            "id % 2 = 0 -- even",
            "--put-back",
        ],
    );
    assert_eq!(
        (&done["rows"], &done["put_back"]["rows"]),
        (&json!(500), &json!(15)),
        "{done:#}"
    );
    assert_eq!(done["comparison"]["added"], 1, "{done:#}");
    let back = "select count(*), count(*) filter (where double = total * 2) from shop.orders where id between 11 and 40";
    assert_eq!(damaged.cluster.sql(back), "15|15");
    damaged
        .cluster
        .sql(report["put_back"]["changed_sql"].as_str().unwrap());
    damaged.cluster.sql(&script);
    let rest = "select count(*) from (table kept except all table shop.orders) d";
    assert_eq!(damaged.cluster.sql(rest), "0");
}

fn truncated(damaged: &Damaged) {
    let report = damaged.recover("public.events", &["--put-back"]);
    assert_eq!(report["made"]["partitions"], 3, "{report:#}");
    assert_eq!(
        (&report["rows"], &report["put_back"]["rows"]),
        (&json!(300), &json!(300))
    );
    assert!(
        damaged.same("kept_events", "events_recovered") && damaged.same("kept_events", "events")
    );
    let parts = "select count(*) from pg_partition_tree('events_recovered')";
    assert_eq!(damaged.cluster.sql(parts), "4");
    let secure = "select string_agg(relname, ' ' order by relname) from pg_class where relrowsecurity and relname like 'ev%'";
    assert_eq!(damaged.cluster.sql(secure), "events_1 events_recovered_1");
}

fn dropped(damaged: &Damaged) {
    let name = "My \"Odd\".Table";
    let found = damaged
        .walden
        .json(["find", "--relation", "public.*", "--kind", "drop"]);
    let event = found["events"][0]["id"]
        .as_str()
        .expect("an event")
        .to_string();
    let arguments = [
        "recover",
        "table",
        name,
        "--before",
        &event,
        "--as",
        "it's \"back\"",
    ];
    let report = damaged.walden.json(arguments);
    assert_eq!(report["comparison"], Value::Null, "{report:#}");
    assert_eq!(
        report["also_made"],
        json!(["type public.Odd \"Kind\""]),
        "{report:#}"
    );
    let table = r#"public."it's ""back""""#;
    let rows = format!("(select \"Key One\", \"select\"::text, \"ü\" from {table})");
    let same = format!("select count(*) from (table kept_odd except all {rows}) d");
    assert_eq!(damaged.cluster.sql(&same), "0");
    let sql = report["put_back"]["sql"].as_array().unwrap();
    sql.iter()
        .for_each(|sql| drop(damaged.cluster.sql(sql.as_str().unwrap())));
    let next = r#"insert into "My ""Odd"".Table"("select") values ('a''b') returning "Key One""#;
    assert_eq!(damaged.cluster.sql(next), "21");
    let named = r#"select string_agg(relname, ' ' order by relname) from pg_class where relname like 'My%' and relkind <> 'r'"#;
    assert_eq!(
        damaged.cluster.sql(named),
        r#"My "Odd".Table_Key One_seq My "Odd".Table_pkey"#
    );
}

fn without_a_key(damaged: &Damaged) {
    let report = damaged.recover("log", &["--rows-only", "--put-back"]);
    let comparison = &report["comparison"];
    let counts = ["missing", "changed", "same", "added"].map(|what| comparison[what].as_u64());
    assert_eq!(counts, [Some(4), None, Some(27), Some(1)], "{report:#}");
    assert_eq!(report["put_back"]["rows"], 4);
    assert!(damaged.same("kept_log", "log_recovered"));
    damaged.cluster.sql("delete from log where line = 'new'");
    assert!(damaged.same("kept_log", "log"));
}

fn from_a_dump(damaged: &Damaged) {
    // The type is there again; the roles in the dump are, as they were.
    let arguments = [
        "recover",
        "table",
        "shop.orders",
        "--from-dump",
        "--as",
        "of_dump",
    ];
    let report = damaged.walden.json(arguments);
    assert_eq!(report["rows"], 1000, "{report:#}");
    assert!(damaged.same("kept", "shop.of_dump"));
    assert_eq!(
        left(&report, "foreign key")[0]["name"],
        "orders_customer_fkey",
        "{report:#}"
    );
    assert_eq!(report["comparison"]["missing"], 0, "{report:#}");
}

/// It comes back for its owner alone, who else may not even run it.
fn needing_what_is_gone(damaged: &Damaged) {
    let report = damaged.recover("shop.child", &["--put-back"]);
    assert_eq!(report["rows"], 20, "{report:#}");
    let made = report["also_made"].as_array().unwrap();
    for what in ["sequence shop.numbers", "function shop.is_right(bigint)"] {
        assert!(made.contains(&json!(what)), "{report:#}");
    }
    let cluster = &damaged.cluster;
    assert_eq!(cluster.sql("select nextval('shop.numbers')"), "21");
    let rights =
        "select proowner::regrole, prosecdef, proacl from pg_proc where proname = 'is_right'";
    assert_eq!(cluster.sql(rights), "clerk|t|{clerk=X/clerk}");
    let owner = "select relowner::regrole from pg_class where relname = 'child'";
    assert_eq!(cluster.sql(owner), "clerk");
    let sql = |what| left(&report, what)[0]["sql"].as_str().unwrap_or_default();
    cluster.sql(sql("inheritance"));
    assert_eq!(cluster.sql("select count(*) from shop.parent"), "20");
    cluster.sql(sql("view that reads it"));
    let options = "select reloptions from pg_class where relname = 'children'";
    assert_eq!(cluster.sql(options), "{security_barrier=true}");
}

fn all_rows_or_none(damaged: &Damaged) {
    let cluster = &damaged.cluster;
    let report = damaged.recover("shop.tickets", &[]);
    let script = script(&report);
    let stands = || cluster.sql("select last_value from shop.tickets_id_seq");
    let refused = |why: &str| {
        let said = cluster.try_sql(&script).stderr;
        assert!(said.contains(why), "{why}: {said}");
        assert_eq!(stands(), "5");
    };
    refused("value too long");
    cluster.sql("alter table shop.tickets alter code type varchar(9)");
    cluster.sql("insert into shop.tickets values (999, 't7')");
    refused("duplicate key");
    cluster.sql("delete from shop.tickets where id = 999");
    cluster.sql(
        "create function shop.skip() returns trigger language plpgsql as \
         $$ begin if new.id = 7 then return null; end if; return new; end $$; \
         create trigger skip before insert on shop.tickets for each row execute function shop.skip()",
    );
    let arguments = ["recover", "table", "shop.tickets", "--name", "before"];
    let arguments = [&arguments[..], &["--as", "tickets2", "--put-back"]].concat();
    let said = damaged.walden.refused(1, arguments);
    assert!(said.contains("only 4 of 5 missing rows went in"), "{said}");
    assert_eq!(stands(), "5");
    cluster.sql("drop trigger skip on shop.tickets");
    cluster.sql(&script);
    assert_eq!(cluster.sql("select count(*) from shop.tickets"), "11");
    // Not at the 1000 that somebody chose since.
    assert_eq!(stands(), "10");
}
