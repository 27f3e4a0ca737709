use super::*;

fn layout() -> Layout {
    Layout::new("main".parse().unwrap())
}

#[test]
fn a_wal_key_is_computed_from_the_name_and_read_back() {
    for (name, key) in [
        (
            "00000001000000A900000065",
            "main/wal/00000001000000A9/00000001000000A900000065.zst",
        ),
        ("00000002.history", "main/wal/00000002.history.zst"),
        (
            "00000001000000A900000065.partial",
            "main/wal/00000001000000A900000065.partial.zst",
        ),
        (
            "00000001000000A900000065.00000028.backup",
            "main/wal/00000001000000A900000065.00000028.backup.zst",
        ),
    ] {
        let name: WalFileName = name.parse().unwrap();
        assert_eq!(layout().wal(&name).as_str(), key);
        assert_eq!(layout().parse_wal(&Key::new(key).unwrap()), Some(name));
    }
    let group = layout().wal_group_folder(&"00000001000000A900000065".parse().unwrap());
    assert_eq!(
        layout().parse_wal_group(&group),
        Some((TimelineId(1), 0xA9))
    );
    for other in [
        "main/wal/00000001000000a9/",
        "main/wal/00000001000000A9",
        "main/wal/1A9/",
        "main/base/00000001000000A9/",
    ] {
        assert_eq!(layout().parse_wal_group(other), None, "{other}");
    }
}

#[test]
fn a_misplaced_object_is_not_taken_for_wal() {
    for key in [
        "main/wal/00000001000000A8/00000001000000A900000065.zst",
        "main/wal/00000001000000A900000065.zst",
        "other/wal/00000002.history.zst",
        "main/wal/00000002.history",
    ] {
        assert_eq!(layout().parse_wal(&Key::new(key).unwrap()), None, "{key}");
    }
}

#[test]
fn every_key_tells_what_it_is_and_strangers_are_nothing() {
    let layout = layout();
    let id: BackupId = "20260101-000000Z".parse().unwrap();
    let pack = PackName {
        backup: id.clone(),
        number: 1_000_000,
    };
    let wal: WalFileName = "00000002.history".parse().unwrap();
    let names: NamesId = "20260101T000000Z-0123abcd".parse().unwrap();
    let mark: IdleMarker = "00000002000000A9/000000A965000000-20260101T000000Z"
        .parse()
        .unwrap();
    assert_eq!(
        (mark.timeline, mark.lsn),
        (TimelineId(2), Lsn(0xA9_6500_0000))
    );
    assert!(
        layout
            .idle(&mark)
            .as_str()
            .starts_with(&layout.idle_group_folder(mark.timeline, mark.lsn))
    );
    let record = |number, done| ExpiryRecord { number, done };
    let (to_do, done) = (record(7, false), record(123_456_789, true));
    assert_eq!(
        layout.expiry(to_do).as_str(),
        "main/retention/00000007.json"
    );
    for (key, kind) in [
        (layout.cluster_json(), ObjectKind::Description),
        (layout.wal(&wal), ObjectKind::Wal(wal)),
        (layout.pin(&names), ObjectKind::Pin(names.clone())),
        (layout.lease(&names), ObjectKind::Lease(names.clone())),
        (layout.expiry(to_do), ObjectKind::Expiry(to_do)),
        (layout.expiry(done), ObjectKind::Expiry(done)),
        (layout.manifest(&id), ObjectKind::Manifest(id.clone())),
        (layout.pack(&pack), ObjectKind::Pack(pack)),
        (layout.started(&id), ObjectKind::Started(id.clone())),
        (layout.names(&names), ObjectKind::Names(names.clone())),
        (layout.idle(&mark), ObjectKind::Idle(mark)),
    ] {
        assert_eq!(layout.parse(&key), Some(kind), "{key}");
    }
    for key in [
        "main/x",
        "main/names/20260101T000000Z.zst",
        "main/quiet/00000001000000A9/0000000065000000-20260101T000000Z.zst",
        "main/quiet/0000000100000000/0000000065000000-20261301T000000Z.zst",
        "main/quiet/0000000065000000-20260101T000000Z.zst",
        "main/base/x/manifest.zst",
        "main/base/20260101-000000Z/x",
        "main/wal/x",
        "main/jobs/x.json",
        "main/jobs/dump/notes.txt",
        "x/cluster.json",
    ] {
        assert_eq!(layout.parse(&Key::new(key).unwrap()), None, "{key}");
    }
}

#[test]
fn what_is_kept_of_jobs_is_known() {
    let layout = layout();
    for key in [
        "main/jobs/dump/lease-0000000000000001.json",
        "main/jobs/history/20260131T020000Z-1a2b3c4d-dump.json",
    ] {
        let key = Key::new(key).unwrap();
        assert_eq!(layout.parse(&key), Some(ObjectKind::Job));
        assert!(key.as_str().starts_with(&layout.jobs_folder()));
    }
}

#[test]
fn names_are_checked() {
    for name in ["", "-a", "A", "a/b", "a.b", "ä"] {
        assert!(name.parse::<ClusterName>().is_err(), "{name:?}");
    }
    for id in [
        "",
        "20260101-000000",
        "2026010 -000000Z",
        "../../../../../x",
    ] {
        assert!(id.parse::<BackupId>().is_err(), "{id:?}");
    }
    let pack = PackName {
        backup: "20260101-000000Z".parse().unwrap(),
        number: 7,
    };
    assert_eq!(pack.to_string().parse::<PackName>().unwrap(), pack);
    assert_eq!(
        layout().pack(&pack).as_str(),
        "main/base/20260101-000000Z/pack-000007"
    );
    for name in [
        "20260101-000000Z/pack-7",
        "20260101-000000Z/pack-0000007",
        "x/pack-000001",
        "pack-000001",
    ] {
        assert!(name.parse::<PackName>().is_err(), "{name:?}");
    }
}
