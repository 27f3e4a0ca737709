//! What happened, with the names that relations had then.

use std::cell::RefCell;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::ffi::c_int;
use std::time::Instant;

use rusqlite::{Connection, ErrorCode, Result, params};

use super::column::{file, from_json, int, nullable};
use super::event_row::{EventRow, PG_CLASS, RemovedFiles, SELECT};
use super::exact::{self, OfDatabase};
use super::listing::is_whole;
use super::name::{self, RecordedName};
use super::{Index, IndexState};
use crate::error::{DeadlineExceeded, with_hint};
use crate::postgres::catalog::marks::round_trip_begun;
use crate::postgres::catalog::{
    EventId, EventKind, FIRST_NORMAL, Filter, FoundEvent, OWN_RESTORE_POINT, Relation, Removal,
    Scope, Unknown,
};
use crate::postgres::types::{Lsn, TimelineHistory, TimelineId};
use crate::postgres::wal::{Created, RelFileLocator};

/// Files whose names are kept at hand.
const NAMES: usize = 10_000;

/// An answer of [`Index::events`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FoundEvents {
    /// By time.
    pub events: Vec<FoundEvent>,
    /// There are older ones than were asked for.
    pub more: bool,
    /// WAL segments of that time with more events than their summaries have room for: what those were is not known.
    pub overfull_segments: u64,
    /// How far the index was that they were found in.
    pub state: IndexState,
}

impl Index {
    /// Events by time. Errors: the index cannot be read.
    pub fn events(&self, filter: &Filter) -> anyhow::Result<FoundEvents> {
        Ok(self.search(&self.connection(), filter)?)
    }

    /// The same, if it can be had by a deadline. Errors: also [`DeadlineExceeded`].
    pub fn events_until(&self, filter: &Filter, deadline: Instant) -> anyhow::Result<FoundEvents> {
        let db = self.connection();
        let bound = Bound::new(&db, deadline)?;
        self.search(bound.0, filter)
            .map_err(|error| match error.sqlite_error_code() {
                Some(ErrorCode::OperationInterrupted) => with_hint(
                    DeadlineExceeded("the search for events").into(),
                    "narrow it by time or kind, or ask for fewer events",
                ),
                _ => error.into(),
            })
    }

    fn search(&self, db: &Connection, filter: &Filter) -> Result<FoundEvents> {
        // Of one state of the index, whatever others put in meanwhile.
        let db = &*db.unchecked_transaction()?;
        let reader = EventReader::new(self, db)?;
        let most = filter.latest.unwrap_or(usize::MAX);
        let overfull_segments = exact::overfull_segments(db, filter)?;
        let mut found = FoundEvents {
            overfull_segments,
            state: self.state_in(db)?,
            ..FoundEvents::default()
        };
        let mut select = db.prepare_cached(&format!(
            "{SELECT} WHERE time BETWEEN ?1 AND ?2 AND (?3 >> kind) & 1 AND (rows IS NULL OR rows >= ?4) \
             ORDER BY time DESC, lsn DESC, timeline DESC"
        ))?;
        let since = filter.since.map_or(i64::MIN, |time| time.0);
        let until = filter.until.map_or(i64::MAX, |time| time.0);
        let mut rows = select.query(params![
            since,
            until,
            kinds(filter),
            int(filter.least_rows())
        ])?;
        'rows: while let Some(row) = rows.next()? {
            for event in reader.events(&EventRow::read(row)?, &|event| filter.wants(event))? {
                if found.events.len() >= most {
                    found.more = true;
                    break 'rows;
                }
                found.events.push(event);
            }
        }
        found.events.sort_by_key(|event| (event.time, event.id));
        Ok(found)
    }

    /// One event by its name; `None`: there is none in the archived WAL. Errors: [`Unknown::Segment`] when it may be one
    /// that the index does not know; the index cannot be read.
    pub fn event(&self, id: EventId) -> anyhow::Result<Option<FoundEvent>> {
        let db = self.connection();
        let db = &*db.unchecked_transaction()?;
        let reader = EventReader::new(self, db)?;
        let at = id.lsn.0 / self.size.bytes();
        // A record belongs to the segment that it ends in.
        let mut select = db.prepare_cached(&format!(
            "{SELECT} WHERE timeline = ?1 AND number BETWEEN ?2 AND ?3 AND lsn = ?4"
        ))?;
        for timeline in reader.timelines_from(id.timeline) {
            let mut rows = select.query(params![
                timeline.0,
                int(at),
                int(at + super::WINDOW),
                int(id.lsn.0)
            ])?;
            while let Some(row) = rows.next()? {
                let events = reader.events(&EventRow::read(row)?, &|event| event.id == id)?;
                if let Some(event) = events.into_iter().next() {
                    return Ok(Some(event));
                }
            }
        }
        if !is_whole(db)? {
            return Err(Unknown::Segment(self.name(id.timeline, at)).into());
        }
        for timeline in reader.timelines_from(id.timeline) {
            if timeline != id.timeline
                && reader.history(timeline).timeline_at(id.lsn) != id.timeline
            {
                continue;
            }
            if let Some((timeline, number)) = exact::unknown_around(db, timeline, at)? {
                return Err(Unknown::Segment(self.name(timeline, number)).into());
            }
        }
        Ok(None)
    }
}

/// Instructions of SQLite's between two looks at the clock: some microseconds.
const INSTRUCTIONS: c_int = 1000;

/// A connection whose statements fail from a deadline on.
struct Bound<'a>(&'a Connection);

impl<'a> Bound<'a> {
    fn new(db: &'a Connection, deadline: Instant) -> Result<Self> {
        db.progress_handler(INSTRUCTIONS, Some(move || Instant::now() >= deadline))?;
        Ok(Self(db))
    }
}

impl Drop for Bound<'_> {
    fn drop(&mut self) {
        // It could be set, so it can be taken away.
        let _ = self.0.progress_handler(0, None::<fn() -> bool>);
    }
}

/// Of which kinds there may be a row, as bits: what removed files is told apart later.
fn kinds(filter: &Filter) -> i64 {
    let wanted = |kind: &EventKind| {
        (filter.kinds.is_empty() || filter.kinds.contains(kind))
            && (filter.relation.is_none() || kind.is_of_relation())
    };
    EventKind::ALL
        .iter()
        .filter(|kind| wanted(kind))
        .fold(0, |bits, kind| {
            let stored = if kind.row().scope == Scope::File {
                EventKind::Drop
            } else {
                *kind
            };
            bits | 1 << stored as i64
        })
}

/// Which events are wanted. How exact an event is, and the name of its database, come later.
type Wanted<'a> = &'a dyn Fn(&FoundEvent) -> bool;

/// Makes events of rows.
struct EventReader<'a> {
    index: &'a Index,
    db: &'a Connection,
    histories: BTreeMap<TimelineId, TimelineHistory>,
    /// Names that were looked up, at most [`NAMES`].
    names: RefCell<HashMap<RelFileLocator, Vec<name::NameAt>>>,
}

impl<'a> EventReader<'a> {
    fn new(index: &'a Index, db: &'a Connection) -> Result<Self> {
        Ok(Self {
            index,
            db,
            histories: name::histories(db)?,
            names: RefCell::default(),
        })
    }

    /// A timeline and those that may begin with a copy of it.
    fn timelines_from(&self, timeline: TimelineId) -> impl Iterator<Item = TimelineId> {
        let later = self
            .histories
            .range(timeline..)
            .map(|(later, _)| *later)
            .filter(move |later| *later != timeline);
        std::iter::once(timeline).chain(later)
    }

    fn history(&self, timeline: TimelineId) -> TimelineHistory {
        self.histories
            .get(&timeline)
            .cloned()
            .unwrap_or_else(|| TimelineHistory::root(timeline))
    }

    /// The events of a row that are wanted; none for the copy of another timeline's that is there itself. What they are
    /// comes first, for it costs little; how exact that is may take thousands of lookups.
    fn events(&self, stored: &EventRow, wanted: Wanted<'_>) -> Result<Vec<FoundEvent>> {
        let owner = self.history(stored.timeline).timeline_at(stored.lsn);
        if owner != stored.timeline && self.is_indexed(owner, stored.number)? {
            return Ok(Vec::new());
        }
        if stored.detail.is_some() {
            return self.removals(stored, owner, wanted);
        }
        let mut event = self.base(stored, owner, stored.kind, stored.file.number);
        match stored.kind.row().scope {
            Scope::Rows => {
                let relation = self.relation(stored.file, owner, stored.lsn)?;
                event.describe(stored.file, relation.as_ref());
            }
            Scope::Database => {
                event.id.number = stored.file.database;
                self.name_database(&mut event, owner, stored.file.database)?;
                let name = event.database.as_deref();
                let is_own = name.is_some_and(|name| round_trip_begun(name).is_some());
                // initdb's, and Walden's.
                event.minor = stored.file.database < FIRST_NORMAL || is_own;
            }
            Scope::RestorePoint => {
                event.id.number = 1;
                event.minor = event
                    .name
                    .as_deref()
                    .is_some_and(|name| name.starts_with(OWN_RESTORE_POINT));
            }
            _ => {}
        }
        if !wanted(&event) {
            return Ok(Vec::new());
        }
        match stored.kind.row().scope {
            Scope::Rows => {
                event.exact = exact::has_all_rows(self.index, self.db, stored)?;
            }
            Scope::Database => match exact::of_database(self.index, self.db, stored)? {
                OfDatabase::Committed(lsn) => event.commit_lsn = Some(lsn),
                OfDatabase::Unsure => event.exact = false,
                OfDatabase::Nothing => return Ok(Vec::new()),
            },
            _ => {}
        }
        self.name_database(&mut event, owner, stored.file.database)?;
        Ok(vec![event])
    }

    fn base(
        &self,
        stored: &EventRow,
        owner: TimelineId,
        kind: EventKind,
        number: u32,
    ) -> FoundEvent {
        FoundEvent {
            id: EventId {
                timeline: owner,
                lsn: stored.lsn,
                kind,
                number,
            },
            kind,
            cluster: self.index.cluster.clone(),
            timeline: owner,
            lsn: stored.lsn,
            end_lsn: stored.end_lsn,
            commit_lsn: stored.commit_lsn,
            xid: (stored.xid != 0).then_some(stored.xid),
            time: stored.time,
            database: None,
            database_oid: None,
            relation: None,
            relkind: None,
            oid: None,
            file: None,
            rows: stored.rows,
            name: stored.label.clone(),
            exact: true,
            minor: false,
        }
    }

    fn removals(
        &self,
        stored: &EventRow,
        owner: TimelineId,
        wanted: Wanted<'_>,
    ) -> Result<Vec<FoundEvent>> {
        let removed: RemovedFiles = from_json(stored.detail.as_deref().unwrap_or_default())?;
        let named = removed
            .files
            .iter()
            .map(|file| Ok((*file, self.relation(*file, owner, stored.lsn)?)));
        let names = named.collect::<Result<HashMap<_, _>>>()?;
        let name_of = |file: RelFileLocator| names.get(&file).cloned().flatten();
        let event_of = |kind: EventKind, file: RelFileLocator, relation: Option<&Relation>| {
            let mut event = self.base(stored, owner, kind, file.number);
            event.describe(file, relation);
            event
        };
        let created = self.created(stored)?;
        // Without a new file nothing was emptied or rewritten.
        let removing = [EventKind::Drop, EventKind::Truncate, EventKind::Rewrite];
        let kinds = if created.is_empty() {
            &removing[..1]
        } else {
            &removing[..]
        };
        let may_be_wanted = |file: &RelFileLocator| {
            let relation = name_of(*file);
            kinds
                .iter()
                .any(|kind| wanted(&event_of(*kind, *file, relation.as_ref())))
        };
        if !removed.files.iter().any(may_be_wanted) {
            return Ok(Vec::new());
        }
        let removal = self.removal(stored, removed, created)?;
        let mut events = Vec::new();
        for removed in removal.relations(&name_of) {
            let mut event = event_of(removed.kind, removed.file, removed.relation.as_ref());
            if wanted(&event) {
                event.exact = removed.exact;
                self.name_database(&mut event, owner, removed.file.database)?;
                events.push(event);
            }
        }
        Ok(events)
    }

    /// What the transaction did to the files that it removed, and to those that it made.
    fn removal(
        &self,
        stored: &EventRow,
        removed: RemovedFiles,
        created: Vec<Created>,
    ) -> Result<Removal> {
        let RemovedFiles {
            files,
            relations,
            cut,
            major,
        } = removed;
        let trace = exact::trace(self.index, self.db, stored, stored.number)?;
        let class_deletes = self.class_deletes(stored, files.first(), &trace)?;
        Ok(Removal {
            files,
            relations,
            cut,
            major,
            created,
            whole: trace.has_all_files(),
            class_deletes,
        })
    }

    /// Files that the transaction made, in its segment or before.
    fn created(&self, stored: &EventRow) -> Result<Vec<Created>> {
        let mut select = self.db.prepare_cached(
            "SELECT c.xid, c.tablespace, c.database, c.file, max(c.filled), max(c.pages) \
             FROM ended AS e JOIN created AS c ON c.xid = e.xid AND c.number BETWEEN ?3 AND ?2 \
             WHERE e.timeline = ?1 AND e.number = ?2 AND e.top = ?4 AND c.timeline <= ?1 \
             GROUP BY c.xid, c.tablespace, c.database, c.file",
        )?;
        let first = int(stored.number.saturating_sub(self.index.reach()));
        let created = select.query_map(
            params![stored.timeline.0, int(stored.number), first, stored.xid],
            |row| {
                Ok(Created {
                    xid: row.get(0)?,
                    file: file(row, 1)?,
                    filled: row.get(4)?,
                    pages: row.get(5)?,
                })
            },
        )?;
        created.collect()
    }

    /// Rows that the transaction, which removed `file`, deleted in `pg_class`, as far as they are listed; `None` where
    /// none are and that does not say that there were none.
    fn class_deletes(
        &self,
        stored: &EventRow,
        file: Option<&RelFileLocator>,
        trace: &exact::Trace,
    ) -> Result<Option<u64>> {
        let sql = "SELECT sum(r.deleted) FROM ended AS e JOIN rows AS r ON r.xid = e.xid AND r.number BETWEEN ?3 AND ?2 \
                   WHERE e.timeline = ?1 AND e.number = ?2 AND e.top = ?4 AND r.file = ?5 AND r.timeline <= ?1";
        let first = int(stored.number.saturating_sub(self.index.reach()));
        let bounds = params![
            stored.timeline.0,
            int(stored.number),
            first,
            stored.xid,
            PG_CLASS
        ];
        match self
            .db
            .prepare_cached(sql)?
            .query_row(bounds, |row| nullable(row, 0))?
        {
            None | Some(0) => {
                let database = file.map_or(0, |file| file.database);
                Ok(
                    exact::lists_rows(self.db, stored, trace, (None, database, PG_CLASS))?
                        .then_some(0),
                )
            }
            deleted => Ok(deleted),
        }
    }

    fn is_indexed(&self, timeline: TimelineId, number: u64) -> Result<bool> {
        let sql = "SELECT 1 FROM segment WHERE timeline = ?1 AND number = ?2 AND state = 1";
        self.db
            .prepare_cached(sql)?
            .exists(params![timeline.0, int(number)])
    }

    fn relation(
        &self,
        file: RelFileLocator,
        timeline: TimelineId,
        at: Lsn,
    ) -> Result<Option<Relation>> {
        Ok(match self.name(file, timeline, at)? {
            Some(RecordedName::Relation(relation)) => Some(relation),
            _ => None,
        })
    }

    fn name_database(&self, event: &mut FoundEvent, timeline: TimelineId, oid: u32) -> Result<()> {
        if oid != 0 {
            event.database_oid = Some(oid);
            let key = RelFileLocator {
                tablespace: 0,
                database: oid,
                number: 0,
            };
            if let Some(RecordedName::Database(name)) = self.name(key, timeline, event.lsn)? {
                event.database = Some(name);
            }
        }
        Ok(())
    }

    /// What a file or database was called at a place.
    fn name(
        &self,
        file: RelFileLocator,
        timeline: TimelineId,
        at: Lsn,
    ) -> Result<Option<RecordedName>> {
        let mut names = self.names.borrow_mut();
        if names.len() >= NAMES {
            names.clear();
        }
        let recorded = match names.entry(file) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(name::names_of(self.db, file)?),
        };
        Ok(name::name_at(recorded, &self.history(timeline), at).cloned())
    }
}

impl FoundEvent {
    fn describe(&mut self, file: RelFileLocator, relation: Option<&Relation>) {
        self.file = Some(file);
        self.minor = match relation {
            Some(relation) => relation.is_minor(self.kind),
            None => file.number < FIRST_NORMAL || self.kind == EventKind::Rewrite,
        };
        let Some(relation) = relation else { return };
        self.relation = Some(relation.qualified());
        self.relkind = Some(relation.relkind);
        self.oid = Some(relation.oid);
    }
}
