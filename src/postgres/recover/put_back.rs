//! The SQL that puts rows, or a whole table, back into their place. Pure.

use super::columns::{Column, list};
use super::compare::{Pair, as_text};
use super::rename::{NamedKind, Rename};
use crate::postgres::dump_restore::names::QualifiedName;
use crate::postgres::dump_restore::sql::{literal, quoted};

/// A sequence that a column of the present table takes its values from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnSequence {
    pub column: String,
    pub sequence: QualifiedName,
    /// The last value that the recovered table's had given out; `None`: it had none.
    pub stood: Option<i64>,
}

/// Inserts the recovered rows that are missing now. The statement that begins with `WITH` answers with their number.
pub fn insert_missing(pair: &Pair<'_>, sequences: &[ColumnSequence]) -> Vec<String> {
    let common = pair.common();
    let (present, key) = (pair.present.0, pair.key());
    let names = list(common.iter().map(|(_, now)| *now));
    let overriding = match common.iter().any(|(_, now)| now.is_identity) {
        true => " OVERRIDING SYSTEM VALUE",
        false => "",
    };
    let values: Vec<String> = common.iter().map(value).collect();
    let values = values.join(", ");
    let (recovered, now) = pair.sources();
    let rows = match key.is_empty() {
        false => format!(
            "SELECT {values} FROM {recovered} r WHERE NOT EXISTS (SELECT 1 FROM {now} p WHERE {})",
            pair.same_key(&key)
        ),
        true => format!(
            "SELECT {values} FROM (SELECT *, {} AS walden_row, \
             row_number() OVER (PARTITION BY {0}) AS walden_copy FROM {recovered}) r \
             LEFT JOIN (SELECT {} AS walden_row, count(*) AS walden_copies FROM {now} GROUP BY 1) p \
             ON r.walden_row OPERATOR(pg_catalog.=) p.walden_row WHERE r.walden_copy > coalesce(p.walden_copies, 0)",
            pair.row_text(0),
            pair.row_text(1)
        ),
    };
    let served: Vec<&ColumnSequence> = sequences
        .iter()
        .filter(|served| common.iter().any(|(_, now)| now.name == served.column))
        .collect();
    let mut sql = Vec::new();
    // Without a key nothing else keeps somebody from putting the same row in meanwhile.
    let on_conflict = match key.is_empty() {
        true => {
            let present = present.sql();
            sql.push(format!("LOCK TABLE {present} IN SHARE ROW EXCLUSIVE MODE"));
            String::new()
        }
        // Any other conflict is an error: a row that does not come back is told.
        false => format!(
            " ON CONFLICT ({}) DO NOTHING",
            list(key.iter().map(|(_, now)| *now))
        ),
    };
    let insert = format!(
        "INSERT INTO {} ({names}){overriding} {rows}{on_conflict}",
        present.sql()
    );
    sql.push(counted(&insert, &served));
    if !served.is_empty() {
        // Sequences do not move back when a constraint fails later.
        sql.push("SET CONSTRAINTS ALL IMMEDIATE".into());
    }
    sql.extend(served.iter().enumerate().map(advance));
    sql
}

/// Counts what an INSERT put in, and keeps the highest values for the transaction's next statements.
fn counted(insert: &str, served: &[&ColumnSequence]) -> String {
    let columns = served.iter().enumerate();
    let columns = columns.map(|(at, served)| format!(", {} AS c{at}", quoted(&served.column)));
    let highest = (0..served.len()).map(|at| {
        format!(", pg_catalog.set_config('walden.highest_{at}', max(c{at})::pg_catalog.text, true)")
    });
    format!(
        "WITH i AS ({insert} RETURNING 1 AS one{}) SELECT count(*){} FROM i",
        columns.collect::<String>(),
        highest.collect::<String>()
    )
}

/// A recovered value as the present column takes it. Its length is left to the assignment, which refuses what is too long.
fn value(pair: &(&Column, &Column)) -> String {
    let name = format!("r.{}", quoted(&pair.0.name));
    match pair.0.bare_type == pair.1.bare_type {
        true => name,
        false => format!("{name}::{}", pair.1.bare_type),
    }
}

/// Moves a sequence behind what was put back; never back, and not past where it stood.
fn advance((at, served): (usize, &&ColumnSequence)) -> String {
    let name = served.sequence.sql();
    let highest = match served.stood {
        Some(stood) => format!("least(m, {stood})"),
        None => "m".into(),
    };
    format!(
        "SELECT pg_catalog.setval({}, {highest}) \
         FROM (SELECT nullif(pg_catalog.current_setting('walden.highest_{at}', true), '')::int8 AS m) h, {name} s \
         WHERE m IS NOT NULL AND ({highest} > s.last_value OR ({highest} = s.last_value AND NOT s.is_called))",
        literal(&name)
    )
}

/// Gives changed rows their recovered values; `None`: there is no key, or nothing beside it.
pub fn revert_changed(pair: &Pair<'_>) -> Option<String> {
    let key = pair.key();
    let common = pair.common();
    let others: Vec<_> = common
        .iter()
        .filter(|pair| !key.iter().any(|(column, _)| column.name == pair.0.name))
        .filter(|(_, now)| !now.is_identity)
        .collect();
    if key.is_empty() || others.is_empty() {
        return None;
    }
    let set: Vec<String> = others
        .iter()
        .map(|pair| format!("{} = {}", quoted(&pair.1.name), value(pair)))
        .collect();
    let side = |of: &str, names: Vec<&String>| {
        let texts = names
            .iter()
            .map(|name| as_text(&format!("{of}.{}", quoted(name))));
        format!("ROW({})", texts.collect::<Vec<_>>().join(", "))
    };
    let then = side("r", others.iter().map(|(then, _)| &then.name).collect());
    let now = side("p", others.iter().map(|(_, now)| &now.name).collect());
    let (recovered, present) = pair.sources();
    Some(format!(
        "UPDATE {present} p SET {} FROM {recovered} r WHERE {} AND {then} IS DISTINCT FROM {now}",
        set.join(", "),
        pair.same_key(&key)
    ))
}

/// Gives a table that is gone its old name back, and all that belongs to it. With `made`: what of that was made.
pub fn take_name(renames: &[Rename], rows_only: bool) -> Vec<String> {
    let made = renames
        .iter()
        .filter(|rename| !rows_only || rename.kind == NamedKind::Table);
    made.map(Rename::undo).collect()
}

/// A script of one transaction.
pub fn script(statements: &[String]) -> String {
    let mut text = String::from("BEGIN;\n");
    for statement in statements {
        text += &format!("{statement};\n");
    }
    text + "COMMIT;\n"
}

#[cfg(test)]
mod tests {
    use super::super::columns::TableColumns;
    use super::*;

    fn table(data_type: &str, bare_type: &str, keys: &[&str]) -> TableColumns {
        let column = |name: &str, data_type: &str, bare_type: &str| Column {
            name: name.into(),
            data_type: data_type.into(),
            bare_type: bare_type.into(),
            is_plain: true,
            is_bytes: false,
            is_generated: false,
            is_identity: false,
        };
        TableColumns {
            is_partitioned: false,
            columns: vec![
                column("id", "integer", "integer"),
                column("code", data_type, bare_type),
            ],
            keys: keys.iter().map(|key| vec![key.to_string()]).collect(),
        }
    }

    fn put_back(then: &TableColumns, now: &TableColumns, stood: Option<i64>) -> Vec<String> {
        let name = |name: &str| QualifiedName::new("s", name);
        let (recovered, present) = (name("t_recovered"), name("t"));
        let pair = Pair {
            recovered: (&recovered, then),
            present: (&present, now),
            condition: None,
        };
        let sequence = ColumnSequence {
            column: "id".into(),
            sequence: name("t_id_seq"),
            stood,
        };
        insert_missing(&pair, &[sequence])
    }

    #[test]
    fn values_are_cast_to_other_types_and_never_cut() {
        let then = table("character varying(9)", "character varying", &["id"]);
        let shorter = table("character varying(2)", "character varying", &["id"]);
        let sql = &put_back(&then, &shorter, None)[0];
        assert!(sql.contains("SELECT r.\"id\", r.\"code\" FROM"), "{sql}");
        let fixed = table("character(2)", "bpchar", &["id"]);
        let sql = &put_back(&then, &fixed, None)[0];
        assert!(sql.contains("r.\"code\"::bpchar FROM"), "{sql}");
    }

    #[test]
    fn only_the_key_s_own_conflicts_are_skipped() {
        let keyed = table("text", "text", &["id"]);
        let sql = &put_back(&keyed, &keyed, None)[0];
        assert!(sql.contains(" ON CONFLICT (\"id\") DO NOTHING"), "{sql}");
        let bare = table("text", "text", &[]);
        let sql = put_back(&bare, &bare, None);
        assert!(sql[0].starts_with("LOCK TABLE "), "{sql:?}");
        assert!(!sql[1].contains("ON CONFLICT"), "{sql:?}");
    }

    #[test]
    fn a_sequence_moves_when_constraints_hold_and_not_past_where_it_stood() {
        let keyed = table("text", "text", &["id"]);
        let sql = put_back(&keyed, &keyed, Some(7));
        assert_eq!(sql[1], "SET CONSTRAINTS ALL IMMEDIATE");
        assert!(
            sql[2].contains("setval('\"s\".\"t_id_seq\"', least(m, 7))"),
            "{sql:?}"
        );
    }
}
