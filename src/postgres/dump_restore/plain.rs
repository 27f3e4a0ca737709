//! What a plain dump, a script for psql, needs and does: read once from its first byte to its last, before it is run. However
//! long its lines are, little of them is held.

use std::collections::BTreeSet;
use std::io::BufRead;

use super::sql::{NamesRoles, Token, TokenKind, roles_in, tokens};
use super::toc::major;

/// Bytes of a statement that are looked at: what names roles and extensions stands before.
const LONGEST: usize = 1 << 20;
/// Bytes of a line that are looked at, or told.
const LINE: usize = 1024;
/// What the statements begin with that say something.
const VERBS: [&str; 7] = ["alter", "copy", "create", "drop", "grant", "revoke", "set"];

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

/// Where the next byte lies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Code,
    /// Behind `--`, up to the line's end.
    Remark,
    /// Behind a command of psql at a line's start, up to its end.
    Command,
    Single {
        escapes: bool,
        escaped: bool,
    },
    Double,
    /// The tag with both of its dollars, and how many bytes of it were seen.
    Dollars {
        tag: Vec<u8>,
        seen: usize,
    },
    Comment {
        depth: u32,
        last: u8,
    },
    CopyData,
}

/// Reads a script to its end.
pub fn scan(mut from: impl BufRead) -> std::io::Result<PlainDump> {
    let mut scan = Scan::new();
    loop {
        let piece = from.fill_buf()?;
        if piece.is_empty() {
            scan.line_ends();
            scan.statement_ends();
            return Ok(scan.found);
        }
        let read = piece.len();
        scan.take(piece);
        from.consume(read);
    }
}

#[derive(Default)]
struct Scan {
    found: PlainDump,
    place: Place,
    /// The statement so far without comments; empty: none has begun.
    statement: Vec<u8>,
    line: Vec<u8>,
    /// Whether the line began outside of statements.
    is_fresh: bool,
    /// Whether something on the line leads out.
    leads_out: bool,
    /// The last two bytes of code.
    last: [u8; 2],
    /// The tag of a text between dollars as far as it was read.
    tag: Option<Vec<u8>>,
    /// A COPY FROM stdin has ended: its data begin on the next line.
    copies: bool,
}

impl Scan {
    fn new() -> Self {
        Self {
            is_fresh: true,
            ..Self::default()
        }
    }

    fn take(&mut self, mut piece: &[u8]) {
        while let Some(&byte) = piece.first() {
            // Most bytes of a dump are data.
            if self.place == Place::CopyData {
                let end = piece.iter().position(|byte| *byte == b'\n');
                let (data, rest) = piece.split_at(end.unwrap_or(piece.len()));
                self.note(data);
                piece = rest;
                if piece.is_empty() {
                    return;
                }
                self.line_ends();
            } else if byte == b'\n' {
                self.step(byte);
                self.line_ends();
            } else {
                self.note(&[byte]);
                self.step(byte);
            }
            piece = &piece[1..];
        }
    }

    /// Keeps the beginning of a line.
    fn note(&mut self, bytes: &[u8]) {
        let room = LINE.saturating_sub(self.line.len());
        self.line.extend(&bytes[..bytes.len().min(room)]);
    }

    /// Keeps the beginning of a statement.
    fn say(&mut self, byte: u8) {
        let begins = !self.statement.is_empty() || !byte.is_ascii_whitespace();
        if begins && self.statement.len() < LONGEST {
            self.statement.push(byte);
        }
    }

    fn line_ends(&mut self) {
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(line.trim_ascii_end());
        match self.place {
            Place::CopyData if text == "\\." => self.place = Place::Code,
            Place::Remark if self.is_fresh && self.statement.is_empty() => self.comment(&text),
            Place::Command => {
                let allowed = ["\\restrict ", "\\unrestrict "];
                self.leads_out |= !allowed.iter().any(|allowed| text.starts_with(allowed));
            }
            _ => (),
        }
        if std::mem::take(&mut self.leads_out) {
            self.found.leads_out.get_or_insert(text.into_owned());
        }
        if matches!(self.place, Place::Remark | Place::Command) {
            self.place = Place::Code;
        }
        if std::mem::take(&mut self.copies) {
            self.place = Place::CopyData;
        }
        self.is_fresh = self.place == Place::Code && self.statement.is_empty();
        self.line = line;
        self.line.clear();
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

    fn step(&mut self, byte: u8) {
        let mut closes = false;
        match &mut self.place {
            Place::CopyData | Place::Remark | Place::Command => return,
            Place::Code => return self.code(byte),
            Place::Single { escaped, .. } if *escaped => *escaped = false,
            Place::Single { escapes, escaped } if byte == b'\\' => *escaped = *escapes,
            // A doubled quote closes and opens again.
            Place::Single { .. } => closes = byte == b'\'',
            Place::Double => closes = byte == b'"',
            Place::Dollars { tag, seen } => {
                *seen = match byte {
                    byte if byte == tag[*seen] => *seen + 1,
                    byte => usize::from(byte == b'$'),
                };
                closes = *seen == tag.len();
            }
            Place::Comment { depth, last } => {
                let pair = [std::mem::replace(last, byte), byte];
                match &pair {
                    b"/*" => (*depth, *last) = (*depth + 1, 0),
                    b"*/" => (*depth, *last) = (*depth - 1, 0),
                    _ => (),
                }
                if *depth == 0 {
                    self.place = Place::Code;
                }
                return;
            }
        }
        self.say(byte);
        if closes {
            self.place = Place::Code;
            self.last = [0, 0];
        }
    }

    /// A byte outside of quotes and comments.
    fn code(&mut self, byte: u8) {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80;
        let [before, last] = self.last;
        self.last = [last, byte];
        // What stands behind a COPY on its line psql runs when the data are read.
        self.leads_out |= self.copies && !byte.is_ascii_whitespace();
        let tag = self.tag.take();
        match byte {
            b'-' if last == b'-' => return self.remark(Place::Remark),
            b'*' if last == b'/' => return self.remark(Place::Comment { depth: 1, last: 0 }),
            b';' => return self.statement_ends(),
            // psql takes its own commands anywhere but in quotes, the shell's among them.
            b'\\' if self.is_fresh && self.line.len() == 1 => {
                self.place = Place::Command;
                return;
            }
            b'\\' => self.leads_out = true,
            b'\'' => {
                let escapes =
                    last.eq_ignore_ascii_case(&b'e') && !(is_word(before) || before == b'$');
                self.place = Place::Single {
                    escapes,
                    escaped: false,
                };
            }
            b'"' => self.place = Place::Double,
            b'$' => match tag {
                Some(mut tag) => {
                    tag.push(byte);
                    self.place = Place::Dollars { tag, seen: 0 };
                }
                None if !is_word(last) => self.tag = Some(vec![byte]),
                None => (),
            },
            byte if is_word(byte) => {
                let goes_on = |tag: &Vec<u8>| tag.len() > 1 || !byte.is_ascii_digit();
                self.tag = tag.filter(goes_on).map(|mut tag| {
                    tag.push(byte);
                    tag
                });
            }
            _ => (),
        }
        self.say(byte);
    }

    /// A comment begins: its first byte was taken for code.
    fn remark(&mut self, place: Place) {
        self.statement.pop();
        self.say(b' ');
        self.place = place;
        self.last = [0, 0];
    }

    /// Notes what a statement needs.
    fn statement_ends(&mut self) {
        let statement = std::mem::take(&mut self.statement);
        let verb = statement.split(|byte| !byte.is_ascii_alphabetic()).next();
        let verb = verb.unwrap_or_default();
        if VERBS
            .iter()
            .any(|known| verb.eq_ignore_ascii_case(known.as_bytes()))
        {
            self.note_statement(String::from_utf8_lossy(&statement).trim_end());
        }
        self.statement = statement;
        self.statement.clear();
        self.last = [0, 0];
    }

    fn note_statement(&mut self, statement: &str) {
        let (words, _) = tokens(statement);
        let begins = |with: &[&str]| {
            with.len() <= words.len() && with.iter().zip(&words).all(|(word, token)| token.is(word))
        };
        let found = &mut self.found;
        let of_databases = ["create", "drop", "alter"].map(|verb| [verb, "database"]);
        if let Some(names) = names_roles(begins) {
            found.grantees.extend(roles_in(statement, names));
        } else if of_databases.iter().any(|with| begins(with)) {
            let told = || statement.chars().take(LINE).chain([';']).collect();
            found.leads_out.get_or_insert_with(told);
        } else if begins(&["copy"]) {
            self.copies = reads_on(&words);
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

/// Whether a COPY reads what stands behind it in the script.
fn reads_on(words: &[Token<'_>]) -> bool {
    let mut depth = 0;
    words.windows(2).any(|two| {
        match two[0].text {
            "(" => depth += 1,
            ")" => depth -= 1,
            _ => (),
        }
        depth == 0 && two[0].is("from") && two[1].is("stdin")
    })
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
#[path = "plain_tests.rs"]
mod tests;
