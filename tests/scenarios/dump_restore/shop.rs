//! A database with everything that a dump must bring, and how two of them are compared.

use std::path::{Path, PathBuf};

use crate::harness::{Cluster, Major, Scratch, command, finish};

/// 63 bytes, as odd as names can be.
pub const ODD: &str = "odd \"db\" it's ü\\ %41 $x -- 日本 0123456789 0123456789 012345";

/// A name as SQL takes it.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Roles that own and get what is in the database.
pub fn roles(cluster: &Cluster) {
    cluster.sql_each("create role owner; create role reader; create role \"Mary \"\"M\"\"\" login");
}

/// Makes the database with all its content and properties.
pub fn make(cluster: &Cluster, database: &str) {
    let name = quoted(database);
    cluster.sql_each(&format!(
        "create database {name} template template0 encoding 'UTF8' lc_collate 'C' lc_ctype 'C' owner owner; \
         alter database {name} set default_transaction_read_only = off; \
         alter database {name} set search_path = 'public', 'Sales & More'; \
         alter database {name} set work_mem = '5MB'; \
         alter role reader in database {name} set statement_timeout = '7s'; \
         alter database {name} connection limit 17; \
         comment on database {name} is 'on database \"x\" it''s'; \
         revoke connect on database {name} from public; \
         grant connect, temporary on database {name} to reader"
    ));
    cluster.sql_in(database, include_str!("shop.sql"));
    let extension = extension(cluster);
    if !extension.is_empty() {
        cluster.sql_in(
            database,
            &format!("create schema ext; create extension {extension} schema ext"),
        );
    }
}

/// An extension that this build has beside the languages; empty if there is none.
pub fn extension(cluster: &Cluster) -> String {
    cluster.sql(
        "select coalesce(min(name), '') from pg_available_extensions where name in ('pgcrypto', 'citext', 'hstore', 'vector')",
    )
}

/// Everything in a database: schema text, rows of all tables by digests, sequences, large objects.
pub fn fingerprint(cluster: &Cluster, database: &str) -> String {
    let sequences = cluster.sql_in(
        database,
        "select string_agg(format('select %L, last_value, is_called from %I.%I', c.relname, n.nspname, c.relname), ' union all ' \
         order by c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.relkind = 'S'",
    );
    let sequences = cluster.sql_in(database, &sequences);
    let tables = cluster.sql_in(
        database,
        "select string_agg(format('select %L, count(*), md5(coalesce(string_agg(t::text, chr(10) order by t::text), '''')) \
         from only %I.%I t', n.nspname || '.' || c.relname, n.nspname, c.relname), ' union all ' order by n.nspname, c.relname) \
         from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.relkind in ('r', 'm', 'v') \
         and n.nspname not in ('pg_catalog', 'information_schema', 'ext') and n.nspname not like 'pg_%'",
    );
    let rows = cluster.sql_in(database, &tables);
    let large = cluster.sql_in(
        database,
        "select oid, lomowner::regrole, md5(lo_get(oid)) from pg_largeobject_metadata order by 1",
    );
    format!(
        "{}\n{rows}\n{sequences}\n{large}",
        schema(cluster, database)
    )
}

/// The schema as pg_dump tells it, with the database's own properties.
pub fn schema(cluster: &Cluster, database: &str) -> String {
    let mut program = command(cluster.major.program("pg_dump"));
    program
        .args(["--schema-only", "--create", "--dbname"])
        .arg(conninfo(cluster, database));
    let output = finish(&mut program);
    assert!(output.success(), "{}", output.stderr);
    let lines = output.stdout.lines();
    let lines =
        lines.filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"));
    lines.collect::<Vec<_>>().join("\n")
}

/// A connection string for a database of any name.
pub fn conninfo(cluster: &Cluster, database: &str) -> String {
    let name = database.replace('\\', "\\\\").replace('\'', "\\'");
    format!("{} dbname='{name}'", cluster.dsn())
}

/// Dumps a database with pg_dump itself.
pub fn dump(
    cluster: &Cluster,
    database: &str,
    scratch: &Scratch,
    file: &str,
    options: &[&str],
) -> PathBuf {
    let path = scratch.join(file);
    dump_with(&cluster.major, cluster, database, &path, options);
    path
}

/// The same with the program of another major.
pub fn dump_with(
    program: &Major,
    cluster: &Cluster,
    database: &str,
    path: &Path,
    options: &[&str],
) {
    let mut program = command(program.program("pg_dump"));
    program
        .args(options)
        .arg("--file")
        .arg(path)
        .arg("--dbname")
        .arg(conninfo(cluster, database));
    let output = finish(&mut program);
    assert!(output.success(), "{}", output.stderr);
}
