//! What is wrong, object by object: one list with one bound. Pure.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use crate::plain::counted;
use crate::postgres::object_problem::{ObjectProblem, ProblemKind};
use crate::postgres::repository::MAX_TOLD;

/// When so much is told, an object is not told again. A pack can cost many files, and must not hide another.
const MAX_TOLD_AGAIN: usize = 100;

/// An object that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    pub object: String,
    pub problem: ProblemKind,
    pub why: String,
    /// Files of backups that cannot be restored because of it.
    pub files: u64,
    /// Each time that it was met: the file, and why.
    #[serde(skip)]
    met: Vec<(Option<String>, String)>,
}

/// One time that an object was met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damage<'a> {
    pub object: &'a str,
    pub problem: ProblemKind,
    /// The file that cannot be restored because of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<&'a str>,
    pub why: &'a str,
}

/// Objects that must be thawed before they are read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ColdFound {
    /// In the order of their keys, as far as they are told one by one.
    pub objects: BTreeSet<String>,
    /// There are more.
    pub more: bool,
    /// Files of backups that were not read because of them.
    pub files: u64,
}

impl ColdFound {
    /// Adds an object, and a file of a backup that was not read because of it.
    pub fn add(&mut self, object: &str, has_file: bool) {
        self.files += u64::from(has_file);
        if self.objects.contains(object) {
            return;
        }
        match self.objects.len() < MAX_TOLD {
            true => drop(self.objects.insert(object.to_string())),
            false => self.more = true,
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }
}

/// What was not read, in words.
impl fmt::Display for ColdFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let more = if self.more { "more than " } else { "" };
        let objects = counted(self.objects.len() as u64, "object");
        write!(f, "{more}{objects}")?;
        match self.files {
            0 => Ok(()),
            files => write!(f, " with {}", counted(files, "file")),
        }
    }
}

/// All that is wrong.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Findings {
    /// In the order in which they were found.
    #[serde(rename = "findings")]
    pub list: Vec<Finding>,
    /// Findings beyond those listed.
    #[serde(rename = "more_findings")]
    pub more: u64,
    /// Files of backups beyond those counted at the findings.
    pub more_files: u64,
    #[serde(skip)]
    told: usize,
    /// Damages beyond those told one by one.
    #[serde(skip)]
    pub more_damages: u64,
}

impl Findings {
    /// Adds what is wrong with an object, and the file of a backup that cannot be restored because of it.
    pub fn add(
        &mut self,
        object: &str,
        ObjectProblem { problem, why }: ObjectProblem,
        file: Option<String>,
    ) {
        let files = u64::from(file.is_some());
        let room = self.list.len() < MAX_TOLD;
        match self
            .list
            .iter_mut()
            .find(|known| known.object == object && known.problem == problem)
        {
            Some(known) => {
                known.files += files;
                match self.told < MAX_TOLD_AGAIN {
                    true => known.met.push((file, why)),
                    false => self.more_damages += 1,
                }
            }
            None if room => {
                let (object, met) = (object.to_string(), vec![(file, why.clone())]);
                self.list.push(Finding {
                    object,
                    problem,
                    why,
                    files,
                    met,
                });
            }
            None => {
                (self.more, self.more_files) = (self.more + 1, self.more_files + files);
                self.more_damages += 1;
            }
        }
        self.told += 1;
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// What is wrong, one by one.
    pub fn damages(&self) -> impl Iterator<Item = Damage<'_>> {
        self.list.iter().flat_map(
            |Finding {
                 object,
                 problem,
                 met,
                 ..
             }| {
                met.iter().map(|(file, why)| Damage {
                    object,
                    problem: *problem,
                    file: file.as_deref(),
                    why,
                })
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_lost_pack_with_many_files_does_not_hide_another() {
        let mut findings = Findings::default();
        let mut add = |object: &str, file: u32| {
            findings.add(
                object,
                ObjectProblem::missing("lost"),
                Some(file.to_string()),
            )
        };
        (0..500).for_each(|file| add("a", file));
        (0..3).for_each(|file| add("b", file));
        let damages: Vec<Damage> = findings.damages().collect();
        assert_eq!((damages.len(), findings.more_damages), (101, 402));
        assert_eq!((damages[100].object, damages[100].file), ("b", Some("0")));
        assert_eq!(
            findings
                .list
                .iter()
                .map(|finding| finding.files)
                .collect::<Vec<_>>(),
            [500, 3]
        );
    }

    #[test]
    fn a_cold_object_counts_once_whatever_it_holds() {
        let mut cold = ColdFound::default();
        assert!(cold.is_empty());
        (0..3).for_each(|_| cold.add("a", true));
        cold.add("b", false);
        assert_eq!(cold.to_string(), "2 objects with 3 files");
        (0..MAX_TOLD).for_each(|object| cold.add(&object.to_string(), false));
        assert_eq!(cold.to_string(), "more than 1000 objects with 3 files");
    }

    #[test]
    fn what_is_beyond_the_list_is_counted() {
        let mut findings = Findings::default();
        (0..MAX_TOLD + 5).for_each(|object| {
            findings.add(&object.to_string(), ObjectProblem::damaged("broken"), None)
        });
        findings.add(
            "one more",
            ObjectProblem::damaged("broken"),
            Some("a".into()),
        );
        assert_eq!(
            (findings.list.len(), findings.more, findings.more_files),
            (MAX_TOLD, 6, 1)
        );
        assert_eq!(
            (findings.damages().count(), findings.more_damages),
            (MAX_TOLD, 6)
        );
    }
}
