//! Files, tablespaces and configuration of a restored folder are those of the backup, without what leads to its source.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::super::recovery::settings;
use super::super::{conf, names};
use super::*;
use crate::postgres::types::TablespaceMap;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn every_file_is_restored_with_its_content_and_nothing_that_must_not_be() {
    let stored = stored().await;
    let done = stored.restore().await.unwrap();
    for path in [
        "PG_VERSION",
        "backup_label",
        "base/1/large",
        "base/1/empty",
        "global/pg_control",
    ] {
        let (_, _, expected) = content()
            .into_iter()
            .find(|(each, ..)| *each == path)
            .unwrap();
        assert!(stored.read(path) == expected, "{path}");
    }
    assert_eq!(
        fs::read(stored.scratch.path().join("space/PG_15_202209061/1/2")).unwrap(),
        b"in a tablespace"
    );
    for path in ["standby.signal", names::MARKER, "global/pg_control.walden"] {
        assert!(!stored.data().join(path).exists(), "{path}");
    }
    for folder in ["pg_wal/archive_status", "pg_replslot", "pg_tblspc"] {
        assert!(stored.data().join(folder).is_dir(), "{folder}");
    }
    assert_eq!(mode(&stored.data().join("base/1/large")), 0o640);
    assert_eq!(
        (mode(&stored.data()), mode(&stored.data().join("base/1"))),
        (0o700, 0o750)
    );
    assert_eq!(
        done.bytes,
        content()
            .iter()
            .map(|(path, _, c)| if path.ends_with("_map") {
                0
            } else {
                c.len() as u64
            })
            .sum::<u64>()
    );
}

#[tokio::test]
async fn tablespaces_lead_to_their_new_places_only() {
    let stored = stored().await;
    stored.restore().await.unwrap();
    let space = stored.scratch.path().join("space");
    assert_eq!(
        fs::read_link(stored.data().join("pg_tblspc/16384")).unwrap(),
        space
    );
    let map =
        TablespaceMap::parse(&String::from_utf8(stored.read("tablespace_map")).unwrap()).unwrap();
    assert_eq!(map.0, [(16384, space.to_str().unwrap().to_string())]);
}

/// What the server takes: the last line counts.
fn last_value(text: &str, name: &str) -> Option<String> {
    text.lines()
        .rev()
        .find(|line| conf::setting_of(line).as_deref() == Some(name))
        .and_then(conf::value_of)
}

#[tokio::test]
async fn the_configuration_has_one_target_and_nothing_of_the_source_that_leads_astray() {
    let stored = stored().await;
    stored.restore().await.unwrap();
    let auto = stored.read("postgresql.auto.conf");
    assert!(
        auto.starts_with(b"# \xE4 is no UTF-8\nwork_mem = '7MB'\n"),
        "what was there stays, byte for byte"
    );
    let text = String::from_utf8_lossy(&auto).into_owned()
        + &String::from_utf8_lossy(&stored.read("postgresql.conf"));
    let targets: Vec<String> = text
        .lines()
        .filter_map(conf::setting_of)
        .filter(|name| name.starts_with("recovery_target"))
        .collect();
    let expected = [
        "recovery_target",
        "recovery_target_timeline",
        "recovery_target_action",
    ];
    assert_eq!(targets, expected);
    let value = |name: &str| last_value(&text, name);
    assert_eq!(value("primary_conninfo").as_deref(), Some(""));
    assert_eq!(value("data_directory"), None);
    assert_eq!(value("archive_mode").as_deref(), Some("off"));
    assert_eq!(
        last_value(&String::from_utf8_lossy(&auto), "max_connections").as_deref(),
        Some("300"),
        "the higher one"
    );
    let command = value("restore_command").unwrap();
    let expected = "'/opt/it'\\''s 100%%/restore-command' --socket /run/walden/hook.sock --walden '/opt/it'\\''s 100%%/walden' \
                    --config walden-restore.toml %f %p";
    assert_eq!(command, expected);
    assert_eq!(stored.read("walden-restore.toml"), b"x = 1\n");
    assert_eq!(mode(&stored.data().join("walden-restore.toml")), 0o600);
    assert!(
        stored.data().join("recovery.signal").exists()
            && stored.data().join("pg_hba.conf").exists()
    );
}

#[tokio::test]
async fn a_replacement_keeps_its_archiving() {
    let stored = stored().await;
    let all = settings(
        &stored.plan,
        &Choices {
            keep_archiving: true,
            ..choices()
        },
    )
    .unwrap();
    assert!(
        !all.iter()
            .any(|(name, _)| name == "archive_mode" || name == "synchronous_standby_names")
    );
    let without_hook = FetchCommand {
        restore_command: None,
        ..choices().fetch
    };
    let end = "000000010000000000000009".parse().unwrap();
    let command = without_hook.render(Some(end)).unwrap();
    assert!(
        command.ends_with("wal fetch --end 000000010000000000000009 -- %f %p"),
        "{command}"
    );
}
