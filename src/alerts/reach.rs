//! Tells that the repository cannot be reached, and that it can again, by what this host remembers: the repository itself
//! cannot say whom that was told.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::Utc;
use rustix::fs::{FlockOperation, flock};

use super::channels::Channels;
use super::decide::{Policy, UNREACHABLE, decide, due, settle, unreachable};
use super::state::{AlertState, Seen};
use crate::owner;

/// Bytes of what is remembered, at most.
const LONGEST: u64 = 1 << 20;

/// How often, and after what time each, the memory is looked at that another has.
const TRIES: u32 = 5;
const BETWEEN_TRIES: Duration = Duration::from_millis(100);

/// Who tells it.
#[derive(Debug)]
pub struct Reach {
    policy: Policy,
    channels: Channels,
    /// Where it is remembered.
    file: PathBuf,
    /// The same in memory, where that file cannot be used.
    known: AlertState,
}

/// The file, which one process at a time has.
enum Memory {
    Ours(File),
    /// Another one tells people just now.
    Theirs,
    Absent,
}

impl Reach {
    /// Remembers in `file`, across restarts and for other processes of this host.
    pub fn new(policy: &Policy, channels: Channels, file: PathBuf) -> Self {
        let policy = Policy {
            heartbeats: Vec::new(),
            ..policy.clone()
        };
        Self {
            policy,
            channels,
            file,
            known: AlertState::default(),
        }
    }

    /// For a process that looks once: nothing can hold for it.
    pub fn at_once(mut self) -> Self {
        self.policy.hold = Duration::ZERO;
        let rule = self.policy.rules.entry(UNREACHABLE.into()).or_default();
        rule.hold = None;
        self
    }

    /// `what`: it cannot be reached. `None`: it can.
    pub async fn tell(&mut self, what: Option<&str>) {
        if self.policy.routes.is_empty() {
            return;
        }
        let mut file = match self.memory(what.is_some()).await {
            Memory::Ours(file) => Some(file),
            Memory::Theirs => return,
            Memory::Absent => None,
        };
        let kept = file.as_mut().and_then(read);
        let before = kept.unwrap_or_else(|| self.known.clone());
        let seen = Seen {
            conditions: what.map(unreachable).into_iter().collect(),
            ..Seen::default()
        };
        let now = Utc::now();
        let next = decide(&before, &seen, &self.policy, now);
        let (deliveries, _) = due(&next, &seen, &self.policy, now);
        if next != before {
            self.remember(file.as_mut(), &next);
        }
        if !deliveries.is_empty() {
            let outcomes = self.channels.send(&deliveries, &[]).await;
            self.remember(file.as_mut(), &settle(&next, &outcomes, Utc::now()));
        }
    }

    /// Waits a moment for it: a program that is being started holds, until it is, what was open. `makes`: also where nothing is
    /// remembered yet.
    async fn memory(&self, makes: bool) -> Memory {
        let mut tries = TRIES;
        loop {
            tries -= 1;
            match self.open(makes) {
                Ok(Memory::Theirs) if tries > 0 => tokio::time::sleep(BETWEEN_TRIES).await,
                Ok(memory) => return memory,
                Err(error) => {
                    tracing::debug!("alerts: \"{}\": {error}", self.file.display());
                    return Memory::Absent;
                }
            }
        }
    }

    fn open(&self, makes: bool) -> io::Result<Memory> {
        if makes {
            self.make()?;
        }
        let file = match OpenOptions::new().read(true).write(true).open(&self.file) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Memory::Absent),
            opened => opened?,
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Memory::Ours(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(Memory::Theirs),
            Err(error) => Err(error.into()),
        }
    }

    /// What root makes another user goes on with.
    fn make(&self) -> io::Result<()> {
        if let Some(folder) = self.file.parent().filter(|_| !owner::is_root()) {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)?;
        }
        match owner::create(&self.file, |made| owner::inherit(made, Path::new("/"))) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    fn remember(&mut self, file: Option<&mut File>, state: &AlertState) {
        self.known = state.clone();
        if let Some(Err(error)) = file.map(|file| write(file, state)) {
            tracing::debug!("alerts: \"{}\": {error}", self.file.display());
        }
    }
}

/// `None`: nothing is remembered, or nothing that can be read.
fn read(file: &mut File) -> Option<AlertState> {
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

fn write(file: &mut File, state: &AlertState) -> io::Result<()> {
    let text = serde_json::to_vec_pretty(state)?;
    file.rewind()?;
    file.write_all(&text)?;
    file.set_len(text.len() as u64)
}
