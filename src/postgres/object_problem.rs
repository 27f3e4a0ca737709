//! What can be wrong with an object of the repository.

use std::fmt;

use serde::Serialize;

use crate::codec::Damaged;
use crate::error::{find, one_line};
use crate::repo::{ObjectError, is_damage};
use crate::storage::classes::ObjectIsCold;

/// In which way an object is not as it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProblemKind {
    /// It is there, and is not what it must be.
    Damaged,
    /// The repository answered that there is no such object.
    Missing,
    /// The repository did not give it, or it could not be checked here: whether it is whole is not known.
    Unread,
    /// It is there, and must be thawed before it is read.
    Cold,
    /// It is there, and a newer Walden wrote it.
    Newer,
    /// Two repositories hold different content under the same key.
    Conflict,
}

impl fmt::Display for ProblemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Damaged => "DAMAGED",
            Self::Missing => "MISSING",
            Self::Unread => "UNREAD",
            Self::Cold => "COLD",
            Self::Newer => "NEWER",
            Self::Conflict => "CONFLICT",
        })
    }
}

/// A problem, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectProblem {
    pub problem: ProblemKind,
    pub why: String,
}

impl ObjectProblem {
    /// An object that is there and not as it must be.
    pub fn damaged(why: impl Into<String>) -> Self {
        Self {
            problem: ProblemKind::Damaged,
            why: why.into(),
        }
    }

    /// An object that is not there.
    pub fn missing(why: impl Into<String>) -> Self {
        Self {
            problem: ProblemKind::Missing,
            why: why.into(),
        }
    }

    /// An object that the store did not give.
    pub fn unread(error: &anyhow::Error) -> Self {
        if find::<ObjectIsCold>(error).is_some() {
            return Self {
                problem: ProblemKind::Cold,
                why: "it is cold, not read: it must be thawed first".into(),
            };
        }
        Self {
            problem: ProblemKind::Unread,
            why: format!("it cannot be read: {}", one_line(error)),
        }
    }

    /// Of an error of an object that cannot be used: the object is damaged, or a newer Walden wrote it.
    pub fn unusable(error: &anyhow::Error) -> Self {
        let problem = if is_damage(error) {
            ProblemKind::Damaged
        } else {
            ProblemKind::Newer
        };
        Self {
            problem,
            why: one_line(error),
        }
    }

    /// Whether it is there and not as it must be.
    pub fn is_damage(&self) -> bool {
        self.problem == ProblemKind::Damaged
    }
}

impl fmt::Display for ObjectProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl From<Damaged> for ObjectProblem {
    fn from(Damaged(why): Damaged) -> Self {
        Self::damaged(why)
    }
}

impl From<ObjectError> for ObjectProblem {
    fn from(error: ObjectError) -> Self {
        match error {
            ObjectError::Damaged { source, .. } => source.into(),
            ObjectError::Absent { .. } => Self::missing("there is no such object"),
            ObjectError::Newer { what, .. } => Self {
                problem: ProblemKind::Newer,
                why: format!("it has {what}: a newer Walden wrote it"),
            },
            ObjectError::Storage(_) | ObjectError::Unchecked { .. } => Self::unread(&error.into()),
        }
    }
}
