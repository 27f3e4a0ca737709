//! Why an object could not be had, and what is to be done about it.

use std::fmt::Display;

use crate::codec::Damaged;
use crate::error::{find, with_hint};
use crate::storage::StorageError;

/// Why a sealed object could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// The store did not answer.
    // Not transparent: who asks for the store's error in the chain must find it, to tell an outage from damage.
    #[error("{0}")]
    Storage(#[from] StorageError),
    /// It is there, but not whole or not what its name says.
    #[error("object \"{key}\" in {store}")]
    Damaged {
        key: String,
        store: String,
        #[source]
        source: Damaged,
    },
    /// There is none, and it is needed.
    #[error("object \"{key}\" is missing in {store}")]
    Absent { key: String, store: String },
    /// It is there, and a later Walden wrote it.
    #[error("object \"{key}\" in {store} has {what}: a newer Walden wrote it")]
    Newer {
        key: String,
        store: String,
        what: String,
    },
    /// It is there, and could not be checked: a fault of this machine, such as want of memory.
    #[error("cannot check object \"{key}\" in {store}")]
    Unchecked {
        key: String,
        store: String,
        #[source]
        source: anyhow::Error,
    },
}

impl ObjectError {
    /// Whether the object is there and cannot be used.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. })
    }
}

/// The next step where a newer Walden wrote what is there.
pub const UPGRADE: &str = "upgrade Walden on this host: nothing is wrong with the object";

/// Whether the store answered, and what it has is not what was stored.
pub fn is_damage(error: &anyhow::Error) -> bool {
    is_unusable(error) && !is_newer(error)
}

/// Whether a newer Walden wrote what is there.
pub fn is_newer(error: &anyhow::Error) -> bool {
    matches!(find(error), Some(ObjectError::Newer { .. }))
}

/// Whether the store answered, and this Walden cannot use what it has: it is damaged, or a newer one wrote it.
pub fn is_unusable(error: &anyhow::Error) -> bool {
    find::<StorageError>(error).is_none()
        && !matches!(find(error), Some(ObjectError::Unchecked { .. }))
}

/// An error with the next step: `repair` where something is damaged, else to upgrade or to let the store answer.
pub fn repair_or_wait(error: anyhow::Error, repair: impl Display) -> anyhow::Error {
    match is_damage(&error) {
        true => with_hint(error, repair),
        false if is_newer(&error) => with_hint(error, UPGRADE),
        false => with_hint(
            error,
            "check that the repository is reachable and can be read, then try again",
        ),
    }
}

#[cfg(test)]
pub(super) mod testing {
    use anyhow::anyhow;

    use super::*;

    pub fn no_answer() -> anyhow::Error {
        let source = anyhow!("connection refused");
        let (key, store) = ("key".into(), "store".into());
        ObjectError::from(StorageError {
            operation: "get",
            key,
            store,
            lasting: false,
            source,
        })
        .into()
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::testing::no_answer;
    use super::*;
    use crate::error::hints;

    #[test]
    fn only_what_is_damaged_is_to_be_repaired() {
        assert_eq!(
            hints(&repair_or_wait(anyhow!("damaged"), "mend it")),
            ["mend it"]
        );
        assert!(hints(&repair_or_wait(no_answer(), "mend it"))[0].contains("reachable"));
        let newer = || ObjectError::Newer {
            key: "key".into(),
            store: "store".into(),
            what: "a codec".into(),
        };
        assert_eq!(hints(&repair_or_wait(newer().into(), "mend it")), [UPGRADE]);
        assert!(is_unusable(&newer().into()) && !is_damage(&newer().into()));
        let source = anyhow!("no memory");
        let unchecked = ObjectError::Unchecked {
            key: "key".into(),
            store: "store".into(),
            source,
        };
        assert!(!is_damage(
            &anyhow::Error::from(unchecked).context("cannot read it")
        ));
    }
}
