use std::fmt;

use chrono::{DateTime, Utc};

/// PostgreSQL's `timestamptz` as in WAL: microseconds since 2000-01-01 00:00 UTC.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

/// 2000-01-01 in microseconds since 1970-01-01.
const EPOCH: i64 = 946_684_800_000_000;

impl Timestamp {
    /// The instant; `None` beyond the range of the calendar, which no server's clock reaches.
    pub fn to_utc(self) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp_micros(self.0.checked_add(EPOCH)?)
    }
}

impl From<DateTime<Utc>> for Timestamp {
    fn from(time: DateTime<Utc>) -> Self {
        Self(time.timestamp_micros().saturating_sub(EPOCH))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_utc() {
            Some(time) => write!(f, "{}", time.format("%Y-%m-%d %H:%M:%S%.6f+00")),
            None => write!(f, "{} us since 2000-01-01", self.0),
        }
    }
}
