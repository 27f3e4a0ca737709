//! The API against its own description, by schemathesis: requests made of the description, right and wrong ones.

use std::path::Path;
use std::process::Command;

use super::{TOKEN, curl, registered};
use crate::harness::{Scratch, say_skipped, wait_until};
use crate::restore::take_backup;

/// Everything that schemathesis checks but two: that what the description allows is accepted, since it cannot say that of
/// several targets one is to be given; and that deleted things are gone, since nothing is ever deleted here.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
                      response_schema_conformance,negative_data_rejection,unsupported_method,ignored_auth";

#[test]
fn answers_are_as_the_description_says() {
    let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/http/schemathesis");
    if !tool.exists() {
        return say_skipped(
            "HTTP against its description: skipped (tests/http-tools brings schemathesis)",
        );
    }
    let scratch = Scratch::new("described");
    let (port, cluster, walden) = registered(&scratch);
    let channels = scratch.write(
        "alerts.toml",
        "[[command]]\nname = \"note\"\ncommand = [\"cat\"]\n",
    );
    // So that there is something to describe.
    let service = walden.serve_with(&[
        ("WALDEN_ALERTS__FILE", &channels.display().to_string()),
        ("WALDEN_ALERTS__INTERVAL", "1s"),
        ("WALDEN_ALERTS__HOLD", "0s"),
        ("WALDEN_HEALTH__BACKUP_AGE", "1s"),
    ]);
    cluster.open_ledger();
    take_backup(&walden);
    walden.ok(["dump", "take", "--database", "postgres"]);
    cluster.burst(2, 10);
    cluster.archive_now();
    wait_until("the service has read the backup", || {
        port.json("/v1/clusters/main")["last_backup"].is_object()
    });
    wait_until("an alert fires", || {
        port.json("/v1/clusters/main/alerts")["firing"][0].is_object()
    });
    wait_until("a plan of retention is made", || {
        let path = "/v1/clusters/main/retention-plan";
        curl(&port.url(), path, Some(TOKEN), &[]).0 == 200
    });
    // Random names of WAL files may be such as were lost.
    walden.expect_log("is missing");
    let output = Command::new("python3")
        .env("PYTHONPATH", &tool)
        .args([
            "-m",
            "schemathesis.cli",
            "run",
            "--checks",
            CHECKS,
            "--max-examples",
            "40",
            "--no-color",
            "--workers",
            "2",
        ])
        .arg("--header")
        .arg(format!("Authorization: Bearer {TOKEN}"))
        .arg(format!("{}/v1/openapi.json", port.url()))
        .current_dir(std::env::temp_dir())
        .output()
        .expect("run schemathesis");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let paths = port.json("/v1/openapi.json")["paths"]
        .as_object()
        .map_or(0, serde_json::Map::len);
    assert!(
        paths > 0 && said.contains(&format!("Tested: {paths}")),
        "there are {paths} paths: {said}"
    );
    service.stop();
}
