//! Summaries tell the files, databases and tablespaces that are made.

use super::*;

fn file(number: u32) -> RelFileLocator {
    RelFileLocator {
        tablespace: 1663,
        database: 5,
        number,
    }
}

fn page(xid: u32, number: u32) -> Draft {
    Draft {
        xid,
        rmgr: rmgr::XLOG,
        info: 0xB0,
        main: vec![],
        block: Some((number, vec![1; 50])),
    }
}

#[test]
fn what_fills_a_file_is_its_own_transaction() {
    let made = summary_of(&[
        created(10, 1),
        created(10, 2),
        created(10, 3),
        created(11, 4),
        row(10, 1),
        page(10, 2),
        row(12, 9),
        commit(10, 1),
        row(12, 3),
        page(12, 4),
    ]);
    let created: Vec<(u32, bool, bool)> = made
        .created
        .iter()
        .map(|created| (created.file.number, created.filled, created.pages))
        .collect();
    // Nobody but its own transaction writes to a file of a transaction that is open.
    assert_eq!(
        created,
        [
            (1, true, false),
            (2, true, true),
            (3, false, false),
            (4, true, true)
        ]
    );
    assert_eq!(made.created[0].file, file(1));
}

#[test]
fn a_database_that_is_moved_is_not_made() {
    let by_copy = |parts: [u32; 4]| {
        let main = parts.map(u32::to_le_bytes).concat();
        Draft {
            xid: 10,
            rmgr: rmgr::DATABASE,
            main,
            ..Draft::default()
        }
    };
    let summary = summary_of(&[
        by_copy([20000, 1700, 20000, 1663]),
        by_copy([20001, 1663, 1, 1663]),
    ]);
    let what: Vec<&EventDetail> = summary.events.iter().map(|event| &event.what).collect();
    let moved = EventDetail::DatabaseMoved {
        database: 20000,
        tablespace: 1700,
    };
    assert_eq!(
        what,
        [
            &moved,
            &EventDetail::DatabaseCreated {
                database: 20001,
                tablespace: 1663
            }
        ]
    );
}

fn tablespace(info: u8, oid: u32, location: &str) -> Draft {
    let main = [&oid.to_le_bytes()[..], location.as_bytes(), &[0]].concat();
    Draft {
        xid: 7,
        rmgr: rmgr::TABLESPACE,
        info,
        main,
        block: None,
    }
}

#[test]
fn a_tablespace_made_outside_is_told_with_its_place() {
    let in_place = tablespace(0, 17000, "");
    let dropped = Draft {
        main: 16390u32.to_le_bytes().to_vec(),
        ..tablespace(0x10, 0, "")
    };
    let summary = summary_of(&[tablespace(0, 16390, "/srv/a b"), in_place, dropped]);
    let told: Vec<(u32, &str)> = summary
        .tablespaces
        .made
        .iter()
        .map(|one| (one.oid, &*one.location))
        .collect();
    assert_eq!((told, summary.unreadable), (vec![(16390, "/srv/a b")], 0));
    let many: Vec<Draft> = (0..40).map(|n| tablespace(0, 20000 + n, "/srv")).collect();
    let summary = summary_of(&many).tablespaces;
    assert_eq!(summary.made.len() as u64 + summary.left_out, 40);
    assert!(summary.left_out > 0);
}

#[test]
fn a_tablespace_whose_record_crosses_is_told_by_what_joins_the_segments() {
    for location in ["/srv/fast".to_string(), format!("/srv/{}", "x".repeat(900))] {
        let mut wal = writer();
        while wal.position() + 200 < START + SEGMENT {
            wal.write(&insert(4, 100));
        }
        while wal.position() + 40 < START + SEGMENT {
            wal.write(&Draft {
                rmgr: rmgr::XLOG,
                info: 0x20,
                main: vec![0],
                ..Draft::default()
            });
        }
        wal.write(&tablespace(0, 16390, &location));
        wal.fill();
        let parts = summaries(&wal.bytes);
        assert!(
            parts[0].tail.is_some() && parts.iter().all(|part| part.tablespaces.made.is_empty())
        );
        let Ok(Boundary::Crossed(crossing)) = join(&parts[0], parts[0].tail.as_ref(), &parts[1])
        else {
            panic!()
        };
        let [made] = &crossing.tablespaces.made[..] else {
            panic!("{crossing:?}")
        };
        assert_eq!(made.oid, 16390);
        assert!(
            location.starts_with(&made.location) && made.location.starts_with("/srv/"),
            "{}",
            made.location
        );
    }
}

#[test]
fn a_summary_that_does_not_tell_of_tablespaces_is_none() {
    let mut json = serde_json::to_value(summary_of(&[])).unwrap();
    assert!(serde_json::from_value::<Summary>(json.clone()).is_ok());
    json.as_object_mut().unwrap().remove("tablespaces");
    assert!(
        serde_json::from_value::<Summary>(json).is_err(),
        "it is made anew of the content"
    );
}
