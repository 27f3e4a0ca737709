//! The new database while it is built: under a name of its own, marked as Walden's, until it takes its place.

use anyhow::Context;

use super::properties::DatabaseProperties;
use super::sql::{literal, quoted};
use super::target::{ask, names};
use crate::error::{Hint, one_line};
use crate::postgres::catalog::marks::{Mark, MarkRole};
use crate::postgres::replication::Connection;

/// Makes the new database, empty, with its encoding and its owner; its OID. `guard` is a session whose name is the
/// database's: while it is there nobody takes the database for a leftover.
pub async fn create(
    guard: &mut Connection,
    mark: &Mark,
    properties: &DatabaseProperties,
) -> anyhow::Result<u32> {
    run(guard, &properties.create)
        .await
        .context("cannot make the new database")
        .hint("has the server this encoding and this locale, and room? `walden dump show` tells what the source had")?;
    let name = quoted(&mark.name);
    let comment = literal(&mark.beside(None));
    run(guard, &format!("COMMENT ON DATABASE {name} IS {comment}")).await?;
    if let Some(owner) = &properties.owner {
        run(
            guard,
            &format!("ALTER DATABASE {name} OWNER TO {}", quoted(owner)),
        )
        .await?;
    }
    let question = format!(
        "SELECT oid FROM pg_database WHERE datname = {}",
        literal(&mark.name)
    );
    Ok(ask(guard, &question).await?.parse(0, "oid")?)
}

/// Brings what is said of the database as a whole, which would disturb while it is filled: a setting can make it read-only.
pub async fn complete(
    guard: &mut Connection,
    properties: &DatabaseProperties,
) -> anyhow::Result<()> {
    for statement in &properties.statements {
        run(guard, statement)
            .await
            .context("cannot bring a property of the database")?;
    }
    Ok(())
}

/// Runs one statement, however long it takes.
pub async fn run(sql: &mut Connection, statement: &str) -> anyhow::Result<()> {
    let ran = sql.simple_query(statement).await;
    ran.map(drop)
        .with_context(|| format!("\"{}\" failed", first_words(statement)))
}

/// The beginning of a statement, for messages.
fn first_words(statement: &str) -> String {
    let words: Vec<&str> = statement.split_whitespace().take(6).collect();
    words.join(" ")
}

/// Removes a database that was being built, with the sessions in it.
pub async fn drop_building(sql: &mut Connection, name: &str) -> anyhow::Result<()> {
    // A template cannot be dropped, and the dump may have made it one.
    let name = quoted(name);
    run(
        sql,
        &format!("ALTER DATABASE {name} WITH IS_TEMPLATE false"),
    )
    .await?;
    run(sql, &format!("DROP DATABASE {name} WITH (FORCE)")).await
}

/// Removes databases that restores left which are gone: marked as being built, and without the session that guards them.
/// Returns those that were removed, and what is left to be told.
pub async fn sweep(sql: &mut Connection) -> anyhow::Result<(Vec<String>, Vec<String>)> {
    let (mut removed, mut notes) = (Vec::new(), Vec::new());
    for name in unguarded(sql).await? {
        let comment = comment(sql, &name).await?;
        match Mark::of(&name, comment.as_deref().unwrap_or_default()) {
            Some(mark) if mark.role == MarkRole::Building => match drop_building(sql, &name).await {
                Ok(()) => removed.push(name),
                Err(error) => notes.push(format!(
                    "database \"{name}\", which a restore left, cannot be removed: {}",
                    one_line(&error)
                )),
            },
            _ => notes.push(format!(
                "database \"{name}\" looks like one that a restore left, and has no mark that proves it; drop it by hand"
            )),
        }
    }
    Ok((removed, notes))
}

async fn unguarded(sql: &mut Connection) -> anyhow::Result<Vec<String>> {
    let begins = literal(crate::postgres::catalog::marks::BUILDING);
    let question = format!(
        "SELECT d.datname AS name FROM pg_database d WHERE starts_with(d.datname::text, {begins}) \
         AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.application_name = d.datname)"
    );
    Ok(names(sql, &question).await?.into_iter().collect())
}

/// The comment of a database.
pub async fn comment(sql: &mut Connection, name: &str) -> anyhow::Result<Option<String>> {
    let question = format!(
        "SELECT shobj_description(oid, 'pg_database') AS comment FROM pg_database WHERE datname = {}",
        literal(name)
    );
    let found = ask(sql, &question).await?;
    match found.rows.is_empty() {
        true => Ok(None),
        false => Ok(found.text(0, "comment")?.map(str::to_string)),
    }
}
