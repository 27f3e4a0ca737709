//! What is looked at in a restored server, within a time.

use std::time::Instant;

use anyhow::Context;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::database::{Door, Session};
use crate::error::one_line;
use crate::evidence::record::{Check, Verdict};

/// The indexes that amcheck can check, the largest last: the more are checked in the time there is.
const INDEXES: &str = "select c.oid, c.oid::regclass::text from pg_catalog.pg_index i join pg_catalog.pg_class c on c.oid = i.indexrelid
    join pg_catalog.pg_am a on a.oid = c.relam
    where a.amname = 'btree' and i.indisready and i.indisvalid and c.relpersistence = 'p' and c.relkind = 'i'
    order by c.relpages, c.oid";
const TABLES: &str = "select c.oid, c.oid::regclass::text from pg_catalog.pg_class c join pg_catalog.pg_am a on a.oid = c.relam
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

/// All checks of all databases. Whatever one meets, the others go on.
pub async fn all(door: &Door, until: Instant) -> Vec<Check> {
    let databases = match databases(door).await {
        Ok(databases) => databases,
        Err(error) => return vec![check("databases", Verdict::Failed, one_line(&error))],
    };
    let mut checks = Vec::new();
    for database in databases {
        match door.open(&database).await {
            Err(error) => checks.push(check(
                &format!("database \"{database}\""),
                Verdict::Failed,
                one_line(&error),
            )),
            Ok(session) => checks.extend(of_database(&database, &session, until).await),
        }
    }
    checks
}

async fn databases(door: &Door) -> anyhow::Result<Vec<String>> {
    let session = door.open("template1").await?;
    let sql = "select datname from pg_catalog.pg_database where datallowconn and datconnlimit <> -2 order by datname";
    let rows = session
        .client
        .query(sql, &[])
        .await
        .context("cannot list the databases")?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

async fn of_database(database: &str, session: &Session, until: Instant) -> Vec<Check> {
    let client = &session.client;
    let name = |what: &str| format!("{what} of \"{database}\"");
    let mut checks = Vec::new();
    match client
        .batch_execute("create extension if not exists amcheck")
        .await
    {
        Err(error) => checks.push(check(
            &name("indexes"),
            Verdict::CouldNotRun,
            format!("no amcheck: {}", words(&error)),
        )),
        Ok(()) => {
            // Wherever the extension was put.
            let schema = "select n.nspname::text from pg_catalog.pg_extension e join pg_catalog.pg_namespace n on n.oid = e.extnamespace
                where e.extname = 'amcheck'";
            let schema = client
                .query_one(schema, &[])
                .await
                .map(|row| row.get::<_, String>(0))
                .unwrap_or_default();
            let schema = schema.replace('"', "\"\"");
            let of_index = format!("select \"{schema}\".bt_index_check($1::oid::regclass)");
            checks.push(each(client, &name("indexes"), INDEXES, &of_index, until).await);
            let has_heap = "select 1 from pg_catalog.pg_proc where proname = 'verify_heapam'";
            if matches!(client.query_opt(has_heap, &[]).await, Ok(Some(_))) {
                let of_table = format!(
                    "select blkno, msg from \"{schema}\".verify_heapam($1::oid::regclass) limit 1"
                );
                checks.push(each(client, &name("tables"), TABLES, &of_table, until).await);
            }
        }
    }
    checks.push(foreign_keys(client, &name("foreign keys"), until).await);
    checks
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

/// Whether a server says that this machine lacks something.
pub fn is_missing(words: &str) -> bool {
    let lacks = [
        "could not access file",
        "could not load library",
        "operating system",
    ];
    lacks.iter().any(|lack| words.contains(lack))
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

/// Asks `of_one` of each relation that `list` finds, as long as there is time. An error, or a row with a message, is damage.
async fn each(client: &Client, name: &str, list: &str, of_one: &str, until: Instant) -> Check {
    let relations = match client.query(list, &[]).await {
        Ok(relations) => relations,
        Err(error) => return check(name, Verdict::Failed, words(&error)),
    };
    let mut tally = Tally::new(name, relations.len());
    for relation in &relations {
        if Instant::now() >= until {
            break;
        }
        let (oid, relation): (u32, String) = (relation.get(0), relation.get(1));
        let answer = match client.query(of_one, &[&oid]).await {
            Err(error) => Answer::of_error(&error),
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

async fn foreign_keys(client: &Client, name: &str, until: Instant) -> Check {
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

/// A check as it is recorded.
pub fn check(name: &str, verdict: Verdict, seen: String) -> Check {
    let name = name.to_string();
    Check {
        name,
        verdict,
        seen,
    }
}

/// The server's own words.
pub fn words(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(told) => format!("{}: {}", told.severity(), told.message()),
        None => one_line(&anyhow::anyhow!("{error}")),
    }
}
