use std::time::Duration;

use super::schedule::Schedule;

/// Jobs of one lane run one after the other: the hourly ones do not wait for those that take hours, and those of every minute
/// for neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    Long,
    Short,
    Brief,
}

/// Something that is done again and again.
#[derive(Debug, Clone)]
pub struct Job {
    pub name: &'static str,
    /// `None`: only when it is asked for.
    pub schedule: Option<Schedule>,
    pub lane: Lane,
    /// How long a run may take.
    pub deadline: Duration,
    /// What the child process is told to do.
    pub arguments: Result<Vec<String>, Missing>,
}

/// A setting that a job cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    pub what: &'static str,
    pub hint: &'static str,
}
