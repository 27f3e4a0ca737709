//! Replication commands that answer at once (PostgreSQL documentation, "Streaming Replication Protocol").

use anyhow::{Context, Result, anyhow, bail, ensure};
use bytes::Bytes;

use super::connection::Connection;
use super::messages::{Malformed, ResultSet, ServerError};
use crate::error;
use crate::postgres::types::{Lsn, SegmentSize, SystemIdentifier, TimelineId};

/// SQLSTATE of a file that does not exist.
const UNDEFINED_FILE: &str = "58P01";

/// Who a server is and where its WAL stands: IDENTIFY_SYSTEM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemIdentity {
    /// The cluster's number.
    pub system_identifier: SystemIdentifier,
    /// The timeline that it writes, or replays.
    pub timeline: TimelineId,
    /// The end of what is flushed; on a standby of what was received or replayed.
    pub flushed: Lsn,
}

impl Connection {
    /// Asks who the server is. Needs [`super::Mode::Physical`].
    pub async fn identify_system(&mut self) -> Result<SystemIdentity> {
        let result = self.command("IDENTIFY_SYSTEM").await?;
        Ok(SystemIdentity {
            system_identifier: result.parse(0, "systemid")?,
            timeline: TimelineId(result.parse(0, "timeline")?),
            flushed: result.parse(0, "xlogpos")?,
        })
    }

    /// The value of a setting as `SHOW` prints it, with its unit (`16MB`). An unknown name is a [`ServerError`] 42704.
    pub async fn show(&mut self, name: &str) -> Result<String> {
        if name.is_empty()
            || !name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.')
        {
            return Err(anyhow!("\"{name}\" is not the name of a setting"));
        }
        let result = self.command(&format!("SHOW {name}")).await?;
        let column = result.columns.first().cloned().unwrap_or_default();
        Ok(result.parse(0, &column)?)
    }

    /// Bytes in one of the server's WAL segments.
    pub async fn segment_size(&mut self) -> Result<SegmentSize> {
        segment_size(&self.show("wal_segment_size").await?)
    }

    /// A timeline's history file: its name and content. `None` when the server has none, as for timeline 1. Needs
    /// [`super::Mode::Physical`].
    pub async fn timeline_history(
        &mut self,
        timeline: TimelineId,
    ) -> Result<Option<(String, Bytes)>> {
        match self.command(&format!("TIMELINE_HISTORY {timeline}")).await {
            Ok(result) => {
                let content = result.bytes(0, "content")?.cloned();
                let content =
                    content.ok_or_else(|| Malformed("a history file without content".into()))?;
                Ok(Some((result.parse(0, "filename")?, content)))
            }
            Err(failure) => match error::find::<ServerError>(&failure) {
                Some(server) if server.code == UNDEFINED_FILE => Ok(None),
                _ => Err(failure),
            },
        }
    }

    /// Runs a command that returns one result.
    async fn command(&mut self, command: &str) -> Result<ResultSet> {
        let context = || format!("{} failed", command.split(' ').next().unwrap_or(command));
        let results = self.simple_query(command).await.with_context(context)?;
        results
            .into_iter()
            .next()
            .ok_or_else(|| Malformed("no result".into()))
            .with_context(context)
    }
}

/// A size as `SHOW` prints it: `16MB`.
fn segment_size(text: &str) -> Result<SegmentSize> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u32 = match &text[digits.len()..] {
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        _ => bail!("the server's wal_segment_size \"{text}\" has no unit of MB or GB"),
    };
    let number: u32 = digits
        .parse()
        .with_context(|| format!("wal_segment_size \"{text}\" is not a number"))?;
    ensure!(number <= 1024, "wal_segment_size \"{text}\" is too large");
    Ok(SegmentSize::new(number.saturating_mul(unit))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_segment_size_is_read_as_the_server_shows_it() {
        for (text, mib) in [("1MB", 1), ("16MB", 16), ("1GB", 1024)] {
            assert_eq!(segment_size(text).unwrap().bytes() >> 20, mib);
        }
        for text in ["", "16", "16kB", "3MB", "xMB", "4096GB"] {
            assert!(segment_size(text).is_err(), "{text:?}");
        }
    }
}
