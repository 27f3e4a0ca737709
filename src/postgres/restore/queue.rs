//! Work between the thread that reads the manifest and those that write files: largest first, bounded.

use std::collections::BinaryHeap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::postgres::backup::manifest::FileEntry;

/// Bytes of file descriptions that wait at most: about as many as a cluster of 100 GiB has.
const MAX_WAITING: usize = 16 << 20;

/// What one worker does in one go.
#[derive(Debug, PartialEq, Eq)]
pub struct Unit {
    /// Plain bytes.
    size: u64,
    /// One large file, or small files whose frames lie together.
    pub files: Vec<FileEntry>,
}

impl Unit {
    /// The files of one unit.
    pub fn new(files: Vec<FileEntry>) -> Self {
        Self {
            size: files.iter().map(|file| file.size).sum(),
            files,
        }
    }

    /// Memory it takes, roughly.
    fn weight(&self) -> usize {
        let extents = |file: &FileEntry| {
            file.extents
                .iter()
                .map(|extent| 64 + 4 * extent.frames.len())
                .sum::<usize>()
        };
        self.files
            .iter()
            .map(|file| 200 + file.path.len() + extents(file))
            .sum()
    }
}

impl Ord for Unit {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.size.cmp(&other.size)
    }
}

impl PartialOrd for Unit {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// A bounded queue that gives out the largest unit first. Waiting for the whole window to fill before the first unit
/// is given out keeps a large file from being the last.
#[derive(Default)]
pub struct Queue {
    state: Mutex<QueueState>,
    changed: Condvar,
}

#[derive(Default)]
struct QueueState {
    waiting: BinaryHeap<Unit>,
    weight: usize,
    /// Units are given out: the window was full once, or all is in it.
    open: bool,
    ended: bool,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds work; waits while the queue is full. False when nobody takes work any more.
    pub fn push(&self, unit: Unit) -> bool {
        let mut state = self.state();
        while state.weight >= MAX_WAITING && !state.ended {
            state.open = true;
            self.changed.notify_all();
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.ended {
            return false;
        }
        state.weight += unit.weight();
        state.waiting.push(unit);
        if state.open {
            self.changed.notify_all();
        }
        true
    }

    /// The largest unit that waits; `None` after the end.
    pub fn pop(&self) -> Option<Unit> {
        let mut state = self.state();
        loop {
            if state.open || state.ended {
                if let Some(unit) = state.waiting.pop() {
                    state.weight -= unit.weight();
                    self.changed.notify_all();
                    return Some(unit);
                }
                if state.ended {
                    return None;
                }
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// No more work comes; what waits is still given out.
    pub fn end(&self) {
        self.state().ended = true;
        self.changed.notify_all();
    }

    /// No more work is taken.
    pub fn abort(&self) {
        let mut state = self.state();
        state.ended = true;
        state.waiting.clear();
        state.weight = 0;
        drop(state);
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Digest;

    fn unit(size: u64, path_length: usize) -> Unit {
        let (path, digest) = ("x".repeat(path_length), Digest::of(b""));
        Unit::new(vec![FileEntry {
            path,
            tablespace: None,
            mode: 0o600,
            mtime: 0,
            size,
            digest,
            extents: Vec::new(),
        }])
    }

    #[test]
    fn the_largest_comes_first() {
        let queue = Queue::default();
        [3, 9, 1, 7]
            .into_iter()
            .for_each(|size| assert!(queue.push(unit(size, 1))));
        queue.end();
        let order: Vec<u64> = std::iter::from_fn(|| queue.pop())
            .map(|unit| unit.size)
            .collect();
        assert_eq!(order, [9, 7, 3, 1]);
    }

    #[test]
    fn a_full_queue_waits_for_workers_and_loses_nothing() {
        let queue = Queue::default();
        let taken = std::thread::scope(|scope| {
            let worker = scope.spawn(|| std::iter::from_fn(|| queue.pop()).count());
            (0..100).for_each(|_| assert!(queue.push(unit(1, 1 << 20))));
            assert!(queue.state().weight <= MAX_WAITING + (2 << 20));
            queue.end();
            worker.join().unwrap()
        });
        assert_eq!(taken, 100);
    }

    #[test]
    fn after_an_abort_nobody_waits() {
        let queue = Queue::default();
        assert!(queue.push(unit(1, 1)));
        queue.abort();
        assert!(queue.pop().is_none());
        assert!(!queue.push(unit(1, 1)));
    }
}
