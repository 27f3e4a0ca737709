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
            settings: None,
        };
        let record = Record {
            number: own.map_or(1, |head| head.number + 1),
            previous: own.map(|head| head.digest),
            writer: writer.clone(),
            others,
            unread: BTreeMap::new(),
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
        digest: Some(Digest::of(&serde_json::to_vec(&record).unwrap())),
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
        digest: all["a"][1].digest.unwrap(),
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
fn what_a_trim_left_in_the_middle_of_what_it_removed_is_no_fault() {
    let mut all = chains("aaaaab");
    let head = |all: &Chains, number: u64| Head {
        number,
        digest: all["a"][number as usize - 1].digest.unwrap(),
    };
    let gone = head(&all, 3);
    let trim = &mut all.get_mut("b").unwrap()[0];
    let mut record = trim.record.clone().unwrap();
    record.evidence.act = Act::Trim;
    record.evidence.details = serde_json::json!({"removed": {"a": gone}});
    *trim = found(record);
    all.get_mut("a").unwrap().remove(1);
    assert!(told(&all).is_empty(), "{:?}", told(&all));
    all.get_mut("a").unwrap().drain(1..3);
    assert_eq!(told(&all), ["a: record 4 is missing"]);
}

#[test]
fn a_record_that_cannot_be_read_is_named_and_one_that_was_not_given_is_no_break() {
    let mut all = chains("aab");
    all.get_mut("a").unwrap()[0].record = Err("EOF".into());
    assert_eq!(told(&all), ["a: record 1 cannot be understood: EOF"]);
    for chain in all.values_mut() {
        for found in chain {
            (found.digest, found.record) = (None, Err("no answer".into()));
        }
    }
    let faults = verify(&all);
    assert_eq!(faults.len(), 3);
    assert!(!faults.iter().any(Fault::is_break));
    assert!(heads(&all).is_empty());
}

#[test]
fn whoever_could_not_read_the_record_before_says_so_and_is_believed() {
    let mut all = chains("aaa");
    let chain = all.get_mut("a").unwrap();
    let mut record = chain[2].record.clone().unwrap();
    record.previous = None;
    chain[2] = found(record.clone());
    assert_eq!(told(&all).len(), 1);
    record.unread = [("a".to_string(), "no answer".to_string())].into();
    all.get_mut("a").unwrap()[2] = found(record);
    assert!(told(&all).is_empty(), "{:?}", told(&all));
}

#[test]
fn what_only_one_of_two_looks_shows_is_no_fault() {
    let mut cut = chains("aaab");
    cut.get_mut("a").unwrap().pop();
    let first = verify(&cut);
    assert_eq!(in_both(&first, verify(&chains("aaab"))), []);
    assert_eq!(in_both(&first, verify(&cut)), first);
}

#[test]
fn records_come_after_all_that_they_name_and_none_is_left_out() {
    let mut all = chains("abbaacbac");
    for changed in [false, true] {
        let mut seen = BTreeMap::new();
        for (writer, found) in in_order(&all) {
            let record = found.record.as_ref().unwrap();
            let is_there = |(other, head): (&String, &Head)| {
                seen.get(other.as_str())
                    .is_some_and(|seen| *seen >= head.number)
            };
            assert!(changed || record.others.iter().all(is_there), "{record:?}");
            seen.insert(writer, found.number);
        }
        assert_eq!(seen, [("a", 4), ("b", 3), ("c", 2)].into());
        // Two that name each other.
        let first = &mut all.get_mut("a").unwrap()[0];
        let mut record = first.record.clone().unwrap();
        let (number, digest) = (3, Digest::of(b""));
        record.others.insert("b".into(), Head { number, digest });
        first.record = Ok(record);
    }
}
