use super::*;

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| name.to_string()).collect()
}

const SCRIPT: &str = r#"--
-- PostgreSQL database dump
--
\restrict abc
-- Dumped from database version 15.20 (Debian 15.20-0+deb12u1)
-- Dumped by pg_dump version 16.1
SET default_tablespace = '';
SET default_tablespace = fast;
CREATE EXTENSION IF NOT EXISTS "uuid-ossp" WITH SCHEMA public;
CREATE FUNCTION public.f() RETURNS text
    LANGUAGE sql
    AS $body$ select 'a;
ALTER TABLE x OWNER TO nobody1;
\connect elsewhere
$body$;
ALTER FUNCTION public.f() OWNER TO "Mary M";
COMMENT ON FUNCTION public.f() IS 'it''s
GRANT ALL ON x TO nobody2;';
COMMENT ON FUNCTION public.f() IS E'a\\\';
GRANT ALL ON x TO nobody3;';
COPY public.t (a, b) FROM stdin;
\connect nowhere
ALTER TABLE x OWNER TO nobody4;
\.
GRANT SELECT ON TABLE public.t TO reader;
CREATE POLICY p ON public.t TO writer USING (true);
CREATE USER MAPPING FOR mapped SERVER s OPTIONS (
    "user" 'x'
);
\unrestrict abc
-- PostgreSQL database dump complete
"#;

#[test]
fn a_script_says_what_it_needs_and_what_lies_in_texts_says_nothing() {
    let found = scan(SCRIPT.as_bytes()).unwrap();
    assert_eq!(
        found,
        PlainDump {
            server_major: Some(15),
            program_major: Some(16),
            owners: set(&["Mary M"]),
            grantees: set(&["mapped", "reader", "writer"]),
            extensions: set(&["uuid-ossp"]),
            tablespaces: set(&["fast"]),
            leads_out: None,
            is_whole: true,
        }
    );
}

#[test]
fn a_script_that_leads_out_of_its_database_or_ends_early_is_known() {
    for line in [
        "\\connect other",
        "\\! rm x",
        " \\! rm x",
        "SELECT 1; \\connect other",
        "SELECT '\\! rm x' \\! rm x",
        "CREATE DATABASE x;",
        "DROP DATABASE x;",
        "\\i x",
    ] {
        let script = format!("SELECT 1;\n{line}\nSELECT 2;\n");
        let found = scan(script.as_bytes()).unwrap();
        assert_eq!(found.leads_out.as_deref(), Some(line));
        assert!(!found.is_whole);
    }
    let cluster = scan(&b"-- PostgreSQL database cluster dump\n"[..]).unwrap();
    assert!(cluster.leads_out.is_some());
}

#[test]
fn statements_are_found_wherever_they_stand() {
    for (script, told) in [
        ("SELECT 1; DROP DATABASE x;\n", "DROP DATABASE x;"),
        (
            "SELECT ';'; create\n  database\n x;\n",
            "create\n  database\n x;",
        ),
        ("/* a */ DROP/**/DATABASE x", "DROP DATABASE x;"),
        ("-- a\nDROP-- b\nDATABASE x;", "DROP DATABASE x;"),
        (
            "COPY (SELECT 1 FROM stdin) TO STDOUT;\nDROP DATABASE x;\n\\.\n",
            "DROP DATABASE x;",
        ),
        (
            "COPY t FROM stdin; SELECT 1;\n\\.\n",
            "COPY t FROM stdin; SELECT 1;",
        ),
    ] {
        let found = scan(script.as_bytes()).unwrap();
        assert_eq!(found.leads_out.as_deref(), Some(told), "{script}");
    }
    let script = "SELECT 1; GRANT a TO b; ALTER TABLE t\n  OWNER TO c;COPY t FROM stdin;\n\\! x\n\\.\n\
                      SELECT '; DROP DATABASE x;', $a$; DROP DATABASE y; $a$, \"; DROP DATABASE z\"; -- ; DROP DATABASE q;\n";
    for size in [1, 2, 3, 7, 1000] {
        let pieces = std::io::BufReader::with_capacity(size, script.as_bytes());
        let found = scan(pieces).unwrap();
        let grantees = set(&["b"]);
        assert_eq!(
            (found.leads_out, found.grantees, found.owners),
            (None, grantees, set(&["c"])),
            "{size}"
        );
    }
}

#[test]
fn little_of_a_long_line_is_held() {
    use std::io::Read;
    let long = || std::io::repeat(b'x').take(4 * LONGEST as u64);
    for (before, after) in [
        ("COPY t FROM stdin;\n", "\n\\.\n"),
        ("INSERT INTO t VALUES ('", "');\n"),
        ("-- ", "\n"),
        ("", ";\n"),
    ] {
        let script = before.as_bytes().chain(long()).chain(after.as_bytes());
        let mut script = std::io::BufReader::new(script.chain(&b"DROP DATABASE x;"[..]));
        let mut scan = Scan::new();
        while let Ok(piece @ [_, ..]) = script.fill_buf() {
            let read = piece.len();
            scan.take(piece);
            script.consume(read);
        }
        assert_eq!(scan.statement, b"", "{before}");
        assert!(scan.found.leads_out.is_some(), "{before}");
        let held = scan.line.capacity() + scan.statement.capacity();
        assert!(held <= 2 * LONGEST + 2 * LINE, "{before}: {held}");
    }
}
