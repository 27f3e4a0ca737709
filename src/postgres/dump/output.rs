//! A program's output on its way into the repository: digested, looked through, perhaps compressed, a piece at a time.

use std::io::{self, BufRead, Read, Write};
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::stream;
use tokio::io::AsyncReadExt;
use tokio::process::{ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::archive::{self, NotWhole};
use super::contained::Contained;
use super::digest::Digests;
use super::manifest::StoredObject;
use super::messages::{self, ProgramFailed};
use super::programs::Running;
use super::progress::DumpProgress;
use super::script;
use crate::error::Hint;
use crate::storage::{Key, PutMode, PutOutcome, Storage, put_stream};

/// Bytes of a piece, and pieces that wait to be looked through.
const PIECE: usize = 256 << 10;
const WAITING: usize = 8;

/// What a program writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputKind {
    /// `pg_dump`'s custom format.
    Archive,
    /// SQL of `pg_dump`, stored compressed at this level.
    Script(i32),
    /// SQL of `pg_dumpall`, stored as it is.
    Globals,
}

/// Where the output goes, and how.
#[derive(Debug)]
pub struct StoreOutput<'a> {
    pub storage: &'a dyn Storage,
    pub key: Key,
    /// Beside the manifest.
    pub path: String,
    pub kind: OutputKind,
    pub md5: bool,
    pub progress: &'a Arc<DumpProgress>,
}

/// What was stored, and what was found in it: `None` where nothing is known of it.
pub type StoredOutput = (StoredObject, Option<Contained>);

/// Runs a program and stores what it writes. Nothing is stored under the key unless the program succeeds and the output is
/// whole. Dropped, it kills the program. Errors: also [`ProgramFailed`].
pub async fn store(
    program: String,
    mut command: Command,
    to: StoreOutput<'_>,
) -> anyhow::Result<StoredOutput> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut running = Running::start(command).with_context(|| format!("cannot run {program}"))?;
    let (stdout, stderr) = (running.child.stdout.take(), running.child.stderr.take());
    let mut messages = JoinSet::new();
    if let Some(stderr) = stderr {
        messages.spawn(messages::read(stderr, to.progress.clone()));
    }
    let encoder = match to.kind {
        OutputKind::Script(level) => Some(encoder(level)?),
        _ => None,
    };
    let mut output = Output {
        program,
        running,
        stdout: stdout.context("a program without output")?,
        messages,
        examined: Examined::begin(to.kind),
        encoder,
        digests: Digests::new(to.md5),
        contained: None,
        ended: false,
        progress: to.progress,
    };
    let content = stream::try_unfold(&mut output, |output| async move {
        Ok::<_, anyhow::Error>(output.next().await?.map(|piece| (piece, output)))
    });
    if put_stream(to.storage, &to.key, content, PutMode::CreateOnly).await?
        == PutOutcome::AlreadyExists
    {
        return Err(anyhow!("object \"{}\" is there already", to.key))
            .hint("was the clock set back? Repeat it; a dump with that name may be a leftover");
    }
    let (size, sha256, md5) = output.digests.finish();
    Ok((
        StoredObject {
            path: to.path,
            size,
            sha256,
            md5,
        },
        output.contained,
    ))
}

fn encoder(level: i32) -> io::Result<zstd::Encoder<'static, Vec<u8>>> {
    let mut encoder = zstd::Encoder::new(Vec::new(), level)?;
    encoder.include_checksum(true)?;
    Ok(encoder)
}

/// A program's output, piece by piece.
struct Output<'a> {
    program: String,
    running: Running,
    stdout: ChildStdout,
    messages: JoinSet<Vec<String>>,
    examined: Examined,
    encoder: Option<zstd::Encoder<'static, Vec<u8>>>,
    digests: Digests,
    contained: Option<Contained>,
    ended: bool,
    progress: &'a DumpProgress,
}

impl Output<'_> {
    /// The next bytes to store. `None` only when the program has succeeded and all of it is whole.
    async fn next(&mut self) -> anyhow::Result<Option<Bytes>> {
        while !self.ended {
            let mut piece = BytesMut::with_capacity(PIECE);
            let read = self.stdout.read_buf(&mut piece).await;
            let piece =
                match read.with_context(|| format!("cannot read what {} writes", self.program))? {
                    0 => {
                        self.end().await?;
                        self.ended = true;
                        self.encoder
                            .take()
                            .map(zstd::Encoder::finish)
                            .transpose()?
                            .unwrap_or_default()
                            .into()
                    }
                    _ => {
                        let piece = piece.freeze();
                        self.examined.take_in(piece.clone()).await?;
                        self.compressed(piece)?
                    }
                };
            if !piece.is_empty() {
                self.digests.update(&piece);
                self.progress.add_bytes(piece.len());
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }

    fn compressed(&mut self, piece: Bytes) -> io::Result<Bytes> {
        let Some(encoder) = &mut self.encoder else {
            return Ok(piece);
        };
        encoder.write_all(&piece)?;
        Ok(std::mem::take(encoder.get_mut()).into())
    }

    /// The program must have succeeded, and its output be whole.
    async fn end(&mut self) -> anyhow::Result<()> {
        let status = self.running.wait().await?;
        let lines = self
            .messages
            .join_next()
            .await
            .transpose()?
            .unwrap_or_default();
        if !status.success() {
            let program = self.program.clone();
            return Err(ProgramFailed {
                program,
                status,
                lines,
            }
            .into());
        }
        self.contained = self.examined.end().await.with_context(|| {
            let said: String = lines
                .iter()
                .map(|line| format!("; it says {line}"))
                .collect();
            format!(
                "{} succeeded, but what it wrote is no whole dump{said}",
                self.program
            )
        })?;
        Ok(())
    }
}

/// Looks through the output on a thread of its own.
struct Examined {
    pieces: Option<mpsc::Sender<Bytes>>,
    work: JoinSet<Result<Option<Contained>, NotWhole>>,
}

impl Examined {
    fn begin(kind: OutputKind) -> Self {
        let (pieces, received) = mpsc::channel(WAITING);
        let source = Pieces {
            received,
            piece: Bytes::new(),
        };
        let mut work = JoinSet::new();
        match kind {
            OutputKind::Archive => drop(work.spawn_blocking(|| known(archive::check(source)))),
            OutputKind::Script(_) => drop(work.spawn_blocking(|| known(script::check(source)))),
            OutputKind::Globals => {
                drop(work.spawn_blocking(|| script::check_globals(source).map(|()| None)))
            }
        }
        Self {
            pieces: Some(pieces),
            work,
        }
    }

    async fn take_in(&mut self, piece: Bytes) -> anyhow::Result<()> {
        if let Some(pieces) = &self.pieces
            && pieces.send(piece).await.is_err()
        {
            // It ended early: of an unknown format nothing more is looked at.
            self.pieces = None;
            if let Some(found) = self.end().await? {
                return Err(anyhow!(
                    "something stands behind the dump's end ({found:?})"
                ));
            }
        }
        Ok(())
    }

    async fn end(&mut self) -> anyhow::Result<Option<Contained>> {
        self.pieces = None;
        match self.work.join_next().await {
            Some(found) => Ok(found??),
            None => Ok(None),
        }
    }
}

fn known(found: Result<Contained, NotWhole>) -> Result<Option<Contained>, NotWhole> {
    match found {
        Err(NotWhole::Unknown(major, minor)) => {
            tracing::warn!(
                "archive format {major}.{minor} of pg_dump is not known: only its beginning is read back"
            );
            Ok(None)
        }
        found => found.map(Some),
    }
}

/// What comes, as a thread reads it.
struct Pieces {
    received: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let there = self.fill_buf()?;
        let length = there.len().min(buffer.len());
        buffer[..length].copy_from_slice(&there[..length]);
        self.consume(length);
        Ok(length)
    }
}

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.piece.is_empty() {
            match self.received.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => break,
            }
        }
        Ok(&self.piece)
    }

    fn consume(&mut self, length: usize) {
        self.piece.advance(length);
    }
}
