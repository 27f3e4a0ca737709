//! HTTP as its users have it: curl, restore hosts, and a tool that knows nothing but the API's own description.

mod described;
mod drills;
mod health;
mod page;
mod prometheus;
mod restore;
mod talk;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::harness::{Cluster, Major, Scratch, Walden};
use crate::restore::register;

const TOKEN: &str = "a-token-for-these-tests";

/// Where the service listens, and the token that it wants.
pub struct Port {
    pub number: u16,
    pub token_file: PathBuf,
}

impl Port {
    /// A free one.
    pub fn new(scratch: &Scratch) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let number = listener.local_addr().expect("its address").port();
        Self {
            number,
            token_file: scratch.write("token", &format!("{TOKEN}\n")),
        }
    }

    /// Settings that open it.
    pub fn settings(&self, scratch: &Scratch) -> String {
        format!(
            "http.listen = \"127.0.0.1:{}\"\nhttp.token_file = \"{}\"\nhttp.spool = \"{}\"\nhttp.refresh_interval = \"1s\"\n",
            self.number,
            self.token_file.display(),
            scratch.join("spool").display()
        )
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.number)
    }

    /// The document at a path, which must be there.
    pub fn json(&self, path: &str) -> Value {
        let (status, body) = curl(&self.url(), path, Some(TOKEN), &[]);
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).expect("a JSON document")
    }
}

/// Walden beside a cluster, with HTTP.
pub fn walden(scratch: &Scratch, cluster: &Cluster, port: &Port) -> Walden {
    Walden::with(scratch, cluster, &port.settings(scratch))
}

/// A cluster that archives, with small segments, and the port of the service to be started.
pub fn registered(scratch: &Scratch) -> (Port, Cluster, Walden) {
    let port = Port::new(scratch);
    let mut cluster = Cluster::builder(Major::with_clients())
        .segment_mib(1)
        .start(scratch);
    let walden = walden(scratch, &cluster, &port);
    register(&mut cluster, &walden);
    (port, cluster, walden)
}

/// Asks by curl; status code and body.
pub fn curl(url: &str, path: &str, token: Option<&str>, further: &[&Path]) -> (u16, String) {
    let mut command = Command::new("curl");
    command.args([
        "--silent",
        "--show-error",
        "--max-time",
        "60",
        "--write-out",
        "\n%{http_code}",
    ]);
    if let Some(token) = token {
        command
            .arg("--header")
            .arg(format!("Authorization: Bearer {token}"));
    }
    let output = command
        .args(further)
        .arg(format!("{url}{path}"))
        .output()
        .expect("run curl");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').expect("a status code");
    assert!(
        output.status.success(),
        "curl {path}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    (status.parse().expect("a number"), body.to_string())
}
