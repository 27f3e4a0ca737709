//! Data whose every value is known beforehand: what makes them, and what each question about them must answer. Pure.

use std::fmt::Write;

use chrono::{DateTime, TimeDelta};

use crate::postgres::dump_restore::sql::{literal, quoted};

/// Rows of a question, each value as text.
pub type Rows = Vec<Vec<Option<String>>>;

/// What is asked of the restored database.
#[derive(Debug, Clone)]
pub struct Question {
    pub name: &'static str,
    pub sql: String,
    pub expected: Rows,
}

const SCHEMA: &str = "Round \"Trip\"";
const TYPES: &str = "every type";
const MANY: &str = "many";
/// Rows of the table of many.
const COUNT: i64 = 2000;
const LARGE_OBJECT: u32 = 1_717_171;
const LARGE_BYTES: &str = "\\x00ff27225c0a0d8001";
const COMMENT: &str = "it's \\ a \"comment\"\nof two lines";
const INDEX: &str = "by word";

/// Columns of a table with every type.
const COLUMNS: [(&str, &str); 19] = [
    ("id", "bigint"),
    ("small", "smallint"),
    ("whole", "integer"),
    ("real", "real"),
    ("double", "double precision"),
    ("exact", "numeric"),
    ("flag", "boolean"),
    ("odd \"name\" é", "text"),
    ("short", "varchar(7)"),
    ("bytes", "bytea"),
    ("document", "jsonb"),
    ("raw", "json"),
    ("moment", "timestamp"),
    ("instant", "timestamptz"),
    ("span", "interval"),
    ("numbers", "integer[]"),
    ("words", "text[]"),
    ("uuid", "uuid"),
    ("kind", "\"Round \"\"Trip\"\"\".kind"),
];

/// Its rows, as PostgreSQL writes them.
const TYPED: [[Option<&str>; 19]; 4] = [
    [
        Some("-9223372036854775808"),
        Some("-32768"),
        Some("2147483647"),
        Some("0.1"),
        Some("-1.7976931348623157e+308"),
        Some("12345678901234567890123456789.000000012300"),
        Some("true"),
        Some(
            "O'Brien \\ back\\slash \"quoted\"\ttab\r\nline \\N \\. $$ $1 % {} é 日本 😀 \u{7f}\u{1}",
        ),
        Some("  pad  "),
        Some("\\x000102275c0a0dff"),
        Some(
            "{\"n\": 1.50, \"deep\": {\"list\": [true, null, \"a\\nb\", \"\\\"\"]}, \"emoji\": \"😀\"}",
        ),
        Some("{\"b\":1, \"a\" : [ ] , \"b\":2}"),
        Some("2000-02-29 23:59:59.999999"),
        Some("1969-12-31 23:59:59.5+00"),
        Some("1 year 2 mons 3 days 04:05:06.789"),
        Some("{{1,2},{3,NULL}}"),
        Some("{\"a,b\",\"quo\\\"te\",NULL,\"\",\"back\\\\slash\"}"),
        Some("00000000-0000-4000-8000-0000deadbeef"),
        Some("it's odd"),
    ],
    [
        Some("0"),
        Some("0"),
        Some("0"),
        Some("NaN"),
        Some("0"),
        Some("NaN"),
        Some("false"),
        Some(""),
        Some(""),
        Some("\\x"),
        Some("{}"),
        Some("null"),
        Some("infinity"),
        Some("-infinity"),
        Some("00:00:00"),
        Some("{}"),
        Some("{}"),
        Some("ffffffff-ffff-ffff-ffff-ffffffffffff"),
        Some("plain"),
    ],
    [
        Some("1"),
        Some("32767"),
        Some("-2147483648"),
        Some("-Infinity"),
        Some("0.30000000000000004"),
        Some("-0.10"),
        Some("true"),
        Some("\\x41 NULL null \\\\ ;--"),
        Some("日本語日本語日"),
        Some("\\xdeadbeef"),
        Some("[1, \"two\", {\"three\": 3}, [], null]"),
        Some("[1,2,  3]"),
        Some("0001-01-01 00:00:00"),
        Some("9999-12-31 23:59:59.999999+00"),
        Some("-3 days"),
        Some("{7}"),
        Some("{x}"),
        Some("123e4567-e89b-12d3-a456-426614174000"),
        Some("plain"),
    ],
    [
        Some("9223372036854775807"),
        None,
        None,
        None,
        None,
        None,
        None,
        None,
        None,
        None,
        None,
        None,
        None,
        None,
        None,
        None,
        None,
        None,
        None,
    ],
];

fn table(name: &str) -> String {
    format!("{}.{}", quoted(SCHEMA), quoted(name))
}

/// What makes it all in an empty database.
pub fn make() -> String {
    let schema = quoted(SCHEMA);
    let (types, many) = (table(TYPES), table(MANY));
    let mut sql = format!(
        "create schema {schema};
         create type {schema}.kind as enum ('plain', 'it''s odd');
         create sequence {schema}.numbers start 17 increment 5;\n"
    );
    let columns = COLUMNS.map(|(name, of)| format!("{} {of}", quoted(name)));
    let _ = writeln!(
        sql,
        "create table {types} ({}, primary key (id));",
        columns.join(", ")
    );
    for row in TYPED {
        let values: Vec<String> = row
            .iter()
            .map(|value| value.map_or("null".into(), literal))
            .collect();
        let _ = writeln!(sql, "insert into {types} values ({});", values.join(", "));
    }
    let _ = writeln!(
        sql,
        "create table {many} (n integer primary key, of bigint not null references {types} (id),
            word text not null, amount numeric(12,2) not null check (amount >= 0), at timestamptz, document jsonb,
            number bigint default nextval('{schema}.numbers'));
         insert into {many} select n, n % 2, 'w' || n % 97, ((n * n / 100)::text || '.' || lpad((n * n % 100)::text, 2, '0'))::numeric,
            'epoch'::timestamptz + n * interval '1 minute', jsonb_build_object('n', n, 'odd', n % 2 = 1, 'word', 'w' || n % 97), n
            from generate_series(1, {COUNT}) n;
         create index {} on {many} (word, amount desc);
         comment on table {many} is {};
         select nextval('{schema}.numbers') from generate_series(1, 3);
         select lo_from_bytea({LARGE_OBJECT}, {});",
        quoted(INDEX),
        literal(COMMENT),
        literal(LARGE_BYTES),
    );
    sql
}

/// What is asked, and what must be answered.
pub fn questions() -> Vec<Question> {
    [of_rows(), of_definitions()].concat()
}

fn question(name: &'static str, sql: String, expected: Rows) -> Question {
    Question {
        name,
        sql,
        expected,
    }
}

/// An answer of one row.
fn one(values: &[&str]) -> Rows {
    vec![values.iter().map(|value| Some(value.to_string())).collect()]
}

fn of_rows() -> Vec<Question> {
    let (types, many) = (table(TYPES), table(MANY));
    let columns = COLUMNS.map(|(name, _)| format!("{}::text", quoted(name)));
    let mut typed = TYPED.to_vec();
    typed.sort_by_key(|row| row[0].and_then(|id| id.parse::<i64>().ok()));
    let owned = |row: &[Option<&str>; 19]| row.map(|value| value.map(str::to_string)).to_vec();
    vec![
        question(
            "counts",
            format!(
                "select (select count(*) from {types})::text, (select count(*) from {many})::text"
            ),
            one(&[&TYPED.len().to_string(), &COUNT.to_string()]),
        ),
        question(
            "values of every type",
            format!(
                "select {} from {types} order by {types}.id",
                columns.join(", ")
            ),
            typed.iter().map(owned).collect(),
        ),
        question(
            "values of many rows",
            format!(
                "select n::text, of::text, word, amount::text, at::text, document::text, number::text from {many} order by {many}.n"
            ),
            (1..=COUNT).map(row_of_many).collect(),
        ),
        question(
            "large object",
            format!("select lo_get({LARGE_OBJECT})::text"),
            one(&[LARGE_BYTES]),
        ),
    ]
}

fn of_definitions() -> Vec<Question> {
    let (schema, types, many) = (quoted(SCHEMA), table(TYPES), table(MANY));
    let of_table = format!("{}::regclass", literal(&many));
    let index = format!(
        "CREATE INDEX {} ON {schema}.{MANY} USING btree (word, amount DESC)",
        quoted(INDEX)
    );
    vec![
        question(
            "index",
            format!(
                "select pg_get_indexdef(indexrelid), indisvalid::text from pg_index where indrelid = {of_table} and not indisprimary"
            ),
            one(&[&index, "true"]),
        ),
        question(
            "foreign key",
            format!(
                "select pg_get_constraintdef(oid), convalidated::text from pg_constraint where conrelid = {of_table} and contype = 'f'"
            ),
            one(&[&format!("FOREIGN KEY (of) REFERENCES {types}(id)"), "true"]),
        ),
        question(
            "sequence",
            format!(
                "select last_value::text, is_called::text from {}",
                table("numbers")
            ),
            one(&["27", "true"]),
        ),
        question(
            "comment",
            format!("select obj_description({of_table}, 'pg_class')"),
            one(&[COMMENT]),
        ),
    ]
}

fn row_of_many(n: i64) -> Vec<Option<String>> {
    let (square, word) = (n * n, format!("w{}", n % 97));
    let at = DateTime::UNIX_EPOCH + TimeDelta::minutes(n);
    let values = [
        n.to_string(),
        (n % 2).to_string(),
        word.clone(),
        format!("{}.{:02}", square / 100, square % 100),
        at.format("%Y-%m-%d %H:%M:%S+00").to_string(),
        format!(
            "{{\"n\": {n}, \"odd\": {}, \"word\": \"{word}\"}}",
            n % 2 == 1
        ),
        n.to_string(),
    ];
    values.map(Some).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_a_value_and_a_row_without_any() {
        for (at, (name, _)) in COLUMNS.iter().enumerate() {
            assert!(TYPED.iter().any(|row| row[at].is_some()), "{name}");
        }
        assert_eq!(TYPED[3].iter().flatten().count(), 1);
        assert_eq!(row_of_many(1999)[3].as_deref(), Some("39960.01"));
        assert!(questions().iter().all(|asked| !asked.expected.is_empty()));
    }
}
