//! A replacement lives on as its source did: it archives, is backed up, and is replaced in its turn.

use std::fs;
use std::path::{Path, PathBuf};

use super::{register, restore, take_backup};
use crate::harness::{Cluster, Major, Scratch, Stop, Walden, wait_until};

const FILES: [&str; 3] = ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"];

/// As Debian has it: the server begins in a folder of configuration, which names the data directory.
fn begin_in(etc: &Path, cluster: &mut Cluster) {
    let link = etc.join("postmaster.pid");
    fs::remove_file(&link).ok();
    std::os::unix::fs::symlink(cluster.data.join("postmaster.pid"), link)
        .expect("show pg_ctl's file");
    let data = std::mem::replace(&mut cluster.data, etc.to_path_buf());
    cluster.append_conf(&format!("data_directory = '{}'\n", data.display()));
}

/// Restores a replacement of a stopped server, which takes its place: its port, and its configuration if that lies apart.
fn replace(
    walden: &Walden,
    gone: Cluster,
    to: PathBuf,
    etc: Option<&PathBuf>,
) -> (Cluster, serde_json::Value) {
    let restored = restore(walden, &gone.major, to, &["--latest", "--keep-archiving"]);
    assert_eq!(restored.said["archiving"], true, "{}", restored.said);
    let mut cluster = restored.cluster;
    cluster.stop(Stop::Fast);
    (cluster.port, cluster.socket_folder) = (gone.port, gone.socket_folder.clone());
    if let Some(etc) = etc {
        begin_in(etc, &mut cluster);
    }
    cluster.start();
    (cluster, restored.said)
}

#[test]
fn a_replacement_is_backed_up_and_replaced_in_its_turn() {
    replaced_twice(false);
}

/// What lies outside the second time has the place in the backup of what the first restore put beside.
#[test]
fn a_replacement_with_its_configuration_elsewhere_is_backed_up_and_replaced_in_its_turn() {
    replaced_twice(true);
}

fn replaced_twice(apart: bool) {
    let scratch = Scratch::new("replaced");
    let mut source = Cluster::builder(Major::newest())
        .segment_mib(1)
        .start(&scratch);
    let etc = apart.then(|| scratch.folder("etc"));
    if let Some(etc) = &etc {
        source.stop(Stop::Fast);
        for name in FILES {
            fs::rename(source.data.join(name), etc.join(name)).expect("move the configuration");
        }
        begin_in(etc, &mut source);
        source.start();
    }
    let walden = Walden::beside(&scratch, &source);
    register(&mut source, &walden);
    source.open_ledger();
    take_backup(&walden);
    source.commit("of the source");
    source.archive_now();
    source.stop(Stop::Fast);
    let (mut first, _) = replace(&walden, source, scratch.join("first"), etc.as_ref());
    first.commit("of the replacement");
    first.archive_now();
    let id = take_backup(&walden);
    first.commit("of the replacement, after its backup");
    first.archive_now();
    let rows = first.rows();
    assert_eq!(rows.len(), 3);
    first.stop(Stop::Fast);
    let conf = etc
        .as_ref()
        .map(|etc| fs::read(etc.join("postgresql.conf")).expect("read the configuration"));
    let (second, said) = replace(&walden, first, scratch.join("second"), etc.as_ref());
    assert_eq!(
        (&said["plan"]["backup"]["id"], &said["plan"]["timeline"]),
        (&id.into(), &2.into()),
        "{said}"
    );
    assert_eq!(second.rows(), rows);
    if let (Some(etc), Some(conf)) = (&etc, conf) {
        let beside = etc.join("postgresql.conf");
        let beside = beside.strip_prefix("/").expect("an absolute path");
        let kept = scratch.join("second/walden-configuration").join(beside);
        assert!(
            fs::read(&kept).expect("read what lay outside") == conf,
            "{} is not the newest",
            kept.display()
        );
    }
    second.commit("of the second replacement");
    second.archive_now();
    wait_until("the new timeline is archived", || {
        walden
            .repository
            .join("main/wal/00000003.history.zst")
            .exists()
    });
    walden.ok(["backup", "verify", "all"]);
    walden.ok(["wal", "verify"]);
}
