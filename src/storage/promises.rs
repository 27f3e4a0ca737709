/// How far create-only puts can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// Of creators at the same time exactly one wins, and what it stored stays.
    Atomic,
    /// What is there stays, but creators at the same time can overwrite each other.
    OneByOne,
    /// What is there is overwritten, or the answers do not say what happened.
    None,
}

/// What a store, as it is set, says of itself. Whether it is true is found out by trying (`repo::probe`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promises {
    /// Of objects that are not stored in parts.
    pub create_only: Promise,
    /// Bytes from which on an object is stored in parts. Some stores forget a condition when the parts are joined, so
    /// of these [`Promise::OneByOne`] is relied on. `None`: there are no parts.
    pub in_parts_from: Option<u64>,
    /// How it encrypts at rest; `None`: it leaves that to what lies below.
    pub encryption: Option<AtRest>,
    /// What to do if it does not keep what create-only promises.
    pub if_it_overwrites: &'static str,
    /// What its settings give up, for whoever opens it.
    pub caution: Option<&'static str>,
}

/// Encryption by the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AtRest {
    /// The kind that the store is asked for; `None`: as it is set itself.
    pub asked: Option<String>,
    /// The setting that asks for it.
    pub setting: &'static str,
    /// That setting's value that asks for nothing.
    pub unasked: &'static str,
}

impl Default for Promises {
    /// What a folder promises: all, and in one piece.
    fn default() -> Self {
        Self {
            create_only: Promise::Atomic,
            in_parts_from: None,
            encryption: None,
            if_it_overwrites: "use a folder on a file system that can rename without replacing, or a bucket",
            caution: None,
        }
    }
}
