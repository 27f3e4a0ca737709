//! Who runs Walden: root leaves nothing that the repository's user cannot use, others make nothing there, and one backup
//! that cannot be read leaves the others usable.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown};
use std::path::{Path, PathBuf};

use crate::harness::{Cluster, Major, Scratch, ServerUser, Walden, server_user, wait_until};

/// Everything below a folder that does not belong to the user.
fn others(folder: &Path, user: ServerUser) -> Vec<PathBuf> {
    let (mut waiting, mut found) = (vec![folder.to_path_buf()], Vec::new());
    while let Some(path) = waiting.pop() {
        let meta = fs::symlink_metadata(&path).expect("look at it");
        if meta.is_dir() {
            waiting.extend(
                fs::read_dir(&path)
                    .expect("list")
                    .map(|entry| entry.expect("an entry").path()),
            );
        }
        if meta.uid() != user.uid {
            found.push(path);
        }
    }
    found
}

/// A command of this operator's that answers "no such file" for a segment far away.
fn proves_absence(walden: &Walden, scratch: &Scratch) {
    let wanted = scratch.join("fetched");
    let output = walden.run([
        "wal",
        "fetch",
        "0000000100000000000000F0",
        &wanted.display().to_string(),
    ]);
    assert_eq!(output.code, Some(1), "{}", output.stderr);
}

#[test]
fn root_leaves_nothing_that_the_repositorys_user_cannot_use() {
    let Some(user) = server_user() else {
        return eprintln!("skipped: only root can run this");
    };
    let scratch = Scratch::new("root");
    let mut cluster = Cluster::builder(Major::newest())
        .segment_mib(1)
        .setting("wal_keep_size", "1GB")
        .start(&scratch);
    let walden = Walden::beside(&scratch, &cluster);
    let url = format!("file://{}", walden.repository.display());
    // A configuration file of root's own making, too.
    let made = Walden::by(
        &scratch,
        scratch.join("made/by root.toml"),
        walden.repository.clone(),
    );
    let said = made.as_root([
        "init",
        "--repository",
        &url,
        "--cluster",
        "main",
        "--dsn",
        &cluster.dsn(),
    ]);
    assert!(
        said.success() && !said.stdout.contains("chown"),
        "{}{}",
        said.stdout,
        said.stderr
    );
    assert_eq!(
        fs::metadata(&made.config).expect("the file").mode() & 0o777,
        0o600
    );
    assert_eq!(others(&made.config, user), [] as [PathBuf; 0]);
    cluster.archive_with(&walden);
    let archived = cluster.archive_now();
    let took = walden.as_root(["backup", "take"]);
    assert!(took.success(), "{}", took.stderr);
    // A push that makes a folder anew.
    fs::remove_dir_all(walden.repository.join("main/wal/0000000100000000"))
        .expect("remove a folder of WAL");
    let segment = cluster.data.join("pg_wal").join(&archived);
    let pushed = walden.as_root(["wal", "push", &segment.display().to_string()]);
    assert!(pushed.success(), "{}", pushed.stderr);
    let fetched = cluster.data.join("pg_wal/by-root");
    let arguments = ["wal", "fetch", &archived, &fetched.display().to_string()];
    assert!(walden.as_root(arguments).success());
    fs::metadata(&fetched).expect("the fetched file");
    for folder in [&walden.repository, &scratch.join("cache"), &fetched] {
        assert_eq!(others(folder, user), [] as [PathBuf; 0]);
    }
    fs::remove_file(&fetched).expect("remove it");
    cluster.archive_now();
    walden.ok(["backup", "take"]);
    walden.ok(["backup", "list"]);
    walden.ok(["target"]);
    proves_absence(&walden, &scratch);
    // Another service could not take root's socket over, and hooks would get no answer.
    let refused = walden.as_root(["serve"]);
    assert!(
        refused.code == Some(1) && refused.stderr.contains("run `walden serve` as user"),
        "{}",
        refused.stderr
    );
    assert!(!walden.socket.exists() && !walden.socket.with_extension("sock.lock").exists());
    // Root's copy of it is this user's, too.
    let copy = scratch.join("second copy");
    let copied = walden.as_root([
        "repo",
        "copy",
        "--to",
        &format!("file://{}", copy.display()),
    ]);
    assert_eq!(
        others(&copy, user),
        [] as [PathBuf; 0],
        "{}{}",
        copied.stdout,
        copied.stderr
    );
}

#[test]
fn roots_init_takes_no_folder_in_use_and_says_what_to_give_where_it_does_not_know_to_whom() {
    let Some(_) = server_user() else {
        return eprintln!("skipped: only root can run this");
    };
    let scratch = Scratch::new("root");
    let cluster = Cluster::builder(Major::newest()).start(&scratch);
    let walden = Walden::beside(&scratch, &cluster);
    // Root's, and something else lies there.
    fs::create_dir_all(walden.repository.join("something")).expect("make a folder");
    let refused = walden.as_root(["init"]);
    assert!(
        refused.code == Some(1)
            && refused
                .stderr
                .contains("HINT: name a folder below it, or run: chown ")
    );
    assert_eq!(
        fs::read_dir(&walden.repository).expect("list").count(),
        1,
        "nothing was made"
    );
    fs::remove_dir_all(&walden.repository).expect("remove it");
    // Root's, and empty: it is what was meant.
    fs::create_dir(&walden.repository).expect("make a folder");
    assert!(walden.as_root(["init"]).success());
    walden.ok(["repo", "stats"]);
    fs::remove_dir_all(&walden.repository).expect("remove it");
    // A role that is not told where the data directory is.
    cluster.sql("create role plain login replication");
    let dsn = cluster.dsn().replace("user=walden", "user=plain");
    let of_root = scratch.join("of root");
    fs::create_dir(&of_root).expect("make a folder");
    let mut command = walden.root_command(["init"]);
    command.env("WALDEN_POSTGRESQL__DSN", dsn);
    command.env(
        "WALDEN_REPOSITORY__URL",
        format!("file://{}/repo", of_root.display()),
    );
    let output = command.output().expect("run walden");
    let said = String::from_utf8_lossy(&output.stdout);
    let expected = format!("chown -R postgres '{}/repo'", of_root.display());
    assert!(
        output.status.success() && said.contains(&expected),
        "{said}"
    );
}

#[test]
fn another_user_makes_nothing_in_a_repository_that_both_may_write_to() {
    let Some(user) = server_user() else {
        return eprintln!("skipped: only root can run this");
    };
    let scratch = Scratch::new("group");
    let mut cluster = Cluster::builder(Major::newest())
        .segment_mib(1)
        .setting("wal_keep_size", "1GB")
        .start(&scratch);
    let walden = Walden::beside(&scratch, &cluster);
    walden.ok(["init"]);
    cluster.archive_with(&walden);
    let archived = cluster.archive_now();
    let open = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("open it")
    };
    open(scratch.path(), 0o755);
    open(&walden.config, 0o640);
    let mut waiting = vec![walden.repository.clone()];
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(
                fs::read_dir(&path)
                    .expect("list")
                    .map(|entry| entry.expect("an entry").path()),
            );
        }
        open(&path, if path.is_dir() { 0o2770 } else { 0o660 });
    }
    // It is to be archived by another member of the group.
    fs::remove_file(walden.segment_object(&archived)).expect("take it out of the archive");
    let copy = scratch.join(&archived);
    fs::copy(cluster.data.join("pg_wal").join(&archived), &copy).expect("copy a segment");
    open(&copy, 0o644);
    let other = ServerUser {
        uid: 65_534,
        gid: user.gid,
    };
    let refused = walden.as_user(other, ["wal", "push", &copy.display().to_string()]);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    let told = ["belongs to user", "HINT: run this as user"]
        .iter()
        .all(|part| refused.stderr.contains(part));
    assert!(told, "{}", refused.stderr);
    assert_eq!(others(&walden.repository, user), [] as [PathBuf; 0]);
    // Whose it is, may.
    walden.ok(["wal", "push", &copy.display().to_string()]);
}

/// Two backups, of which the second will not be given by the store.
fn with_an_unreadable_backup(scratch: &Scratch) -> (Cluster, Walden, String, PathBuf) {
    let mut cluster = Cluster::builder(Major::newest())
        .segment_mib(1)
        .start(scratch);
    let walden = Walden::beside(scratch, &cluster);
    walden.ok(["init"]);
    cluster.archive_with(&walden);
    let take = || {
        walden.json(["backup", "take"])["id"]
            .as_str()
            .expect("an id")
            .to_string()
    };
    let first = take();
    let second = walden.repository.join("main/base").join(take());
    cluster.archive_now();
    match server_user() {
        Some(_) => chown(&second, Some(0), Some(0)).expect("give it to root"),
        None => fs::set_permissions(&second, fs::Permissions::from_mode(0o000)).expect("close it"),
    }
    (cluster, walden, first, second)
}

#[test]
fn one_backup_that_cannot_be_read_is_told_and_leaves_the_others_usable() {
    let scratch = Scratch::new("unreadable");
    let (cluster, walden, first, second) = with_an_unreadable_backup(&scratch);
    let id = second
        .file_name()
        .expect("a name")
        .to_string_lossy()
        .into_owned();
    let json = |arguments: &[&str], code: i32| -> serde_json::Value {
        let output = walden.run([&["--format", "json"], arguments].concat());
        assert_eq!(
            output.code,
            Some(code),
            "{arguments:?}: {}{}",
            output.stdout,
            output.stderr
        );
        serde_json::from_str(&output.stdout).expect("a document")
    };
    let listed = json(&["backup", "list"], 3);
    assert_eq!(
        (&listed["backups"][0]["id"], &listed["unread"][0]["id"]),
        (&first.clone().into(), &id.clone().into())
    );
    assert!(
        listed["unread"][0]["why"]
            .as_str()
            .is_some_and(|why| why.contains("Permission denied"))
    );
    // The plan says that a newer one was passed over.
    let to_dir = scratch.join("restored").display().to_string();
    let plan = walden.ok(["restore", "--latest", "--dry-run", "--to-dir", &to_dir]);
    assert!(
        plan.contains(&first) && plan.contains(&id) && plan.contains("it cannot be read"),
        "{plan}"
    );
    walden.ok(["target"]);
    proves_absence(&walden, &scratch);
    let stats = walden.ok(["repo", "stats"]);
    assert!(
        stats.contains(&format!("UNREAD, not counted: folder \"main/base/{id}/\"")),
        "{stats}"
    );
    let verified = json(&["repo", "verify"], 3);
    let told: Vec<&str> = verified["findings"]
        .as_array()
        .expect("findings")
        .iter()
        .filter_map(|one| one["problem"].as_str())
        .collect();
    assert!(
        !told.is_empty() && told.iter().all(|problem| *problem == "unread"),
        "{verified:#}"
    );
    let copied = walden.run([
        "repo",
        "copy",
        "--to",
        &format!("file://{}", scratch.join("copy").display()),
    ]);
    assert!(
        copied.code == Some(3) && copied.stdout.contains("UNREAD"),
        "{}{}",
        copied.stdout,
        copied.stderr
    );
    let checked = walden.run(["check", "--check", "owner"]);
    if server_user().is_some() {
        assert_eq!(checked.code, Some(2), "{}", checked.stdout);
        assert!(
            checked.stdout.contains(&id) && checked.stdout.contains("chown -R"),
            "{}",
            checked.stdout
        );
    }
    // The second that named the unreadable one, which may lie ahead of the clock, must be over: nobody may write there.
    std::thread::sleep(std::time::Duration::from_secs(1));
    // A new one can be taken, and deleted where nobody can tell whether the unread one needs it only by force.
    walden.expect_log("cannot look for leftovers");
    walden.ok(["backup", "take"]);
    cluster.archive_now();
    let output = walden.run([
        "restore",
        "--backup",
        &first,
        "--immediate",
        "--to-dir",
        &to_dir,
    ]);
    assert!(output.success(), "{}", output.stderr);
    // Given back, it is as good as before.
    match server_user() {
        Some(user) => lchown(&second, Some(user.uid), Some(user.gid)).expect("give it back"),
        None => fs::set_permissions(&second, fs::Permissions::from_mode(0o700)).expect("open it"),
    }
    wait_until("all are complete", || {
        walden.json(["backup", "list"])["backups"]
            .as_array()
            .map(Vec::len)
            == Some(3)
    });
}
