//! Whether records are all there, and as they were written. Pure.
//!
//! Each record has the digest of the one before it in its writer's chain, and the newest of the other chains that its writer
//! saw. So a record that was removed, changed or put elsewhere shows at the next, and a chain whose end was cut off shows at
//! the others. What shows nowhere is a change of the very newest records that nobody followed: `verify` prints the heads, to
//! be kept elsewhere.

use std::collections::BTreeMap;
use std::fmt;

use super::record::{Act, Head, Record};
use crate::codec::Digest;

/// A record as it was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// By its name.
    pub number: u64,
    /// Of its bytes.
    pub digest: Digest,
    /// Why it cannot be understood.
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
                write!(f, "{writer}: record {number} cannot be read: {why}")
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
    let head = |found: &Found| Head {
        number: found.number,
        digest: found.digest,
    };
    let newest =
        |(writer, chain): (&String, &Vec<Found>)| Some((writer.clone(), head(chain.last()?)));
    chains.iter().filter_map(newest).collect()
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
    let mut faults = Vec::new();
    // The number that comes next, and what it must name as the record before it, if that is known.
    let (mut next, mut previous) = (1, Some(None));
    if let (Some(first), Some(gone)) = (chain.first(), trimmed) {
        // A trim that was interrupted left some that it meant to remove.
        (next, previous) = match first.number <= gone.number {
            true => (first.number, None),
            false => (gone.number + 1, Some(Some(gone.digest))),
        };
    }
    for found in chain {
        if found.number > next {
            let to = found.number - 1;
            faults.push(fault(next, FaultKind::Missing { to }));
            previous = None;
        }
        match &found.record {
            Err(why) => faults.push(fault(
                found.number,
                FaultKind::Unreadable { why: why.clone() },
            )),
            Ok(record) if record.writer != writer || record.number != found.number => {
                let (writer, number) = (record.writer.clone(), record.number);
                faults.push(fault(found.number, FaultKind::Elsewhere { writer, number }));
            }
            Ok(record) if previous.is_some_and(|previous| record.previous != previous) => {
                faults.push(fault(found.number, FaultKind::DoesNotFollow));
            }
            Ok(_) => {}
        }
        (next, previous) = (found.number + 1, Some(Some(found.digest)));
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
                    Some(digest) if digest == head.digest => continue,
                    Some(_) => FaultKind::Changed {
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
mod tests {
    use super::super::record::Who;
    use super::super::record::testing::evidence;
    use super::*;

    /// Chains of writers in the order of their records; each sees the others' heads.
    fn chains(order: &str) -> Chains {
        let mut all = Chains::new();
        for writer in order.chars().map(String::from) {
            let mut others = heads(&all);
            let own = others.remove(&writer);
            let who = Who {
                user: writer.clone(),
                host: "h".into(),
                token: None,
            };
            let record = Record {
                number: own.map_or(1, |head| head.number + 1),
                previous: own.map(|head| head.digest),
                writer: writer.clone(),
                others,
                who,
                walden: "1".into(),
                evidence: evidence(Act::Drill),
            };
            all.entry(writer).or_default().push(found(record));
        }
        all
    }

    fn found(record: Record) -> Found {
        Found {
            number: record.number,
            digest: Digest::of(&serde_json::to_vec(&record).unwrap()),
            record: Ok(record),
        }
    }

    fn told(chains: &Chains) -> Vec<String> {
        verify(chains).iter().map(Fault::to_string).collect()
    }

    /// Changes what a record says.
    fn change(chains: &mut Chains, writer: &str, number: u64) {
        let found_ = &mut chains.get_mut(writer).unwrap()[number as usize - 1];
        let mut record = found_.record.clone().unwrap();
        record.evidence.reason = "nothing happened".into();
        *found_ = found(record);
    }

    #[test]
    fn what_nobody_touched_is_sound() {
        for order in ["", "a", "aaa", "abab", "aabbaab"] {
            assert!(told(&chains(order)).is_empty(), "{order}");
        }
    }

    #[test]
    fn a_changed_record_shows_at_the_next_of_its_writer_or_of_another() {
        let mut all = chains("aaaa");
        change(&mut all, "a", 2);
        assert_eq!(
            told(&all),
            [
                "a: record 3 follows another record 2 than the one that is there: one of the two was changed"
            ]
        );
        let mut all = chains("aab");
        change(&mut all, "a", 2);
        assert_eq!(
            told(&all),
            ["a: record 2 is not the one that b saw: it was changed"]
        );
    }

    #[test]
    fn removed_records_show_in_the_middle_at_the_beginning_and_at_the_end() {
        let mut all = chains("aaaaa");
        all.get_mut("a").unwrap().drain(1..3);
        assert_eq!(told(&all), ["a: records 2 to 3 are missing"]);
        let mut all = chains("aaa");
        all.get_mut("a").unwrap().remove(0);
        assert_eq!(told(&all), ["a: record 1 is missing"]);
        let mut all = chains("aaab");
        all.get_mut("a").unwrap().pop();
        assert_eq!(
            told(&all),
            ["a: record 3, which b saw, is gone: the end of the chain was removed"]
        );
        all.remove("a");
        assert_eq!(told(&all).len(), 1);
    }

    #[test]
    fn records_that_changed_places_and_forks_show() {
        let mut all = chains("aaaa");
        let chain = all.get_mut("a").unwrap();
        let (second, third) = (chain[1].clone(), chain[2].clone());
        chain[1] = Found { number: 2, ..third };
        chain[2] = Found {
            number: 3,
            ..second
        };
        let faults = told(&all);
        assert!(
            faults.contains(&"a: record 2 says that it is record 3 of a: it was moved".into()),
            "{faults:?}"
        );
        // Two that went on from record 2, and the later records of the one beside the earlier of the other.
        let (mut one, mut other) = (chains("aaa"), chains("aab"));
        change(&mut other, "a", 2);
        let mut fork = chains("aaa");
        fork.get_mut("a").unwrap()[1] = other.remove("a").unwrap()[1].clone();
        assert_eq!(told(&fork).len(), 1);
        assert!(told(&std::mem::take(&mut one)).is_empty());
    }

    #[test]
    fn what_retention_removed_is_told_by_its_record_and_no_more_than_that() {
        let mut all = chains("aaaa");
        let gone = Head {
            number: 2,
            digest: all["a"][1].digest,
        };
        let mut trim = chains("ab").remove("b").unwrap().remove(0).record.unwrap();
        trim.evidence = evidence(Act::Trim);
        trim.evidence.details = serde_json::json!({"removed": {"a": gone}});
        trim.others = heads(&all);
        all.insert("b".into(), vec![found(trim)]);
        // Announced, not yet carried out; then in part; then whole.
        for first in 1..=3 {
            assert!(told(&all).is_empty(), "{first}: {:?}", told(&all));
            all.get_mut("a").unwrap().remove(0);
        }
        assert_eq!(told(&all), ["a: record 3 is missing"]);
    }

    #[test]
    fn a_record_that_cannot_be_read_is_named() {
        let mut all = chains("aa");
        all.get_mut("a").unwrap()[0].record = Err("EOF".into());
        assert_eq!(told(&all), ["a: record 1 cannot be read: EOF"]);
    }
}
