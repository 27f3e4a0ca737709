use super::*;

fn options(label: &str) -> BackupOptions {
    BackupOptions {
        label: label.to_owned(),
        checkpoint: Checkpoint::Fast,
        progress: true,
        max_rate_kib: Some(32),
        verify_checksums: false,
        tablespace_map: true,
    }
}

fn text(options: &BackupOptions, major: u32) -> String {
    command(options, MajorVersion::new(major).unwrap()).unwrap()
}

#[test]
fn the_command_follows_the_grammar_of_the_version() {
    let wanted = options("it's ours");
    assert_eq!(
        text(&wanted, 14),
        "BASE_BACKUP LABEL 'it''s ours' PROGRESS TABLESPACE_MAP MAX_RATE 32 FAST NOVERIFY_CHECKSUMS NOWAIT"
    );
    assert_eq!(
        text(&wanted, 15),
        "BASE_BACKUP (LABEL 'it''s ours', PROGRESS, TABLESPACE_MAP, MAX_RATE 32, CHECKPOINT 'fast', \
         VERIFY_CHECKSUMS false, WAIT false, MANIFEST 'no')"
    );
}

#[test]
fn what_is_not_wanted_is_left_out_but_verification_is_always_named_where_it_can_be() {
    let plain = BackupOptions {
        checkpoint: Checkpoint::Spread,
        progress: false,
        max_rate_kib: None,
        verify_checksums: true,
        tablespace_map: false,
        label: "a".to_owned(),
    };
    assert_eq!(text(&plain, 13), "BASE_BACKUP LABEL 'a' NOWAIT");
    assert_eq!(
        text(&plain, 18),
        "BASE_BACKUP (LABEL 'a', CHECKPOINT 'spread', VERIFY_CHECKSUMS true, WAIT false, MANIFEST 'no')"
    );
}

#[test]
fn what_the_server_would_choke_on_is_refused_before() {
    let major = MajorVersion::new(15).unwrap();
    assert!(command(&options(&"x".repeat(1025)), major).is_err());
    assert!(command(&options("two\nlines"), major).is_err());
    assert!(
        command(
            &BackupOptions {
                max_rate_kib: Some(31),
                ..options("a")
            },
            major
        )
        .is_err()
    );
}

#[test]
fn archives_are_known_by_their_names() {
    assert_eq!(archive_oid("base.tar"), Ok(None));
    assert_eq!(archive_oid("16384.tar"), Ok(Some(16384)));
    for wrong in [
        "base",
        ".tar",
        "x.tar",
        "-1.tar",
        "99999999999.tar",
        "base.tar.gz",
        "../base.tar",
    ] {
        assert!(archive_oid(wrong).is_err(), "{wrong}");
    }
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[tag], &(body.len() as u32 + 4).to_be_bytes()[..], body].concat()
}

fn row(values: &[Option<&str>]) -> Vec<u8> {
    let mut body = (values.len() as u16).to_be_bytes().to_vec();
    for value in values {
        match value {
            Some(text) => {
                body.extend((text.len() as u32).to_be_bytes());
                body.extend(text.as_bytes());
            }
            None => body.extend((-1i32).to_be_bytes()),
        }
    }
    message(b'D', &body)
}

fn result(columns: &[&str], rows: &[&[Option<&str>]]) -> Vec<u8> {
    let mut description = (columns.len() as u16).to_be_bytes().to_vec();
    for column in columns {
        description.extend(column.as_bytes());
        description.extend([0; 19]);
    }
    let rows = rows.iter().flat_map(|values| row(values));
    message(b'T', &description)
        .into_iter()
        .chain(rows)
        .chain(message(b'C', b"SELECT\0"))
        .collect()
}

fn report(tag: u8, severity: &str, code: &str, text: &str) -> Vec<u8> {
    message(
        tag,
        format!("S{severity}\0V{severity}\0C{code}\0M{text}\0\0").as_bytes(),
    )
}

const LIST: [&str; 3] = ["spcoid", "spclocation", "size"];

fn beginning() -> Vec<u8> {
    let spaces: [&[Option<&str>]; 2] = [
        &[Some("16384"), Some("/srv/ts"), Some("12")],
        &[None, None, Some("34")],
    ];
    [
        result(&["recptr", "tli"], &[&[Some("0/2000028"), Some("1")]]),
        result(&LIST, &spaces),
    ]
    .concat()
}

fn ending() -> Vec<u8> {
    result(&["recptr", "tli"], &[&[Some("0/2000100"), Some("1")]])
}

fn complete() -> Vec<u8> {
    [message(b'C', b"BASE_BACKUP\0"), message(b'Z', b"I")].concat()
}

/// What 15 and later send, with the unasked-for in the middle.
fn tagged() -> Vec<u8> {
    [
        beginning(),
        message(b'H', b"\0\0\0"),
        message(b'd', b"n16384.tar\0/srv/ts\0"),
        message(b'd', b"dtable"),
        report(b'N', "WARNING", "01000", "page is bad"),
        message(b'd', b"dspace"),
        message(b'd', b"p\0\0\0\0\0\0\0\x0a"),
        message(b'd', b"nbase.tar\0\0"),
        message(b'S', b"in_hot_standby\0off\0"),
        message(b'd', b"dmain"),
        message(b'd', b"d"),
        message(b'c', b""),
        ending(),
    ]
    .concat()
}

/// What 13 and 14 send.
fn untagged() -> Vec<u8> {
    let copy = |pieces: &[&[u8]]| -> Vec<u8> {
        let data = pieces.iter().flat_map(|piece| message(b'd', piece));
        message(b'H', b"\0\0\0")
            .into_iter()
            .chain(data)
            .chain(message(b'c', b""))
            .collect()
    };
    [
        beginning(),
        copy(&[b"table", b"space"]),
        copy(&[b"main"]),
        ending(),
    ]
    .concat()
}

/// Plays `answer` in pieces of `piece` bytes; the events, data joined and warnings last, and the error that ended them.
async fn play(
    version: u32,
    answer: Vec<u8>,
    piece: usize,
) -> (Vec<BackupEvent>, Option<anyhow::Error>, Connection) {
    let (mut connection, mut peer) = Connection::with_peer(version);
    let server = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let _ = peer.read(&mut [0; 1024]).await.unwrap();
        for piece in answer.chunks(piece) {
            peer.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        // A whole answer leaves the session alive for one question more; after a cut one the socket closes.
        if answer.ends_with(&message(b'Z', b"I"))
            && peer.read(&mut [0; 1024]).await.unwrap_or(0) > 0
        {
            let answer = [result(&["a"], &[&[Some("alive")]]), message(b'Z', b"I")].concat();
            peer.write_all(&answer).await.unwrap();
        }
    });
    let (mut events, mut warnings): (Vec<BackupEvent>, Vec<BackupEvent>) = (Vec::new(), Vec::new());
    let mut backup = connection.base_backup(&options("a")).await.unwrap();
    let failure = loop {
        match backup.next().await {
            Ok(Some(BackupEvent::Data(data))) => match events.last_mut() {
                Some(BackupEvent::Data(before)) => {
                    *before = [&before[..], &data[..]].concat().into()
                }
                _ => events.push(BackupEvent::Data(data)),
            },
            Ok(Some(warning @ BackupEvent::Warning(_))) => warnings.push(warning),
            Ok(Some(event)) => events.push(event),
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    drop(backup);
    drop(server);
    events.extend(warnings);
    (events, failure, connection)
}

fn expected(progress: Vec<(usize, u64)>) -> Vec<BackupEvent> {
    let at = |lsn| BackupPosition {
        lsn: Lsn(lsn),
        timeline: TimelineId(1),
    };
    let data = |text: &'static str| BackupEvent::Data(Bytes::from_static(text.as_bytes()));
    let space = |oid, location: Option<&str>, size_kib| {
        let location = location.map(str::to_owned);
        Tablespace {
            oid,
            location,
            size_kib,
        }
    };
    let mut events = vec![
        BackupEvent::Start(at(0x2000028)),
        BackupEvent::Tablespaces(vec![
            space(Some(16384), Some("/srv/ts"), Some(12)),
            space(None, None, Some(34)),
        ]),
        BackupEvent::ArchiveStart {
            tablespace_oid: Some(16384),
            location: Some("/srv/ts".to_owned()),
        },
        data("tablespace"),
        BackupEvent::ArchiveEnd,
        BackupEvent::ArchiveStart {
            tablespace_oid: None,
            location: None,
        },
        data("main"),
        BackupEvent::ArchiveEnd,
        BackupEvent::End(at(0x2000100)),
    ];
    for (index, bytes) in progress {
        events.insert(index, BackupEvent::Progress(bytes));
    }
    events
}

#[tokio::test]
async fn both_protocols_give_the_same_events_however_the_bytes_arrive() {
    for piece in [1, 2, 7, 64, 100_000] {
        let (events, failure, _) = play(150000, [tagged(), complete()].concat(), piece).await;
        assert!(failure.is_none(), "{failure:?}");
        let (warnings, others) = events.split_last().unwrap();
        assert_eq!(others, expected(vec![(4, 10)]), "{piece}");
        assert!(
            matches!(warnings, BackupEvent::Warning(warning) if warning.message == "page is bad")
        );
        let (events, failure, _) = play(140000, [untagged(), complete()].concat(), piece).await;
        assert!(failure.is_none(), "{failure:?}");
        assert_eq!(events, expected(vec![(5, 10), (9, 14)]), "{piece}");
    }
}

#[tokio::test]
async fn bad_pages_end_a_complete_backup() {
    let error = [
        report(b'E', "ERROR", "XX001", "checksum failure"),
        message(b'Z', b"I"),
    ]
    .concat();
    let (events, failure, mut connection) = play(150000, [tagged(), error].concat(), 100_000).await;
    assert!(
        !events
            .iter()
            .any(|event| matches!(event, BackupEvent::End(_)))
    );
    let failure = failure.unwrap();
    let bad: &ChecksumFailures = crate::error::find(&failure).unwrap();
    assert_eq!(bad.end.lsn, Lsn(0x2000100));
    assert_eq!(connection.parameter("in_hot_standby"), Some("off"));
    connection.simple_query("SELECT 1").await.unwrap();
}

#[tokio::test]
async fn an_error_inside_the_copy_is_the_servers_and_the_session_goes_on() {
    let mut answer = tagged();
    answer.truncate(answer.len() - ending().len() - 5);
    let error = [
        report(b'E', "ERROR", "XX001", "file is damaged"),
        message(b'Z', b"I"),
    ]
    .concat();
    let (_, failure, mut connection) = play(150000, [answer, error].concat(), 9).await;
    let failure = failure.unwrap();
    assert!(crate::error::find::<ChecksumFailures>(&failure).is_none());
    assert_eq!(
        crate::error::find::<ServerError>(&failure).unwrap().message,
        "file is damaged"
    );
    connection.simple_query("SELECT 1").await.unwrap();
}

#[tokio::test]
async fn a_cut_answer_is_never_a_complete_backup() {
    for version in [140000, 150000] {
        let answer = if version < 150000 {
            untagged()
        } else {
            tagged()
        };
        let whole = [answer, complete()].concat();
        for cut in 0..whole.len() {
            let (events, failure, _) = play(version, whole[..cut].to_vec(), 100_000).await;
            // Everything but the last message, ReadyForQuery, may have come.
            assert!(failure.is_some(), "{cut}");
            assert!(
                !events
                    .iter()
                    .any(|event| matches!(event, BackupEvent::End(_))),
                "{cut}"
            );
        }
    }
}

#[tokio::test]
async fn answers_that_break_the_protocol_break_the_connection() {
    let none_of_main = [
        beginning(),
        message(b'H', b"\0\0\0"),
        message(b'c', b""),
        ending(),
        complete(),
    ]
    .concat();
    let manifest = [beginning(), message(b'H', b"\0\0\0"), message(b'd', b"m")].concat();
    let data_first = [beginning(), message(b'H', b"\0\0\0"), message(b'd', b"dx")].concat();
    let stranger = [
        beginning(),
        message(b'H', b"\0\0\0"),
        message(b'd', b"n999.tar\0/x\0"),
    ]
    .concat();
    let empty = [beginning(), message(b'H', b"\0\0\0"), message(b'd', b"")].concat();
    for answer in [none_of_main, manifest, data_first, stranger, empty] {
        let (_, failure, mut connection) = play(160000, answer, 100_000).await;
        assert!(failure.is_some());
        assert!(connection.simple_query("SELECT 1").await.is_err());
    }
}
