//! Where a repository may lie: not in what it protects, nor around it.

use std::fs;
use std::os::unix::fs::symlink;

use crate::harness::{Cluster, Major, Scratch, Walden};

#[test]
fn a_repository_lies_neither_in_the_servers_folders_nor_around_them() {
    let scratch = Scratch::new("inside");
    let mut cluster = Cluster::builder(Major::newest())
        .segment_mib(1)
        .start(&scratch);
    let fast = scratch.folder("fast");
    cluster.sql(&format!(
        "create tablespace fast location '{}'",
        fast.display()
    ));
    let walden = Walden::beside(&scratch, &cluster);
    let link = scratch.join("link");
    symlink(&cluster.data, &link).expect("make a link");
    let url = |path: &std::path::Path| format!("file://{}", path.display());
    let init = |path: &std::path::Path| {
        let mut command = walden.command(["init"]);
        let output = command
            .env("WALDEN_REPOSITORY__URL", url(path))
            .output()
            .expect("run walden");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let inside = [
        (cluster.data.join("backups"), "data directory"),
        (link.join("not/there yet"), "data directory"),
        (fast.join("x"), "tablespace"),
        (cluster.data.join("pg_wal/x"), "data directory"),
        (scratch.path().to_path_buf(), "data directory"),
    ];
    for (path, what) in &inside {
        let (code, said) = init(path);
        assert_eq!(code, Some(1), "{}: {said}", path.display());
        assert!(
            said.contains(what) && said.contains("HINT: choose a folder outside"),
            "{said}"
        );
        assert!(!path.join("walden.json").exists());
    }
    walden.ok(["init"]);
    cluster.archive_with(&walden);
    walden.ok(["backup", "take"]);
    cluster.archive_now();
    for to in [
        walden.repository.join("copy"),
        link.join("copy"),
        fast.join("copy"),
        scratch.path().to_path_buf(),
    ] {
        let said = walden.refused(1, ["repo", "copy", "--to", &url(&to)]);
        assert!(said.contains(" lies in "), "{said}");
        assert!(!to.join("walden.json").exists(), "{}", to.display());
    }
    let said = walden.run(["check", "--check", "place"]);
    assert!(
        said.code == Some(1) && said.stdout.contains("on one disk with the data directory"),
        "{}",
        said.stdout
    );
    // One that was made there before, or moved there, takes no further backup.
    fs::rename(&walden.repository, cluster.data.join("backups")).expect("move the repository");
    symlink(cluster.data.join("backups"), &walden.repository).expect("make a link");
    let said = walden.run(["check", "--check", "place"]);
    assert!(
        said.code == Some(2) && said.stdout.contains("walden repo copy --to"),
        "{}",
        said.stdout
    );
    let said = walden.refused(1, ["backup", "take"]);
    assert!(said.contains("lies in the data directory"), "{said}");
    cluster.archive_now();
    // And the way out that the hint names.
    walden.ok(["repo", "copy", "--to", &url(&scratch.join("outside"))]);
    // What the service keeps has no place there, either.
    let mut command = walden.command(["check", "--check", "place"]);
    let outside = scratch.join("outside");
    command
        .env("WALDEN_REPOSITORY__URL", url(&outside))
        .env("WALDEN_CATALOG__CACHE", outside.join("cache"));
    let output = command.output().expect("run walden");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.code() == Some(1) && said.contains("`catalog.cache`"),
        "{said}"
    );
}
