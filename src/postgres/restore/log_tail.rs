//! Reads a log while a server writes it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::Context;

use super::server_log::ServerLog;

/// Longest line of the log that is looked at.
const MAX_LINE: u64 = 64 << 10;

/// A log that is being written.
pub struct LogTail {
    reader: BufReader<File>,
    /// The beginning of a line whose end is not there yet.
    begun: Vec<u8>,
}

impl LogTail {
    /// What it says from a place on.
    pub fn open(path: &Path, from: u64) -> anyhow::Result<Self> {
        let open = || {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(from))?;
            std::io::Result::Ok(file)
        };
        let file = open().with_context(|| format!("cannot read \"{}\"", path.display()))?;
        Ok(Self {
            reader: BufReader::new(file),
            begun: Vec::new(),
        })
    }

    /// Reads what was written since.
    pub fn read_into(&mut self, log: &mut ServerLog) -> anyhow::Result<()> {
        loop {
            let room = MAX_LINE.saturating_sub(self.begun.len() as u64).max(1);
            let read = self
                .reader
                .by_ref()
                .take(room)
                .read_until(b'\n', &mut self.begun);
            if read.context("cannot read the server's log")? == 0 {
                return Ok(());
            }
            if self.begun.ends_with(b"\n") || self.begun.len() as u64 >= MAX_LINE {
                log.read(String::from_utf8_lossy(&self.begun).trim_end());
                self.begun.clear();
            }
        }
    }
}
