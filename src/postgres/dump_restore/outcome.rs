//! What became of a restore that failed: known from what the server says, never from how far Walden came. The answer to a
//! COMMIT can be lost while the server carries it out.

use std::time::Duration;

use anyhow::anyhow;

use super::building::drop_building;
use super::sql::{literal, literals};
use super::target::{self, ask};
use crate::error::{one_line, with_hint};
use crate::postgres::replication::{ConnInfo, Connection};

/// How long a failed restore's sessions may take to end.
const TRIES: u32 = 200;
const EVERY: Duration = Duration::from_millis(50);

/// The databases that a restore is about.
#[derive(Debug, Clone)]
pub struct Parties<'a> {
    /// The name that is taken over.
    pub database: &'a str,
    /// The database that had it, by its OID.
    pub old: Option<u32>,
    /// The name that the new one is built under.
    pub building: &'a str,
    /// The new one, by its OID; `None`: it was not made, as far as is known.
    pub new: Option<u32>,
}

/// Which databases bear which names.
type Bearers = Vec<(u32, String)>;

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The new database is in its place.
    Complete,
    /// The name is where it was.
    AsItWas,
    /// Somebody else gave the name to another database, or took it away.
    ChangedByOthers,
}

impl Parties<'_> {
    fn outcome(&self, bearers: &Bearers) -> Outcome {
        let bearer = bearers
            .iter()
            .find(|(_, name)| name == self.database)
            .map(|(oid, _)| *oid);
        match bearer {
            Some(oid) if Some(oid) == self.new => Outcome::Complete,
            bearer if bearer == self.old => Outcome::AsItWas,
            _ => Outcome::ChangedByOthers,
        }
    }

    fn in_words(&self, outcome: Outcome) -> String {
        let database = self.database;
        match outcome {
            Outcome::Complete => format!("database \"{database}\" is the new one"),
            Outcome::AsItWas if self.old.is_some() => {
                format!("database \"{database}\" is as it was")
            }
            Outcome::AsItWas => format!("there is no database \"{database}\""),
            Outcome::ChangedByOthers => {
                format!("somebody else made, renamed or dropped database \"{database}\" meanwhile")
            }
        }
    }

    /// Finds out what became of a restore that failed with this error, and removes what it built. `may_be_complete`: its last
    /// COMMIT was sent. Returns a new session if the restore is complete after all. Errors: it is not, or nobody knows.
    pub async fn settle(
        &self,
        info: &ConnInfo,
        error: anyhow::Error,
        may_be_complete: bool,
    ) -> anyhow::Result<Connection> {
        let (outcome, left) = match self.look(info).await {
            Ok((sql, Outcome::Complete, _)) => return Ok(sql),
            Ok((mut sql, outcome, is_there)) => {
                let removed = match is_there {
                    true => drop_building(&mut sql, self.building).await,
                    false => Ok(()),
                };
                (outcome, removed.err())
            }
            Err(unknown) if may_be_complete => return Err(self.in_doubt(error, &unknown)),
            Err(unknown) => (Outcome::AsItWas, Some(unknown)),
        };
        let state = self.in_words(outcome);
        let Some(left) = left else {
            return Err(error.context(format!("the restore failed; {state}")));
        };
        let (building, why) = (self.building, one_line(&left));
        let told = error.context(format!(
            "the restore failed; {state}; the unfinished database \"{building}\" cannot be removed: {why}"
        ));
        let hint = "the next restore removes it, or `walden dump drop-old`";
        Err(with_hint(told, hint))
    }

    fn in_doubt(&self, error: anyhow::Error, unknown: &anyhow::Error) -> anyhow::Error {
        let (database, building, why) = (self.database, self.building, one_line(unknown));
        let told = error.context(format!(
            "nobody knows whether the restore of database \"{database}\" is complete: {why}"
        ));
        let hint = format!(
            "look for database \"{building}\": if it is there, the restore is not complete, and `walden dump drop-old` removes it"
        );
        with_hint(told, hint)
    }

    /// Asks by a new session, once those of the restore are gone: until then its transaction can still become true.
    async fn look(&self, info: &ConnInfo) -> anyhow::Result<(Connection, Outcome, bool)> {
        let mut sql = target::connect(info, self.database, "walden").await?;
        end_restore(&mut sql, self.building).await?;
        let found = ask(
            &mut sql,
            &format!(
                "SELECT oid, datname AS name FROM pg_database WHERE datname IN ({})",
                literals([self.database, self.building])
            ),
        )
        .await?;
        let bearers: Bearers = (0..found.rows.len())
            .map(|row| Ok((found.parse(row, "oid")?, found.parse(row, "name")?)))
            .collect::<anyhow::Result<_>>()?;
        let is_there = bearers.iter().any(|(_, name)| name == self.building);
        let outcome = self.outcome(&bearers);
        Ok((sql, outcome, is_there))
    }
}

/// Ends the sessions that guard a database that was being built, and waits until they are gone.
async fn end_restore(sql: &mut Connection, building: &str) -> anyhow::Result<()> {
    let question = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = {}",
        literal(building)
    );
    for _ in 0..TRIES {
        if ask(sql, &question).await?.rows.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(EVERY).await;
    }
    Err(anyhow!(
        "the sessions \"{building}\" of the restore do not end"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_a_restore_is_what_the_oids_say() {
        let outcome = |old, new, bearers: &[(u32, &str)]| {
            let parties = Parties {
                database: "shop",
                old,
                building: "b",
                new,
            };
            let bearers = bearers.iter().map(|(oid, name)| (*oid, name.to_string()));
            parties.outcome(&bearers.collect())
        };
        for (old, new, bearers, wanted) in [
            (Some(1), Some(2), &[(2, "shop")][..], Outcome::Complete),
            (None, Some(2), &[(2, "shop")], Outcome::Complete),
            (Some(1), Some(2), &[(1, "shop"), (2, "b")], Outcome::AsItWas),
            (Some(1), None, &[(1, "shop"), (3, "b")], Outcome::AsItWas),
            (None, Some(2), &[(2, "b")], Outcome::AsItWas),
            (None, None, &[], Outcome::AsItWas),
            (None, Some(2), &[(7, "shop")], Outcome::ChangedByOthers),
            (Some(1), Some(2), &[(7, "shop")], Outcome::ChangedByOthers),
            (Some(1), Some(2), &[(2, "b")], Outcome::ChangedByOthers),
        ] {
            assert_eq!(outcome(old, new, bearers), wanted, "{bearers:?}");
        }
    }
}
