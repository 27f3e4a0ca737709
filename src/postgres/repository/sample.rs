//! Which objects a verification reads, and how far it is. Pure.

use std::collections::{BTreeSet, BinaryHeap, VecDeque};

use serde::Serialize;

use crate::codec::Hasher;
use crate::storage::Key;

/// How much of the segments and packs is asked for. Everything else is small and always read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SampleExtent {
    All,
    /// So many of a hundred, at random.
    Percent(f64),
    /// So many objects, at random.
    Objects(u32),
}

/// A random choice that the same seed repeats, whatever the order and wherever it is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Sample {
    pub seed: u64,
    /// Objects whose number is at most this are in it.
    pub up_to: u64,
}

impl Sample {
    /// So many of a hundred.
    pub fn percent(seed: u64, percent: f64) -> Self {
        // The conversion saturates: 100 takes all.
        Self {
            seed,
            up_to: (percent / 100.0 * u64::MAX as f64) as u64,
        }
    }

    /// The objects with the `count` lowest numbers of all that were [counted](Lowest::add).
    pub fn lowest(seed: u64, lowest: Lowest) -> Self {
        Self {
            seed,
            up_to: lowest.numbers.peek().copied().unwrap_or(u64::MAX),
        }
    }

    /// Whether an object is in it.
    pub fn holds(&self, key: &Key) -> bool {
        number(self.seed, key) <= self.up_to
    }
}

/// The object's random number.
fn number(seed: u64, key: &Key) -> u64 {
    let mut hasher = Hasher::default();
    hasher.update(&seed.to_le_bytes());
    hasher.update(key.as_str().as_bytes());
    let digest = hasher.finish().0;
    u64::from_le_bytes(std::array::from_fn(|at| digest[at]))
}

/// The lowest numbers of the objects seen so far.
#[derive(Debug)]
pub struct Lowest {
    seed: u64,
    count: usize,
    numbers: BinaryHeap<u64>,
}

impl Lowest {
    /// Of no object yet.
    pub fn new(seed: u64, count: u32) -> Self {
        Self {
            seed,
            count: count as usize,
            numbers: BinaryHeap::new(),
        }
    }

    /// How many objects are drawn so far.
    pub fn drawn(&self) -> u64 {
        self.numbers.len() as u64
    }

    /// Counts an object.
    pub fn add(&mut self, key: &Key) {
        self.numbers.push(number(self.seed, key));
        if self.numbers.len() > self.count {
            self.numbers.pop();
        }
    }
}

/// How far work is that begins in the order of its keys and ends in any order.
#[derive(Debug, Default)]
pub struct Watermark {
    begun: VecDeque<Key>,
    ended: BTreeSet<Key>,
    /// The first of which it is not known how it ended: it is never passed.
    failed: Option<Key>,
    /// It and everything before it is done.
    pub done: Option<Key>,
}

impl Watermark {
    /// Work on a key begins.
    pub fn begin(&mut self, key: Key) {
        if self.failed.is_none() {
            self.begun.push_back(key);
        }
    }

    /// Work on a key ended.
    pub fn end(&mut self, key: &Key) {
        if self.failed.as_ref().is_some_and(|failed| key >= failed) {
            return;
        }
        self.ended.insert(key.clone());
        while self
            .begun
            .front()
            .is_some_and(|first| self.ended.remove(first))
        {
            self.done = self.begun.pop_front();
        }
    }

    /// Work on a key could not be done: it has to be done again.
    pub fn fail(&mut self, key: &Key) {
        if self.failed.as_ref().is_none_or(|failed| key < failed) {
            self.begun.retain(|begun| begun < key);
            self.ended.retain(|ended| ended < key);
            self.failed = Some(key.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Vec<Key> {
        (0..1000)
            .map(|n| Key::new(format!("main/wal/{n:04}")).unwrap())
            .collect()
    }

    #[test]
    fn a_sample_has_its_size_and_is_the_same_again_with_its_seed() {
        let chosen = |sample: Sample| {
            keys()
                .into_iter()
                .filter(|key| sample.holds(key))
                .collect::<Vec<_>>()
        };
        assert_eq!(chosen(Sample::percent(1, 100.0)).len(), 1000);
        assert_eq!(chosen(Sample::percent(1, 0.0)).len(), 0);
        let tenth = chosen(Sample::percent(1, 10.0));
        assert!((50..150).contains(&tenth.len()), "{}", tenth.len());
        assert_eq!(chosen(Sample::percent(1, 10.0)), tenth);
        assert_ne!(chosen(Sample::percent(2, 10.0)), tenth);
        for count in [1, 17, 1000, 2000] {
            let mut lowest = Lowest::new(3, count);
            keys().iter().for_each(|key| lowest.add(key));
            assert_eq!(
                chosen(Sample::lowest(3, lowest)).len(),
                1000.min(count as usize)
            );
        }
    }

    #[test]
    fn the_watermark_stops_before_the_first_key_that_is_not_done() {
        let keys = keys();
        let mut mark = Watermark::default();
        keys[..4].iter().for_each(|key| mark.begin(key.clone()));
        mark.end(&keys[1]);
        assert_eq!(mark.done, None);
        mark.end(&keys[0]);
        assert_eq!(mark.done.as_ref(), Some(&keys[1]));
        mark.end(&keys[3]);
        assert_eq!(mark.done.as_ref(), Some(&keys[1]));
        mark.end(&keys[2]);
        assert_eq!(mark.done.as_ref(), Some(&keys[3]));
        keys[4..9].iter().for_each(|key| mark.begin(key.clone()));
        mark.end(&keys[7]);
        mark.fail(&keys[7 - 1]);
        keys[4..6].iter().for_each(|key| mark.end(key));
        mark.begin(keys[9].clone());
        mark.end(&keys[9]);
        assert_eq!(
            mark.done.as_ref(),
            Some(&keys[5]),
            "never past what could not be done"
        );
        assert!(
            mark.begun.is_empty() && mark.ended.is_empty(),
            "and nothing behind it is remembered"
        );
    }
}
