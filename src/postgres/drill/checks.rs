//! What is looked at in a restored server, within a time.

use std::time::Instant;

use anyhow::Context;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::collations::Collations;
use super::database::{Access, Door, Session, is_stranger, words};
use super::verdict::is_missing;
use crate::error::one_line;
use crate::evidence::record::{Check, Verdict};
use crate::postgres::restore::start::Recovered;

/// The indexes that amcheck can check, the largest last: the more are checked in the time there is.
const INDEXES: &str = "select c.oid, c.oid::regclass::text, i.indcollation::oid[] from pg_catalog.pg_index i join pg_catalog.pg_class c on c.oid = i.indexrelid
    join pg_catalog.pg_am a on a.oid = c.relam
    where a.amname = 'btree' and i.indisready and i.indisvalid and c.relpersistence = 'p' and c.relkind = 'i'
    order by c.relpages, c.oid";
const TABLES: &str = "select c.oid, c.oid::regclass::text, '{}'::oid[] from pg_catalog.pg_class c join pg_catalog.pg_am a on a.oid = c.relam
    where c.relkind in ('r', 't', 'm') and a.amname = 'heap' and c.relpersistence = 'p' order by c.relpages, c.oid";
/// Foreign keys that claim to hold, but those of periods, which are no comparison of single rows; and the query that finds a row for which one does not.
const KEYS: &str = "select k.conname, k.conrelid::regclass::text,
    'select 1 from ' || case c.relkind when 'p' then '' else 'only ' end || k.conrelid::regclass || ' c where ' ||
    (select string_agg(format('c.%I is not null', a.attname), ' and ') from unnest(k.conkey) n join pg_catalog.pg_attribute a on a.attrelid = k.conrelid and a.attnum = n) ||
    ' and not exists (select 1 from ' || case r.relkind when 'p' then '' else 'only ' end || k.confrelid::regclass || ' p where ' ||
    (select string_agg(format('p.%I operator(%I.%s) c.%I', f.attname, s.nspname, o.oprname, a.attname), ' and ')
        from unnest(k.conkey, k.confkey, k.conpfeqop) as u(n, m, op)
        join pg_catalog.pg_attribute a on a.attrelid = k.conrelid and a.attnum = u.n
        join pg_catalog.pg_attribute f on f.attrelid = k.confrelid and f.attnum = u.m
        join pg_catalog.pg_operator o on o.oid = u.op join pg_catalog.pg_namespace s on s.oid = o.oprnamespace) || ') limit 1'
    from pg_catalog.pg_constraint k join pg_catalog.pg_class c on c.oid = k.conrelid join pg_catalog.pg_class r on r.oid = k.confrelid
    where k.contype = 'f' and k.convalidated and k.conparentid = 0 and c.relpersistence <> 't'
        and not coalesce((to_jsonb(k) ->> 'conperiod')::boolean, false) order by c.relpages, k.oid";

/// All checks of all databases, or of one. Whatever one meets, the others go on.
pub async fn all(door: &Door, access: Access, only: Option<&str>, until: Instant) -> Vec<Check> {
    let databases = match (only, databases(door).await) {
        (Some(only), _) => vec![only.to_string()],
        (None, Ok(databases)) => databases,
        (None, Err(error)) => return vec![refused("databases", one_line(&error))],
    };
    let mut checks = Vec::new();
    for database in databases {
        match door.open(&database).await {
            Err(error) => {
                let (name, seen) = (format!("database \"{database}\""), one_line(&error));
                checks.push(match is_stranger(&error) {
                    // Whom pg_hba.conf of a server in use lets in is not judged here.
                    true => check(&name, Verdict::CouldNotRun, seen),
                    false => refused(&name, seen),
                });
            }
            Ok(session) => checks.extend(of_database(&database, &session, access, until).await),
        }
    }
    checks
}

async fn databases(door: &Door) -> anyhow::Result<Vec<String>> {
    let session = door.open(&door.database).await?;
    let sql = "select datname from pg_catalog.pg_database where datallowconn and datconnlimit <> -2 order by datname";
    let rows = session
        .client
        .query(sql, &[])
        .await
        .context("cannot list the databases")?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

async fn of_database(
    database: &str,
    session: &Session,
    access: Access,
    until: Instant,
) -> Vec<Check> {
    let client = &session.client;
    let name = |what: &str| format!("{what} of \"{database}\"");
    let could_not = |what, seen: String| check(&name(what), Verdict::CouldNotRun, seen);
    let mut checks = Vec::new();
    match amcheck(client, access).await {
        Err(why) => {
            let seen = format!("no amcheck: {why}");
            checks.extend(["indexes", "tables"].map(|what| could_not(what, seen.clone())));
        }
        Ok((schema, has_heap)) => {
            let collations = Collations::of(client).await;
            let of_index = format!("select {schema}.bt_index_check($1::oid::regclass)");
            let indexes = Relations {
                list: INDEXES,
                of_one: &of_index,
                collations: &collations,
            };
            checks.push(indexes.check(client, &name("indexes"), until).await);
            let of_table =
                format!("select blkno, msg from {schema}.verify_heapam($1::oid::regclass) limit 1");
            let tables = Relations {
                list: TABLES,
                of_one: &of_table,
                collations: &Collations::default(),
            };
            checks.push(match has_heap {
                true => tables.check(client, &name("tables"), until).await,
                false => could_not(
                    "tables",
                    "amcheck of this major version has no check".into(),
                ),
            });
        }
    }
    checks.push(foreign_keys(client, &name("foreign keys"), until).await);
    checks
}

/// Makes the extension, where it may; the schema that it is in, wherever somebody put it, and whether it knows tables, too.
/// Errors: why there is none.
async fn amcheck(client: &Client, access: Access) -> Result<(String, bool), String> {
    if access == Access::Private {
        let made = client.batch_execute("create extension if not exists amcheck");
        made.await.map_err(|error| words(&error))?;
    }
    let sql = "select quote_ident(n.nspname), exists (select 1 from pg_catalog.pg_proc where proname = 'verify_heapam')
        from pg_catalog.pg_extension e join pg_catalog.pg_namespace n on n.oid = e.extnamespace where e.extname = 'amcheck'";
    let row = client.query_opt(sql, &[]).await;
    let row = row.map_err(|error| words(&error))?;
    let row = row.ok_or("it is not in this database, to which nothing is written")?;
    Ok((row.get(0), row.get(1)))
}

/// What became of one question.
enum Answer {
    Sound,
    Damaged(String),
    /// It was not over in the time there was, or waited for a lock of a prepared transaction.
    Unfinished,
    /// Something is not installed on this machine.
    Missing(String),
}

impl Answer {
    fn of_error(error: &tokio_postgres::Error) -> Self {
        let late = [SqlState::QUERY_CANCELED, SqlState::LOCK_NOT_AVAILABLE];
        match (error.code(), words(error)) {
            (Some(code), _) if late.contains(code) => Self::Unfinished,
            (_, words) if is_missing(&words) => Self::Missing(words),
            (_, words) => Self::Damaged(words),
        }
    }
}

/// Counts answers until one is damage.
struct Tally {
    name: String,
    all: usize,
    done: usize,
    missing: Option<String>,
}

impl Tally {
    fn new(name: &str, all: usize) -> Self {
        Self {
            name: name.into(),
            all,
            done: 0,
            missing: None,
        }
    }

    /// The check, if it is over with this.
    fn add(&mut self, of_what: &str, answer: Answer) -> Option<Check> {
        match answer {
            Answer::Sound => self.done += 1,
            Answer::Unfinished => {}
            Answer::Missing(words) => self.missing = Some(format!("{of_what}: {words}")),
            Answer::Damaged(words) => {
                let seen = format!("{of_what}: {words}");
                return Some(check(&self.name, Verdict::Failed, seen));
            }
        }
        None
    }

    fn end(self) -> Check {
        let Self {
            name,
            all,
            done,
            missing,
        } = self;
        let mut seen = match done == all {
            true => format!("{all}"),
            false => format!("{done} of {all} in the time there was"),
        };
        if let Some(missing) = missing {
            seen = format!("{done} of {all}; {missing}");
        }
        let verdict = match done == 0 && all > 0 {
            true => Verdict::CouldNotRun,
            false => Verdict::Passed,
        };
        check(&name, verdict, seen)
    }
}

/// Relations, and the question about each. An error, or a row with a message, is damage.
struct Relations<'a> {
    list: &'a str,
    of_one: &'a str,
    /// Those of an index tell whether its order can be judged here.
    collations: &'a Collations,
}

impl Relations<'_> {
    /// Asks as long as there is time.
    async fn check(&self, client: &Client, name: &str, until: Instant) -> Check {
        let relations = match client.query(self.list, &[]).await {
            Ok(relations) => relations,
            Err(error) => return check(name, Verdict::Failed, words(&error)),
        };
        let mut tally = Tally::new(name, relations.len());
        for relation in &relations {
            if Instant::now() >= until {
                break;
            }
            let (oid, relation, used): (u32, String, Vec<u32>) =
                (relation.get(0), relation.get(1), relation.get(2));
            let answer = match client.query(self.of_one, &[&oid]).await {
                Err(error) => match self.collations.excuse(&used, &error) {
                    Some(excuse) => Answer::Missing(excuse),
                    None => Answer::of_error(&error),
                },
                Ok(rows) => match rows.first().map(|row| row.try_get::<_, String>("msg")) {
                    Some(Ok(message)) => Answer::Damaged(message),
                    _ => Answer::Sound,
                },
            };
            if let Some(failed) = tally.add(&relation, answer) {
                return failed;
            }
        }
        tally.end()
    }
}

async fn foreign_keys(client: &Client, name: &str, until: Instant) -> Check {
    // Rows are compared with rows: an index in the order of another libc, or a damaged one, would hide some.
    let without =
        "set enable_indexscan = off; set enable_indexonlyscan = off; set enable_bitmapscan = off";
    if let Err(error) = client.batch_execute(without).await {
        return check(name, Verdict::Failed, words(&error));
    }
    let keys = match client.query(KEYS, &[]).await {
        Ok(keys) => keys,
        Err(error) => return check(name, Verdict::Failed, words(&error)),
    };
    let mut tally = Tally::new(name, keys.len());
    for key in &keys {
        if Instant::now() >= until {
            break;
        }
        let (constraint, table, sql): (String, String, String) =
            (key.get(0), key.get(1), key.get(2));
        let answer = match client.query_opt(&sql, &[]).await {
            Ok(None) => Answer::Sound,
            Ok(Some(_)) => Answer::Damaged("it does not hold: a row has no counterpart".into()),
            Err(error) => Answer::of_error(&error),
        };
        if let Some(failed) = tally.add(&format!("{constraint} of {table}"), answer) {
            return failed;
        }
    }
    tally.end()
}

/// Whether replay ended where the plan said.
pub fn stopped_as_planned(recovered: &Recovered) -> Check {
    let name = "stopped as planned";
    match (recovered.doubts.is_empty(), &recovered.stopped) {
        (true, stopped) => check(name, Verdict::Passed, stopped.clone().unwrap_or_default()),
        (false, _) => check(name, Verdict::Failed, recovered.doubts.join("; ")),
    }
}

/// A check that the server refuses to answer.
pub fn refused(name: &str, words: String) -> Check {
    let verdict = match is_missing(&words) {
        true => Verdict::CouldNotRun,
        false => Verdict::Failed,
    };
    check(name, verdict, words)
}

/// A question about rows that the server does not answer; one that is not over in time says nothing of them.
pub fn unanswered(name: &str, error: &tokio_postgres::Error) -> Check {
    match Answer::of_error(error) {
        Answer::Damaged(words) => check(name, Verdict::Failed, words),
        Answer::Missing(words) => check(name, Verdict::CouldNotRun, words),
        Answer::Unfinished | Answer::Sound => check(
            name,
            Verdict::CouldNotRun,
            "not over in the time there was".into(),
        ),
    }
}

/// A check as it is recorded.
pub fn check(name: &str, verdict: Verdict, seen: String) -> Check {
    let name = name.to_string();
    Check {
        name,
        verdict,
        seen,
    }
}
