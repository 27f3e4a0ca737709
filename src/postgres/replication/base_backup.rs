//! BASE_BACKUP: the command in both of its grammars, and its answer as one kind of event stream for all versions.
//!
//! 13 and 14 send one COPY per tablespace, without names, in the order of the tablespace list, and no end-of-archive
//! blocks. 15 and later send one COPY whose messages say what they are (basebackup_copy.c).

use std::collections::VecDeque;

use anyhow::{Context, Result, anyhow, bail};
use bytes::{Buf, Bytes};

use super::connection::{Connection, ConnectionState};
use super::messages::{self, BackupMessage, Malformed, Message, ResultSet, ServerError};
use super::startup::Mode;
use crate::error::{Hint, with_hint};
use crate::postgres::types::{Lsn, MajorVersion, TimelineId};

/// Longest label that the server takes, in bytes (xlogbackup.h, MAXPGPATH).
const MAX_LABEL: usize = 1024;
/// SQLSTATE with which a backup ends whose pages failed verification.
const DATA_CORRUPTED: &str = "XX001";

/// What to ask of BASE_BACKUP. Never asked for: WAL (it is archived), waiting for its archiving (Walden proves that
/// itself), a manifest (Walden makes its own).
#[derive(Clone, Debug)]
pub struct BackupOptions {
    /// The label in backup_label; at most 1024 bytes, no control characters.
    pub label: String,
    /// How soon the starting checkpoint is done.
    pub checkpoint: Checkpoint,
    /// Whether the server first estimates the size of each tablespace, which walks all files.
    pub progress: bool,
    /// Upper limit of the transfer in KiB per second, 32 to 1048576.
    pub max_rate_kib: Option<u32>,
    /// Whether the server verifies page checksums, where the cluster has them.
    pub verify_checksums: bool,
    /// Whether tablespace links come as the file `tablespace_map` rather than as symbolic links.
    pub tablespace_map: bool,
}

/// How soon the starting checkpoint is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checkpoint {
    /// At once, at the cost of a burst of writes.
    Fast,
    /// Paced like the server's regular ones; takes minutes.
    Spread,
}

/// Where in the WAL a backup starts or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupPosition {
    /// The position.
    pub lsn: Lsn,
    /// The timeline on which it lies.
    pub timeline: TimelineId,
}

/// One line of the tablespace list. The main data directory has neither number nor location.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tablespace {
    /// The tablespace's OID.
    pub oid: Option<u32>,
    /// Its folder on the server.
    pub location: Option<String>,
    /// Its size as the server estimated it, in KiB, if asked for.
    pub size_kib: Option<u64>,
}

/// What happens during a backup, in this order: `Start`, `Tablespaces`, per archive `ArchiveStart` `Data`… `ArchiveEnd`,
/// `End`; `Progress` may come anywhere between, `Warning` anywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackupEvent {
    /// The checkpoint is done; recovery must start here.
    Start(BackupPosition),
    /// What will come, the main data directory last.
    Tablespaces(Vec<Tablespace>),
    /// A tar archive begins.
    ArchiveStart {
        /// The tablespace's OID; `None` for the main data directory.
        tablespace_oid: Option<u32>,
        /// Its folder on the server.
        location: Option<String>,
    },
    /// The next bytes of the archive, cut anywhere.
    Data(Bytes),
    /// Bytes done so far, over all archives: from 15 on as the server counts them, before that after each archive.
    Progress(u64),
    /// The server says something that whoever wants a whole backup must look at.
    Warning(ServerError),
    /// The archive is complete. 13 and 14 send no end-of-archive blocks before it.
    ArchiveEnd,
    /// The backup is complete; it is consistent once recovery has reached this.
    End(BackupPosition),
}

/// The backup is complete, but pages in it do not match their checksums.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server found pages that do not match their checksums")]
pub struct ChecksumFailures {
    /// Where the backup ends.
    pub end: BackupPosition,
}

/// A running BASE_BACKUP. Dropped before its end, it leaves the connection unusable.
pub struct BaseBackup<'a> {
    connection: &'a mut Connection,
    /// Whether messages in COPY say what they are (15 and later).
    tagged: bool,
    phase: AnswerPart,
    tablespaces: Vec<Tablespace>,
    archives_begun: usize,
    in_copy: bool,
    in_archive: bool,
    /// Bytes still to come of the current CopyData message.
    remaining: usize,
    /// Bytes of all archives so far.
    total: u64,
    result: ResultSet,
    end: Option<BackupPosition>,
    failure: Option<ServerError>,
    pending: VecDeque<BackupEvent>,
}

/// Which part of the answer comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AnswerPart {
    Start,
    Tablespaces,
    Archives,
    Complete,
    Ready,
    Done,
}

impl Connection {
    /// Starts a base backup. Needs [`Mode::Physical`].
    pub async fn base_backup(&mut self, options: &BackupOptions) -> Result<BaseBackup<'_>> {
        if self.mode() != Mode::Physical {
            bail!("a base backup needs a replication connection");
        }
        let major = self.major_version()?;
        let tagged = major.number() >= 15;
        let command = command(options, major)?;
        if !tagged && options.verify_checksums && self.checksums_unverified {
            return Err(anyhow!(
                "PostgreSQL {major} verifies no checksums in a session that once asked for that"
            ))
            .hint("open a new connection for this backup");
        }
        self.checksums_unverified |= !options.verify_checksums;
        self.send_query(&command)
            .await
            .context("cannot start a base backup")?;
        self.takes_warnings = true;
        Ok(BaseBackup {
            connection: self,
            tagged,
            phase: AnswerPart::Start,
            tablespaces: Vec::new(),
            archives_begun: 0,
            in_copy: false,
            in_archive: false,
            remaining: 0,
            total: 0,
            result: ResultSet::default(),
            end: None,
            failure: None,
            pending: VecDeque::new(),
        })
    }
}

/// The command in the grammar of the server's version.
fn command(options: &BackupOptions, major: MajorVersion) -> Result<String> {
    let BackupOptions {
        label,
        checkpoint,
        progress,
        max_rate_kib,
        verify_checksums,
        tablespace_map,
    } = options;
    if label.len() > MAX_LABEL || label.chars().any(char::is_control) {
        bail!(
            "the backup label {label:?} is longer than {MAX_LABEL} bytes or has control characters"
        );
    }
    if let Some(rate) = max_rate_kib
        && !(32..=1_048_576).contains(rate)
    {
        bail!(
            "a transfer rate of {rate} KiB per second is not possible: PostgreSQL takes 32 to 1048576"
        );
    }
    let label = format!("LABEL '{}'", label.replace('\'', "''"));
    let rate = max_rate_kib.map(|rate| format!("MAX_RATE {rate}"));
    let optional = |wanted: bool, text: &str| wanted.then(|| text.to_owned());
    let fast = *checkpoint == Checkpoint::Fast;
    let shared = [
        optional(*progress, "PROGRESS"),
        optional(*tablespace_map, "TABLESPACE_MAP"),
        rate,
    ];
    let shared = std::iter::once(label).chain(shared.into_iter().flatten());
    if major.number() < 15 {
        let own = [
            optional(fast, "FAST"),
            optional(!verify_checksums, "NOVERIFY_CHECKSUMS"),
            optional(true, "NOWAIT"),
        ];
        let all: Vec<String> = shared.chain(own.into_iter().flatten()).collect();
        return Ok(format!("BASE_BACKUP {}", all.join(" ")));
    }
    let own = [
        format!("CHECKPOINT '{}'", if fast { "fast" } else { "spread" }),
        // Always named: what an earlier backup of the session said would hold otherwise.
        format!("VERIFY_CHECKSUMS {verify_checksums}"),
        "WAIT false".to_owned(),
        "MANIFEST 'no'".to_owned(),
    ];
    let all: Vec<String> = shared.chain(own).collect();
    Ok(format!("BASE_BACKUP ({})", all.join(", ")))
}

impl BaseBackup<'_> {
    /// The next event; `None` after `End`. Cancel safe.
    ///
    /// Errors: [`ChecksumFailures`] instead of `End` when the backup is complete but pages in it are bad; a
    /// [`ServerError`] when the server gave up; after either the connection can be used again. Else it is lost.
    pub async fn next(&mut self) -> Result<Option<BackupEvent>> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(Some(event));
            }
            if self.phase == AnswerPart::Done {
                return Ok(None);
            }
            if self.in_copy
                && let Some(data) = self.data().await?
            {
                return Ok(Some(BackupEvent::Data(data)));
            }
            let message = self.connection.next().await?;
            if let Err(error) = self.take(message) {
                self.phase = AnswerPart::Done;
                if error.is::<Malformed>() {
                    self.connection.state = ConnectionState::Broken;
                }
                return Err(error.context("the base backup failed"));
            }
        }
    }

    /// The next piece of the current archive, passed on from the read buffer as it arrived, without waiting for the
    /// rest of its message; `None` when a message of another kind is next.
    async fn data(&mut self) -> Result<Option<Bytes>> {
        loop {
            let wire = &mut self.connection.wire;
            if self.remaining > 0 && !wire.input.is_empty() {
                let piece = wire
                    .input
                    .split_to(self.remaining.min(wire.input.len()))
                    .freeze();
                self.remaining -= piece.len();
                self.total += piece.len() as u64;
                return Ok(Some(piece));
            }
            if self.remaining == 0 {
                match messages::header(&wire.input) {
                    Ok(Some((messages::COPY_DATA, length))) if !self.tagged => {
                        wire.input.advance(messages::HEADER);
                        self.remaining = length - messages::HEADER;
                        continue;
                    }
                    Ok(Some((messages::COPY_DATA, length))) if length > messages::HEADER => {
                        match wire.input.get(messages::HEADER) {
                            Some(&messages::BACKUP_DATA) if self.in_archive => {
                                wire.input.advance(messages::HEADER + 1);
                                self.remaining = length - messages::HEADER - 1;
                                continue;
                            }
                            Some(_) => return Ok(None),
                            None => {}
                        }
                    }
                    // Other kinds, and what is malformed, are for the general path.
                    Ok(Some(_)) | Err(_) => return Ok(None),
                    Ok(None) => {}
                }
            }
            if let Err(error) = wire.fill().await {
                self.connection.state = ConnectionState::Broken;
                self.phase = AnswerPart::Done;
                let server = self.connection.server();
                return Err(error).with_context(|| {
                    format!("lost the connection to {server} during the base backup")
                });
            }
        }
    }

    fn take(&mut self, message: Message) -> Result<()> {
        match message {
            Message::RowDescription(columns) => {
                self.result = ResultSet {
                    columns,
                    ..ResultSet::default()
                }
            }
            Message::DataRow(row) => self.result.rows.push(row),
            Message::CommandComplete(_) => self.take_result()?,
            Message::CopyOut if self.phase == AnswerPart::Archives && !self.in_copy => {
                self.in_copy = true;
                if !self.tagged {
                    let next = self.tablespaces.get(self.archives_begun).cloned();
                    let next =
                        next.ok_or_else(|| Malformed("more archives than tablespaces".into()))?;
                    self.begin_archive(next.oid, next.location);
                }
            }
            Message::CopyData(content) if self.in_copy => self.take_content(content)?,
            Message::CopyDone if self.in_copy => {
                self.in_copy = false;
                self.end_archive();
                if !self.tagged {
                    self.pending.push_back(BackupEvent::Progress(self.total));
                }
            }
            Message::Notice(warning) => self.pending.push_back(BackupEvent::Warning(warning)),
            Message::Error(error) if error.is_fatal() => {
                return Err(self.connection.query_error(error));
            }
            Message::Error(error) => {
                self.in_copy = false;
                self.failure = self.failure.take().or(Some(error));
            }
            Message::Ready => self.finish()?,
            _ => return Err(self.connection.unexpected()),
        }
        Ok(())
    }

    /// One of the answer's results is complete.
    fn take_result(&mut self) -> Result<()> {
        let result = std::mem::take(&mut self.result);
        self.phase = match self.phase {
            AnswerPart::Start => {
                self.pending
                    .push_back(BackupEvent::Start(position(&result)?));
                AnswerPart::Tablespaces
            }
            AnswerPart::Tablespaces => {
                self.tablespaces = tablespaces(&result)?;
                self.pending
                    .push_back(BackupEvent::Tablespaces(self.tablespaces.clone()));
                AnswerPart::Archives
            }
            AnswerPart::Archives if !self.in_copy => {
                if self.archives_begun != self.tablespaces.len() {
                    let (came, expected) = (self.archives_begun, self.tablespaces.len());
                    return Err(
                        Malformed(format!("{came} archives for {expected} tablespaces")).into(),
                    );
                }
                self.end = Some(position(&result)?);
                AnswerPart::Complete
            }
            AnswerPart::Complete => AnswerPart::Ready,
            AnswerPart::Archives | AnswerPart::Ready | AnswerPart::Done => {
                return Err(
                    Malformed("a result that does not belong to BASE_BACKUP".into()).into(),
                );
            }
        };
        Ok(())
    }

    /// A whole CopyData message: all kinds but data, and data that followed a notice.
    fn take_content(&mut self, mut content: Bytes) -> Result<()> {
        let is_data = !self.tagged || content.first() == Some(&messages::BACKUP_DATA);
        if is_data && self.in_archive {
            content.advance(usize::from(self.tagged));
            self.total += content.len() as u64;
            self.pending.push_back(BackupEvent::Data(content));
            return Ok(());
        }
        match BackupMessage::decode(content)? {
            BackupMessage::Archive(name, location) => {
                self.end_archive();
                let oid = archive_oid(&name)?;
                if !self
                    .tablespaces
                    .iter()
                    .any(|tablespace| tablespace.oid == oid)
                {
                    return Err(Malformed(format!(
                        "an archive \"{name}\" of no listed tablespace"
                    ))
                    .into());
                }
                self.begin_archive(oid, Some(location).filter(|location| !location.is_empty()));
            }
            BackupMessage::Progress(bytes) => self.pending.push_back(BackupEvent::Progress(bytes)),
            BackupMessage::Manifest => {
                return Err(Malformed("a manifest that was not asked for".into()).into());
            }
        }
        Ok(())
    }

    fn begin_archive(&mut self, tablespace_oid: Option<u32>, location: Option<String>) {
        self.in_archive = true;
        self.archives_begun += 1;
        self.pending.push_back(BackupEvent::ArchiveStart {
            tablespace_oid,
            location,
        });
    }

    fn end_archive(&mut self) {
        if std::mem::take(&mut self.in_archive) {
            self.pending.push_back(BackupEvent::ArchiveEnd);
        }
    }

    /// The server is done, well or not.
    fn finish(&mut self) -> Result<()> {
        let phase = std::mem::replace(&mut self.phase, AnswerPart::Done);
        match (self.failure.take(), self.end) {
            (Some(error), Some(end)) if error.code == DATA_CORRUPTED => Err(with_hint(
                ChecksumFailures { end }.into(),
                "check the disks, and restore the damaged relations from an older backup",
            )),
            (Some(error), _) => Err(self.connection.query_error(error)),
            (None, Some(end)) if phase == AnswerPart::Ready => {
                self.pending.push_back(BackupEvent::End(end));
                Ok(())
            }
            (None, _) => Err(Malformed("the end of a base backup before its parts".into()).into()),
        }
    }
}

impl Drop for BaseBackup<'_> {
    fn drop(&mut self) {
        self.connection.takes_warnings = false;
    }
}

fn position(result: &ResultSet) -> Result<BackupPosition, Malformed> {
    Ok(BackupPosition {
        lsn: result.parse(0, "recptr")?,
        timeline: TimelineId(result.parse(0, "tli")?),
    })
}

fn tablespaces(result: &ResultSet) -> Result<Vec<Tablespace>, Malformed> {
    let optional = |row, column| Ok(result.text(row, column)?.filter(|text| !text.is_empty()));
    let wrong = |text: &str| Malformed(format!("\"{text}\" in the tablespace list"));
    let one = |row| {
        Ok(Tablespace {
            oid: optional(row, "spcoid")?
                .map(|text| text.parse().map_err(|_| wrong(text)))
                .transpose()?,
            location: optional(row, "spclocation")?.map(str::to_owned),
            size_kib: optional(row, "size")?
                .map(|text| text.parse().map_err(|_| wrong(text)))
                .transpose()?,
        })
    };
    (0..result.rows.len()).map(one).collect()
}

/// The tablespace's OID in an archive's name: `16384.tar`; `base.tar` is the main data directory.
fn archive_oid(name: &str) -> Result<Option<u32>, Malformed> {
    match name.strip_suffix(".tar") {
        Some("base") => Ok(None),
        Some(oid) if oid.bytes().all(|b| b.is_ascii_digit()) => oid
            .parse()
            .map(Some)
            .map_err(|_| Malformed(format!("an archive named \"{name}\""))),
        _ => Err(Malformed(format!("an archive named \"{name}\""))),
    }
}

#[cfg(test)]
#[path = "base_backup_tests.rs"]
mod tests;
