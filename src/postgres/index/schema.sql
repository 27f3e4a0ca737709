-- Numbers of 64 bits without sign are kept as SQLite's integers bit by bit. Times are microseconds since 2000-01-01.

-- Of which cluster in which repository this is the index: one row.
CREATE TABLE identity (text TEXT NOT NULL);

-- Every archived segment. What crosses into one from the segment before belongs to it.
CREATE TABLE segment (
    timeline INTEGER NOT NULL,
    number INTEGER NOT NULL,
    -- As the store lists it: bytes, and microseconds since 1970-01-01.
    bytes INTEGER NOT NULL,
    stored_at INTEGER NOT NULL,
    -- 0: told by who stored it, by another clock than the store's.
    listed INTEGER NOT NULL,
    -- 0 listed, 1 indexed, 2 cannot be read, and why.
    state INTEGER NOT NULL DEFAULT 0,
    why TEXT,
    -- 0: not indexed, or broken.
    ok INTEGER NOT NULL DEFAULT 0,
    -- The timeline of the segment before.
    previous INTEGER,
    -- Whether what that one hands on is known.
    joined INTEGER NOT NULL DEFAULT 0,
    -- Where it is broken: at the boundary with the one before, and within.
    boundary_stop INTEGER,
    stop INTEGER,
    -- Whether all of it is the middle of one record.
    middle INTEGER NOT NULL DEFAULT 0,
    commits INTEGER NOT NULL DEFAULT 0,
    first_commit_lsn INTEGER, first_commit_xid INTEGER, first_commit_time INTEGER,
    last_commit_lsn INTEGER, last_commit_xid INTEGER, last_commit_time INTEGER,
    -- The earliest and the latest time of a commit or abort.
    min_time INTEGER,
    max_time INTEGER,
    -- The newest transaction that is mentioned, also where the mention was left out.
    newest INTEGER,
    -- Of those that ended, these may be missing in "ended".
    fresh_from INTEGER,
    fresh_to INTEGER,
    -- What the summary had no room for: rows, files that were made, restore points, and other events.
    rows_left_out INTEGER NOT NULL DEFAULT 0,
    created_left_out INTEGER NOT NULL DEFAULT 0,
    points_left_out INTEGER NOT NULL DEFAULT 0,
    events_left_out INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (timeline, number)
) WITHOUT ROWID;
CREATE INDEX segment_broken ON segment (timeline, number) WHERE ok = 0 OR joined = 0;
CREATE INDEX segment_short ON segment (timeline, number) WHERE points_left_out + events_left_out > 0;
CREATE INDEX segment_listed ON segment (timeline, number) WHERE state = 0;
CREATE INDEX segment_fork ON segment (number) WHERE previous <> timeline;

-- What lookups skip by: 1024 segments each, and how many of them were listed.
CREATE TABLE block (
    timeline INTEGER NOT NULL,
    block INTEGER NOT NULL,
    segments INTEGER NOT NULL DEFAULT 0,
    -- Of their objects.
    bytes INTEGER NOT NULL DEFAULT 0,
    max_time INTEGER,
    fresh_from INTEGER, fresh_to INTEGER,
    PRIMARY KEY (timeline, block)
) WITHOUT ROWID;

-- What each segment hands on to the next, as JSON; of one that has to be read again, what it handed on before.
CREATE TABLE carried (
    timeline INTEGER NOT NULL,
    number INTEGER NOT NULL,
    held TEXT NOT NULL,
    PRIMARY KEY (timeline, number)
) WITHOUT ROWID;

CREATE TABLE event (
    timeline INTEGER NOT NULL,
    number INTEGER NOT NULL,
    lsn INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    tablespace INTEGER NOT NULL DEFAULT 0,
    database INTEGER NOT NULL DEFAULT 0,
    file INTEGER NOT NULL DEFAULT 0,
    end_lsn INTEGER,
    commit_lsn INTEGER,
    time INTEGER NOT NULL,
    xid INTEGER NOT NULL DEFAULT 0,
    -- Rows deleted or updated, and the segment where the first of them is.
    rows INTEGER,
    rows_from INTEGER,
    -- A restore point's name.
    label TEXT,
    -- Removed files, as JSON.
    detail TEXT,
    PRIMARY KEY (timeline, number, lsn, kind, tablespace, database, file)
) WITHOUT ROWID;
CREATE INDEX event_time ON event (time);
CREATE INDEX event_label ON event (label, timeline, number) WHERE label IS NOT NULL;

-- Rows that transactions changed, where that may become an event.
CREATE TABLE rows (
    timeline INTEGER NOT NULL,
    number INTEGER NOT NULL,
    xid INTEGER NOT NULL,
    tablespace INTEGER NOT NULL,
    database INTEGER NOT NULL,
    file INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    deleted INTEGER NOT NULL,
    -- NULL: the transaction goes on beyond this segment.
    commit_lsn INTEGER,
    PRIMARY KEY (timeline, number, xid, tablespace, database, file)
) WITHOUT ROWID;
CREATE INDEX rows_xid ON rows (xid, number);

-- Transactions that ended, as far as they may have begun in an earlier segment or made an event.
CREATE TABLE ended (
    timeline INTEGER NOT NULL,
    number INTEGER NOT NULL,
    xid INTEGER NOT NULL,
    top INTEGER NOT NULL,
    lsn INTEGER NOT NULL,
    time INTEGER NOT NULL,
    committed INTEGER NOT NULL,
    PRIMARY KEY (timeline, number, xid)
) WITHOUT ROWID;
CREATE INDEX ended_xid ON ended (xid, number);

-- Relation files that transactions made.
CREATE TABLE created (
    timeline INTEGER NOT NULL,
    number INTEGER NOT NULL,
    xid INTEGER NOT NULL,
    tablespace INTEGER NOT NULL,
    database INTEGER NOT NULL,
    file INTEGER NOT NULL,
    filled INTEGER NOT NULL,
    pages INTEGER NOT NULL,
    PRIMARY KEY (timeline, number, xid, tablespace, database, file)
) WITHOUT ROWID;
CREATE INDEX created_xid ON created (xid, number);

-- Tablespaces that replay makes outside the data directory. OID 0: there are more than the summary has.
CREATE TABLE tablespace (
    timeline INTEGER NOT NULL,
    number INTEGER NOT NULL,
    lsn INTEGER NOT NULL,
    oid INTEGER NOT NULL,
    location TEXT NOT NULL,
    PRIMARY KEY (timeline, number, lsn, oid)
) WITHOUT ROWID;

-- Recorded names. A database has tablespace 0 and file 0.
CREATE TABLE name (
    database INTEGER NOT NULL,
    tablespace INTEGER NOT NULL,
    file INTEGER NOT NULL,
    lsn INTEGER NOT NULL,
    timeline INTEGER NOT NULL,
    -- The relation, or the database's name, as JSON.
    held TEXT NOT NULL,
    PRIMARY KEY (database, tablespace, file, lsn, timeline)
) WITHOUT ROWID;
-- Objects with names; 0: damaged, and tried again.
CREATE TABLE recording (object TEXT PRIMARY KEY, read INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX recording_damaged ON recording (object) WHERE read = 0;

-- Timeline history files.
CREATE TABLE history (timeline INTEGER PRIMARY KEY, content TEXT NOT NULL);

-- Folders of segments: the last entry that was listed of each; whether segments are missing in it, and whether later ones
-- may come; when it was listed from its beginning, as microseconds since 1970-01-01.
CREATE TABLE folder (
    name TEXT PRIMARY KEY,
    listed TEXT NOT NULL,
    gap INTEGER NOT NULL,
    open INTEGER NOT NULL,
    whole_at INTEGER NOT NULL
) WITHOUT ROWID;

-- How often all this was forgotten, and whether everything was listed since: one row.
CREATE TABLE listing (cleared INTEGER NOT NULL, whole INTEGER NOT NULL);
INSERT INTO listing VALUES (0, 0);
