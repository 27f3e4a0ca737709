//! Databases that restores replaced and kept: found by their marks, dropped when somebody asks.

use anyhow::Context;
use chrono::{DateTime, Utc};
use serde::Serialize;

use super::building::run;
use super::sql::quoted;
use super::target::ask;
use crate::error::Hint;
use crate::postgres::catalog::marks::{Mark, MarkRole};
use crate::postgres::replication::Connection;

/// A database that a restore replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeptDatabase {
    pub name: String,
    /// Whose place it had.
    pub of: String,
    pub replaced_at: DateTime<Utc>,
    /// Bytes; not known where the role may not connect.
    pub size: Option<u64>,
    /// Sessions in it.
    pub sessions: u64,
}

/// Those of one database, or all, oldest first. A database that was renamed since is none of them.
pub async fn list(sql: &mut Connection, of: Option<&str>) -> anyhow::Result<Vec<KeptDatabase>> {
    let found = ask(
        sql,
        "SELECT d.datname AS name, shobj_description(d.oid, 'pg_database') AS comment, \
         CASE WHEN has_database_privilege(d.oid, 'CONNECT') THEN pg_database_size(d.oid) END AS size, \
         (SELECT count(*) FROM pg_stat_activity a WHERE a.datid = d.oid AND a.backend_type = 'client backend') AS sessions \
         FROM pg_database d WHERE shobj_description(d.oid, 'pg_database') LIKE '%[walden %'",
    )
    .await?;
    let mut kept = Vec::new();
    for row in 0..found.rows.len() {
        let name: String = found.parse(row, "name")?;
        let mark = Mark::of(&name, found.text(row, "comment")?.unwrap_or_default());
        let wanted = |mark: &Mark| {
            mark.role == MarkRole::Replaced && of.is_none_or(|database| mark.of == database)
        };
        if let Some(mark) = mark.filter(wanted) {
            kept.push(KeptDatabase {
                name,
                of: mark.of,
                replaced_at: mark.since,
                size: found.text(row, "size")?.map(str::parse).transpose()?,
                sessions: found.parse(row, "sessions")?,
            });
        }
    }
    kept.sort_by(|one, other| (one.replaced_at, &one.name).cmp(&(other.replaced_at, &other.name)));
    Ok(kept)
}

/// Drops a kept database. Errors: somebody is connected to it.
pub async fn drop_kept(sql: &mut Connection, name: &str) -> anyhow::Result<()> {
    run(sql, &format!("DROP DATABASE {}", quoted(name)))
        .await
        .with_context(|| format!("cannot drop database \"{name}\""))
        .hint("end the connections to it and run `walden dump drop-old`")
}
