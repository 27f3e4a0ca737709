//! One table back: row for row, beside the present one, and nothing of the present is touched unless that is asked for.

mod interrupted;
mod refused;
mod row_for_row;
mod shop;

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::harness::{Cluster, Major, Scratch, Walden};
use crate::restore::{register, take_backup};
use shop::{DAMAGE, SHOP};

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

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none())
}
