//! Whether records are all there, and as they were written. Pure.
//!
//! Each record has the digest of the one before it in its writer's chain, and the newest of the other chains that its writer
//! saw. So a record that was removed, changed or put elsewhere shows at the next, and a chain whose end was cut off shows at
//! the others. What shows nowhere is a change of the very newest records that nobody followed: `verify` prints the heads, to
//! be kept elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::record::{Act, Head, Record};
use crate::codec::Digest;

/// A record as it was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// By its name.
    pub number: u64,
    /// Of its bytes; `None`: the store did not give them.
    pub digest: Option<Digest>,
    /// Why it cannot be understood, or was not given.
    pub record: Result<Record, String>,
}

/// Records of each writer, by number.
pub type Chains = BTreeMap<String, Vec<Found>>;

/// What is wrong with a chain, and where.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Fault {
    pub writer: String,
    pub number: u64,
    pub what: FaultKind,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// Up to and with `to`.
    Missing {
        to: u64,
    },
    /// It, or the record before it, is not what it was: it names another one before it.
    DoesNotFollow,
    /// Another writer saw another record of this number.
    Changed {
        seen_by: String,
    },
    /// Another writer saw it, and it is gone: the chain's end was cut off.
    CutOff {
        seen_by: String,
    },
    /// What it says of its place is not where it lies.
    Elsewhere {
        writer: String,
        number: u64,
    },
    Unreadable {
        why: String,
    },
    /// The store did not give it: whether it is as it was is not known.
    Unread {
        why: String,
    },
}

impl Fault {
    /// Whether it shows that something was removed, changed or moved.
    pub fn is_break(&self) -> bool {
        !matches!(self.what, FaultKind::Unread { .. })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (writer, number) = (&self.writer, self.number);
        match &self.what {
            FaultKind::Missing { to } if *to == number => {
                write!(f, "{writer}: record {number} is missing")
            }
            FaultKind::Missing { to } => {
                write!(f, "{writer}: records {number} to {to} are missing")
            }
            FaultKind::DoesNotFollow => write!(
                f,
                "{writer}: record {number} follows another record {} than the one that is there: one of the two was changed",
                number - 1
            ),
            FaultKind::Changed { seen_by } => {
                write!(
                    f,
                    "{writer}: record {number} is not the one that {seen_by} saw: it was changed"
                )
            }
            FaultKind::CutOff { seen_by } => {
                write!(
                    f,
                    "{writer}: record {number}, which {seen_by} saw, is gone: the end of the chain was removed"
                )
            }
            FaultKind::Elsewhere {
                writer: own,
                number: said,
            } => {
                write!(
                    f,
                    "{writer}: record {number} says that it is record {said} of {own}: it was moved"
                )
            }
            FaultKind::Unreadable { why } => {
                write!(f, "{writer}: record {number} cannot be understood: {why}")
            }
            FaultKind::Unread { why } => {
                write!(f, "{writer}: record {number} was not given: {why}")
            }
        }
    }
}

/// Up to which record each chain was trimmed, with the digest of the last that went, as records of trims say.
pub fn trimmed(chains: &Chains) -> BTreeMap<String, Head> {
    let records = chains
        .values()
        .flatten()
        .filter_map(|found| found.record.as_ref().ok());
    let mut all: BTreeMap<String, Head> = BTreeMap::new();
    for record in records.filter(|record| record.evidence.act == Act::Trim) {
        let heads = record
            .evidence
            .details
            .get("removed")
            .cloned()
            .unwrap_or_default();
        let heads: BTreeMap<String, Head> = serde_json::from_value(heads).unwrap_or_default();
        for (writer, head) in heads {
            let known = all.entry(writer).or_insert(head);
            if known.number < head.number {
                *known = head;
            }
        }
    }
    all
}

/// The newest record of each chain.
pub fn heads(chains: &Chains) -> BTreeMap<String, Head> {
    let newest = |(writer, chain): (&String, &Vec<Found>)| {
        let Found { number, digest, .. } = chain.last()?;
        let (number, digest) = (*number, (*digest)?);
        Some((writer.clone(), Head { number, digest }))
    };
    chains.iter().filter_map(newest).collect()
}

/// What two looks both show, as the second has it. Records that come or go while they are listed look like faults to one.
pub fn in_both(first: &[Fault], mut second: Vec<Fault>) -> Vec<Fault> {
    let place = |fault: &Fault| (fault.writer.clone(), fault.number);
    let earlier: BTreeSet<_> = first.iter().map(place).collect();
    second.retain(|fault| earlier.contains(&place(fault)));
    second
}

/// All records in an order in which each comes after all that it names: so a copy holds together at each moment.
pub fn in_order(chains: &Chains) -> Vec<(&str, &Found)> {
    let mut left: BTreeMap<&str, &[Found]> = chains
        .iter()
        .map(|(writer, chain)| (writer.as_str(), &chain[..]))
        .collect();
    let (mut ordered, mut is_stuck) = (Vec::new(), false);
    while left.values().any(|chain| !chain.is_empty()) {
        let before = ordered.len();
        for writer in chains.keys() {
            while let Some((first, rest)) = left[writer.as_str()].split_first() {
                // Where somebody changed them, records may name each other.
                if !is_stuck && names_any_of(first, writer, &left) {
                    break;
                }
                is_stuck = false;
                ordered.push((writer.as_str(), first));
                left.insert(writer, rest);
            }
        }
        is_stuck = ordered.len() == before;
    }
    ordered
}

/// Whether a record names one of another writer that is still left.
fn names_any_of(found: &Found, writer: &str, left: &BTreeMap<&str, &[Found]>) -> bool {
    let others = found.record.iter().flat_map(|record| &record.others);
    others
        .filter(|(other, _)| *other != writer)
        .any(|(other, head)| {
            let first = left.get(other.as_str()).and_then(|chain| chain.first());
            first.is_some_and(|first| first.number <= head.number)
        })
}

/// All that is wrong, by writer and number.
pub fn verify(chains: &Chains) -> Vec<Fault> {
    let trimmed = trimmed(chains);
    let mut faults = Vec::new();
    for (writer, chain) in chains {
        faults.extend(faults_of(writer, chain, trimmed.get(writer)));
    }
    faults.extend(faults_seen_by_others(chains, &trimmed));
    faults.sort_by(|a, b| (&a.writer, a.number).cmp(&(&b.writer, b.number)));
    faults.dedup_by(|a, b| a.writer == b.writer && a.number == b.number);
    faults
}

/// What a chain says of itself. `trimmed`: its last record that retention removed.
fn faults_of(writer: &str, chain: &[Found], trimmed: Option<&Head>) -> Vec<Fault> {
    let fault = |number, what| Fault {
        writer: writer.to_string(),
        number,
        what,
    };
    let gone = trimmed.map_or(0, |gone| gone.number);
    let mut faults = Vec::new();
    // The number that comes next, and what it must name as the record before it, if that is known.
    let (mut next, mut previous) = (1, Some(None));
    for found in chain {
        let number = found.number;
        if number > next {
            // A trim that was interrupted left some that it meant to remove.
            let (from, to) = (next.max(gone + 1), number - 1);
            if from <= to {
                faults.push(fault(from, FaultKind::Missing { to }));
            }
            previous = trimmed
                .filter(|gone| gone.number == to)
                .map(|gone| Some(gone.digest));
        }
        match &found.record {
            Err(why) => {
                let why = why.clone();
                let unread = found.digest.is_none();
                faults.push(match unread {
                    true => fault(number, FaultKind::Unread { why }),
                    false => fault(number, FaultKind::Unreadable { why }),
                });
            }
            Ok(record) if record.writer != writer || record.number != number => {
                let (writer, said) = (record.writer.clone(), record.number);
                faults.push(fault(
                    number,
                    FaultKind::Elsewhere {
                        writer,
                        number: said,
                    },
                ));
            }
            // Its writer could not read the one before it, and says so.
            Ok(record) if record.previous.is_none() && record.unread.contains_key(writer) => {}
            Ok(record) if previous.is_some_and(|previous| record.previous != previous) => {
                faults.push(fault(number, FaultKind::DoesNotFollow));
            }
            Ok(_) => {}
        }
        (next, previous) = (number + 1, found.digest.map(Some));
    }
    faults
}

/// What others say that they saw, and is not there any more.
fn faults_seen_by_others(chains: &Chains, trimmed: &BTreeMap<String, Head>) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (seer, chain) in chains {
        for record in chain.iter().filter_map(|found| found.record.as_ref().ok()) {
            for (writer, head) in &record.others {
                if trimmed
                    .get(writer)
                    .is_some_and(|gone| head.number <= gone.number)
                {
                    continue;
                }
                let there = chains.get(writer).and_then(|chain| {
                    let at = chain.binary_search_by_key(&head.number, |found| found.number);
                    at.ok().map(|at| chain[at].digest)
                });
                let what = match there {
                    Some(None) => continue,
                    Some(Some(digest)) if digest == head.digest => continue,
                    Some(Some(_)) => FaultKind::Changed {
                        seen_by: seer.clone(),
                    },
                    None => FaultKind::CutOff {
                        seen_by: seer.clone(),
                    },
                };
                faults.push(Fault {
                    writer: writer.clone(),
                    number: head.number,
                    what,
                });
            }
        }
    }
    faults
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;
