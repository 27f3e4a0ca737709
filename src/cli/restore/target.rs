use chrono::{DateTime, Utc};

use crate::cli::exit::wrong_usage;
use crate::error::with_hint;
use crate::postgres::catalog::{
    NamedTarget, ParsedRequest, RequestText, RestoreRequest, Target, parse_time, postgresql_time,
};
use crate::postgres::planning::FreshPlanner;

/// What a target means, for the help.
pub const MEANINGS: &str = "\
Times, LSNs, transactions and restore points mean exactly what they mean to PostgreSQL:
  --time T     the state before the first commit or abort later than T; exclusive: not earlier than T
  --lsn L      up to and including the first WAL record that begins at or after L; exclusive: before it. What
               pg_current_wal_lsn() shows after a commit is its end: add --exclusive to leave out what follows.
               With --exclusive L may be where the archived WAL ends, or where a gap begins: all WAL before it
  --xid X      up to and including the end of that transaction; exclusive: just before its end
  --name N     up to the first restore point of that name after the oldest usable backup
  --before E   just before an event that `walden find` lists: a table dropped, rows deleted
  --after E    just after it
A time after the last archived transaction restores everything archived, where it is proven that none ended since.
A target that cannot be reached exactly is refused with exit code 4, the reason and the nearest moments that can.";

const EPOCHS: &str =
    "name the moment by --time or --lsn, or by --backup and --xid with the low 32 bits";

/// The target, and the choices around it.
#[derive(Debug, clap::Args)]
pub struct TargetArgs {
    /// A moment: RFC 3339, 'YYYY-MM-DD HH:MM[:SS[.ffffff]][±HH[:MM]]', 'today 14:05', 'yesterday 23:10', '14:05' or
    /// '20 min ago'; without an offset it is UTC.
    #[arg(long, value_name = "T")]
    time: Option<String>,
    /// A place in the WAL, such as 16/B374D848.
    #[arg(long, value_name = "LSN")]
    lsn: Option<String>,
    /// A transaction id; of a subtransaction the end of the one that it belongs to counts.
    #[arg(long, value_name = "X")]
    xid: Option<String>,
    /// A restore point (pg_create_restore_point).
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Just before an event, as `walden find` names it.
    #[arg(long, value_name = "EVENT")]
    before: Option<String>,
    /// Just after an event.
    #[arg(long, value_name = "EVENT")]
    after: Option<String>,
    /// As soon as the cluster is consistent: the end of the backup.
    #[arg(long)]
    immediate: bool,
    /// All archived WAL.
    #[arg(long)]
    latest: bool,
    /// Leave out what lies exactly at the target.
    #[arg(long)]
    exclusive: bool,
    /// Which timeline to follow: latest, current (the backup's own), or a number, also as file names have it: 0000000A.
    #[arg(long, default_value = "latest", value_name = "TIMELINE")]
    timeline: String,
    /// Begin with this backup, as `walden backup list` names it.
    #[arg(long, value_name = "ID")]
    backup: Option<String>,
}

impl TargetArgs {
    fn targets(&self) -> [(&str, Option<&str>); 8] {
        [
            ("time", self.time.as_deref()),
            ("lsn", self.lsn.as_deref()),
            ("xid", self.xid.as_deref()),
            ("name", self.name.as_deref()),
            ("before", self.before.as_deref()),
            ("after", self.after.as_deref()),
            ("immediate", self.immediate.then_some("")),
            ("latest", self.latest.then_some("")),
        ]
    }

    /// Whether a target is named.
    pub fn names_one(&self) -> bool {
        self.targets().iter().any(|(_, value)| value.is_some())
    }

    /// What is asked for. Errors: [`WrongUsage`](crate::cli::exit::WrongUsage), whatever the repository holds.
    pub fn asked(&self) -> anyhow::Result<ParsedRequest> {
        let words = RequestText {
            exclusive: self.exclusive,
            timeline: Some(&self.timeline),
            backup: self.backup.as_deref(),
        };
        let now = Utc::now();
        let asked = ParsedRequest::read(&self.targets(), words, now).map_err(|error| {
            wrong_usage(match (&self.xid, self.names_one()) {
                (Some(_), _) => with_hint(error, EPOCHS),
                (None, false) if self.exclusive => {
                    with_hint(error, "without a target all WAL is replayed")
                }
                _ => error,
            })
        })?;
        self.time
            .as_deref()
            .map(|text| moment(text, now))
            .transpose()?;
        Ok(asked)
    }
}

/// The request, with what the index says of an event.
pub async fn request(
    asked: ParsedRequest,
    planner: &FreshPlanner,
) -> anyhow::Result<RestoreRequest> {
    let target = match &asked.named {
        NamedTarget::Target(target) => target.clone(),
        NamedTarget::Event(id) => Target::Event(planner.event(*id).await?),
    };
    Ok(asked.request(target))
}

/// Reads a moment, and tells how it was understood.
pub fn moment(text: &str, now: DateTime<Utc>) -> anyhow::Result<DateTime<Utc>> {
    let (time, is_in_full) = parse_time(text, now)?;
    if !is_in_full {
        tracing::info!("\"{text}\" is taken as {}, by UTC", postgresql_time(time));
    }
    Ok(time)
}
