use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// How far a dump is, for whoever looks while it is taken.
#[derive(Debug, Default)]
pub struct DumpProgress {
    /// Bytes of the dump that came so far.
    bytes: AtomicU64,
    /// Tables that were begun.
    tables: AtomicU64,
    doing: Mutex<String>,
}

/// A look at it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DumpStep {
    pub bytes: u64,
    pub tables: u64,
    /// The database, and the table or the step.
    pub doing: String,
}

impl DumpProgress {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Another database, or another try.
    pub fn begin(&self, what: String) {
        self.bytes.store(0, Ordering::Relaxed);
        self.tables.store(0, Ordering::Relaxed);
        self.now(what);
    }

    /// What is being done.
    pub fn now(&self, what: String) {
        *self.doing.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }

    pub fn add_bytes(&self, count: usize) {
        self.bytes.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// A table's rows come now.
    pub fn table(&self, name: &str) {
        self.tables.fetch_add(1, Ordering::Relaxed);
        self.now(name.to_string());
    }

    pub fn step(&self) -> DumpStep {
        DumpStep {
            bytes: self.bytes.load(Ordering::Relaxed),
            tables: self.tables.load(Ordering::Relaxed),
            doing: self
                .doing
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        }
    }
}
