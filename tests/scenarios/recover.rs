//! One table back: row for row, beside the present one, and nothing of the present is touched unless that is asked for.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

use crate::harness::{Cluster, Major, Scratch, Walden, outer_majors, wait_until};
use crate::restore::{register, take_backup};

const SHOP: &str = r#"
    create role clerk; create role gone;
    create schema shop;
    create type shop.state as enum ('open', 'paid');
    create table shop.customers(id int primary key, name text);
    insert into shop.customers select n, 'c' || n from generate_series(1, 50) n;
    create function shop.note() returns trigger language plpgsql as $$ begin return new; end $$;
    create table shop.orders(
        id bigint generated always as identity primary key, customer int references shop.customers,
        state shop.state not null default 'open', total numeric(10, 2) not null check (total >= 0),
        double numeric generated always as (total * 2) stored, body text, at timestamptz default now());
    create index by_state on shop.orders(state, (left(body, 8)));
    create statistics shop.orders_stat on customer, state from shop.orders;
    create trigger note before insert on shop.orders for each row execute function shop.note();
    alter table shop.orders enable row level security;
    create policy mine on shop.orders for select to clerk using (customer < 10);
    create view shop.open_orders as select id from shop.orders where state = 'open';
    grant select on shop.orders to clerk; grant update (body) on shop.orders to gone;
    comment on table shop.orders is 'what is ordered'; comment on column shop.orders.total is 'in €';
    -- Some bodies are TOASTed: they do not compress.
    insert into shop.orders(customer, state, total, body)
        select n % 50 + 1, (array['open', 'paid']::shop.state[])[n % 2 + 1], n,
            (select string_agg(md5((n * g)::text), '') from generate_series(1, case when n % 100 = 0 then 500 else 1 end) g)
        from generate_series(1, 1000) n;

    create table events(day date not null, id int not null, what text, primary key (day, id)) partition by range (day);
    create table events_1 partition of events for values from ('2026-01-01') to ('2026-02-01');
    create table events_2 partition of events for values from ('2026-02-01') to ('2026-03-01') partition by list (id);
    create table events_2a partition of events_2 default;
    create index on events(what);
    insert into events select date '2026-01-15' + n % 30, n, 'w' || n from generate_series(1, 300) n;

    create type "Odd ""Kind""" as enum ('a''b', 'C d');
    create table "My ""Odd"".Table"("Key One" serial primary key, "select" "Odd ""Kind""", "ü" int[]);
    insert into "My ""Odd"".Table"("select", "ü") select 'C d', array[n, null] from generate_series(1, 20) n;

    create table log(line text, number numeric);
    insert into log select 'x' || n % 3, case when n % 3 > 0 then n % 3 end from generate_series(1, 30) n;

    alter table shop.orders force row level security; alter table events_1 enable row level security;
    create table event_notes(day date, id int, foreign key (day, id) references events);
    insert into event_notes select day, id from events;

    create sequence shop.numbers;
    create function shop.is_right(bigint) returns bool language sql security definer as 'select $1 > 0';
    alter function shop.is_right(bigint) owner to clerk;
    create function shop.as_clerk(bigint) returns text language plpgsql immutable as $$ begin
        if current_user <> 'clerk' then raise exception 'it runs as %', current_user; end if; return ''; end $$;
    create table shop.parent(note text);
    create table shop.child(no bigint primary key default nextval('shop.numbers'), check (shop.is_right(no))) inherits (shop.parent);
    create view shop.children with (security_barrier) as select no from shop.child;
    insert into shop.child(note) select 'n' || n from generate_series(1, 20) n;
    alter table shop.child owner to clerk; create index on shop.child(shop.as_clerk(no));
    create function shop.is_lost(int) returns bool language sql as 'select true';
    alter function shop.is_lost(int) owner to gone;
    create table shop.of_gone(id int check (shop.is_lost(id)));

    create table shop.tickets(id serial primary key, code varchar(9) unique);
    insert into shop.tickets(code) select 't' || n from generate_series(1, 10) n;
"#;

const DAMAGE: &str = r#"
    delete from shop.orders where id between 11 and 40;
    update shop.orders set body = 'wrong' where id in (50, 100);
    insert into shop.orders(customer, total) values (9, 1), (9, 2), (9, 3);
    truncate events, event_notes;
    drop table "My ""Odd"".Table"; drop type "Odd ""Kind""";
    delete from log where ctid in (select ctid from log where line = 'x0' limit 4);
    insert into log values ('new', 1);
    alter table shop.orders disable trigger all;
    alter table shop.orders drop constraint orders_customer_fkey; delete from shop.customers where id = 21;
    drop table shop.of_gone; drop function shop.is_lost;
    revoke all on shop.orders from gone; drop role gone;
    drop table shop.child cascade; drop function shop.is_right; drop sequence shop.numbers;
    delete from shop.tickets where id > 5; insert into shop.tickets values (1000, 'f');
    select setval('shop.tickets_id_seq', 5); alter table shop.tickets alter code type varchar(2);
    create function shop.shout(shop.state) returns text language plpgsql as $$ begin raise exception 'a cast'; end $$;
    create cast (shop.state as text) with function shop.shout(shop.state);
    alter default privileges in schema shop grant select on tables to public;
"#;

/// A damaged cluster, and what it held before as text by query.
struct Damaged {
    cluster: Cluster,
    walden: Walden,
}

fn damaged(scratch: &Scratch, major: &Major) -> Damaged {
    let mut cluster = Cluster::builder(major.clone())
        .segment_mib(1)
        .start(scratch);
    let settings = format!(
        "drill.folder = \"{}\"\ndrill.programs = \"{}\"\ndrill.memory = \"16MiB\"\ndump.programs = \"{}\"\n",
        scratch.join("drills").display(),
        major.bin().display(),
        major.bin().display(),
    );
    let walden = Walden::with(scratch, &cluster, &settings);
    register(&mut cluster, &walden);
    cluster.sql(SHOP);
    take_backup(&walden);
    cluster.sql("insert into log values ('behind the backup', 7)");
    cluster.sql("create table kept as select * from shop.orders");
    cluster.sql("create table kept_odd as select \"Key One\" k, \"select\"::text s, \"ü\" u from \"My \"\"Odd\"\".Table\"");
    cluster.sql("create table kept_events as select * from events");
    cluster.sql("create table kept_log as select * from log");
    walden.ok(["dump", "take", "--database", "postgres"]);
    cluster.sql("select pg_create_restore_point('before')");
    cluster.sql(DAMAGE);
    cluster.archive_now();
    Damaged { cluster, walden }
}

impl Damaged {
    fn recover(&self, table: &str, more: &[&str]) -> Value {
        let arguments = [&["recover", "table", table, "--name", "before"], more].concat();
        self.walden.json(arguments)
    }

    /// Whether two relations hold the same rows, copies counted.
    fn same(&self, one: &str, other: &str) -> bool {
        let both = format!(
            "select count(*) from ((table {one} except all table {other}) union all (table {other} except all table {one})) d"
        );
        self.cluster.sql(&both) == "0"
    }
}

fn left<'a>(report: &'a Value, what: &str) -> Vec<&'a Value> {
    let left = report["left_out"].as_array().expect("a list");
    left.iter().filter(|left| left["what"] == what).collect()
}

/// The SQL that puts back, as one transaction.
fn script(report: &Value) -> String {
    let sql = report["put_back"]["sql"].as_array().expect("statements");
    let sql: Vec<&str> = sql.iter().map(|sql| sql.as_str().unwrap()).collect();
    format!("begin; {}; commit", sql.join("; "))
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none())
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

#[test]
fn a_recovery_that_is_ended_leaves_nothing_and_one_that_is_killed_leaves_it_to_the_next() {
    let scratch = Scratch::new("recoverkill");
    let Damaged { cluster, walden } = damaged(&scratch, &Major::newest());
    let folder = scratch.join("drills");
    let slow = [
        "recover",
        "table",
        "orders",
        "--name",
        "before",
        "--where",
        "pg_catalog.pg_sleep(0.02) is not null",
    ];
    for (signal, is_left) in [(Signal::TERM, false), (Signal::KILL, true)] {
        let mut long = walden.command(slow);
        let mut child = long
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_until("the rows are on their way", || {
            let copies = "select count(*) from pg_stat_activity where query like 'COPY %' and state = 'active'";
            cluster.sql(copies) == "1"
        });
        std::thread::sleep(Duration::from_millis(100));
        rustix::process::kill_process(Pid::from_child(&child), signal).unwrap();
        assert!(!child.wait().unwrap().success());
        assert_eq!(!is_empty(&folder), is_left, "{signal:?}");
        wait_until("the server gives up what was half there", || {
            cluster.sql("select count(*) from pg_class where relname = 'orders_recovered'") == "0"
        });
    }
    walden.ok(["recover", "table", "orders", "--name", "before"]);
    assert!(is_empty(&folder));
}
