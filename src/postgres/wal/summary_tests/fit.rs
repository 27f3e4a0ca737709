//! A summary of any length is made to fit, and says what it leaves out.

use proptest::prelude::*;

use super::*;

#[test]
fn a_short_summary_stays_as_it_is() {
    let summary = summary_of(&[created(10, 1), row(10, 1), commit(10, 1), abort(11, 2)]);
    let mut fitted = summary.clone();
    fitted.truncate_to(STORED);
    assert_eq!(fitted, summary);
}

/// Commits that drop many files of many relations.
fn dropping(xid: u32, files: usize) -> Draft {
    let mut main = 7i64.to_le_bytes().to_vec();
    main.extend_from_slice(&4u32.to_le_bytes());
    main.extend_from_slice(&(files as u32).to_le_bytes());
    (0..files as u32 * 3).for_each(|field| main.extend_from_slice(&(field + 16384).to_le_bytes()));
    Draft {
        xid,
        rmgr: rmgr::TRANSACTION,
        info: 0x80,
        main,
        block: None,
    }
}

fn prepared(xid: u32) -> Draft {
    let mut main = vec![0; 76];
    main[..4].copy_from_slice(&0x57F9_4534u32.to_le_bytes());
    main[8..12].copy_from_slice(&xid.to_le_bytes());
    (main[54], main[72]) = (2, b'g');
    Draft {
        xid,
        rmgr: rmgr::TRANSACTION,
        info: 0x10,
        main,
        block: None,
    }
}

fn point(name: &str) -> Draft {
    let mut main = 7i64.to_le_bytes().to_vec();
    main.extend_from_slice(name.as_bytes());
    main.resize(72, 0);
    Draft {
        rmgr: rmgr::XLOG,
        info: 0x70,
        main,
        ..Draft::default()
    }
}

#[test]
fn what_nobody_looks_for_takes_no_room_from_what_somebody_does() {
    let dropped_database = Draft {
        rmgr: rmgr::DATABASE,
        info: 0x20,
        ..created(3000, 9)
    };
    let mut drafts: Vec<Draft> = (100..1000).map(prepared).collect();
    drafts.extend((0..600).map(|number| point(&format!("p{number}"))));
    drafts.extend([
        dropping(2000, 1),
        Draft {
            main: [9u32, 0].map(u32::to_le_bytes).concat(),
            ..dropped_database
        },
    ]);
    let mut summary = summary_of(&drafts);
    let left_out = EventOverflow {
        restore_points: 600 - EVENTS as u64,
        others: 900 - EVENTS as u64 / 4,
        ..EventOverflow::default()
    };
    assert_eq!(summary.events_left_out, left_out);
    let has = |summary: &Summary, wanted: fn(&EventDetail) -> bool| {
        summary.events.iter().any(|event| wanted(&event.what))
    };
    summary.truncate_to(45_000);
    assert_eq!(summary.events_left_out.others, 900, "they go first");
    assert!(has(&summary, |what| matches!(
        what,
        EventDetail::FilesRemoved { cut: false, .. }
    )));
    assert!(has(&summary, |what| matches!(
        what,
        EventDetail::DatabaseDropped { database: 9 }
    )));
    assert!(has(
        &summary,
        |what| matches!(what, EventDetail::RestorePoint { name, .. } if name == "p0")
    ));
}

/// What a summary says, and what it says that it does not: both together stay the same.
fn totals(summary: &Summary) -> [u64; 4] {
    [
        summary.events.len() as u64 + summary.events_left_out.total(),
        summary.created.len() as u64 + summary.created_left_out,
        summary.rows.largest.len() as u64 + summary.rows.left_out,
        summary.oldest_ended.len() as u64 + summary.ended_left_out,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_summary_can_be_made_to_fit(
        drops in prop::collection::vec(0usize..400, 0..300), files in 0u32..800, ends in 0u32..500, most in 8_000usize..80_000,
    ) {
        let drops = drops.iter().zip(1000..).map(|(files, xid)| dropping(xid, *files));
        let made = (0..files).flat_map(|number| [created(3, number), row(number + 3, number)]);
        let drafts: Vec<Draft> = made.chain(drops).chain((0..ends).map(|xid| commit(5000 + xid, 1))).collect();
        let mut wal = writer();
        for draft in &drafts {
            wal.write(draft);
        }
        wal.fill();
        for summary in summaries(&wal.bytes) {
            let mut fitted = summary.clone();
            fitted.truncate_to(most);
            let json = serde_json::to_vec(&fitted).unwrap();
            prop_assert!(json.len() <= most, "{} of {most}", json.len());
            prop_assert_eq!(totals(&fitted), totals(&summary));
            prop_assert_eq!(&serde_json::from_slice::<Summary>(&json).unwrap(), &fitted);
            prop_assert_eq!((fitted.ends, fitted.commits), (summary.ends, summary.commits));
        }
    }
}
