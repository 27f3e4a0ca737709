//! What a plain dump, a script for psql, needs and does: read once from its first line to its last, before it is run.

use std::collections::BTreeSet;
use std::io::BufRead;

use super::sql::{NamesRoles, Token, TokenKind, roles_in, tokens};
use super::toc::major;

/// Bytes of one line that are looked at: what names roles and extensions is shorter.
const LONGEST: usize = 1 << 20;

/// What a script says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlainDump {
    pub server_major: Option<u32>,
    pub program_major: Option<u32>,
    pub owners: BTreeSet<String>,
    pub grantees: BTreeSet<String>,
    pub extensions: BTreeSet<String>,
    pub tablespaces: BTreeSet<String>,
    /// The first line that would lead out of the database: `\connect`, `CREATE DATABASE`, a command of the shell.
    pub leads_out: Option<String>,
    /// Whether its last line is there.
    pub is_whole: bool,
}

/// Where the end of a line lies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Code,
    Single {
        escapes: bool,
    },
    Double,
    /// The tag with both of its dollars.
    Dollars(Vec<u8>),
    Comment(u32),
    CopyData,
}

/// Reads a script to its end.
pub fn scan(mut from: impl BufRead) -> std::io::Result<PlainDump> {
    let mut scan = Scan::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        if from.read_until(b'\n', &mut line)? == 0 {
            return Ok(scan.found);
        }
        scan.line(line.trim_ascii_end());
    }
}

#[derive(Default)]
struct Scan {
    found: PlainDump,
    place: Place,
    /// Whether a statement has begun and not ended.
    within: bool,
}

impl Scan {
    fn line(&mut self, line: &[u8]) {
        if self.place == Place::CopyData {
            if line == b"\\." {
                self.place = Place::Code;
            }
            return;
        }
        let begins = self.place == Place::Code && !self.within;
        if begins && line.starts_with(b"--") {
            return self.comment(&String::from_utf8_lossy(line));
        }
        if begins && line.starts_with(b"\\") {
            let text = String::from_utf8_lossy(line);
            if !["\\restrict ", "\\unrestrict "]
                .iter()
                .any(|allowed| text.starts_with(allowed))
            {
                self.found.leads_out.get_or_insert(text.into_owned());
            }
            return;
        }
        self.advance(line);
        if begins && line.len() <= LONGEST {
            self.statement(&String::from_utf8_lossy(line));
        }
    }

    fn comment(&mut self, text: &str) {
        let version = |before: &str| text.strip_prefix(before).map(str::trim).and_then(major);
        let server = version("-- Dumped from database version");
        let program = version("-- Dumped by pg_dump version");
        self.found.server_major = self.found.server_major.or(server);
        self.found.program_major = self.found.program_major.or(program);
        if text == "-- PostgreSQL database cluster dump" {
            self.found
                .leads_out
                .get_or_insert("a dump of a whole cluster".into());
        }
        self.found.is_whole |= text == "-- PostgreSQL database dump complete";
    }

    /// Follows quotes and comments to the end of a line.
    fn advance(&mut self, line: &[u8]) {
        let mut at = 0;
        while let Some(&byte) = line.get(at) {
            let rest = &line[at..];
            at += match &mut self.place {
                Place::CopyData => return,
                Place::Code => match self.code(line, at) {
                    Some(step) => step,
                    None => return,
                },
                Place::Single { escapes } if byte == b'\\' && *escapes => 2,
                // A doubled quote closes and opens again.
                Place::Single { .. } if byte == b'\'' => self.closes(1),
                Place::Double if byte == b'"' => self.closes(1),
                Place::Dollars(tag) if rest.starts_with(tag) => {
                    let length = tag.len();
                    self.closes(length)
                }
                Place::Comment(depth) if rest.starts_with(b"/*") => {
                    *depth += 1;
                    2
                }
                Place::Comment(depth) if rest.starts_with(b"*/") => {
                    *depth -= 1;
                    match *depth {
                        0 => self.closes(2),
                        _ => 2,
                    }
                }
                _ => 1,
            };
        }
    }

    fn closes(&mut self, length: usize) -> usize {
        self.place = Place::Code;
        length
    }

    /// One step outside quotes; `None` at a comment up to the line's end.
    fn code(&mut self, line: &[u8], at: usize) -> Option<usize> {
        let rest = &line[at..];
        let before = |back: usize| at.checked_sub(back).map(|at| line[at]);
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80;
        match rest[0] {
            b'-' if rest.starts_with(b"--") => return None,
            b'/' if rest.starts_with(b"/*") => {
                self.place = Place::Comment(1);
                return Some(2);
            }
            b';' => self.within = false,
            // psql takes its own commands anywhere but in quotes, the shell's among them.
            b'\\' => {
                let text = String::from_utf8_lossy(line).into_owned();
                self.found.leads_out.get_or_insert(text);
            }
            b if b.is_ascii_whitespace() => (),
            b'\'' => {
                let escapes = before(1).is_some_and(|byte| byte.eq_ignore_ascii_case(&b'e'))
                    && !before(2).is_some_and(is_word);
                self.within = true;
                self.place = Place::Single { escapes };
            }
            b'"' => {
                self.within = true;
                self.place = Place::Double;
            }
            b'$' if !before(1).is_some_and(is_word) => {
                self.within = true;
                let end = rest[1..].iter().position(|byte| !is_word(*byte));
                if let Some(end) = end.filter(|end| rest[end + 1] == b'$') {
                    self.place = Place::Dollars(rest[..end + 2].to_vec());
                    return Some(end + 2);
                }
            }
            _ => self.within = true,
        }
        Some(1)
    }

    /// Notes what a statement that begins with this line needs: what matters stands on the first line.
    fn statement(&mut self, line: &str) {
        let (words, _) = tokens(line);
        let begins = |with: &[&str]| {
            with.len() <= words.len() && with.iter().zip(&words).all(|(word, token)| token.is(word))
        };
        let reads_on = |two: &[Token<'_>]| two[0].is("from") && two[1].is("stdin");
        if begins(&["copy"]) && words.windows(2).any(reads_on) {
            self.place = Place::CopyData;
            self.within = false;
            return;
        }
        let found = &mut self.found;
        let of_databases = ["create", "drop", "alter"].map(|verb| [verb, "database"]);
        if let Some(names) = names_roles(begins) {
            found.grantees.extend(roles_in(line, names));
        } else if of_databases.iter().any(|with| begins(with)) {
            found.leads_out.get_or_insert_with(|| line.to_string());
        } else if begins(&["create", "extension"]) {
            found.extensions.extend(extension(&words));
        } else if begins(&["set", "session", "authorization"]) {
            found.owners.extend(words.get(3).and_then(value));
        } else if begins(&["set", "default_tablespace"]) {
            let name = words.get(3).and_then(value);
            found
                .tablespaces
                .extend(name.filter(|name| !name.is_empty()));
        } else if begins(&["alter"]) {
            found.owners.extend(new_owner(&words));
        }
    }
}

/// In which way a statement names roles that are granted something.
fn names_roles(begins: impl Fn(&[&str]) -> bool) -> Option<NamesRoles> {
    let kinds = [
        (&["grant"][..], NamesRoles::Privileges),
        (&["revoke"], NamesRoles::Privileges),
        (&["alter", "default"], NamesRoles::Privileges),
        (&["create", "policy"], NamesRoles::Policy),
        (&["create", "user", "mapping"], NamesRoles::UserMapping),
    ];
    let found = kinds.into_iter().find(|(with, _)| begins(with));
    found.map(|(_, names)| names)
}

/// What CREATE EXTENSION names.
fn extension(words: &[Token<'_>]) -> Option<String> {
    let is_word = |token: &&Token<'_>| ["if", "not", "exists"].iter().any(|word| token.is(word));
    words.iter().skip(2).find(|token| !is_word(token))?.name()
}

/// Whom ALTER … OWNER TO names.
fn new_owner(words: &[Token<'_>]) -> Option<String> {
    let gives = |three: &&[Token<'_>]| three[0].is("owner") && three[1].is("to");
    words.windows(3).find(gives)?[2].name()
}

/// What a setting is set to.
fn value(token: &Token<'_>) -> Option<String> {
    match token.kind {
        TokenKind::Literal => Some(token.text.trim_matches('\'').replace("''", "'")),
        _ => token.name(),
    }
}

#[cfg(test)]
mod tests {
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
}
