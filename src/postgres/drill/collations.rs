//! Collations that sort otherwise here than where the indexes were made: another libc or ICU. What amcheck says of the order
//! of such an index is said of this machine.

use std::collections::BTreeMap;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::database::words;

/// Those that indexes use and that are of another version here.
const NAMED: &str = "select oid, oid::regcollation::text, collversion, coalesce(pg_catalog.pg_collation_actual_version(oid), 'none')
    from pg_catalog.pg_collation where collversion is not null
        and oid in (select unnest(indcollation) from pg_catalog.pg_index where indcollation::text <> '')
        and collversion is distinct from pg_catalog.pg_collation_actual_version(oid)";
/// The database's own one: from 15 on its version is recorded.
const OWN: &str = "select 100::oid, 'default', datcollversion, coalesce(pg_catalog.pg_database_collation_actual_version(oid), 'none')
    from pg_catalog.pg_database where datname = pg_catalog.current_database() and datcollversion is not null
        and datcollversion is distinct from pg_catalog.pg_database_collation_actual_version(oid)";
/// Before, another one of the same libc tells.
const OWN_BEFORE_15: &str = "select 100::oid, 'default', collversion, coalesce(pg_catalog.pg_collation_actual_version(c.oid), 'none')
    from pg_catalog.pg_collation c join pg_catalog.pg_database d on d.datname = pg_catalog.current_database()
    where c.collprovider = 'c' and d.datcollate not in ('C', 'POSIX') and collversion is not null
        and collversion is distinct from pg_catalog.pg_collation_actual_version(c.oid) limit 1";

/// Which are of another version here, and in which way, in words.
#[derive(Debug, Default)]
pub struct Collations(BTreeMap<u32, String>);

impl Collations {
    /// Of a database. What cannot be found out excuses nothing.
    pub async fn of(client: &Client) -> Self {
        let number = client.query_one("show server_version_num", &[]).await;
        let number = number.map_or(0, |row| row.get::<_, String>(0).parse().unwrap_or(0));
        let own = match number {
            150000.. => OWN,
            _ => OWN_BEFORE_15,
        };
        let mut others = BTreeMap::new();
        for sql in [NAMED, own] {
            match client.query(sql, &[]).await {
                Err(error) => tracing::debug!("versions of collations: {}", words(&error)),
                Ok(rows) => others.extend(rows.iter().map(|row| {
                    let [name, recorded, here] = [1, 2, 3].map(|at| row.get::<_, String>(at));
                    let words = format!(
                        "collation {name} is of version {recorded}, here of {here}: its order cannot be judged"
                    );
                    (row.get(0), words)
                })),
            }
        }
        Self(others)
    }

    /// Why an error about an index with these collations says nothing of the backup; `None`: it does.
    pub fn excuse(&self, used: &[u32], error: &tokio_postgres::Error) -> Option<String> {
        let told = error.as_db_error()?;
        let is_of_order = *told.code() == SqlState::INDEX_CORRUPTED
            && told.message().contains("invariant violated");
        is_of_order.then(|| self.first_of(used)).flatten()
    }

    fn first_of(&self, used: &[u32]) -> Option<String> {
        used.iter().find_map(|oid| self.0.get(oid).cloned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: u32 = 100;

    #[test]
    fn an_index_is_excused_by_any_of_its_collations() {
        let collations = Collations(BTreeMap::from([(DEFAULT, "other".to_string())]));
        assert_eq!(collations.first_of(&[0, DEFAULT]).as_deref(), Some("other"));
        assert_eq!(collations.first_of(&[0, 950]), None);
        assert_eq!(Collations::default().first_of(&[DEFAULT]), None);
    }
}
