//! The page, as somebody uses it in a browser.

use std::time::Duration;

use serde_json::Value;

use super::{Port, TOKEN};
use crate::events::names_are_recorded;
use crate::harness::{Browser, Cluster, Major, Scratch, Walden, wait_until};
use crate::restore::{register, take_backup};

/// WebDriver's code points.
const TAB: &str = "\u{E004}";
const ENTER: &str = "\u{E007}";

/// Names as nobody should give them, which PostgreSQL allows.
const HOSTILE: [&str; 4] = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(2)>",
    "it's & \u{202E}drawkcab",
    "a name as long as names can be, which is sixty-three bytes long",
];

/// A service that tells what happened to a cluster.
struct Told {
    port: Port,
    walden: Walden,
    /// Last: the others lie in it.
    _scratch: Scratch,
}

impl Told {
    fn new() -> (Self, Cluster) {
        let scratch = Scratch::new("page");
        let port = Port::new(&scratch);
        let mut cluster = Cluster::builder(Major::with_clients())
            .segment_mib(1)
            .start(&scratch);
        let channels = scratch.write(
            "alerts.toml",
            "[[command]]\nname = \"note\"\ncommand = [\"cat\"]\n",
        );
        let settings = format!(
            "{}catalog.names_interval = \"1s\"\nschedule.dump = \"0 * * * *\"\nschedule.in_service = false\n\
             alerts.file = \"{}\"\nalerts.interval = \"1s\"\nalerts.hold = \"0s\"\n",
            port.settings(&scratch),
            channels.display()
        );
        let walden = Walden::with(&scratch, &cluster, &settings);
        register(&mut cluster, &walden);
        (
            Self {
                port,
                walden,
                _scratch: scratch,
            },
            cluster,
        )
    }

    /// Accidents under ordinary and hostile names, a gap in the WAL, and what followed.
    fn happen(&self, cluster: &mut Cluster) {
        cluster.open_ledger();
        cluster.sql("create schema sales");
        for table in ["sales.orders", "sales.customers", "public.items"] {
            cluster.sql(&format!(
                "create table {table}(id int); insert into {table} select generate_series(1, 500)"
            ));
        }
        for name in HOSTILE {
            cluster.sql(&format!("create table {}(id int)", quoted(name)));
        }
        take_backup(&self.walden);
        self.walden.ok(["dump", "take", "--database", "postgres"]);
        names_are_recorded(&self.walden);
        cluster.burst(2, 10);
        cluster.sql("drop table sales.orders");
        // Apart from each other on the time line, too.
        std::thread::sleep(Duration::from_secs(2));
        cluster.sql("select pg_create_restore_point('before it''s \"gone\" & <b>')");
        cluster.sql("delete from items");
        for name in HOSTILE {
            cluster.sql(&format!("drop table {}", quoted(name)));
            cluster.burst(1, 2);
        }
        cluster.archive_now();
        cluster.burst(2, 5);
        let lost = cluster.archive_now();
        cluster.burst(2, 5);
        cluster.archive_now();
        std::fs::remove_file(self.walden.segment_object(&lost)).expect("lose a segment");
        self.walden.expect_log("is missing");
        take_backup(&self.walden);
        cluster.burst(2, 5);
        std::thread::sleep(Duration::from_secs(2));
        cluster.sql("truncate sales.customers");
        cluster.burst(2, 5);
        cluster.archive_now();
    }

    /// Waits until the service tells of everything, and opens its page.
    fn open(&self, browser: &Browser) {
        wait_until("the service tells of both backups and all events", || {
            let backups = self.port.json("/v1/clusters/main/backups");
            let events = self.port.json("/v1/clusters/main/events");
            let is_last = |event: &Value| event["relation"] == "sales.customers";
            backups["backups"]
                .as_array()
                .is_some_and(|all| all.len() == 2)
                && events["events"]
                    .as_array()
                    .is_some_and(|all| all.iter().any(is_last))
        });
        wait_until("people are told of the gap", || {
            let alerts = self.port.json("/v1/clusters/main/alerts");
            alerts["firing"].as_array().is_some_and(|firing| {
                let is_told = |one: &Value| one["name"] == "WindowGap" && one["told"] == true;
                firing.iter().any(is_told)
            })
        });
        browser.open(&format!("{}/", self.port.url()));
        browser.fill("#token", TOKEN);
        browser.click("button.primary");
        browser.wait_for("#events table");
    }

    /// The name of the last event of a kind.
    fn event(&self, kind: &str, relation: &str) -> String {
        let found = self
            .walden
            .json(["find", "--kind", kind, "--relation", relation]);
        found["events"][0]["id"]
            .as_str()
            .unwrap_or_else(|| panic!("no {kind} of {relation}: {found}"))
            .to_string()
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The whole page fits in the width: nothing scrolls sideways, and every control can be hit with a finger.
#[track_caller]
pub fn fits(browser: &Browser) {
    let wide = browser.run(
        "const width = document.documentElement.clientWidth;
         return [...document.querySelectorAll('body *:not(svg *)')]
           .filter((it) => it.checkVisibility() && it.getBoundingClientRect().right > width + 1)
           .map((it) => it.outerHTML.slice(0, 200))",
    );
    assert_eq!(wide, serde_json::json!([]), "wider than the window");
    let small = browser.run(
        "return [...document.querySelectorAll('button, .button, select, input:not([type=hidden]):not([type=checkbox])')]
           .filter((it) => it.checkVisibility() && (it.offsetHeight || it.getBoundingClientRect().height) < 40)
           .map((it) => it.outerHTML)",
    );
    assert_eq!(small, serde_json::json!([]), "too small for a finger");
}

#[test]
fn the_page_leads_from_an_accident_to_the_command_that_undoes_it() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let (told, mut cluster) = Told::new();
    let service = told.walden.serve();
    told.happen(&mut cluster);
    browser.resize(1280, 900);
    browser.be_in("Asia/Kolkata");
    told.open(&browser);
    fits(&browser);
    assert!(
        !browser.address().contains(TOKEN),
        "a token is never in an address"
    );
    assert!(
        browser
            .text("#state")
            .contains("in a gap between base backups"),
        "{}",
        browser.text("#state")
    );
    assert!(
        browser.text("#events time + .local").contains("GMT+5:30"),
        "{}",
        browser.text("#events time + .local")
    );
    browser.picture("1280-light");
    for (part, text) in [
        ("#state", "Last dump"),
        ("#state", "1 job scheduled"),
        ("#alerts", "WindowGap"),
        ("#dumps", "postgres/postgres_"),
    ] {
        assert!(browser.text(part).contains(text), "{}", browser.text(part));
    }

    let dropped = told.event("drop", "orders");
    browser.click(&format!("[data-event='{dropped}']"));
    browser.wait_for("#plan .command");
    assert!(
        browser.address().ends_with("#plan"),
        "{}",
        browser.address()
    );
    assert_eq!(
        browser.run("return document.activeElement.id"),
        "plan",
        "a screen reader goes on there"
    );
    let plan = told.walden.json(["target", "--before", &dropped]);
    let shown = browser.text("#plan");
    let included = plan["plan"]["last_included"]["xid"].to_string();
    for part in [
        plan["target"].as_str(),
        plan["plan"]["backup"]["id"].as_str(),
        Some(&included),
    ] {
        assert!(
            part.is_some_and(|part| shown.contains(part)),
            "{part:?} is not in {shown}"
        );
    }
    let command = format!("walden restore --before {dropped} --to-dir DIR");
    assert_eq!(browser.text("#command"), command);
    browser.allow_clipboard(&told.port.url());
    browser.click("[data-copy]");
    wait_until("the page says that it is copied", || {
        browser.text("[data-copy]") == "Copied"
    });
    let copied = browser.run("return navigator.clipboard.readText()");
    assert_eq!(copied, command.as_str());
    browser.picture("1280-plan");

    browser.prefer("dark");
    browser.picture("1280-dark");
    browser.resize(390, 844);
    fits(&browser);
    browser.picture("390-dark");
    browser.prefer("light");
    browser.picture("390-light");
    assert_eq!(browser.complaints(), [""; 0]);
    drop(browser);
    service.stop();
}

#[test]
fn the_page_can_be_used_by_keys_and_by_pointer_and_without_scripts() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let (told, mut cluster) = Told::new();
    let service = told.walden.serve();
    told.happen(&mut cluster);
    browser.resize(1280, 900);
    told.open(&browser);
    assert!(!browser.has(".local"), "local time is UTC");
    by_keys(&browser, &told);
    by_pointer(&browser);
    hostile_names(&browser);
    assert_eq!(browser.complaints(), [""; 0]);
    without_scripts(&browser, &told);
    drop(browser);
    service.stop();
}

fn by_keys(browser: &Browser, told: &Told) {
    // The first stop leads past everything; the time line's own keys zoom.
    browser.press(TAB);
    assert_eq!(
        browser.run("return document.activeElement.textContent"),
        "Skip to choosing a moment"
    );
    assert_eq!(browser.label("#line [data-key='+']"), "Zoom in");
    browser.run("document.querySelector('#line [data-key=\"+\"]').focus()");
    let before = browser.address();
    browser.press(ENTER);
    wait_until("the time line is closer", || browser.address() != before);
    assert_eq!(
        browser.run("return document.activeElement.dataset.key"),
        "+",
        "the focus stays where it was"
    );
    browser.press("0");
    wait_until("the time line is whole", || {
        !browser.address().contains("from=")
    });

    let truncated = told.event("truncate", "sales.customers");
    browser.choose("#kind", "truncated");
    browser.click("#events button");
    let sign = format!("#line a.event[href*='{truncated}']");
    browser.wait_for(&sign);
    assert!(
        browser
            .label(&sign)
            .starts_with("the truncation of sales.customers, 20"),
        "{}",
        browser.label(&sign)
    );
    browser.run(&format!("document.querySelector(\"{sign}\").focus()"));
    browser.press(ENTER);
    browser.wait_for("#plan .command");
    assert_eq!(
        browser.text("#command"),
        format!("walden restore --before {truncated} --to-dir DIR")
    );
    assert!(browser.has("#line a.event.chosen") && browser.has("#events tr.chosen"));
    browser.picture("1280-chosen");

    browser.fill("#value", "2001-01-01 00:00:00");
    browser.choose("#by", "a time");
    browser.run("document.getElementById('value').focus()");
    browser.press(ENTER);
    browser.wait_for("#plan [role=alert]");
    assert!(
        browser
            .text("#plan")
            .contains("before the end of the oldest usable base backup"),
        "{}",
        browser.text("#plan")
    );
    browser.picture("1280-refused");
    browser.click("#plan .nearest a");
    browser.wait_for("#plan .command");
    browser.fill("#value", "yesterday");
    browser.choose("#by", "a time");
    browser.click("#choose button.primary");
    browser.wait_for("#plan [role=alert]");
    assert!(
        browser.text("#plan").contains("yesterday"),
        "{}",
        browser.text("#plan")
    );
}

fn by_pointer(browser: &Browser) {
    browser.choose("#kind", "all");
    browser.click("#events button");
    wait_until("all events are shown again", || {
        !browser.address().contains("kind=")
    });
    browser.click("#line rect.band");
    wait_until("the plan of a time is shown", || {
        browser.has("#command") && browser.text("#command").contains("--time '20")
    });
    let before = browser.run("return document.getElementById('line').dataset.from");
    browser.run(
        "const svg = document.querySelector('.drawing > svg'), box = svg.getBoundingClientRect();
         const at = {bubbles: true, cancelable: true, clientX: box.left + box.width / 2, clientY: box.top + 5};
         svg.dispatchEvent(new WheelEvent('wheel', {...at, ctrlKey: true, deltaY: -200}));",
    );
    wait_until("the address names the range that is shown", || {
        browser.address().contains("from=")
    });
    assert!(before != browser.run("return document.getElementById('line').dataset.from"));
    browser.click("#line [data-key='0']");
    wait_until("the time line is whole", || {
        !browser.address().contains("from=")
    });
}

fn hostile_names(browser: &Browser) {
    let subjects = browser
        .run("return [...document.querySelectorAll('#events bdi')].map((it) => it.textContent)");
    for name in HOSTILE {
        // What turns the direction of text is written out.
        let name = name.replace('\u{202e}', "\\u{202e}");
        let shown = subjects
            .as_array()
            .is_some_and(|all| all.iter().any(|it| *it == format!("public.{name}")));
        assert!(shown, "{name} is not in {subjects}");
    }
    let made = browser.run("return [document.scripts.length, document.images.length]");
    assert_eq!(made, serde_json::json!([1, 1]), "a name became an element");
}

fn without_scripts(browser: &Browser, told: &Told) {
    browser.allow_scripts(false);
    browser.open(&format!("{}/", told.port.url()));
    let deleted = told.event("delete", "items");
    browser.click(&format!("[data-event='{deleted}']"));
    browser.wait_for("#command");
    assert_eq!(
        browser.text("#command"),
        format!("walden restore --before {deleted} --to-dir DIR")
    );
    assert!(
        !browser.has("[data-copy]:not([hidden])"),
        "a button that does nothing is not shown"
    );
    browser.click("#line [data-key='+']");
    wait_until("the time line is closer", || {
        browser.address().contains("from=")
    });
    assert!(browser.address().contains(&deleted), "and the plan stays");
    browser.choose("#kind", "rows deleted");
    browser.click("#events button");
    wait_until("some events are shown", || {
        browser.address().contains("kind=delete")
    });
    assert!(
        browser.text("#events table").contains("public.items"),
        "zooming keeps what is chosen in the middle"
    );
    browser.click("header button");
    browser.wait_for("#token");
}
