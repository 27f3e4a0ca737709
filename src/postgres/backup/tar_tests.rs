use proptest::prelude::*;

use super::*;

/// A header block as the server writes it.
fn block(name: &str, kind: u8, size: &[u8], prefix: &str) -> Vec<u8> {
    let mut block = vec![0u8; BLOCK];
    let mut set = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    set(0, name.as_bytes());
    set(100, b"0000600 ");
    set(108, b"0000000 0000000 ");
    set(124, size);
    set(136, b"15000000000 ");
    set(156, &[kind]);
    set(257, b"ustar\x0000");
    set(345, prefix.as_bytes());
    checked(block)
}

fn checked(mut block: Vec<u8>) -> Vec<u8> {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o} \0").as_bytes());
    block
}

fn octal(size: usize) -> Vec<u8> {
    format!("{size:011o} ").into_bytes()
}

fn member(name: &str, content: &[u8]) -> Vec<u8> {
    let mut bytes = block(name, b'0', &octal(content.len()), "");
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

/// Everything in `stream`, fed in chunks of `chunk` bytes: paths with contents, or the error.
fn parse(stream: &[u8], chunk: usize) -> Result<Vec<(TarHeader, Vec<u8>)>, TarError> {
    let mut parser = Parser::default();
    let mut found = Vec::new();
    let mut open = false;
    for piece in stream.chunks(chunk) {
        parser.feed(Bytes::copy_from_slice(piece));
        while let Some(item) = parser.next()? {
            match item {
                Item::Entry(header) => {
                    assert!(!open, "an entry begins after the end of the one before");
                    open = header.kind == MemberKind::File;
                    found.push((header, Vec::new()));
                }
                Item::Data(bytes) => {
                    assert!(open && !bytes.is_empty());
                    found.last_mut().unwrap().1.extend_from_slice(&bytes);
                }
                Item::End => {
                    assert!(std::mem::take(&mut open));
                    let (header, content) = found.last().unwrap();
                    assert_eq!(header.size, content.len() as u64);
                }
            }
        }
    }
    parser.finish()?;
    Ok(found)
}

fn error_of(stream: &[u8]) -> String {
    parse(stream, 100).unwrap_err().0
}

#[test]
fn members_come_out_as_the_server_sent_them() {
    let stream = [
        member("backup_label", b"START"),
        block("base/1/", b'5', &octal(0), ""),
        block("./pg_wal/archive_status", b'5', &octal(0), ""),
        block("pg_tblspc/16384", b'2', &octal(0), ""),
        member("base/1/2", &[7; 1024]),
        member("empty", b""),
        block("name", b'5', &octal(0), "prefix/of"),
    ]
    .concat();
    let found = parse(&stream, 333).unwrap();
    let shown: Vec<_> = found
        .iter()
        .map(|(h, content)| (h.path.as_str(), h.kind, content.len()))
        .collect();
    let expected = [
        ("backup_label", MemberKind::File, 5),
        ("base/1", MemberKind::Folder, 0),
        ("pg_wal/archive_status", MemberKind::Folder, 0),
        ("pg_tblspc/16384", MemberKind::Symlink, 0),
        ("base/1/2", MemberKind::File, 1024),
        ("empty", MemberKind::File, 0),
        ("prefix/of/name", MemberKind::Folder, 0),
    ];
    assert_eq!(shown, expected);
    assert_eq!((found[0].0.mode, found[0].0.mtime), (0o600, 0o15000000000));
}

#[test]
fn a_trailer_may_be_there_or_not() {
    let bare = member("a", b"x");
    assert_eq!(parse(&bare, 512).unwrap().len(), 1);
    for blocks in [1, 2, 20] {
        assert_eq!(
            parse(&[bare.clone(), vec![0; blocks * BLOCK]].concat(), 700)
                .unwrap()
                .len(),
            1
        );
    }
    assert!(error_of(&[bare.clone(), vec![0; BLOCK], bare].concat()).contains("follows its end"));
}

#[test]
fn sizes_beyond_eight_gibibytes_are_in_base_256() {
    let mut size = [0u8; 12];
    size[0] = 0x80;
    size[4..].copy_from_slice(&(9u64 << 30).to_be_bytes());
    let mut parser = Parser::default();
    parser.feed(block("big", b'0', &size, "").into());
    match parser.next().unwrap() {
        Some(Item::Entry(header)) => assert_eq!(header.size, 9 << 30),
        other => panic!("{other:?}"),
    }
}

#[test]
fn paths_that_lead_outside_are_refused() {
    for name in [
        "../x",
        "/etc/passwd",
        "base/../../x",
        "./../x",
        "",
        ".",
        "./",
        "a//b",
        ".//etc",
    ] {
        assert!(
            error_of(&block(name, b'5', &octal(0), "")).contains("is not a path"),
            "{name:?}"
        );
    }
    assert!(error_of(&block("x", b'5', &octal(0), "/etc")).contains("is not a path"));
}

#[test]
fn damage_and_surprises_are_told() {
    let mut flipped = member("a", b"x");
    flipped[3] ^= 1;
    assert!(error_of(&flipped).contains("checksum"));
    assert!(error_of(&block("a", b'1', &octal(0), "")).contains("unknown type"));
    assert!(error_of(&block("a", b'0', b"notanumber  ", "")).contains("size"));
    let mut latin = block("a", b'0', &octal(0), "");
    latin[1] = 0xE4;
    let mut parser = Parser::default();
    parser.feed(checked(latin).into());
    let Some(Item::Entry(header)) = parser.next().unwrap() else {
        panic!("no member")
    };
    assert_eq!((header.path.as_str(), header.utf8), ("a\\xe4", false));
    let whole = member("a", &[1; 600]);
    for length in [1, 511, 513, 1100, 1112, 1535] {
        assert!(
            error_of(&whole[..length]).contains("ends within"),
            "{length}"
        );
    }
}

proptest! {
    #[test]
    fn content_does_not_depend_on_how_it_is_chunked(
        contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2000), 0..6),
        chunk in 1usize..3000,
    ) {
        let members = contents.iter().enumerate().map(|(at, content)| member(&format!("f{at}"), content));
        let found = parse(&members.collect::<Vec<_>>().concat(), chunk).unwrap();
        prop_assert_eq!(found.into_iter().map(|(_, content)| content).collect::<Vec<_>>(), contents);
    }

    #[test]
    fn garbage_never_panics(
        garbage in prop::collection::vec(any::<u8>(), 0..3000),
        place in any::<prop::sample::Index>(),
        chunk in 1usize..1000,
    ) {
        let _ = parse(&garbage, chunk);
        // A valid stream with garbage put over a part of it, its header checksum made right again.
        let mut stream = member("a", &[5; 700]);
        let at = place.index(BLOCK);
        let count = garbage.len().min(BLOCK - at);
        stream[at..at + count].copy_from_slice(&garbage[..count]);
        let header = checked(stream[..BLOCK].to_vec());
        stream[..BLOCK].copy_from_slice(&header);
        let _ = parse(&stream, chunk);
    }
}
