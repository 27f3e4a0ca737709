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
    assert!(command(&BackupOptions { max_rate_kib: Some(31), ..options("a") }, major).is_err());
}

#[test]
fn archives_are_known_by_their_names() {
    assert_eq!(archive_oid("base.tar"), Ok(None));
    assert_eq!(archive_oid("16384.tar"), Ok(Some(16384)));
    for wrong in ["base", ".tar", "x.tar", "-1.tar", "99999999999.tar", "base.tar.gz", "../base.tar"] {
        assert!(archive_oid(wrong).is_err(), "{wrong}");
    }
}
