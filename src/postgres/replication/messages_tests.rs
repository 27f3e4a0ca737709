use proptest::prelude::*;

use super::*;

fn message(tag: u8, body: &[u8]) -> BytesMut {
    let mut bytes = BytesMut::new();
    bytes.extend_from_slice(&[tag]);
    bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

#[test]
fn an_error_keeps_its_untranslated_severity_and_its_code() {
    let body = b"SFEHLER\0VERROR\0C58P01\0Mno file\0Dgone\0Hlook\0Wthere\0Rread_file\0Funknown\0\0";
    let Some(Message::Error(error)) = take(&mut message(b'E', body)).unwrap() else {
        panic!()
    };
    assert_eq!(
        (
            error.severity.as_str(),
            error.code.as_str(),
            error.message.as_str()
        ),
        ("ERROR", "58P01", "no file")
    );
    assert_eq!(
        (error.hint.as_deref(), error.routine.as_deref()),
        (Some("look"), Some("read_file"))
    );
    assert_eq!(error.to_string(), "ERROR: no file (SQLSTATE 58P01): gone");
    assert!(!error.is_fatal());
}

#[test]
fn an_error_in_another_encoding_is_still_an_error() {
    let Some(Message::Error(error)) = take(&mut message(
        b'E',
        b"SFATAL\0VFATAL\0C28000\0M\xe9t\xe9\0\0",
    ))
    .unwrap() else {
        panic!()
    };
    assert!(error.is_fatal() && error.message.contains('t'));
}

#[test]
fn a_row_keeps_null_and_empty_apart() {
    let Some(Message::DataRow(row)) =
        take(&mut message(b'D', b"\0\x02\xff\xff\xff\xff\0\0\0\0")).unwrap()
    else {
        panic!()
    };
    assert_eq!(row, [None, Some(Bytes::new())]);
}

#[test]
fn values_of_a_result_are_found_by_name() {
    let result = ResultSet {
        columns: vec!["a".into(), "b".into()],
        rows: vec![vec![Some(Bytes::from_static(b"17")), None]],
        tag: "SELECT 1".into(),
    };
    assert_eq!(result.parse::<u32>(0, "a"), Ok(17));
    assert_eq!(result.text(0, "b"), Ok(None));
    assert!(
        result.parse::<u32>(0, "b").is_err()
            && result.text(0, "c").is_err()
            && result.text(1, "a").is_err()
    );
}

#[test]
fn the_backup_messages_decode() {
    let decode = |content: &'static [u8]| BackupMessage::decode(Bytes::from_static(content));
    assert_eq!(
        decode(b"n16384.tar\0/srv/ts\0"),
        Ok(BackupMessage::Archive("16384.tar".into(), "/srv/ts".into()))
    );
    assert_eq!(
        decode(b"nbase.tar\0\0"),
        Ok(BackupMessage::Archive("base.tar".into(), String::new()))
    );
    assert_eq!(
        decode(b"p\0\0\0\0\0\0\x01\0"),
        Ok(BackupMessage::Progress(256))
    );
    assert_eq!(decode(b"m"), Ok(BackupMessage::Manifest));
    for wrong in [
        &b""[..],
        b"n",
        b"nbase.tar",
        b"nbase.tar\0",
        b"nbase.tar\0\0x",
        b"p\0",
        b"mx",
        b"z",
        b"n\xff\0\0",
    ] {
        assert!(decode(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn a_key_of_the_newer_protocol_and_a_negotiation_are_understood() {
    assert!(matches!(
        take(&mut message(b'K', &[7; 36])),
        Ok(Some(Message::Other))
    ));
    assert!(matches!(
        take(&mut message(b'v', &[0; 8])),
        Ok(Some(Message::NegotiateProtocolVersion))
    ));
}

#[test]
fn a_message_is_taken_only_when_whole_and_never_when_huge() {
    let whole = message(b'C', b"SELECT 1\0");
    for cut in 0..whole.len() {
        assert!(
            matches!(take(&mut BytesMut::from(&whole[..cut])), Ok(None)),
            "{cut}"
        );
    }
    assert!(take(&mut BytesMut::from(&b"C\0\0\0\x03"[..])).is_err());
    assert!(take(&mut BytesMut::from(&b"C\x7f\xff\xff\xff"[..])).is_err());
    assert!(take(&mut BytesMut::from(&b"C\xff\xff\xff\xff"[..])).is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = take(&mut BytesMut::from(&bytes[..]));
        let _ = BackupMessage::decode(Bytes::from(bytes));
    }

    #[test]
    fn no_body_makes_it_panic(
        tag in prop::sample::select(b"RSKTDCEINHGWdcZvA123tn".to_vec()),
        body in prop::collection::vec(prop_oneof![Just(0u8), 0u8..8, any::<u8>()], 0..64),
    ) {
        let mut bytes = message(tag, &body);
        let _ = take(&mut bytes);
        prop_assert!(bytes.is_empty());
    }
}
