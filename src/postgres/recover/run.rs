use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::time::Instant;

use anyhow::{Context, anyhow, ensure};

use super::after::After;
use super::definitions::{self, steps};
use super::from_dump::DumpOrigin;
use super::load::{Load, Loaded};
use super::options::{Clock, RecoverOptions};
use super::private_server::PrivateServer;
use super::refusals::{refuse_long, refuse_published, refuse_taken, taken};
use super::rename::{NamedKind, Rename, default_name, renames};
use super::report::TableRecovery;
use super::sessions::{Said, present, private, set_of_later_majors};
use super::source::SourceTable;
use crate::config::Settings;
use crate::error::{one_line, with_hint};
use crate::evidence::record::Phase;
use crate::postgres::catalog::RecoveryPlan;
use crate::postgres::cluster::Cluster;
use crate::postgres::drill::database::Session;
use crate::postgres::drill::restored::{Ended, restored};
use crate::postgres::drill::scratch::{Scratch, remove_leftovers};
use crate::postgres::dump_restore::names::QualifiedName;
use crate::postgres::dump_restore::sql::literal;
use crate::postgres::dump_restore::toc::Toc;
use crate::postgres::replication::{ConnInfo, SqlClient, sql_client};

/// Where a table is taken from.
pub enum Origin<'a> {
    /// A restore by this plan.
    Backup(Cluster, Box<RecoveryPlan>),
    Dump(DumpOrigin<'a>),
}

/// Where the table goes, and what its database was called.
struct Places {
    info: ConnInfo,
    database: String,
}

const WHOLE: &str = "the whole cluster: replay needs the files of all databases";
/// How long opening the way into the private server may take.
const QUESTION: std::time::Duration = std::time::Duration::from_secs(60);

/// Has a private server hold the table as it was, takes it out of there and loads it. Interrupted when `stop` completes. What is
/// made on this machine is removed, however it ends.
pub async fn recover(
    settings: &Settings,
    origin: Origin<'_>,
    options: &RecoverOptions,
    phases: &mut Vec<Phase>,
    stop: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<TableRecovery> {
    let of_dump = match &origin {
        Origin::Dump(dump) => dump.source.content.database().map(str::to_string),
        Origin::Backup(..) => None,
    };
    let places = Places::of(settings, options, of_dump)?;
    // A long restore is not made in vain.
    options.new_name.as_deref().map_or(Ok(()), refuse_long)?;
    let present = places.open().await?;
    refuse_published(&present.client, &[], &options.table).await?;
    drop(present);
    let parent = &settings.drill.folder;
    remove_leftovers(parent).await?;
    let scratch = Scratch::make(parent)?;
    let made = OnceLock::new();
    let work = async {
        let server = match origin {
            Origin::Backup(cluster, plan) => {
                of_backup(settings, cluster, *plan, &scratch, &places.database, phases).await?
            }
            Origin::Dump(dump) => {
                let begun = Instant::now();
                let server = dump.server(settings, &scratch, &options.table).await?;
                Clock { phases, begun }.end("dump");
                server
            }
        };
        take_over(settings, server, &places, options, phases, &made).await
    };
    let done = tokio::select! {
        done = work => done,
        asked = stop => Err(asked.err().unwrap_or_else(|| {
            interrupted(made.get(), options.put_back)
        })),
    };
    // Neither a table that is there nor a reason is lost because something stays on this machine.
    if let Err(error) = scratch.remove().await {
        tracing::warn!(
            "the next recovery or drill removes what is left: {}",
            one_line(&error)
        );
    }
    done
}

/// What there is when somebody ends it.
fn interrupted(made: Option<&QualifiedName>, put_back: bool) -> anyhow::Error {
    let made = match made {
        None => "the table is not made".into(),
        Some(new) if put_back => {
            format!("the recovered rows are in \"{new}\", and may have been put back")
        }
        Some(new) => format!("the recovered rows are in \"{new}\""),
    };
    anyhow!("interrupted: {made}; what was restored for it is removed")
}

/// Restores by a plan. Errors: also a server that is not at the moment that the plan promised.
async fn of_backup(
    settings: &Settings,
    cluster: Cluster,
    plan: RecoveryPlan,
    scratch: &Scratch,
    database: &str,
    phases: &mut Vec<Phase>,
) -> anyhow::Result<PrivateServer> {
    let from = format!("{}, from backup {}", plan.target, plan.backup.id);
    let major = plan.backup.major;
    let server = restored(settings, cluster, plan, scratch, phases).await;
    let server = server.map_err(|Ended(_, error)| error)?;
    let doubts = &server.recovered.doubts;
    ensure!(
        doubts.is_empty(),
        "the restored server did not stop where it should have: {}",
        doubts.join("; ")
    );
    Ok(PrivateServer {
        door: server.door(settings, QUESTION).await?,
        major,
        programs: server.recovered.programs,
        database: database.into(),
        from,
        way: WHOLE,
        has_unlogged_rows: false,
        left_out: Vec::new(),
    })
}

impl Places {
    fn of(
        settings: &Settings,
        options: &RecoverOptions,
        of_dump: Option<String>,
    ) -> anyhow::Result<Self> {
        let mut info = ConnInfo::from_process(settings.postgresql.dsn.expose())?;
        let database = options.database.clone().or(of_dump);
        let database = database.unwrap_or_else(|| info.database.clone());
        match options.into.as_deref() {
            None => info.database.clone_from(&database),
            Some(into) if into.contains('=') || into.contains("://") => {
                info = ConnInfo::from_process(into).context("--into cannot be read")?;
            }
            Some(into) => info.database = into.into(),
        }
        Ok(Self { info, database })
    }

    async fn open(&self) -> anyhow::Result<SqlClient> {
        let session = sql_client(&self.info, &present()).await?;
        set_of_later_majors(&session.client).await?;
        Ok(session)
    }
}

/// What the private server said, when the table has its new name there.
struct Prepared {
    source: SourceTable,
    renames: Vec<Rename>,
    toc: Toc,
}

/// From the private server to the report.
async fn take_over(
    settings: &Settings,
    mut server: PrivateServer,
    places: &Places,
    options: &RecoverOptions,
    phases: &mut Vec<Phase>,
    made: &OnceLock<QualifiedName>,
) -> anyhow::Result<TableRecovery> {
    let begun = Instant::now();
    let mut clock = Clock { phases, begun };
    server.door.options = private();
    let from = server.door.open(&server.database).await;
    let from = from.with_context(|| {
        let database = &places.database;
        format!("database \"{database}\" cannot be read as it was at that moment")
    })?;
    set_of_later_majors(&from.client).await?;
    let mut to = places.open().await?;
    let Prepared {
        mut source,
        renames,
        toc,
    } = prepare(settings, &server, &from, &to, places, options).await?;
    source.left_out.append(&mut server.left_out);
    clock.end("definitions");
    let loaded = load(&from, &mut to, &source, &renames, &toc, options).await?;
    drop(from);
    clock.end("load");
    let new = renames.first().map(|root| root.new.clone());
    let new = made.get_or_init(|| new.unwrap_or_else(|| source.name.clone()));
    let what = format!("the rows are in \"{new}\", but what followed failed");
    let after = After {
        source: &source,
        renames: &renames,
        loaded,
        new: new.clone(),
        options,
    };
    let outcome = after.outcome(&mut to, &mut clock).await.context(what)?;
    Ok(TableRecovery {
        database: places.info.database.clone(),
        from: server.from,
        way: server.way.into(),
        server: to.server.clone(),
        table: source.name.clone(),
        outcome,
        phases: clock.phases.clone(),
    })
}

async fn prepare(
    settings: &Settings,
    server: &PrivateServer,
    from: &Session,
    to: &SqlClient,
    places: &Places,
    options: &RecoverOptions,
) -> anyhow::Result<Prepared> {
    let (table, database) = (&options.table, &places.database);
    let source = SourceTable::read(&from.client, table, database).await?;
    if source.is_unlogged && !server.has_unlogged_rows {
        return Err(with_hint(
            anyhow!(
                "\"{}\" is unlogged: neither backups nor WAL have its rows",
                source.name
            ),
            "is there a dump? Use --from-dump",
        ));
    }
    let renames = new_names(&source, to, options).await?;
    set_apart(from, &source, &renames).await?;
    let programs = definitions::programs(settings, &server.programs, server.major).await?;
    let toc = definitions::definitions(&programs, &server.door, &server.database).await?;
    Ok(Prepared {
        source,
        renames,
        toc,
    })
}

async fn load(
    from: &Session,
    to: &mut SqlClient,
    source: &SourceTable,
    renames: &[Rename],
    toc: &Toc,
    options: &RecoverOptions,
) -> anyhow::Result<Loaded> {
    let of_kind = |kind| -> BTreeSet<QualifiedName> {
        let of_kind = renames.iter().filter(|rename| rename.kind == kind);
        of_kind.map(|rename| rename.new.clone()).collect()
    };
    let (tables, sequences) = (of_kind(NamedKind::Table), of_kind(NamedKind::Sequence));
    let work = Load {
        source,
        renames,
        steps: steps(&toc.entries, &tables, &sequences, options.rows_only)?,
        condition: options.condition.as_deref(),
        rows_only: options.rows_only,
    };
    work.load(&from.client, &mut to.client).await
}

/// Names that are free in both places.
async fn new_names(
    source: &SourceTable,
    to: &SqlClient,
    options: &RecoverOptions,
) -> anyhow::Result<Vec<Rename>> {
    let schemas: BTreeSet<&str> = source
        .named
        .iter()
        .map(|(_, name)| name.schema.as_str())
        .collect();
    let schemas: Vec<&str> = schemas.into_iter().collect();
    refuse_published(&to.client, &schemas, "").await?;
    let taken = taken(&to.client, &schemas).await?;
    let new_name = options.new_name.clone();
    let new_name = new_name.unwrap_or_else(|| default_name(&source.name.name));
    refuse_taken(&source.name.beside(&new_name), &taken)?;
    Ok(renames(&source.named, &new_name, taken))
}

/// Makes the table stand alone under its new name, where only this looks.
async fn set_apart(from: &Session, source: &SourceTable, renames: &[Rename]) -> anyhow::Result<()> {
    let what = "the restored table cannot be prepared";
    // A transaction that was prepared then may hold its lock.
    let prepared = "select gid from pg_catalog.pg_prepared_xacts where database = pg_catalog.current_database()";
    for row in from.client.query(prepared, &[]).await.said(what)? {
        let gid = literal(row.get(0));
        let sql = format!("ROLLBACK PREPARED {gid}");
        from.client.batch_execute(&sql).await.said(what)?;
    }
    for sql in &source.detach {
        from.client.batch_execute(sql).await.said(what)?;
    }
    // The table comes last: a part of it may have the name that it gets.
    for rename in renames.iter().rev() {
        from.client.batch_execute(&rename.sql()).await.said(what)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_ends_it_reads_what_is_there() {
        let new = QualifiedName::new("s", "t_recovered");
        for (made, put_back, expected) in [
            (None, true, "the table is not made"),
            (
                Some(&new),
                false,
                "the recovered rows are in \"s.t_recovered\";",
            ),
            (Some(&new), true, "and may have been put back"),
        ] {
            let said = interrupted(made, put_back).to_string();
            assert!(said.contains(expected), "{said}");
        }
    }
}
