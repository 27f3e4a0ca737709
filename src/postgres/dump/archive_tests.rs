use super::*;
use crate::postgres::dump::manifest::TableEntry;

/// Writes an archive as `pg_dump` does.
struct Writer {
    bytes: Vec<u8>,
    minor: u8,
    format: u8,
}

impl Writer {
    fn new(minor: u8, format: u8, entries: i64) -> Self {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([1, minor, 0, 4, 8, format]);
        let mut writer = Self {
            bytes,
            minor,
            format,
        };
        match minor {
            15.. => writer.bytes.push(1),
            _ => writer.int(-1),
        }
        (0..7).for_each(|number| writer.int(number));
        ["shop", "15.1", "15.1"]
            .into_iter()
            .for_each(|text| writer.text(Some(text)));
        writer.int(entries);
        writer
    }

    fn int(&mut self, number: i64) {
        self.bytes.push(u8::from(number < 0));
        self.bytes.extend(&number.unsigned_abs().to_le_bytes()[..4]);
    }

    fn text(&mut self, text: Option<&str>) {
        self.int(text.map_or(-1, |text| text.len() as i64));
        self.bytes.extend(text.unwrap_or_default().bytes());
    }

    fn entry(&mut self, id: i64, has_data: bool, class: &str, oid: &str, what: &str) {
        self.int(id);
        self.int(has_data.into());
        self.text(Some(class));
        self.text(Some(oid));
        self.text(Some("a; \"tag\""));
        self.text(Some(what));
        self.int(2);
        for text in [
            Some("CREATE"),
            Some("DROP"),
            None,
            Some("public"),
            None,
            Some("heap"),
        ] {
            self.text(text);
        }
        if self.minor >= 16 {
            self.int(114);
        }
        self.text(Some("owner"));
        self.text(Some("false"));
        self.text(Some("3"));
        self.text(None);
        match self.format {
            CUSTOM => self.bytes.extend([1, 0, 0, 0, 0, 0, 0, 0, 0]),
            _ => self.text(Some("1.dat.gz")),
        }
    }
}

fn table(oid: u32) -> TableEntry {
    TableEntry {
        oid,
        schema: "public".into(),
        name: "t".into(),
        relkind: 'r',
        rows: None,
        size: None,
        has_rows: false,
    }
}

/// A table with rows, one without, a large object, and where the table of contents ends.
fn archive(minor: u8, format: u8) -> (Vec<u8>, usize) {
    let mut writer = Writer::new(minor, format, 4);
    writer.entry(10, false, PG_CLASS, "16390", "TABLE");
    writer.entry(11, false, PG_CLASS, "16393", "TABLE");
    writer.entry(20, true, "0", "16390", "TABLE DATA");
    writer.entry(21, true, "0", "0", "BLOBS");
    let end = writer.bytes.len();
    if format == CUSTOM {
        writer.bytes.push(BLOCK_DATA);
        writer.int(20);
        for chunk in ["some", "rows"] {
            writer.text(Some(chunk));
        }
        writer.int(0);
        writer.bytes.push(BLOCK_BLOBS);
        writer.int(21);
        writer.int(16400);
        writer.text(Some("content"));
        writer.int(0);
        writer.int(0);
    }
    (writer.bytes, end)
}

#[test]
fn an_archive_tells_which_tables_it_holds() {
    for minor in 14..=16 {
        for format in [CUSTOM, DIRECTORY] {
            let contained = check(&archive(minor, format).0[..]).unwrap();
            let tables = [16390, 16393, 16400].map(|oid| contained.has(&table(oid)));
            assert_eq!(tables, [Some(true), Some(false), None], "1.{minor}");
        }
    }
}

#[test]
fn one_that_was_cut_off_anywhere_is_never_whole() {
    let (whole, contents) = archive(15, CUSTOM);
    for length in 0..whole.len() {
        let error = check(&whole[..length]).unwrap_err();
        let at_a_block = length >= contents && matches!(error, NotWhole::Damaged(_));
        assert!(
            at_a_block || matches!(error, NotWhole::BrokenOff),
            "{length}: {error}"
        );
    }
}

#[test]
fn what_does_not_fit_together_is_no_archive() {
    let (whole, _) = archive(14, CUSTOM);
    let longer = [&whole[..], b"x"].concat();
    assert!(check(&longer[..]).is_err());
    assert!(matches!(
        check(&b"-- PostgreSQL database dump"[..]),
        Err(NotWhole::Foreign)
    ));
    let mut newer = whole.clone();
    newer[6] = 17;
    assert!(matches!(check(&newer[..]), Err(NotWhole::Unknown(1, 17))));
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 0xff;
        // Whatever comes of it: no panic, and it ends.
        let _ = check(&flipped[..]);
    }
}
