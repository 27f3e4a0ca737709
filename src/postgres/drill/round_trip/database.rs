//! The database with known data: on the server of `postgresql.dsn`, marked as Walden's, guarded by a session of its name.

use anyhow::{Context, anyhow};
use chrono::{DateTime, Utc};
use tokio_postgres::Client;

use super::known;
use crate::error::with_hint;
use crate::postgres::catalog::marks::{Mark, MarkRole, ROUND_TRIP};
use crate::postgres::cluster::Cluster;
use crate::postgres::drill::database::words;
use crate::postgres::dump_restore::sql::{literal, quoted};
use crate::postgres::replication::{ConnInfo, SqlClient, sql_client};

/// What sessions depend on is set, whatever server, database or role set otherwise.
const OPTIONS: &str = "-c search_path= -c DateStyle=ISO,MDY -c IntervalStyle=postgres -c TimeZone=UTC \
    -c standard_conforming_strings=on -c default_transaction_read_only=off -c statement_timeout=0 -c lock_timeout=60s \
    -c idle_in_transaction_session_timeout=0 -c default_tablespace=";
const SERVER: &str = "select pg_is_in_recovery(), rolsuper or rolcreatedb, (select system_identifier from pg_control_system())::text
    from pg_roles where rolname = current_user";
/// Those that nobody guards: who made them is gone.
const UNGUARDED: &str = "select d.datname::text, shobj_description(d.oid, 'pg_database'), pg_has_role(d.datdba, 'USAGE')
    from pg_database d where starts_with(d.datname::text, $1)
    and not exists (select from pg_stat_activity a where a.application_name = d.datname)";
const WORDS: &str =
    "Walden's test of dumps: it is dropped when that is over, by the next one if that was killed.";

/// A session under the name of the database. While it is there nobody takes the database for a leftover.
pub struct Guard {
    session: SqlClient,
    info: ConnInfo,
    name: String,
}

/// What the server says of itself.
#[derive(Debug)]
struct ServerSaid {
    server: String,
    is_standby: bool,
    may_create: bool,
    system_identifier: String,
}

impl Guard {
    /// Connects, and changes nothing.
    pub async fn connect(info: &ConnInfo, name: &str) -> anyhow::Result<Self> {
        let mut info = info.clone();
        info.application_name = name.to_string();
        let session = sql_client(&info, OPTIONS).await?;
        if session.version >= 140_000 {
            let sql = "set idle_session_timeout = 0";
            let set = session.client.batch_execute(sql).await;
            set.map_err(|error| failed("cannot begin a session", &error))?;
        }
        let name = name.to_string();
        Ok(Self {
            session,
            info,
            name,
        })
    }

    /// Why no database can be made there; `None`: it can.
    pub async fn refusal(&self, cluster: &Cluster) -> anyhow::Result<Option<anyhow::Error>> {
        let row = self.client().query_one(SERVER, &[]).await;
        let row = row.map_err(|error| failed("cannot ask the server", &error))?;
        let said = ServerSaid {
            server: self.session.server.clone(),
            is_standby: row.get(0),
            may_create: row.get(1),
            system_identifier: row.get(2),
        };
        Ok(refusal(&said, &self.info.user, cluster))
    }

    fn client(&self) -> &Client {
        &self.session.client
    }

    /// The role that owns the database.
    pub fn info(&self) -> &ConnInfo {
        &self.info
    }

    /// Drops what round trips left that were killed. Returns their names, and what is left to be told.
    pub async fn drop_leftovers(&self) -> anyhow::Result<(Vec<String>, Vec<String>)> {
        let found = self.client().query(UNGUARDED, &[&ROUND_TRIP]).await;
        let found = found.map_err(|error| failed("cannot look for leftovers", &error))?;
        let (mut dropped, mut notes) = (Vec::new(), Vec::new());
        for row in found {
            let (name, comment, is_ours): (String, Option<String>, bool) =
                (row.get(0), row.get(1), row.get(2));
            match fate(&name, comment.as_deref(), is_ours) {
                Fate::Drop => match self.drop(&name).await {
                    Ok(()) => {
                        tracing::info!("dropped database \"{name}\", which a round trip left");
                        dropped.push(name);
                    }
                    Err(error) => notes.push(format!("{error:#}")),
                },
                Fate::Tell(why) => notes.push(why),
            }
        }
        Ok((dropped, notes))
    }

    /// Makes the database, and what is in it.
    pub async fn make(&self, now: DateTime<Utc>) -> anyhow::Result<()> {
        let name = quoted(&self.name);
        let provider = match self.session.version >= 150_000 {
            true => " LOCALE_PROVIDER libc",
            false => "",
        };
        let create = format!(
            "CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'{provider}"
        );
        self.run(&create, "cannot make the database").await?;
        let mark = Mark {
            role: MarkRole::RoundTrip,
            name: self.name.clone(),
            of: self.name.clone(),
            since: now,
        };
        let comment = literal(&mark.beside(Some(WORDS)));
        let comment = format!("COMMENT ON DATABASE {name} IS {comment}");
        self.run(&comment, "cannot mark the database").await?;
        let mut inside = self.info.clone();
        inside.database = self.name.clone();
        let inside = sql_client(&inside, OPTIONS).await?;
        let made = inside.client.batch_execute(&known::make()).await;
        made.map_err(|error| failed("cannot make the known data", &error))
    }

    /// Drops the database, if it was made. What runs in this session ends before.
    pub async fn drop_own(&self) -> anyhow::Result<()> {
        self.drop(&self.name).await
    }

    async fn drop(&self, name: &str) -> anyhow::Result<()> {
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quoted(name));
        self.run(&sql, &format!("cannot drop database \"{name}\""))
            .await
    }

    async fn run(&self, sql: &str, what: &str) -> anyhow::Result<()> {
        let ran = self.client().batch_execute(sql).await;
        ran.map_err(|error| failed(what, &error))
    }
}

fn failed(what: &str, error: &tokio_postgres::Error) -> anyhow::Error {
    anyhow!("{}", words(error)).context(what.to_string())
}

/// Why no database can be made there.
fn refusal(said: &ServerSaid, user: &str, cluster: &Cluster) -> Option<anyhow::Error> {
    let (server, kept) = (&said.server, cluster.description.system_identifier);
    if said.system_identifier != kept.to_string() {
        let error = anyhow!(
            "PostgreSQL at {server} has system identifier {}, cluster \"{}\" has {kept}",
            said.system_identifier,
            cluster.description.name
        );
        let hint = "name the server of this cluster in `postgresql.dsn`";
        return Some(with_hint(error, hint));
    }
    if said.is_standby {
        let error = anyhow!("PostgreSQL at {server} is a standby: no database can be made there");
        let hint = "run it with the primary in `postgresql.dsn`";
        return Some(with_hint(error, hint));
    }
    if !said.may_create {
        let error = anyhow!("the role \"{user}\" may not make databases at {server}");
        let hint = format!("grant it: ALTER ROLE {} CREATEDB", quoted(user));
        return Some(with_hint(error, hint));
    }
    None
}

/// What becomes of a database that nobody guards.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Drop,
    Tell(String),
}

fn fate(name: &str, comment: Option<&str>, is_ours: bool) -> Fate {
    let mark = Mark::of(name, comment.unwrap_or_default());
    let is_marked = mark.is_some_and(|mark| mark.role == MarkRole::RoundTrip);
    match (is_marked, is_ours) {
        (true, true) => Fate::Drop,
        (true, false) => Fate::Tell(format!(
            "database \"{name}\", which a round trip left, is another role's; drop it as that role"
        )),
        (false, _) => Fate::Tell(format!(
            "database \"{name}\" is called like one of a round trip, and has no mark that proves it; drop it by hand"
        )),
    }
}

/// The connection to the server that is kept.
pub fn info(dsn: &str) -> anyhow::Result<ConnInfo> {
    ConnInfo::from_process(dsn).context("`postgresql.dsn` cannot be read")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::error::{hints, one_line};
    use crate::postgres::cluster::testing::cluster_in;
    use crate::storage::MemoryStorage;

    #[test]
    fn only_a_marked_database_of_ones_own_is_dropped() {
        let name = "walden_round_trip_20261130_101500_0000002a";
        let mark = Mark {
            role: MarkRole::RoundTrip,
            name: name.into(),
            of: name.into(),
            since: Utc::now(),
        };
        let comment = mark.beside(Some(WORDS));
        assert_eq!(fate(name, Some(&comment), true), Fate::Drop);
        for (name, comment, is_ours) in [
            (name, Some(comment.as_str()), false),
            (name, None, true),
            (name, Some("mine"), true),
            ("walden_round_trip_mine", Some(comment.as_str()), true),
        ] {
            assert!(matches!(fate(name, comment, is_ours), Fate::Tell(_)));
        }
        let kept = Mark {
            role: MarkRole::Replaced,
            ..mark
        };
        assert!(matches!(
            fate(name, Some(&kept.beside(None)), true),
            Fate::Tell(_)
        ));
    }

    #[tokio::test]
    async fn a_standby_another_cluster_and_a_role_without_rights_are_refused() {
        let cluster = cluster_in(Arc::new(MemoryStorage::default())).await;
        let said = |is_standby, may_create| ServerSaid {
            server: "/run:5432".into(),
            is_standby,
            may_create,
            system_identifier: cluster.description.system_identifier.to_string(),
        };
        assert!(refusal(&said(false, true), "walden", &cluster).is_none());
        let refused = |said: &ServerSaid| {
            let error = refusal(said, "the walden", &cluster).unwrap();
            format!("{} HINT {}", one_line(&error), hints(&error).concat())
        };
        assert!(refused(&said(true, true)).contains("is a standby"));
        let told = refused(&said(false, false));
        assert!(
            told.contains("ALTER ROLE \"the walden\" CREATEDB"),
            "{told}"
        );
        let other = ServerSaid {
            system_identifier: "8".into(),
            ..said(false, true)
        };
        assert!(refused(&other).contains("has system identifier 8"));
    }
}
