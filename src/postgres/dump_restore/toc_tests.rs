//! Tables of contents of all versions read, and write back as they were.

use super::*;

/// An archive's table of contents with one entry, as a version writes it.
fn bytes(version: u8, form: u8) -> Vec<u8> {
    let int = |number: i32| {
        let sign = u8::from(number < 0);
        [&[sign][..], &number.unsigned_abs().to_le_bytes()].concat()
    };
    let text = |text: &str| [int(text.len() as i32), text.as_bytes().to_vec()].concat();
    let none = int(-1);
    let mut all = [b"PGDMP", &[1, version, 0, 4, 8, form][..]].concat();
    all.extend(if version >= 15 { vec![1] } else { int(-1) });
    (0..7).for_each(|_| all.extend(int(1)));
    ["odd \"db\"", "15.3 (Debian)", "16.1"]
        .iter()
        .for_each(|part| all.extend(text(part)));
    all.extend(int(1));
    all.extend([int(7), int(1)].concat());
    ["1259", "16384", "a b", "TABLE DATA"]
        .iter()
        .for_each(|part| all.extend(text(part)));
    all.extend(int(3));
    all.extend(
        [
            text(""),
            text(""),
            text("COPY x FROM stdin;"),
            text("my schema"),
            none.clone(),
        ]
        .concat(),
    );
    if version >= 14 {
        all.extend(text("heap"));
    }
    if version >= 16 {
        all.extend(int(114));
    }
    all.extend([text("the owner"), text("false"), text("3"), text("5"), none].concat());
    match form {
        1 => all.extend([&[2][..], &4711_u64.to_le_bytes()].concat()),
        _ => all.extend(text("7.dat")),
    }
    all
}

#[test]
fn every_version_and_form_reads_and_writes_back_the_same() {
    for version in OLDEST..=NEWEST {
        for form in [1, 3] {
            let all = bytes(version, form);
            let (toc, length) = Toc::read([&all[..], b"data"].concat().as_slice()).unwrap();
            assert_eq!(length, all.len() as u64);
            let entry = &toc.entries[0];
            assert_eq!(
                (entry.tag(), entry.schema(), entry.owner()),
                ("a b".into(), "my schema".into(), "the owner".into())
            );
            assert_eq!(entry.dependencies().collect::<Vec<_>>(), [3, 5]);
            assert!(entry.has_data() && !entry.is_of_database());
            assert_eq!(
                (
                    toc.database.as_str(),
                    toc.server_major(),
                    toc.program_major()
                ),
                ("odd \"db\"", Some(15), Some(16))
            );
            let mut written = Vec::new();
            toc.write(&mut written).unwrap();
            assert_eq!(written, all);
            for cut in 0..all.len() {
                assert!(Toc::read(&all[..cut]).is_err(), "{cut}");
            }
        }
    }
    let newer = Toc::read(bytes(NEWEST + 1, 1).as_slice()).unwrap_err();
    assert!(newer.to_string().contains("1.17 are not known"), "{newer}");
    assert!(Toc::read(&b"PGDMX"[..]).is_err());
}

#[test]
fn a_changed_entry_is_written_changed_and_offsets_shift() {
    let (mut toc, length) = Toc::read(bytes(16, 1).as_slice()).unwrap();
    toc.entries[0].set_owner("x");
    toc.entries[0].shift(-8);
    let mut written = Vec::new();
    toc.write(&mut written).unwrap();
    assert_eq!(written.len() as u64, length - 8);
    let (again, _) = Toc::read(written.as_slice()).unwrap();
    assert_eq!(again.entries[0].owner(), "x");
    assert_eq!(again.entries[0].place, DataPlace::Offset(2, 4703));
}
