//! What a table needs and the present database lost: made for its owner, for whom alone it works.

use tokio_postgres::Transaction;

use super::report::LeftOut;
use super::sessions::{Said, attempt};
use crate::postgres::dump_restore::names::QualifiedName;
use crate::postgres::dump_restore::sql::{literal, quoted};
use crate::postgres::dump_restore::toc::TocEntry;

/// What became of something that the table needs.
pub enum Needed {
    IsThere,
    /// Made; with what did not come back of it.
    Made(Option<LeftOut>),
    Missing(LeftOut),
}

/// Makes what the table needs, unless it is there. It gets its owner: functions that a stranger wrote would else run with
/// the rights of this session's role, for everybody.
pub async fn make(transaction: &mut Transaction<'_>, entry: &TocEntry) -> anyhow::Result<Needed> {
    let (is_there, kind) = (is_there(transaction, entry).await?, entry.kind());
    if is_there {
        return Ok(Needed::IsThere);
    }
    let missing = |why: String| {
        let left = LeftOut::new(&kind.to_lowercase(), &shown(entry)).because(why);
        Ok(Needed::Missing(left))
    };
    if is_of_the_whole_database(&kind) {
        return missing("it is not there, and is made by hand".into());
    }
    let owner = quoted(&entry.owner());
    let mut definition = entry.definition().into_owned();
    if let Some(routine) = routine(entry) {
        definition += &format!(
            ";\nREVOKE ALL ON ROUTINE {routine} FROM PUBLIC;\nALTER ROUTINE {routine} OWNER TO {owner};"
        );
    }
    if let Err(why) = attempt(transaction, &definition).await? {
        return missing(why);
    }
    let Some(owned) = owned(entry) else {
        return Ok(Needed::Made(None));
    };
    let sql = format!("ALTER {owned} OWNER TO {owner}");
    let why = attempt(transaction, &sql).await?.err();
    let name = format!("{} of {}", entry.owner(), shown(entry));
    Ok(Needed::Made(
        why.map(|why| LeftOut::new("owner", &name).because(why)),
    ))
}

/// What acts on more than the table: never made.
fn is_of_the_whole_database(kind: &str) -> bool {
    matches!(
        kind,
        "EXTENSION" | "PROCEDURAL LANGUAGE" | "CAST" | "ACCESS METHOD"
    )
}

async fn is_there(transaction: &mut Transaction<'_>, entry: &TocEntry) -> anyhow::Result<bool> {
    let Some(question) = question(entry) else {
        return Ok(false);
    };
    let point = transaction.savepoint("question").await;
    let point = point.said("the transaction is lost")?;
    // In older majors a name of a type that is gone is an error: then the function is gone, too.
    let is_there = match point.query_one(&question, &[]).await {
        Ok(row) => row.get(0),
        Err(error) if error.as_db_error().is_some() => false,
        Err(error) => return Err(error).said("the transaction is lost"),
    };
    point.rollback().await.said("the transaction is lost")?;
    Ok(is_there)
}

/// For people.
pub fn shown(entry: &TocEntry) -> String {
    match entry.schema().is_empty() {
        true => entry.tag().into_owned(),
        false => format!("{}.{}", entry.schema(), entry.tag()),
    }
}

/// A function, procedure or aggregate as `ALTER ROUTINE` takes it.
fn routine(entry: &TocEntry) -> Option<String> {
    if !matches!(
        entry.kind().as_ref(),
        "FUNCTION" | "PROCEDURE" | "AGGREGATE"
    ) {
        return None;
    }
    let tag = entry.tag();
    let (name, arguments) = tag.split_once('(')?;
    let name = QualifiedName::new(&entry.schema(), name).sql();
    // An aggregate of whole rows.
    let arguments = if arguments == "*)" { ")" } else { arguments };
    Some(format!("{name}({arguments}"))
}

/// Something else that has an owner, as `ALTER` takes it.
fn owned(entry: &TocEntry) -> Option<String> {
    let kind = entry.kind();
    let name = || QualifiedName::new(&entry.schema(), &entry.tag()).sql();
    Some(match kind.as_ref() {
        "SCHEMA" => format!("SCHEMA {}", quoted(&entry.tag())),
        "TYPE" | "DOMAIN" | "SHELL TYPE" => format!("TYPE {}", name()),
        "SEQUENCE" | "COLLATION" | "TEXT SEARCH CONFIGURATION" | "TEXT SEARCH DICTIONARY" => {
            format!("{kind} {}", name())
        }
        _ => return None,
    })
}

/// Asks whether it is there; `None`: only making it tells.
fn question(entry: &TocEntry) -> Option<String> {
    let (tag, schema) = (entry.tag(), entry.schema());
    let name = QualifiedName::new(&schema, &tag).sql();
    let of = |function: &str, name: &str| {
        format!(
            "SELECT pg_catalog.{function}({}) IS NOT NULL",
            literal(name)
        )
    };
    let listed = |catalog: &str, column: &str| {
        let tag = literal(&tag);
        format!("SELECT EXISTS (SELECT FROM pg_catalog.{catalog} WHERE {column} = {tag})")
    };
    Some(match entry.kind().as_ref() {
        "SCHEMA" => of("to_regnamespace", &quoted(&tag)),
        "TYPE" | "DOMAIN" | "SHELL TYPE" => of("to_regtype", &name),
        "SEQUENCE" => of("to_regclass", &name),
        "COLLATION" => of("to_regcollation", &name),
        "FUNCTION" | "PROCEDURE" | "AGGREGATE" => of("to_regprocedure", &routine(entry)?),
        "EXTENSION" => listed("pg_extension", "extname"),
        "PROCEDURAL LANGUAGE" => listed("pg_language", "lanname"),
        "ACCESS METHOD" => listed("pg_am", "amname"),
        "CAST" => {
            let types = tag.strip_prefix("CAST (")?.strip_suffix(')')?;
            let (from, to) = types.split_once(" AS ")?;
            format!(
                "SELECT EXISTS (SELECT FROM pg_catalog.pg_cast WHERE castsource = pg_catalog.to_regtype({}) \
                 AND casttarget = pg_catalog.to_regtype({}))",
                literal(from),
                literal(to)
            )
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routines_and_what_else_has_an_owner_are_named_as_sql_names_them() {
        let of = |kind: &str, tag: &str| TocEntry::of(1, kind, "s", tag, &[]);
        for (kind, tag, expected) in [
            (
                "FUNCTION",
                "f(integer, \"s\".\"t\")",
                "\"s\".\"f\"(integer, \"s\".\"t\")",
            ),
            ("AGGREGATE", "Rows(*)", "\"s\".\"Rows\"()"),
        ] {
            assert_eq!(routine(&of(kind, tag)).as_deref(), Some(expected));
        }
        assert_eq!(routine(&of("TYPE", "t")), None);
        assert_eq!(
            owned(&of("DOMAIN", "d")).as_deref(),
            Some("TYPE \"s\".\"d\"")
        );
        assert_eq!(owned(&of("SCHEMA", "x")).as_deref(), Some("SCHEMA \"x\""));
        assert_eq!(owned(&of("OPERATOR", "+")), None);
    }
}
