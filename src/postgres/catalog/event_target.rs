//! An event as a target: at which record it begins to count, and in words what it is.

use super::{EventKind, FoundEvent, Scope};
use crate::plain::{counted, plain};
use crate::postgres::types::{Lsn, TimelineId};
use crate::postgres::wal::Xid;

/// Something that happened, as `walden find` lists it, and the records at which it begins and ends to count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventTarget {
    pub id: String,
    /// What happened, such as `the drop of public.orders`.
    pub words: String,
    /// It is in the WAL of this timeline, or in what that one began with.
    pub timeline: TimelineId,
    /// Just before it: this record is not replayed. Mostly the commit.
    pub before: Lsn,
    /// After it: this record is replayed, too.
    pub after: Lsn,
    /// The transaction, if what counts as after is its commit and that is not known yet: behind the record at `after`.
    pub commits: Option<Xid>,
    /// The transaction, of DROP DATABASE: that begins to count before the record at `before`.
    pub drops_database: Option<Xid>,
}

impl From<&FoundEvent> for EventTarget {
    fn from(event: &FoundEvent) -> Self {
        let xid = event
            .xid
            .map(|xid| format!("transaction {xid}, "))
            .unwrap_or_default();
        let of_database = event.kind.row().scope == Scope::Database;
        Self {
            id: event.id.to_string(),
            words: format!("{} ({xid}{})", event.words(), event.time),
            timeline: event.timeline,
            before: event.lsn,
            after: event.commit_lsn.unwrap_or(event.lsn).max(event.lsn),
            commits: event
                .xid
                .filter(|_| of_database && event.commit_lsn.is_none()),
            drops_database: event.xid.filter(|_| event.kind == EventKind::DatabaseDrop),
        }
    }
}

impl FoundEvent {
    /// The command that restores to just before it.
    pub fn undo(&self) -> String {
        format!("walden restore --before {} --to-dir DIR", self.id)
    }

    /// What it is about: the relation, the database, the name of the restore point.
    pub fn subject(&self) -> String {
        plain(&self.raw_subject()).into_owned()
    }

    fn raw_subject(&self) -> String {
        let unnamed_database = || self.database_oid.map(|oid| format!("with OID {oid}"));
        match self.kind.row().scope {
            Scope::RestorePoint => self.name.clone().unwrap_or_default(),
            Scope::Timeline => self.id.number.to_string(),
            Scope::Database => self
                .database
                .clone()
                .or_else(unnamed_database)
                .unwrap_or_default(),
            Scope::File | Scope::Rows => self.relation.clone().unwrap_or_else(|| {
                self.file.map_or_else(String::new, |file| {
                    format!("the unnamed relation with file {file}")
                })
            }),
        }
    }

    /// What happened, as a part of a sentence.
    pub fn words(&self) -> String {
        let subject = self.subject();
        let database = match &self.database {
            Some(name) => format!("database {}", plain(name)),
            None => format!("the database {subject}"),
        };
        let (noun, at_least) = (
            self.kind.row().noun,
            if self.exact { "" } else { "at least " },
        );
        match (self.kind.row().scope, self.rows) {
            (Scope::Rows, Some(rows)) => format!(
                "the {noun} of {at_least}{} in {subject}",
                counted(rows, "row")
            ),
            (Scope::Rows, None) => format!("the {noun} of rows in {subject}"),
            (Scope::File, _) => format!("the {noun} of {subject}"),
            (Scope::Database, _) => format!("the {noun} of {database}"),
            (Scope::Timeline, _) => format!("the {noun} of timeline {subject}"),
            (Scope::RestorePoint, _) => format!("{noun} \"{subject}\""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::wal::Timestamp;

    fn event(kind: EventKind) -> FoundEvent {
        let text = format!("1-0-3000158-{}16384", kind.row().letter);
        let id: super::super::EventId = text.parse().unwrap();
        FoundEvent {
            id,
            kind,
            cluster: "main".parse().unwrap(),
            timeline: id.timeline,
            lsn: id.lsn,
            end_lsn: None,
            commit_lsn: None,
            xid: Some(745),
            time: Timestamp(0),
            database: None,
            database_oid: Some(5),
            relation: Some("public.orders".into()),
            relkind: Some('r'),
            oid: Some(16384),
            file: None,
            rows: Some(3),
            name: Some("x".into()),
            exact: true,
            minor: false,
        }
    }

    #[test]
    fn an_event_is_told_in_words() {
        for (kind, expected) in [
            (EventKind::Drop, "the drop of public.orders"),
            (EventKind::Delete, "the deletion of 3 rows in public.orders"),
            (EventKind::RestorePoint, "restore point \"x\""),
            (
                EventKind::DatabaseDrop,
                "the drop of the database with OID 5",
            ),
            (EventKind::Timeline, "the beginning of timeline 16384"),
        ] {
            assert_eq!(event(kind).words(), expected);
        }
        let unsure = FoundEvent {
            exact: false,
            ..event(EventKind::Update)
        };
        assert_eq!(
            unsure.words(),
            "the update of at least 3 rows in public.orders"
        );
        let target = EventTarget::from(&event(EventKind::Drop));
        assert_eq!(
            target.words,
            "the drop of public.orders (transaction 745, 2000-01-01 00:00:00.000000+00)"
        );
    }

    #[test]
    fn a_dropped_database_counts_from_its_record_to_its_commit_and_the_rest_at_the_commit() {
        let commit = Lsn(0x3000200);
        let dropped = FoundEvent {
            commit_lsn: Some(commit),
            ..event(EventKind::DatabaseDrop)
        };
        let target = EventTarget::from(&dropped);
        assert_eq!(
            (target.before, target.after, target.drops_database),
            (dropped.lsn, commit, Some(745))
        );
        let target = EventTarget::from(&event(EventKind::Drop));
        assert_eq!(
            (target.before, target.after, target.drops_database),
            (Lsn(0x3000158), Lsn(0x3000158), None)
        );
        for (event, commits) in [
            (dropped, None),
            (event(EventKind::DatabaseDrop), Some(745)),
            (event(EventKind::DatabaseCreate), Some(745)),
            (event(EventKind::Drop), None),
            (event(EventKind::RestorePoint), None),
        ] {
            assert_eq!(
                EventTarget::from(&event).commits,
                commits,
                "{:?}",
                event.kind
            );
        }
    }
}
