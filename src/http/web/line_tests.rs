use super::super::signs::{Content, LONGEST};
use super::*;
use crate::postgres::catalog::testing::facts;
use crate::postgres::catalog::{
    EventId, EventKind, FoundEvent, Unrestorable, Window, WindowEdge, Windows,
};
use crate::postgres::types::Lsn;
use crate::postgres::wal::Timestamp;

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_225_600 + seconds, 0).unwrap()
}

fn event(timeline: u32, seconds: i64, relation: &str) -> FoundEvent {
    let (timeline, lsn) = (TimelineId(timeline), Lsn(0x300_0000 + seconds as u64));
    let id = EventId {
        timeline,
        lsn,
        kind: EventKind::Drop,
        number: 16384,
    };
    FoundEvent {
        id,
        kind: id.kind,
        cluster: "main".parse().unwrap(),
        timeline,
        lsn,
        end_lsn: None,
        commit_lsn: None,
        xid: Some(745),
        time: Timestamp::from(at(seconds)),
        database: None,
        database_oid: None,
        relation: Some(relation.into()),
        relkind: None,
        oid: None,
        file: None,
        rows: None,
        name: None,
        exact: true,
        minor: false,
    }
}

fn drawn(windows: &Windows, events: &[FoundEvent], query: &PageQuery) -> Line {
    let facts = facts(&[]);
    let content = Content {
        facts: &facts,
        windows,
        events,
        query,
        chosen: None,
        now: at(1000),
    };
    let span = Span::between(at(0), at(1000));
    Line::draw(&content, &span, &span)
}

#[test]
fn events_near_to_each_other_are_one_sign_that_leads_closer() {
    let events = [
        event(1, 100, "a"),
        event(1, 105, "b"),
        event(1, 400, "c"),
        event(2, 405, "d"),
    ];
    let chosen = PageQuery::default().to_words("before", &events[1].id.to_string());
    let line = drawn(&Windows::default(), &events, &chosen);
    let told = |lane: &Lane| -> Vec<(String, bool)> {
        lane.events
            .iter()
            .map(|sign| (sign.inside.clone(), sign.chosen))
            .collect()
    };
    assert_eq!(
        line.lanes
            .iter()
            .map(|lane| lane.timeline)
            .collect::<Vec<_>>(),
        [1, 2]
    );
    assert_eq!(
        told(&line.lanes[0]),
        [("2".into(), true), ("\u{2715}".into(), false)]
    );
    assert_eq!(
        told(&line.lanes[1]),
        [("\u{2715}".into(), false)],
        "of another timeline"
    );
    let closer = PageQuery::read(in_address(&line.lanes[0].events[0].href))
        .unwrap()
        .span()
        .unwrap()
        .unwrap();
    assert!(closer.holds(at(100)) && closer.holds(at(105)) && !closer.holds(at(110)));
    assert!(line.lanes[0].events[1].href.ends_with("#plan"));
}

fn in_address(address: &str) -> &str {
    address.trim_start_matches("/?")
}

#[test]
fn names_stand_in_rows_and_what_finds_no_room_has_none() {
    let long = "schema.a_relation_with_a_name_longer_than_it_can_be_shown";
    let events: Vec<FoundEvent> = (0..5)
        .map(|number| event(1, 100 + number * 20, long))
        .collect();
    let line = drawn(&Windows::default(), &events, &PageQuery::default());
    let names: Vec<Option<u32>> = line.lanes[0]
        .events
        .iter()
        .map(|sign| sign.name.as_ref().map(|name| name.y))
        .collect();
    assert_eq!(names, [Some(48), Some(31), Some(14), None, None]);
    let name = line.lanes[0].events[0].name.as_ref().unwrap();
    assert_eq!(name.text.chars().count(), LONGEST + 1);
    let at_the_end = drawn(
        &Windows::default(),
        &[event(1, 990, long)],
        &PageQuery::default(),
    );
    assert!(
        at_the_end.lanes[0].events[0]
            .name
            .as_ref()
            .is_some_and(|name| name.is_before)
    );
}

#[test]
fn bands_and_gaps_are_cut_to_the_picture() {
    let edge = |seconds| WindowEdge {
        lsn: Lsn(1),
        time: Some(at(seconds)),
    };
    let timeline = TimelineId(1);
    let backup = facts(&[]).backups[0].id.clone();
    let window = |from, to| Window {
        timeline,
        from: edge(from),
        to: edge(to),
        idle_until: None,
        backup: backup.clone(),
    };
    let gap = Unrestorable {
        timeline,
        from: edge(250),
        to: edge(500),
        seconds: Some(250.0),
    };
    let windows = Windows {
        windows: vec![window(-9000, -5000), window(-5000, 250), window(500, 750)],
        gaps: vec![gap],
        ..Windows::default()
    };
    let line = drawn(&windows, &[], &PageQuery::default());
    let bars = |bars: &[LineBar]| -> Vec<(String, String)> {
        bars.iter()
            .map(|bar| (bar.x.clone(), bar.width.clone()))
            .collect()
    };
    let bar = |x: &str, width: &str| (x.to_string(), width.to_string());
    assert_eq!(
        bars(&line.lanes[0].bands),
        [bar("-2.000%", "27.000%"), bar("50.000%", "25.000%")]
    );
    assert_eq!(bars(&line.lanes[0].gaps), [bar("25.000%", "25.000%")]);
    assert!(
        line.lanes[0].gaps[0].words.ends_with("4 min"),
        "{}",
        line.lanes[0].gaps[0].words
    );
}
