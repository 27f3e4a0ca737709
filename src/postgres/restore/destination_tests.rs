use super::*;
use crate::error::{hints, one_line};
use crate::postgres::catalog::testing;

fn backup() -> BackupDescription {
    let tablespace = |oid, location: &str| TablespaceDescription {
        oid,
        location: location.into(),
    };
    let tablespaces = vec![
        tablespace(16384, "/srv/fast"),
        tablespace(16385, "/srv/slow=1"),
    ];
    BackupDescription {
        tablespaces,
        ..testing::backup("20260101-000000Z")
    }
}

fn relocations(texts: &[&str]) -> Vec<Relocation> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn place(relocated: &[&str]) -> anyhow::Result<Destination> {
    super::place(
        Path::new("/restored/data"),
        &backup(),
        &[],
        &relocations(relocated),
        Some(Path::new("/archive")),
    )
}

#[test]
fn tablespaces_stay_or_move_by_location_or_oid() {
    let placed = place(&["/srv/fast/=/new/fast", "16385=/new/slow"]).unwrap();
    assert_eq!(placed.tablespaces[&16384], Path::new("/new/fast"));
    assert_eq!(placed.tablespaces[&16385], Path::new("/new/slow"));
    let placed = place(&[r"/srv/slow\=1=/a=b"]).unwrap();
    assert_eq!(placed.tablespaces[&16384], Path::new("/srv/fast"));
    assert_eq!(placed.tablespaces[&16385], Path::new("/a=b"));
    assert!("=x".parse::<Relocation>().is_err() && "x=".parse::<Relocation>().is_err());
}

#[test]
fn places_that_lie_in_each_other_are_refused() {
    for moved in [
        "16384=/restored/data",
        "16384=/restored/data/pg_tblspc/16384",
        "16384=/restored",
        "16384=/srv/slow=1/x",
        "16384=/archive/x",
        "16384=/",
        "99=/x",
        "16384=/a/../b",
    ] {
        assert!(place(&[moved]).is_err(), "{moved}");
    }
    let inside = super::place(
        Path::new("/archive/main"),
        &backup(),
        &[],
        &[],
        Some(Path::new("/archive")),
    );
    assert!(one_line(&inside.unwrap_err()).contains("repository"));
}

#[test]
fn a_tablespace_within_the_data_directory_stays_there() {
    let inside = TablespaceDescription {
        oid: 17000,
        location: "pg_tblspc/17000".into(),
    };
    let backup = BackupDescription {
        tablespaces: vec![inside],
        ..testing::backup("20260101-000000Z")
    };
    let placed = super::place(Path::new("/restored/data"), &backup, &[], &[], None).unwrap();
    assert_eq!(
        placed.tablespaces[&17000],
        Path::new("/restored/data/pg_tblspc/17000")
    );
}

#[test]
fn an_unknown_tablespace_is_answered_with_those_there_are() {
    let error = place(&["/srv/other=/x"]).unwrap_err();
    assert_eq!(
        hints(&error),
        ["its tablespaces: 16384 at \"/srv/fast\", 16385 at \"/srv/slow=1\""]
    );
}

fn check(prepare: impl FnOnce(&Path)) -> anyhow::Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let to_dir = folder.path().join("a b");
    prepare(&to_dir);
    let destination = Destination {
        data_directory: to_dir,
        tablespaces: BTreeMap::new(),
        made: BTreeSet::new(),
    };
    check_free(&destination, &|_| false)
}

fn refused(prepare: impl FnOnce(&Path)) -> String {
    let error = check(|to_dir| {
        fs::create_dir(to_dir).unwrap();
        prepare(to_dir);
    })
    .unwrap_err();
    format!("{} {}", one_line(&error), hints(&error).join(" "))
}

#[test]
fn a_new_or_empty_folder_is_free() {
    check(|_| ()).unwrap();
    check(|to_dir| fs::create_dir(to_dir).unwrap()).unwrap();
}

#[test]
fn what_is_in_the_way_is_named() {
    assert!(refused(|dir| fs::write(dir.join("notes"), "x").unwrap()).contains("notes"));
    assert!(
        refused(|dir| fs::write(dir.join("PG_VERSION"), "15").unwrap())
            .contains("PostgreSQL cluster")
    );
    assert!(refused(|dir| fs::create_dir(dir.join("lost+found")).unwrap()).contains("mounted"));
    let running = refused(|dir| {
        fs::write(
            dir.join("postmaster.pid"),
            format!("{}\n", std::process::id()),
        )
        .unwrap()
    });
    assert!(
        running.contains(&format!("process {}", std::process::id())),
        "{running}"
    );
    let stale = refused(|dir| fs::write(dir.join("postmaster.pid"), "4999999\n").unwrap());
    assert!(stale.contains("not empty"), "{stale}");
    let interrupted =
        refused(|dir| fs::write(dir.join(MARKER), "backup x by process 1\n").unwrap());
    assert!(
        interrupted.contains("backup x") && interrupted.contains("rm -r"),
        "{interrupted}"
    );
    let file = check(|to_dir| fs::write(to_dir, "x").unwrap()).unwrap_err();
    assert!(one_line(&file).contains("not a folder"));
}

#[test]
fn folders_are_made_private_and_marked() {
    let folder = tempfile::tempdir().unwrap();
    let data_directory = folder.path().join("x/y");
    let tablespaces = BTreeMap::from([(16384, folder.path().join("t/s"))]);
    let destination = Destination {
        data_directory: data_directory.clone(),
        tablespaces,
        made: BTreeSet::new(),
    };
    prepare(&destination, &backup()).unwrap();
    for path in [&data_directory, &destination.tablespaces[&16384]] {
        assert_eq!(
            fs::metadata(path).unwrap().permissions().mode() & 0o777,
            0o700
        );
    }
    let is_free = check_free(&destination, &|_| false).is_ok();
    assert!(!is_free && prepare(&destination, &backup()).is_err());
}
