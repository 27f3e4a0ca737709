//! A recovery that is ended or killed: what it leaves on the server and in its folder.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::{Damaged, damaged, is_empty};
use crate::harness::{Major, Scratch, wait_until};

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
