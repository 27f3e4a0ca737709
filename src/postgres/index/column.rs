//! Values as SQLite keeps them. Numbers of 64 bits are kept bit by bit, so nothing is lost; what exceeds 2^63 sorts
//! wrongly.

use chrono::{DateTime, Utc};
use rusqlite::types::Type;
use rusqlite::{Error, Result, Row};

use crate::postgres::types::TimelineId;
use crate::postgres::wal::RelFileLocator;

/// Which segment a row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SegmentKey {
    pub timeline: TimelineId,
    pub number: u64,
}

impl SegmentKey {
    /// Both as SQLite keeps them.
    pub fn columns(self) -> (u32, i64) {
        (self.timeline.0, int(self.number))
    }
}

pub(super) fn int(number: u64) -> i64 {
    number as i64
}

/// Reads what [`int`] kept.
pub(super) fn uint(row: &Row<'_>, column: usize) -> Result<u64> {
    Ok(row.get::<_, i64>(column)? as u64)
}

/// The same, where it may be NULL.
pub(super) fn nullable(row: &Row<'_>, column: usize) -> Result<Option<u64>> {
    Ok(row
        .get::<_, Option<i64>>(column)?
        .map(|number| number as u64))
}

/// The columns `tablespace`, `database` and `file`, from one on.
pub(super) fn file(row: &Row<'_>, first: usize) -> Result<RelFileLocator> {
    Ok(RelFileLocator {
        tablespace: row.get(first)?,
        database: row.get(first + 1)?,
        number: row.get(first + 2)?,
    })
}

/// When a segment was stored: microseconds since 1970-01-01.
pub(super) fn stored_at(row: &Row<'_>, column: usize) -> Result<DateTime<Utc>> {
    let micros = row.get(column)?;
    DateTime::from_timestamp_micros(micros).ok_or(Error::IntegralValueOutOfRange(column, micros))
}

pub(super) fn json<T: serde::Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::ToSqlConversionFailure(error.into()))
}

/// Reads what [`json`] wrote.
pub(super) fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text)
        .map_err(|error| Error::FromSqlConversionFailure(0, Type::Text, error.into()))
}
