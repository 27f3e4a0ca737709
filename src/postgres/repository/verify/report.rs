//! What is verified, and what comes of it.

use std::sync::atomic::AtomicU64;

use serde::Serialize;

use super::{ColdFound, Finding, Findings};
use crate::postgres::catalog::Gap;
use crate::postgres::layout::{BackupId, ClusterName};
use crate::postgres::object_problem::ProblemKind;
use crate::postgres::repository::SampleExtent;
use crate::postgres::types::TimelineId;
use crate::storage::Key;

/// What is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VerifyScope {
    All,
    /// Archived WAL: all files that are no segments, and every n-th segment from a random one on.
    Wal {
        every: u64,
    },
    Backup(BackupId),
}

/// What is read, and the bounds.
#[derive(Debug, Clone)]
pub struct VerifyOptions {
    pub scope: VerifyScope,
    /// How much of everything.
    pub extent: SampleExtent,
    /// What the sample is chosen by.
    pub seed: u64,
    /// Nothing up to this key is read again.
    pub after: Option<Key>,
    /// Objects in work at once.
    pub workers: usize,
    /// Bytes of packs in memory at once, when a sample of them is read; a larger one goes alone.
    pub memory: u64,
}

/// How far a verification is, in bytes: of content where that is known, else stored.
#[derive(Debug, Default)]
pub struct VerifyProgress {
    pub done: AtomicU64,
    /// 0 until it is known.
    pub total: AtomicU64,
}

/// What was found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct VerifyResult {
    /// WAL files read.
    pub wal_files: u64,
    /// Backups whose manifest was read, with all packs or a sample of them.
    pub backups: u64,
    /// Logical dumps whose manifest was read, with all objects or a sample of them.
    pub dumps: u64,
    /// Single packs read, for a sample; one that several backups need counts for each.
    pub packs: u64,
    /// Segments, packs and files of dumps that a sample by number holds, of all that a verification from the beginning reads.
    pub drawn: Option<u64>,
    /// Different segments, packs and files of dumps read, for a sample.
    pub sampled: u64,
    /// Bytes of content that were read.
    pub plain_bytes: u64,
    /// Files of backups read.
    #[serde(skip)]
    pub files: u64,
    /// WAL files that backups need, looked up by header.
    #[serde(skip)]
    pub looked_up: u64,
    /// Segments there are.
    #[serde(skip)]
    pub segments: u64,
    #[serde(flatten)]
    pub findings: Findings,
    /// Not read, and no damage: it must be thawed first.
    pub cold: ColdFound,
    /// Segments that are missing between others.
    pub gaps: Vec<Gap>,
    /// Timelines with segments but without the history file that tells where they come from.
    pub missing_histories: Vec<TimelineId>,
    /// Keys that the layout does not know, as far as they are told one by one.
    pub foreign: Vec<String>,
    /// Being taken, or interrupted.
    pub unfinished: Vec<BackupId>,
}

impl VerifyResult {
    /// Whether nothing is damaged, missing or could not be read.
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty() && self.gaps.is_empty() && self.missing_histories.is_empty()
    }

    /// Whether it is not sound, and nothing shows that anything is damaged or missing: objects were not given, or could not be
    /// checked here.
    pub fn is_open(&self) -> bool {
        let is_open =
            |finding: &Finding| matches!(finding.problem, ProblemKind::Unread | ProblemKind::Newer);
        !self.is_sound()
            && self.gaps.is_empty()
            && self.missing_histories.is_empty()
            && self.findings.more == 0
            && self.findings.list.iter().all(is_open)
    }
}

/// What a verification found so far.
#[derive(Debug, Clone, Serialize)]
pub struct VerifyReport {
    pub cluster: ClusterName,
    /// The repository's URL.
    pub repository: String,
    /// Nothing is damaged, missing or could not be read, as far as it was looked at.
    pub sound: bool,
    /// Whether it came to its end.
    pub finished: bool,
    /// Where it began: nothing up to this key was read.
    pub began_after: Option<String>,
    /// Everything up to this key is done: what could not be read lies behind it.
    pub done: Option<String>,
    /// What a sample was chosen by; absent when everything is read.
    pub seed: Option<u64>,
    #[serde(flatten)]
    pub found: VerifyResult,
}
