//! Drills and records over HTTP, on the page and in the report, as somebody reads them in a browser.

use std::fs;

use serde_json::Value;

use super::page::fits;
use super::{Port, TOKEN};
use crate::harness::{Browser, Cluster, Major, Scratch, Walden, wait_until};
use crate::restore::{register, take_backup};

/// A service of a cluster that was restored by itself: once, and once slower than wanted.
fn drilled(scratch: &Scratch) -> (Port, Cluster, Walden) {
    let (port, major) = (Port::new(scratch), Major::with_clients());
    let mut cluster = Cluster::builder(major.clone())
        .segment_mib(1)
        .start(scratch);
    let settings = format!(
        "{}drill.folder = \"{}\"\ndrill.programs = \"{}\"\ndrill.memory = \"16MiB\"\n",
        port.settings(scratch),
        scratch.join("drills").display(),
        major.bin().display()
    );
    let walden = Walden::with(scratch, &cluster, &settings);
    register(&mut cluster, &walden);
    take_backup(&walden);
    cluster.sql("create table orders(id int)");
    cluster.archive_now();
    walden.ok(["drill", "run"]);
    let text = fs::read_to_string(&walden.config).expect("the settings");
    let slower = "drill.rto_target = \"1s\"\ndrill.command = [\"sleep\", \"1\"]\n";
    fs::write(&walden.config, text + slower).expect("change them");
    walden.refused(3, ["drill", "run"]);
    (port, cluster, walden)
}

#[test]
fn drills_are_told_over_http_and_shown_with_the_command_that_runs_one() {
    let scratch = Scratch::new("drilled");
    let (port, _cluster, walden) = drilled(&scratch);
    let service = walden.serve();
    let verdicts = || {
        let (status, body) = super::curl(&port.url(), "/v1/clusters/main/drills", Some(TOKEN), &[]);
        let answer: Value = serde_json::from_str(&body).expect("JSON");
        let drills = answer["drills"].as_array().cloned().unwrap_or_default();
        let verdicts = drills.iter().map(|drill| drill["verdict"].to_string());
        (status, verdicts.collect::<Vec<_>>().join(" "))
    };
    wait_until("both drills are told", || {
        verdicts() == (200, "\"failed\" \"passed\"".into())
    });
    let drills = port.json("/v1/clusters/main/drills");
    assert_eq!(drills["rto_target_seconds"], 1.0);
    let records = port.json("/v1/clusters/main/evidence?act=configuration");
    assert_eq!(records["records"].as_array().map(Vec::len), Some(2));
    if let Some(browser) = Browser::start() {
        on_the_page(&browser, &port);
        in_the_report(&browser, &scratch, &walden);
    }
    service.stop();
}

fn on_the_page(browser: &Browser, port: &Port) {
    browser.resize(1280, 900);
    browser.open(&format!("{}/", port.url()));
    browser.fill("#token", TOKEN);
    browser.click("button.primary");
    browser.wait_for("#drills table");
    fits(browser);
    let (state, drills) = (browser.text("#state"), browser.text("#drills"));
    assert!(
        state.contains("Last drill") && state.contains("failed"),
        "{state}"
    );
    assert!(
        drills.contains("RTO") && drills.contains("wanted at most 1 s"),
        "{drills}"
    );
    assert!(browser.has("#line .drill.lost"));
    browser.allow_clipboard(&port.url());
    browser.click("[data-copy='drill-command']");
    wait_until("the page says that it is copied", || {
        browser.text("[data-copy='drill-command']") == "Copied"
    });
    let copied = browser.run("return navigator.clipboard.readText()");
    assert_eq!(copied, "walden drill run");
    browser.picture("drills-light");
    browser.prefer("dark");
    browser.picture("drills-dark");
    browser.resize(390, 844);
    fits(browser);
    browser.picture("drills-390-dark");
    assert_eq!(browser.complaints(), [""; 0]);
}

/// The report needs nothing but itself: here it is a file.
fn in_the_report(browser: &Browser, scratch: &Scratch, walden: &Walden) {
    let page = walden.ok(["evidence", "export", "--format", "html"]);
    let file = scratch.write("report.html", &page);
    browser.resize(1280, 900);
    browser.open(&format!("file://{}", file.display()).replace(' ', "%20"));
    browser.picture("report-dark");
    browser.prefer("light");
    browser.picture("report-light");
    let shown = browser.text("body");
    for part in [
        "SOC 2 CC9.1",
        "not met",
        "could not run",
        "No record was removed",
    ] {
        assert!(
            shown.to_lowercase().contains(&part.to_lowercase()),
            "{part}: {shown}"
        );
    }
    assert!(browser.has(".chart circle"));
    browser.resize(390, 844);
    browser.picture("report-390");
    assert_eq!(browser.complaints(), [""; 0]);
}
