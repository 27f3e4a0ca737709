//! What happened.

use chrono::{DateTime, Utc};

use crate::postgres::catalog::{EventId, EventKind, FoundEvent};
use crate::postgres::index::{self, FoundEvents, IndexState};
use crate::postgres::types::{Lsn, SegmentName, TimelineId};

answer! {
    /// Events by time.
    pub struct Events {
        indexed: Indexed,
        events: Vec<Event>,
        /// There are older ones than `limit` let through.
        more: bool,
        /// WAL segments of that time with more events than their summaries have room for: more may have happened.
        overfull_segments: u64,
    }
}

impl Events {
    /// What was found in an index that was compared with the repository at `looked_at`.
    pub fn of(found: &FoundEvents, looked_at: Option<DateTime<Utc>>) -> Self {
        let FoundEvents {
            events,
            more,
            overfull_segments,
            state,
        } = found;
        let (indexed, events) = (
            Indexed::of(state, looked_at),
            events.iter().map(Event::from).collect(),
        );
        Self {
            indexed,
            events,
            more: *more,
            overfull_segments: *overfull_segments,
        }
    }
}

answer! {
    /// How far the index was that the events were found in.
    pub struct Indexed {
        /// False: events may be missing, for it is not known yet, or cannot be read, what all archived WAL holds.
        complete: bool,
        /// False: the repository was not listed whole yet, so there may be more segments.
        listed: bool,
        /// When it was compared with the repository.
        looked_at?: DateTime<Utc>,
        segments: u64,
        /// Of these, what they hold is not known yet.
        not_indexed: u64,
        /// Of these, what they hold cannot be read.
        unreadable: u64,
        /// The first of those.
        first_unreadable?: Unreadable,
    }

    /// A segment that cannot be read.
    pub struct Unreadable {
        segment: SegmentName,
        why: String,
    }
}

impl Indexed {
    fn of(state: &IndexState, looked_at: Option<DateTime<Utc>>) -> Self {
        let unreadable = |first: &index::UnreadableSegment| Unreadable {
            segment: first.segment,
            why: first.why.clone(),
        };
        Self {
            complete: state.is_complete(),
            listed: state.whole,
            looked_at,
            segments: state.segments,
            not_indexed: state.not_indexed,
            unreadable: state.unreadable,
            first_unreadable: state.first_unreadable.as_ref().map(unreadable),
        }
    }
}

answer! {
    /// Something that happened. What is not known is absent.
    pub struct Event {
        /// Its name, for `walden restore --before` and `--after`.
        id: EventId,
        /// drop, truncate, rewrite, delete, update, restore-point, database-drop, database-create or timeline.
        kind: EventKind,
        timeline: TimelineId,
        /// A restore that stops before this record undoes it.
        lsn: Lsn,
        /// Where the transaction commits.
        commit_lsn?: Lsn,
        /// By the server's clock.
        time?: DateTime<Utc>,
        xid?: u32,
        database?: String,
        database_oid?: u32,
        #[schema(example = "public.orders")]
        relation?: String,
        /// `pg_class.relkind`.
        #[schema(example = "r")]
        relkind?: char,
        /// `pg_class.oid`.
        oid?: u32,
        /// The file that was removed, or whose rows changed.
        file?: String,
        /// Rows deleted or updated.
        rows?: u64,
        /// The name of a restore point.
        name?: String,
        /// False when the kind was guessed, rows may be more than counted, or it is not known whether its transaction committed.
        exact: bool,
        /// Found only when all is asked for.
        minor: bool,
        /// What restores to just before it; DIR stands for the new data directory.
        restore: String,
    }
}

impl From<&FoundEvent> for Event {
    fn from(event: &FoundEvent) -> Self {
        let restore = event.undo();
        let event = event.clone();
        Self {
            id: event.id,
            kind: event.kind,
            timeline: event.timeline,
            lsn: event.lsn,
            commit_lsn: event.commit_lsn,
            time: event.time.to_utc(),
            xid: event.xid,
            database: event.database,
            database_oid: event.database_oid,
            relation: event.relation,
            relkind: event.relkind,
            oid: event.oid,
            file: event.file.map(|file| file.to_string()),
            rows: event.rows,
            name: event.name,
            exact: event.exact,
            minor: event.minor,
            restore,
        }
    }
}
