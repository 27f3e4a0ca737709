use anyhow::anyhow;

use crate::cli::exit::wrong_usage;
use crate::error::{Hint, with_hint};
use crate::postgres::catalog::{EventId, EventTarget, Request, Target, TimelineChoice, parse_time, postgresql_time};
use crate::postgres::layout::BackupId;
use crate::postgres::planning::FreshPlanner;
use crate::postgres::types::Lsn;

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

const EPOCHS: &str = "name the moment by --time or --lsn; or, when the backup is less than 2^32 transactions older than \
                      the target, by --backup and --xid with the low 32 bits";

/// The target, and the choices around it.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("target"))]
pub struct TargetArgs {
    /// A moment: RFC 3339, 'YYYY-MM-DD HH:MM[:SS[.ffffff]][±HH[:MM]]', 'today 14:05', 'yesterday 23:10', '14:05' or
    /// '20 min ago'; without an offset it is UTC.
    #[arg(long, group = "target", value_name = "T")]
    time: Option<String>,
    /// A place in the WAL, such as 16/B374D848.
    #[arg(long, group = "target", value_name = "LSN")]
    lsn: Option<Lsn>,
    /// A transaction id; of a subtransaction the end of the one that it belongs to counts.
    #[arg(long, group = "target", value_name = "X")]
    xid: Option<String>,
    /// A restore point (pg_create_restore_point).
    #[arg(long, group = "target", value_name = "NAME")]
    name: Option<String>,
    /// Just before an event, as `walden find` names it.
    #[arg(long, group = "target", value_name = "EVENT")]
    before: Option<EventId>,
    /// Just after an event.
    #[arg(long, group = "target", value_name = "EVENT")]
    after: Option<EventId>,
    /// As soon as the cluster is consistent: the end of the backup.
    #[arg(long, group = "target")]
    immediate: bool,
    /// All archived WAL.
    #[arg(long, group = "target")]
    latest: bool,
    /// Leave out what lies exactly at the target.
    #[arg(long, conflicts_with_all = ["name", "before", "after", "immediate", "latest"])]
    exclusive: bool,
    /// Which timeline to follow: latest, current (the backup's own), or a number, also as file names have it: 0000000A.
    #[arg(long, default_value = "latest", value_name = "TIMELINE")]
    timeline: TimelineChoice,
    /// Begin with this backup, as `walden backup list` names it.
    #[arg(long, value_name = "ID")]
    backup: Option<BackupId>,
}

impl TargetArgs {
    /// Whether a target is named.
    pub fn names_one(&self) -> bool {
        let named = [self.time.is_some(), self.lsn.is_some(), self.xid.is_some(), self.name.is_some()];
        named.contains(&true) || self.event().is_some() || self.immediate || self.latest
    }

    /// Whether planning for the target needs to know what WAL holds.
    pub fn needs_index(&self) -> bool {
        self.names_one() && !self.immediate && !self.latest
    }

    /// Refuses what is wrong whatever the repository holds. Errors: [`WrongUsage`](crate::cli::exit::WrongUsage).
    pub fn check(&self) -> anyhow::Result<()> {
        let can_be_exclusive = match &self.time {
            Some(text) => parse_time(text, chrono::Utc::now()).map(|_| true).map_err(wrong_usage)?,
            None => self.place(None).map_err(wrong_usage)?.can_be_exclusive(),
        };
        if self.exclusive && !can_be_exclusive {
            let error = anyhow!("--exclusive needs --time, --lsn or --xid");
            return Err(wrong_usage(with_hint(error, "without a target all WAL is replayed")));
        }
        Ok(())
    }

    fn event(&self) -> Option<EventId> {
        self.before.or(self.after)
    }

    /// The request, with what the index says of an event.
    pub async fn resolve(&self, planner: &FreshPlanner) -> anyhow::Result<Request> {
        match self.event() {
            Some(id) => self.request(Some(planner.event(id).await?)),
            None => self.request(None),
        }
    }

    fn request(&self, event: Option<EventTarget>) -> anyhow::Result<Request> {
        let target = match &self.time {
            Some(text) => Target::Time(moment(text)?),
            None => self.place(event)?,
        };
        let inclusive = !self.exclusive && self.before.is_none();
        Ok(Request { target, inclusive, timeline: self.timeline, backup: self.backup.clone() })
    }

    /// The target, when it is no time.
    fn place(&self, event: Option<EventTarget>) -> anyhow::Result<Target> {
        Ok(match (self.lsn, &self.xid, &self.name, event) {
            (Some(lsn), ..) => Target::Lsn(lsn),
            (_, Some(xid), ..) => Target::xid(xid).hint(EPOCHS)?,
            (_, _, Some(name), _) => Target::restore_point(name)?,
            (.., Some(event)) => Target::Event(event),
            _ if self.immediate => Target::Immediate,
            _ => Target::Latest,
        })
    }
}

/// Reads a moment, and tells how it was understood.
pub fn moment(text: &str) -> anyhow::Result<chrono::DateTime<chrono::Utc>> {
    let (time, is_in_full) = parse_time(text, chrono::Utc::now())?;
    if !is_in_full {
        tracing::info!("\"{text}\" is taken as {}, by UTC", postgresql_time(time));
    }
    Ok(time)
}
