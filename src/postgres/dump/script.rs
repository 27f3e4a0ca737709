//! A plain dump, read as it comes: which tables are in it, and whether its end is.

use std::io::BufRead;

use super::archive::NotWhole;
use super::contained::Contained;

/// What `pg_dump` writes last, but for blank lines, comments and a command of psql.
const END: &[u8] = b"-- PostgreSQL database dump complete";
/// The same of `pg_dumpall`.
const GLOBALS_END: &[u8] = b"-- PostgreSQL database cluster dump complete";
/// Bytes of a line that are looked at: the longest names fit.
const LOOKED_AT: usize = 1024;
/// Lines behind [`END`] at most.
const BEHIND: u32 = 8;

/// Reads a dump to its end, however long its lines are.
pub fn check(source: impl BufRead) -> Result<Contained, NotWhole> {
    let mut contained = Contained::default();
    read_to(END, source, |line| {
        note(&String::from_utf8_lossy(line), &mut contained);
    })?;
    Ok(contained)
}

/// Reads roles and tablespaces to their end.
pub fn check_globals(source: impl BufRead) -> Result<(), NotWhole> {
    read_to(GLOBALS_END, source, |_| ())
}

/// Reads to the source's end, where this line must stand; `comment` sees all comments.
fn read_to(
    end: &[u8],
    mut source: impl BufRead,
    mut comment: impl FnMut(&[u8]),
) -> Result<(), NotWhole> {
    let (mut line, mut since_end) = (Vec::new(), None);
    loop {
        let (there, ends) = {
            let buffer = source.fill_buf()?;
            let stop = buffer.iter().position(|byte| *byte == b'\n');
            let part = &buffer[..stop.unwrap_or(buffer.len())];
            let room = LOOKED_AT.saturating_sub(line.len());
            line.extend(&part[..part.len().min(room)]);
            (
                part.len() + usize::from(stop.is_some()),
                stop.is_some() || buffer.is_empty(),
            )
        };
        source.consume(there);
        if !ends {
            continue;
        }
        since_end = match line == end {
            true => Some(0),
            false => since_end
                .map(|lines: u32| lines + 1)
                .filter(|lines| *lines <= BEHIND),
        };
        if line.starts_with(b"-- ") {
            comment(&line);
        }
        line.clear();
        if there == 0 {
            return since_end.map(|_| ()).ok_or(NotWhole::BrokenOff);
        }
    }
}

/// What a comment of `pg_dump` says: `-- Data for Name: orders; Type: TABLE DATA; Schema: public; Owner: shop`.
fn note(line: &str, contained: &mut Contained) {
    let Some((head, _)) = line.rsplit_once("; Owner: ") else {
        return;
    };
    for kind in [
        "; Type: TABLE; Schema: ",
        "; Type: MATERIALIZED VIEW; Schema: ",
        "; Type: FOREIGN TABLE; Schema: ",
    ] {
        let name = head.strip_prefix("-- Name: ");
        if let Some((name, schema)) = name.and_then(|rest| rest.rsplit_once(kind)) {
            contained.add_named(super::contained::spelled(name, schema));
        }
    }
    let rows = head.strip_prefix("-- Data for Name: ");
    if let Some((name, schema)) =
        rows.and_then(|rest| rest.rsplit_once("; Type: TABLE DATA; Schema: "))
    {
        contained.add_rows_of_named(super::contained::spelled(name, schema));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::dump::manifest::TableEntry;

    const DUMP: &str = "--\n-- PostgreSQL database dump\n--\n\n\
        -- Name: an; odd name; Type: TABLE; Schema: public; Owner: o; Tablespace: t\n\
        CREATE TABLE public.\"an; odd\nname\" (a int);\n\
        -- Data for Name: an; odd name; Type: TABLE DATA; Schema: public; Owner: o\n\
        COPY public.x (a) FROM stdin;\n1\n\\.\n\
        -- Name: empty; Type: TABLE; Schema: public; Owner: o\n\
        --\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict abc\n\n";

    fn table(name: &str) -> TableEntry {
        TableEntry {
            oid: 1,
            schema: "public".into(),
            name: name.into(),
            relkind: 'r',
            rows: None,
            size: None,
            has_rows: false,
        }
    }

    #[test]
    fn a_script_tells_which_tables_it_holds() {
        let contained = check(DUMP.as_bytes()).unwrap();
        let tables = ["an; odd\nname", "empty", "other"].map(|name| contained.has(&table(name)));
        assert_eq!(tables, [Some(true), Some(false), None]);
        let in_pieces = std::io::BufReader::with_capacity(3, DUMP.as_bytes());
        assert_eq!(check(in_pieces).unwrap(), contained);
    }

    #[test]
    fn globals_without_their_end_are_not_whole() {
        let globals = "--\n-- PostgreSQL database cluster dump\n--\n\nCREATE ROLE shop;\n\n\\unrestrict abc\n\n\
            --\n-- PostgreSQL database cluster dump complete\n--\n\n";
        check_globals(globals.as_bytes()).unwrap();
        let end = globals.find("complete").unwrap() + "complete".len();
        for length in 0..end {
            assert!(
                check_globals(&globals.as_bytes()[..length]).is_err(),
                "{length}"
            );
        }
    }

    #[test]
    fn one_that_was_cut_off_anywhere_is_never_whole() {
        let end = DUMP.find("complete").unwrap() + "complete".len();
        for length in 0..end {
            assert!(check(&DUMP.as_bytes()[..length]).is_err(), "{length}");
        }
        let long = format!(
            "{}{}",
            DUMP.replace("complete", "x"),
            "y".repeat(3 * LOOKED_AT)
        );
        assert!(check(long.as_bytes()).is_err());
    }
}
