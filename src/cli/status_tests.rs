use super::*;

#[test]
fn a_backlog_is_told_in_one_line() {
    let (now, mut done) = (
        DateTime::UNIX_EPOCH + TimeDelta::seconds(200),
        Archiving::default(),
    );
    let mut backlog = Backlog {
        pg_wal: "/data/pg_wal".into(),
        files: 12,
        stored: 8,
        oldest_since: Some(DateTime::UNIX_EPOCH),
        eta_seconds: Some(2.0),
        failed: None,
    };
    assert_eq!(
        waiting(&backlog, &done, now),
        "12 waiting (8 of them stored already) in /data/pg_wal, the oldest for 3 min 20 s; about 2 s to go"
    );
    backlog.eta_seconds = None;
    assert!(waiting(&backlog, &done, now).ends_with("nothing was stored in the last minute"));
    done.resting = true;
    assert!(waiting(&backlog, &done, now).ends_with("; the last one could not be stored"));
    backlog.oldest_since = None;
    assert_eq!(
        waiting(&backlog, &done, now),
        "nothing waits in /data/pg_wal"
    );
    backlog.failed = Some("permission denied".into());
    assert_eq!(
        waiting(&backlog, &done, now),
        "what waits in /data/pg_wal is not known: permission denied"
    );
}

#[test]
fn a_port_that_is_taken_is_told() {
    let mut state = Http {
        url: "http://127.0.0.1:8432".into(),
        certificate_until: None,
        failed: None,
    };
    assert_eq!(
        http(Some(&state)),
        "http       answered on http://127.0.0.1:8432\n"
    );
    state.failed = Some("cannot listen on 127.0.0.1:8432: Address already in use".into());
    let told = http(Some(&state));
    assert!(
        told.contains("not answered") && told.contains("Address already in use"),
        "{told}"
    );
    assert_eq!(http(None), "");
}

#[test]
fn spans_have_two_units() {
    let said = |seconds| span(TimeDelta::seconds(seconds));
    assert_eq!(
        [said(59), said(61), said(7200), said(90000)],
        ["59 s", "1 min 1 s", "2 h 0 min", "1 d 1 h"]
    );
}
