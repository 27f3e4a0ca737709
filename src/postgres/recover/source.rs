//! What the private server says of the table: what belongs to it, and what will not come back with it.

use anyhow::anyhow;
use tokio_postgres::{Client, Row};

use super::columns::{self, TableColumns};
use super::rename::NamedKind;
use super::report::LeftOut;
use super::sessions::Said;
use crate::error::with_hint;
use crate::postgres::dump_restore::names::QualifiedName;

/// A table in the private server, with its partitions.
#[derive(Debug)]
pub struct SourceTable {
    pub name: QualifiedName,
    pub columns: TableColumns,
    /// What has a name of its own; the table comes first.
    pub named: Vec<(NamedKind, QualifiedName)>,
    pub owner: String,
    /// The table and partitions that have row security.
    pub row_security: Vec<QualifiedName>,
    pub is_unlogged: bool,
    pub grants: Vec<Grant>,
    pub foreign_keys: Vec<ForeignKey>,
    pub left_out: Vec<LeftOut>,
    /// SQL that makes it and its partitions stand alone.
    pub detach: Vec<String>,
}

/// A privilege on the table, a partition or a sequence of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub on: QualifiedName,
    pub is_sequence: bool,
    /// Such as `SELECT`, or `UPDATE ("a")`.
    pub privilege: String,
    /// `None`: everybody.
    pub grantee: Option<String>,
    pub with_option: bool,
}

/// A foreign key of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignKey {
    pub name: String,
    pub columns: Vec<String>,
    pub references: QualifiedName,
    pub referenced: Vec<String>,
}

/// The names that somebody may mean: as they are, and as SQL has them.
const FIND: &str = "select c.oid, n.nspname::text, c.relname::text, c.relkind::text \
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
    where c.relkind in ('r', 'p', 'v', 'm', 'f') and n.nspname !~ '^pg_' and n.nspname <> 'information_schema' \
    and $1 in (c.relname::text, n.nspname || '.' || c.relname, pg_catalog.quote_ident(c.relname), \
        pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname)) order by 2, 3";
const SIMILAR: &str = "select n.nspname || '.' || c.relname from pg_catalog.pg_class c \
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
    where c.relkind in ('r', 'p') and pg_catalog.lower($1) in (pg_catalog.lower(c.relname), pg_catalog.lower(n.nspname || '.' || c.relname)) \
    order by 1 limit 3";
const OWNER: &str = "select pg_catalog.pg_get_userbyid(relowner)::text, relpersistence = 'u' from pg_catalog.pg_class where oid = $1";
const ROW_SECURITY: &str = "select n.nspname::text, c.relname::text from pg_catalog.pg_class c \
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = any($1) and c.relrowsecurity order by 1, 2";
/// Makes the table stand alone: first no foreign key counts on its rows elsewhere.
const PART: &str = "select pg_catalog.format('ALTER TABLE %s DROP CONSTRAINT %I', k.conrelid::pg_catalog.regclass, k.conname), 1 as step \
        from pg_catalog.pg_partition_ancestors($1::pg_catalog.oid) a join pg_catalog.pg_constraint k on k.confrelid = a.relid \
        where a.relid <> $1 and k.contype = 'f' and k.conparentid = 0 \
    union all select pg_catalog.format('ALTER TABLE %s ' || case p.relkind when 'p' then 'DETACH PARTITION %s' else 'NO INHERIT %s' end, \
            case p.relkind when 'p' then i.inhparent else i.inhrelid end::pg_catalog.regclass, \
            case p.relkind when 'p' then i.inhrelid else i.inhparent end::pg_catalog.regclass), 2 \
        from pg_catalog.pg_inherits i join pg_catalog.pg_class p on p.oid = i.inhparent \
        join pg_catalog.pg_class c on c.oid = i.inhrelid where i.inhrelid = $1 or (i.inhrelid = any($2) and c.relkind = 'f') \
    order by 2, 1";
/// The table and its partitions.
const TREE: &str = "with recursive tree(oid, depth) as (select $1::oid, 0 union all \
    select i.inhrelid, t.depth + 1 from pg_catalog.pg_inherits i join tree t on t.oid = i.inhparent \
        join pg_catalog.pg_class p on p.oid = t.oid and p.relkind = 'p') \
    select t.oid, n.nspname::text, c.relname::text, c.relkind::text \
    from tree t join pg_catalog.pg_class c on c.oid = t.oid join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
    order by t.depth, 2, 3";
const NAMED: &str = "select 'index', n.nspname::text, c.relname::text from pg_catalog.pg_index i \
        join pg_catalog.pg_class c on c.oid = i.indexrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
        where i.indrelid = any($1) \
    union all select 'sequence', n.nspname, c.relname from pg_catalog.pg_depend d \
        join pg_catalog.pg_class c on c.oid = d.objid and c.relkind = 'S' join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
        where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refclassid = d.classid \
        and d.refobjid = any($1) and d.deptype in ('a', 'i') \
    union all select 'statistics', n.nspname, s.stxname from pg_catalog.pg_statistic_ext s \
        join pg_catalog.pg_namespace n on n.oid = s.stxnamespace where s.stxrelid = any($1) order by 1, 2, 3";
const GRANTS: &str = "with acl as (select c.oid, c.relkind, c.relowner, a.*, '' as suffix from pg_catalog.pg_class c, \
        pg_catalog.aclexplode(c.relacl) a \
    union all select c.oid, c.relkind, c.relowner, a.*, ' (' || pg_catalog.quote_ident(t.attname) || ')' \
        from pg_catalog.pg_class c join pg_catalog.pg_attribute t on t.attrelid = c.oid and not t.attisdropped, \
        pg_catalog.aclexplode(t.attacl) a) \
    select n.nspname::text, c.relname::text, acl.relkind = 'S', acl.privilege_type || acl.suffix, r.rolname::text, acl.is_grantable \
    from acl join pg_catalog.pg_class c on c.oid = acl.oid join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
    left join pg_catalog.pg_roles r on r.oid = acl.grantee \
    where acl.grantee <> acl.relowner and (acl.grantee = 0 or r.oid is not null) and (acl.oid = any($1) or acl.oid in \
        (select d.objid from pg_catalog.pg_depend d where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass \
        and d.refclassid = d.classid and d.refobjid = any($1) and d.deptype in ('a', 'i') and acl.relkind = 'S')) order by 1, 2, 4, 5";
const FOREIGN_KEYS: &str = "select k.conname::text, n.nspname::text, r.relname::text, \
        array(select a.attname::text from pg_catalog.unnest(k.conkey) with ordinality u(n, at) \
            join pg_catalog.pg_attribute a on a.attrelid = k.conrelid and a.attnum = u.n order by u.at), \
        array(select a.attname::text from pg_catalog.unnest(k.confkey) with ordinality u(n, at) \
            join pg_catalog.pg_attribute a on a.attrelid = k.confrelid and a.attnum = u.n order by u.at) \
    from pg_catalog.pg_constraint k join pg_catalog.pg_class r on r.oid = k.confrelid \
    join pg_catalog.pg_namespace n on n.oid = r.relnamespace \
    where k.contype = 'f' and k.conparentid = 0 and k.conrelid = any($1) order by 1";
/// What is never made for the copy: it would act on the present, or stand in its way. With the SQL that makes it.
const LEFT_OUT: &str = "select 'foreign key', k.conname::text, \
        pg_catalog.format('ALTER TABLE %s ADD CONSTRAINT %I %s', k.conrelid::pg_catalog.regclass, k.conname, pg_catalog.pg_get_constraintdef(k.oid)), 1 \
        from pg_catalog.pg_constraint k where k.contype = 'f' and k.conparentid = 0 and k.conrelid = any($1) \
    union all select 'foreign key that refers to it', k.conname || ' of ' || k.conrelid::pg_catalog.regclass::text, \
        pg_catalog.format('ALTER TABLE %s ADD CONSTRAINT %I %s', k.conrelid::pg_catalog.regclass, k.conname, pg_catalog.pg_get_constraintdef(k.oid)), 2 \
        from pg_catalog.pg_constraint k where k.contype = 'f' and k.conparentid = 0 and k.confrelid = any($1) and k.conrelid <> all($1) \
    union all select 'trigger', tgname::text, pg_catalog.pg_get_triggerdef(oid), 3 from pg_catalog.pg_trigger \
        where tgrelid = any($1) and not tgisinternal and tgparentid = 0 \
    union all select 'rule', rulename::text, pg_catalog.pg_get_ruledef(oid), 4 from pg_catalog.pg_rewrite \
        where ev_class = any($1) \
    union all select 'policy', p.polname::text, pg_catalog.format('CREATE POLICY %I ON %s AS %s FOR %s TO %s', p.polname, \
        p.polrelid::pg_catalog.regclass, case when p.polpermissive then 'PERMISSIVE' else 'RESTRICTIVE' end, \
        case p.polcmd when 'r' then 'SELECT' when 'a' then 'INSERT' when 'w' then 'UPDATE' when 'd' then 'DELETE' else 'ALL' end, \
        (select pg_catalog.string_agg(case u when 0 then 'PUBLIC' else pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(u)) end, ', ') \
            from pg_catalog.unnest(p.polroles) u)) \
        || coalesce(' USING (' || pg_catalog.pg_get_expr(p.polqual, p.polrelid) || ')', '') \
        || coalesce(' WITH CHECK (' || pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid) || ')', ''), 5 \
        from pg_catalog.pg_policy p where p.polrelid = any($1) \
    union all select distinct 'view that reads it', v.oid::pg_catalog.regclass::text, \
        pg_catalog.format('CREATE %s %s%s AS %s', case v.relkind when 'm' then 'MATERIALIZED VIEW' else 'VIEW' end, \
            v.oid::pg_catalog.regclass, ' WITH (' || pg_catalog.array_to_string(v.reloptions, ', ') || ')', pg_catalog.rtrim(pg_catalog.pg_get_viewdef(v.oid), ';')), 6 \
        from pg_catalog.pg_depend d join pg_catalog.pg_rewrite w on w.oid = d.objid join pg_catalog.pg_class v on v.oid = w.ev_class \
        where d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass \
        and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjid = any($1) and v.oid <> all($1) \
    union all select 'place in a publication', p.pubname::text, \
        pg_catalog.format('ALTER PUBLICATION %I ADD TABLE %s', p.pubname, r.prrelid::pg_catalog.regclass), 7 \
        from pg_catalog.pg_publication_rel r join pg_catalog.pg_publication p on p.oid = r.prpubid where r.prrelid = any($1) \
    union all select 'inheritance', 'from ' || i.inhparent::pg_catalog.regclass::text, \
        pg_catalog.format('ALTER TABLE %s INHERIT %s', i.inhrelid::pg_catalog.regclass, i.inhparent::pg_catalog.regclass), 8 from pg_catalog.pg_inherits i \
        join pg_catalog.pg_class p on p.oid = i.inhparent where i.inhrelid = $2 and p.relkind = 'r' \
    union all select 'place as a partition', 'of ' || i.inhparent::pg_catalog.regclass::text, \
        pg_catalog.format('ALTER TABLE %s ATTACH PARTITION %s %s', i.inhparent::pg_catalog.regclass, i.inhrelid::pg_catalog.regclass, \
            pg_catalog.pg_get_expr(c.relpartbound, c.oid)), 9 \
        from pg_catalog.pg_inherits i join pg_catalog.pg_class p on p.oid = i.inhparent join pg_catalog.pg_class c on c.oid = i.inhrelid \
        where i.inhrelid = $2 and p.relkind = 'p' \
    union all select 'table that inherits it', i.inhrelid::pg_catalog.regclass::text, \
        pg_catalog.format('ALTER TABLE %s INHERIT %s', i.inhrelid::pg_catalog.regclass, i.inhparent::pg_catalog.regclass), 10 from pg_catalog.pg_inherits i \
        join pg_catalog.pg_class p on p.oid = i.inhparent where i.inhparent = $2 and p.relkind = 'r' \
    union all select 'tablespace', s.spcname::text, null, 11 from pg_catalog.pg_class c \
        join pg_catalog.pg_tablespace s on s.oid = c.reltablespace where c.oid = any($1) group by s.spcname \
    union all select 'forced row security', c.oid::pg_catalog.regclass::text, \
        pg_catalog.format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', c.oid::pg_catalog.regclass), 12 \
        from pg_catalog.pg_class c where c.oid = any($1) and c.relrowsecurity and c.relforcerowsecurity \
    order by 4, 2";

impl SourceTable {
    /// Finds a table by its name, with or without its schema, and asks for all that belongs to it. Errors: there is none,
    /// there are several, or it has no rows of its own.
    pub async fn read(client: &Client, asked: &str, database: &str) -> anyhow::Result<Self> {
        let (oid, name) = find(client, asked, database).await?;
        let what = format!("what belongs to \"{name}\" cannot be read");
        let tree = client.query(TREE, &[&oid]).await.said(&what)?;
        let tree: Vec<Member> = tree.iter().map(Member::of).collect();
        let kept: Vec<u32> = tree
            .iter()
            .filter(|member| !member.is_foreign)
            .map(|member| member.oid)
            .collect();
        let owner = client.query_one(OWNER, &[&oid]).await.said(&what)?;
        let columns = columns::read(client, &name).await?.unwrap_or_default();
        let grants = client.query(GRANTS, &[&kept]).await.said(&what)?;
        let keys = client.query(FOREIGN_KEYS, &[&kept]).await.said(&what)?;
        Ok(Self {
            columns,
            named: named(client, &tree, &kept).await.said(&what)?,
            owner: owner.get(0),
            row_security: secure(client, &kept).await.said(&what)?,
            is_unlogged: owner.get(1),
            grants: grants.iter().map(Grant::of).collect(),
            foreign_keys: keys.iter().map(ForeignKey::of).collect(),
            left_out: left_out(client, &tree, &kept).await.said(&what)?,
            detach: detach(client, &tree).await.said(&what)?,
            name,
        })
    }
}

type Read<T> = Result<Vec<T>, tokio_postgres::Error>;

/// Which of them have row security.
async fn secure(client: &Client, kept: &[u32]) -> Read<QualifiedName> {
    let rows = client.query(ROW_SECURITY, &[&kept]).await?;
    let name = |row: &Row| QualifiedName::new(row.get(0), row.get(1));
    Ok(rows.iter().map(name).collect())
}

/// What will not come back.
async fn left_out(client: &Client, tree: &[Member], kept: &[u32]) -> Read<LeftOut> {
    let root = tree.first().map(|member| member.oid);
    let rows = client.query(LEFT_OUT, &[&kept, &root]).await?;
    let foreign = tree.iter().filter(|member| member.is_foreign);
    let foreign = foreign.map(|member| LeftOut::new("foreign partition", &member.name.to_string()));
    Ok(rows.iter().map(left_out_of).chain(foreign).collect())
}

/// Parts the table from what it is a part of, and from partitions whose rows lie elsewhere.
async fn detach(client: &Client, tree: &[Member]) -> Read<String> {
    let all: Vec<u32> = tree.iter().map(|member| member.oid).collect();
    let rows = client.query(PART, &[&all.first(), &all]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// The table that a name means.
async fn find(
    client: &Client,
    asked: &str,
    database: &str,
) -> anyhow::Result<(u32, QualifiedName)> {
    let found = client.query(FIND, &[&asked]).await;
    let found = found.said("the tables cannot be read")?;
    let row = match &found[..] {
        [] => return Err(none(client, asked, database).await?),
        [row] => row,
        several => return Err(ambiguous(asked, several)),
    };
    let name = QualifiedName::new(row.get(1), row.get(2));
    refuse_without_rows(&name, row.get(3))?;
    Ok((row.get(0), name))
}

/// What has a name of its own, the table first.
async fn named(
    client: &Client,
    tree: &[Member],
    kept: &[u32],
) -> Result<Vec<(NamedKind, QualifiedName)>, tokio_postgres::Error> {
    let tables = tree.iter().filter(|member| !member.is_foreign);
    let tables = tables.map(|member| (NamedKind::Table, member.name.clone()));
    let others = client.query(NAMED, &[&kept]).await?;
    let others = others.iter().filter_map(|row| {
        let kind = NamedKind::parse(row.get(0))?;
        Some((kind, QualifiedName::new(row.get(1), row.get(2))))
    });
    Ok(tables.chain(others).collect())
}

/// The table or a partition.
struct Member {
    oid: u32,
    name: QualifiedName,
    is_foreign: bool,
}

impl Member {
    fn of(row: &Row) -> Self {
        Self {
            oid: row.get(0),
            name: QualifiedName::new(row.get(1), row.get(2)),
            is_foreign: row.get::<_, &str>(3) == "f",
        }
    }
}

impl Grant {
    fn of(row: &Row) -> Self {
        Self {
            on: QualifiedName::new(row.get(0), row.get(1)),
            is_sequence: row.get(2),
            privilege: row.get(3),
            grantee: row.get(4),
            with_option: row.get(5),
        }
    }
}

impl ForeignKey {
    fn of(row: &Row) -> Self {
        Self {
            name: row.get(0),
            references: QualifiedName::new(row.get(1), row.get(2)),
            columns: row.get(3),
            referenced: row.get(4),
        }
    }
}

fn left_out_of(row: &Row) -> LeftOut {
    let sql: Option<String> = row.get(2);
    LeftOut {
        what: row.get(0),
        name: row.get(1),
        why: String::new(),
        sql,
    }
}

async fn none(client: &Client, asked: &str, database: &str) -> anyhow::Result<anyhow::Error> {
    let similar = client.query(SIMILAR, &[&asked]).await;
    let similar = similar.said("the tables cannot be read")?;
    let names: Vec<String> = similar
        .iter()
        .map(|row| format!("\"{}\"", row.get::<_, &str>(0)))
        .collect();
    let error = anyhow!("there was no table \"{asked}\" in database \"{database}\" at that moment");
    Ok(match names.is_empty() {
        true => with_hint(
            error,
            "`walden find --all` shows when tables came and went; name the database with --database",
        ),
        false => with_hint(error, format!("is {} meant?", names.join(" or "))),
    })
}

fn ambiguous(asked: &str, several: &[Row]) -> anyhow::Error {
    let names: Vec<String> = several
        .iter()
        .map(|row| format!("\"{}.{}\"", row.get::<_, &str>(1), row.get::<_, &str>(2)))
        .collect();
    let error = anyhow!("\"{asked}\" may mean {}", names.join(" or "));
    with_hint(error, "name the schema, too")
}

fn refuse_without_rows(name: &QualifiedName, kind: &str) -> anyhow::Result<()> {
    let (what, hint) = match kind {
        "v" | "m" => ("is a view", "recover the tables that it reads"),
        "f" => ("is a foreign table", "its rows lie on another server"),
        _ => return Ok(()),
    };
    Err(with_hint(anyhow!("\"{name}\" {what}"), hint))
}
