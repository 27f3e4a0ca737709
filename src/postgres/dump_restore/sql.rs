//! Just enough of SQL's words to read what `pg_dump` writes: where names stand, and where statements end. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// What a piece of SQL is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// A key word or a name without quotes.
    Word,
    /// A name in double quotes.
    Quoted,
    /// A text in single quotes or between dollars.
    Literal,
    Symbol,
}

/// One piece of SQL, comments and white space left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token<'a> {
    pub kind: TokenKind,
    pub text: &'a str,
    /// Where it begins.
    pub at: usize,
}

impl Token<'_> {
    /// Whether it is this key word.
    pub fn is(&self, word: &str) -> bool {
        self.kind == TokenKind::Word && self.text.eq_ignore_ascii_case(word)
    }

    fn is_symbol(&self, symbol: &str) -> bool {
        self.kind == TokenKind::Symbol && self.text == symbol
    }

    /// The name that it stands for; `None` where it is none.
    pub fn name(&self) -> Option<String> {
        match self.kind {
            TokenKind::Word => Some(self.text.to_lowercase()),
            TokenKind::Quoted => Some(self.text[1..self.text.len() - 1].replace("\"\"", "\"")),
            TokenKind::Literal | TokenKind::Symbol => None,
        }
    }

    fn range(&self) -> Range<usize> {
        self.at..self.at + self.text.len()
    }
}

/// A name as SQL takes it, whatever is in it.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as SQL takes it under `standard_conforming_strings`.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A part of an array's text or of a list, each as a literal.
pub fn literals<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    texts
        .into_iter()
        .map(literal)
        .collect::<Vec<_>>()
        .join(", ")
}

/// The pieces of a text. What is cut off ends with the text; `false` with them says so.
pub fn tokens(sql: &str) -> (Vec<Token<'_>>, bool) {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(c) = sql[at..].chars().next() {
        let rest = &sql[at..];
        let (kind, length) = match c {
            c if c.is_whitespace() => {
                at += c.len_utf8();
                continue;
            }
            '-' if rest.starts_with("--") => {
                at += rest.find('\n').unwrap_or(rest.len());
                continue;
            }
            '/' if rest.starts_with("/*") => {
                let Some(length) = comment(rest) else {
                    return (found, false);
                };
                at += length;
                continue;
            }
            '\'' => (
                TokenKind::Literal,
                closed(rest, 0, '\'', follows_e(&found, at)),
            ),
            '"' => (TokenKind::Quoted, closed(rest, 0, '"', false)),
            '$' => match dollar_quoted(rest) {
                Some(length) => (TokenKind::Literal, length),
                None => (TokenKind::Symbol, Some(1)),
            },
            c if is_in_word(c) => {
                let end = rest.find(|c| !is_in_word(c) && c != '$');
                (TokenKind::Word, Some(end.unwrap_or(rest.len())))
            }
            c => (TokenKind::Symbol, Some(c.len_utf8())),
        };
        let Some(length) = length else {
            return (found, false);
        };
        let text = &rest[..length];
        found.push(Token { kind, text, at });
        at += length;
    }
    (found, true)
}

fn is_in_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || !c.is_ascii()
}

/// Whether an `E` stands directly before: then backslashes escape.
fn follows_e(found: &[Token<'_>], at: usize) -> bool {
    found
        .last()
        .is_some_and(|token| token.is("e") && token.range().end == at)
}

/// Bytes of a comment that begins here; comments nest. `None` where it does not end.
fn comment(text: &str) -> Option<usize> {
    let (mut depth, mut at) = (0, 0);
    loop {
        let rest = &text[at..];
        at += match rest {
            _ if rest.starts_with("/*") => {
                depth += 1;
                2
            }
            _ if rest.starts_with("*/") => {
                depth -= 1;
                2
            }
            _ => rest.chars().next()?.len_utf8(),
        };
        if depth == 0 {
            return Some(at);
        }
    }
}

/// Bytes up to the closing quote of what begins here; doubled quotes do not close. `None` where it does not end.
fn closed(text: &str, from: usize, quote: char, escapes: bool) -> Option<usize> {
    let mut at = from + 1;
    loop {
        let c = text[at..].chars().next()?;
        at += c.len_utf8();
        if c == '\\' && escapes {
            at += text[at..].chars().next()?.len_utf8();
        } else if c == quote {
            if !text[at..].starts_with(quote) {
                return Some(at);
            }
            at += 1;
        }
    }
}

/// Bytes of a text between dollars, `Some(None)` where it does not end, `None` where it is none.
fn dollar_quoted(text: &str) -> Option<Option<usize>> {
    let tag = text[1..].find('$').map(|end| &text[..end + 2])?;
    let inner = &tag[1..tag.len() - 1];
    if !inner.chars().all(is_in_word) || inner.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    Some(
        text[tag.len()..]
            .find(tag)
            .map(|found| tag.len() + found + tag.len()),
    )
}

/// The statements of a text, each without its semicolon.
pub fn statements(sql: &str) -> Vec<&str> {
    let (tokens, _) = tokens(sql);
    let mut found = Vec::new();
    let mut from = None;
    for token in &tokens {
        if token.is_symbol(";") {
            found.extend(from.take().map(|from| sql[from..token.at].trim_end()));
        } else {
            from.get_or_insert(token.at);
        }
    }
    found.extend(from.map(|from| sql[from..].trim_end()));
    found
}

/// What kind of statement a definition holds, as far as roles in it are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamesRoles {
    /// GRANT, REVOKE, SET SESSION AUTHORIZATION, ALTER DEFAULT PRIVILEGES.
    Privileges,
    /// CREATE POLICY … TO.
    Policy,
    /// CREATE USER MAPPING FOR.
    UserMapping,
    /// ALTER ROLE … IN DATABASE.
    RoleSettings,
}

/// The roles that a definition of `pg_dump` names, PUBLIC left out.
pub fn roles_in(definition: &str, names: NamesRoles) -> BTreeSet<String> {
    let (tokens, _) = tokens(definition);
    role_places(&tokens, names)
        .into_iter()
        .filter_map(|place| tokens[place].name())
        .collect()
}

/// The definition with other roles in the places of those that are mapped.
pub fn with_roles(definition: &str, names: NamesRoles, map: &BTreeMap<String, String>) -> String {
    let (tokens, _) = tokens(definition);
    let changes = role_places(&tokens, names).into_iter().filter_map(|place| {
        let other = map.get(&tokens[place].name()?)?;
        Some((tokens[place].range(), quoted(other)))
    });
    replaced(definition, changes)
}

/// Replaces ranges, which come in order.
fn replaced(text: &str, changes: impl IntoIterator<Item = (Range<usize>, String)>) -> String {
    let (mut new, mut from) = (String::with_capacity(text.len() + 16), 0);
    for (range, other) in changes {
        new += &text[from..range.start];
        new += &other;
        from = range.end;
    }
    new + &text[from..]
}

/// Which tokens name roles.
fn role_places(tokens: &[Token<'_>], names: NamesRoles) -> Vec<usize> {
    let (mut places, mut depth) = (Vec::new(), 0_i32);
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        match token.text {
            "(" if token.is_symbol("(") => depth += 1,
            ")" if token.is_symbol(")") => depth -= 1,
            _ => (),
        }
        at += 1;
        // Behind reserved words alone, so that no column or table is taken for one of them.
        let before = |word: &str| at >= 2 && tokens[at - 2].is(word);
        let begins = match names {
            NamesRoles::Privileges => {
                token.is("to")
                    || token.is("from")
                    || (token.is("role") && before("for"))
                    || (token.is("authorization") && before("session"))
            }
            NamesRoles::Policy => token.is("to"),
            NamesRoles::UserMapping => token.is("for") && before("mapping"),
            NamesRoles::RoleSettings => token.is("role") && before("alter"),
        };
        if depth == 0 && begins {
            at = list(tokens, at, &mut places);
        }
    }
    places
}

/// Names separated by commas from `at` on; where they end.
fn list(tokens: &[Token<'_>], mut at: usize, places: &mut Vec<usize>) -> usize {
    while let Some(token) = tokens.get(at).filter(|token| token.name().is_some()) {
        if !token.is("public") {
            places.push(at);
        }
        match tokens.get(at + 1) {
            Some(next) if next.is_symbol(",") => at += 2,
            _ => return at + 1,
        }
    }
    at
}

/// The grantee of an `aclitem`, empty for PUBLIC, and the letters of what is granted.
pub fn grantee(item: &str) -> Option<(String, &str)> {
    let (name, rest) = match item.strip_prefix('"') {
        Some(_) => {
            let (tokens, _) = tokens(item);
            let first = tokens.first()?;
            (first.name()?, item[first.text.len()..].strip_prefix('=')?)
        }
        None => {
            let (name, rest) = item.split_once('=')?;
            (name.to_string(), rest)
        }
    };
    Some((name, rest.split('/').next()?))
}

/// A statement about a database, about another one.
pub fn of_database(statement: &str, name: &str) -> String {
    let (tokens, _) = tokens(statement);
    let place = database_place(&tokens).map(|place| (tokens[place].range(), quoted(name)));
    replaced(statement, place)
}

/// Which token is the name of the database.
fn database_place(tokens: &[Token<'_>]) -> Option<usize> {
    let verbs = ["create", "alter", "on", "in"];
    let word = (1..tokens.len()).find(|at| {
        tokens[*at].is("database") && verbs.iter().any(|verb| tokens[*at - 1].is(verb))
    })?;
    (word + 1 < tokens.len()).then_some(word + 1)
}

/// The name that CREATE DATABASE gives, and the tablespace that it asks for.
pub fn tablespace_of_database(create: &str) -> Option<String> {
    let (tokens, _) = tokens(create);
    tokens[tablespace_place(&tokens)?.end - 1].name()
}

/// CREATE DATABASE without a tablespace.
pub fn without_tablespace(create: &str) -> String {
    let (tokens, _) = tokens(create);
    let place = tablespace_place(&tokens)
        .map(|place| tokens[place.start].at..tokens[place.end - 1].range().end);
    replaced(create, place.map(|range| (range, String::new())))
}

fn tablespace_place(tokens: &[Token<'_>]) -> Option<Range<usize>> {
    let at = tokens.iter().position(|token| token.is("tablespace"))?;
    let name = at + 1 + usize::from(tokens.get(at + 1)?.is_symbol("="));
    (name < tokens.len()).then_some(at..name + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(definition: &str, kind: NamesRoles) -> Vec<String> {
        roles_in(definition, kind).into_iter().collect()
    }

    #[test]
    fn statements_end_where_the_server_ends_them() {
        let text = "CREATE FUNCTION f() AS $x$ a; -- b\n $x$; -- c; d\nSELECT 'it''s; so', E'\\';';\n\
                    /* a /* b; */ c; */ COMMENT ON TABLE \"a;b\" IS 'x' ; SELECT $1";
        assert_eq!(
            statements(text),
            [
                "CREATE FUNCTION f() AS $x$ a; -- b\n $x$",
                "SELECT 'it''s; so', E'\\';'",
                "COMMENT ON TABLE \"a;b\" IS 'x'",
                "SELECT $1"
            ]
        );
        for cut in ["SELECT 'a", "SELECT \"a", "DO $$ x", "/* a /* b */"] {
            assert!(!tokens(cut).1, "{cut}");
        }
    }

    #[test]
    fn roles_are_found_where_pg_dump_names_them() {
        let grants = "REVOKE ALL ON TABLE public.\"to\" FROM PUBLIC;\nSET SESSION AUTHORIZATION app;\n\
                      GRANT SELECT(\"from\") ON TABLE public.t TO \"Mary \"\"M\"\"\" WITH GRANT OPTION;\n\
                      RESET SESSION AUTHORIZATION;";
        assert_eq!(names(grants, NamesRoles::Privileges), ["Mary \"M\"", "app"]);
        let default =
            "ALTER DEFAULT PRIVILEGES FOR ROLE owner IN SCHEMA s GRANT SELECT ON TABLES TO reader;";
        assert_eq!(names(default, NamesRoles::Privileges), ["owner", "reader"]);
        let policy =
            "CREATE POLICY p ON s.t FOR SELECT TO a, \"B\" USING ((EXTRACT(year FROM d) > 5));";
        assert_eq!(names(policy, NamesRoles::Policy), ["B", "a"]);
        let mapping = "CREATE USER MAPPING FOR app SERVER s OPTIONS (\"user\" 'x');";
        assert_eq!(names(mapping, NamesRoles::UserMapping), ["app"]);
        let settings =
            "ALTER DATABASE d SET x TO 'y';\nALTER ROLE database IN DATABASE d SET x TO 'y';";
        assert_eq!(names(settings, NamesRoles::RoleSettings), ["database"]);
    }

    #[test]
    fn a_mapped_role_is_replaced_wherever_it_is_named_and_nowhere_else() {
        let map = BTreeMap::from([("a".to_string(), "the \"b\"".to_string())]);
        let grants = "SET SESSION AUTHORIZATION a;\nGRANT ALL ON TABLE a.a TO a, c;\nRESET SESSION AUTHORIZATION;\n";
        assert_eq!(
            with_roles(grants, NamesRoles::Privileges, &map),
            "SET SESSION AUTHORIZATION \"the \"\"b\"\"\";\nGRANT ALL ON TABLE a.a TO \"the \"\"b\"\"\", c;\n\
             RESET SESSION AUTHORIZATION;\n"
        );
    }

    #[test]
    fn what_is_said_of_a_database_is_said_of_another() {
        for (said, of_another) in [
            (
                "CREATE DATABASE database WITH TEMPLATE = template0 ENCODING = 'UTF8'",
                "CREATE DATABASE \"n\" WITH TEMPLATE = template0 ENCODING = 'UTF8'",
            ),
            (
                "ALTER ROLE database IN DATABASE \"odd \"\" one\" SET a TO 'DATABASE x'",
                "ALTER ROLE database IN DATABASE \"n\" SET a TO 'DATABASE x'",
            ),
            (
                "GRANT CONNECT ON DATABASE x TO y",
                "GRANT CONNECT ON DATABASE \"n\" TO y",
            ),
            (
                "COMMENT ON DATABASE x IS 'on database x'",
                "COMMENT ON DATABASE \"n\" IS 'on database x'",
            ),
        ] {
            assert_eq!(of_database(said, "n"), of_another);
        }
    }

    #[test]
    fn the_tablespace_of_a_database_is_known_and_can_be_left_out() {
        let create = "CREATE DATABASE x WITH ENCODING = 'UTF8' TABLESPACE = \"Fast One\";";
        assert_eq!(tablespace_of_database(create).as_deref(), Some("Fast One"));
        assert_eq!(
            without_tablespace(create),
            "CREATE DATABASE x WITH ENCODING = 'UTF8' ;"
        );
        assert_eq!(tablespace_of_database("CREATE DATABASE tablespace"), None);
    }
}
