//! README.md and docs/operations are followed as they are written.

use std::path::Path;
use std::process::Command;

use crate::harness::{Cluster, Major, Scratch, Walden, finish};

/// In namespaces of its own: the commands name folders of the machine.
#[test]
fn the_commands_of_the_documents_work_as_they_are_written() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: README.md begins with commands of root");
    }
    let scratch = Scratch::new("documents");
    let cluster = Cluster::builder(Major::newest()).start(&scratch);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/documents");
    let mut follow = Command::new("unshare");
    follow.args(["--mount", "--net"]).arg(script);
    follow
        .arg(Walden::program("walden").parent().expect("a folder"))
        .arg(scratch.path())
        .arg(&cluster.data);
    // Some majors came without psql.
    let programs =
        [cluster.major.bin(), Major::with_clients().bin()].map(|bin| bin.display().to_string());
    follow.arg(programs.join(":"));
    follow
        .env("PGHOST", scratch.path())
        .env("PGPORT", cluster.port.to_string())
        .env("PGUSER", "walden")
        .env("PGDATABASE", "postgres");
    let output = finish(&mut follow);
    assert!(output.success(), "{}\n{}", output.stdout, output.stderr);
    assert!(
        output.stdout.contains("the documents work"),
        "{}",
        output.stdout
    );
}
