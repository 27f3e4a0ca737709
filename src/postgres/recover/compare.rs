//! How recovered rows and present ones are compared. Pure: SQL, and which columns it names.
//!
//! Values are compared as their text: it is there for every type, it is what people see, and no type's own idea of being
//! equal hides a change. Only keys of the system's types are compared by its own `=`, so that indexes and hashes serve.

use super::columns::{Column, TableColumns, rows_of};
use crate::postgres::dump_restore::names::QualifiedName;
use crate::postgres::dump_restore::sql::quoted;

/// The two tables of a database.
#[derive(Debug)]
pub struct Pair<'a> {
    pub recovered: (&'a QualifiedName, &'a TableColumns),
    pub present: (&'a QualifiedName, &'a TableColumns),
    /// Of the present rows only these count as added.
    pub condition: Option<&'a str>,
}

impl Pair<'_> {
    /// Stored columns that both have: the recovered, the present.
    pub fn common(&self) -> Vec<(&Column, &Column)> {
        let recovered = self.recovered.1.stored();
        recovered
            .filter_map(|column| Some((column, self.present.1.column(&column.name)?)))
            .filter(|(_, present)| !present.is_generated)
            .collect()
    }

    /// The best key of the present table that the recovered rows have, too.
    pub fn key(&self) -> Vec<(&Column, &Column)> {
        let common = self.common();
        let found = self.present.1.keys.iter().find_map(|key| {
            let of_key = |name: &String| common.iter().find(|(column, _)| column.name == *name);
            let columns: Option<Vec<_>> = key.iter().map(|name| of_key(name).copied()).collect();
            columns.filter(|columns| !columns.is_empty())
        });
        found.unwrap_or_default()
    }

    /// What cannot be compared.
    pub fn notes(&self) -> Vec<String> {
        let (recovered, present) = (self.recovered.1, self.present.1);
        let names = |of: &TableColumns, other: &TableColumns| {
            let alone = of
                .stored()
                .filter(|column| other.column(&column.name).is_none());
            let names: Vec<String> = alone.map(|column| format!("\"{}\"", column.name)).collect();
            names.join(", ")
        };
        let mut notes = Vec::new();
        for (names, what) in [
            (names(recovered, present), "only the recovered rows have"),
            (names(present, recovered), "only the present rows have"),
        ] {
            notes.extend((!names.is_empty()).then(|| format!("{what} {names}")));
        }
        let other = self.common();
        let other = other
            .iter()
            .filter(|(then, now)| then.data_type != now.data_type);
        notes.extend(other.map(|(then, now)| {
            format!(
                "\"{}\" was of type {}, and is of type {} now",
                now.name, then.data_type, now.data_type
            )
        }));
        notes
    }

    fn condition(&self) -> String {
        self.condition.map_or("true".into(), parenthesised)
    }

    /// Counts missing, added, changed and same rows, in this order; the third is null without a key.
    pub fn count(&self) -> String {
        let key = self.key();
        match key.is_empty() {
            true => self.count_whole_rows(),
            false => self.count_by_key(&key),
        }
    }

    fn count_by_key(&self, key: &[(&Column, &Column)]) -> String {
        let common = self.common();
        let values: Vec<_> = common
            .into_iter()
            .filter(|pair| !key.iter().any(|(column, _)| column.name == pair.0.name))
            .collect();
        let row = |of: &str| {
            let values = (0..values.len()).map(|at| format!("{of}.v{at}"));
            format!("ROW({})", values.collect::<Vec<_>>().join(", "))
        };
        let differs = match values.is_empty() {
            true => "false".into(),
            false => format!("{} IS DISTINCT FROM {}", row("r"), row("p")),
        };
        let same_key = (0..key.len()).map(|at| format!("r.k{at} OPERATOR(pg_catalog.=) p.k{at}"));
        let (recovered, present) = self.sources();
        format!(
            "SELECT count(*) FILTER (WHERE p.here IS NULL), count(*) FILTER (WHERE r.here IS NULL AND p.here), \
             count(*) FILTER (WHERE p.here IS NOT NULL AND r.here AND {differs}), \
             count(*) FILTER (WHERE p.here IS NOT NULL AND r.here AND NOT {differs}) \
             FROM (SELECT true AS here, {} FROM {recovered}) r \
             FULL JOIN (SELECT coalesce({}, false) AS here, {} FROM {present}) p ON {}",
            side(key, &values, |pair| pair.0),
            self.condition(),
            side(key, &values, |pair| pair.1),
            same_key.collect::<Vec<_>>().join(" AND ")
        )
    }

    fn count_whole_rows(&self) -> String {
        let (recovered, present) = self.sources();
        let (then, now) = (self.row_text(0), self.row_text(1));
        format!(
            "SELECT coalesce(sum(greatest(r - p, 0)), 0)::int8, coalesce(sum(least(greatest(p - r, 0), here)), 0)::int8, \
             NULL::int8, coalesce(sum(least(r, p)), 0)::int8 FROM (SELECT whole, sum(r) AS r, sum(p) AS p, sum(here) AS here FROM (\
             SELECT {then} AS whole, 1 AS r, 0 AS p, 0 AS here FROM {recovered} \
             UNION ALL SELECT {now}, 0, 1, CASE WHEN {} THEN 1 ELSE 0 END FROM {present}) u GROUP BY whole) counted",
            self.condition()
        )
    }

    /// All of a row as one text, in which nothing and an empty text differ.
    pub fn row_text(&self, of: usize) -> String {
        let common = self.common();
        let texts = common
            .iter()
            .map(|pair| quoted(if of == 0 { &pair.0.name } else { &pair.1.name }));
        as_text(&texts.collect::<Vec<_>>().join(", "))
    }

    /// Both tables as sources of rows.
    pub fn sources(&self) -> (String, String) {
        let of = |(name, columns): (&QualifiedName, &TableColumns)| {
            rows_of(name, columns.is_partitioned)
        };
        (of(self.recovered), of(self.present))
    }

    /// Whether a recovered row, called `r`, and a present one, called `p`, have the same key.
    pub fn same_key(&self, key: &[(&Column, &Column)]) -> String {
        let parts = key.iter().map(|pair| {
            equals(
                pair,
                &format!("r.{}", quoted(&pair.0.name)),
                &format!("p.{}", quoted(&pair.1.name)),
            )
        });
        parts.collect::<Vec<_>>().join(" AND ")
    }
}

/// Key and other values of one table, as they are compared.
fn side<'a>(
    key: &[(&'a Column, &'a Column)],
    values: &[(&'a Column, &'a Column)],
    pick: impl Fn(&(&'a Column, &'a Column)) -> &'a Column,
) -> String {
    let value = |pair: &(&'a Column, &'a Column), plain: bool| {
        let name = quoted(&pick(pair).name);
        if plain { name } else { as_text(&name) }
    };
    let keys = key.iter().enumerate();
    let keys = keys.map(|(at, pair)| format!("{} AS k{at}", value(pair, is_plain(pair))));
    let values = values.iter().enumerate();
    let values = values.map(|(at, pair)| {
        let is_bytes = pair.0.is_bytes && pair.1.is_bytes;
        format!("{} AS v{at}", value(pair, is_bytes))
    });
    keys.chain(values).collect::<Vec<_>>().join(", ")
}

/// Whether two values are the same.
pub fn equals(pair: &(&Column, &Column), one: &str, other: &str) -> String {
    match is_plain(pair) {
        true => format!("{one} OPERATOR(pg_catalog.=) {other}"),
        false => format!("{} OPERATOR(pg_catalog.=) {}", as_text(one), as_text(other)),
    }
}

fn is_plain(pair: &(&Column, &Column)) -> bool {
    pair.0.is_plain && pair.1.is_plain && pair.0.data_type == pair.1.data_type
}

/// Values as text that is compared byte by byte. As a row they are written by their types' own output functions: a cast
/// to text may be somebody's function.
pub fn as_text(values: &str) -> String {
    format!("ROW({values})::pg_catalog.text COLLATE \"C\"")
}

/// Somebody's SQL; a comment at its end hides nothing behind it.
pub fn parenthesised(condition: &str) -> String {
    format!("(\n{condition}\n)")
}
