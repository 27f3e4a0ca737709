//! Reading what came damaged once more: bytes can also be damaged on their way here.

use std::fmt::Display;
use std::future::Future;

use super::ObjectError;
use crate::error::{find, with_hint};
use crate::storage::StorageError;

/// What `read` gives; if that is damaged, what it gives the second time.
pub async fn reread<T, E: Display, F: Future<Output = Result<T, E>>>(
    is_damage: impl FnOnce(&E) -> bool,
    read: impl Fn() -> F,
) -> Result<T, E> {
    match read().await {
        Err(error) if is_damage(&error) => {
            tracing::debug!("{error:#}: reading it once more");
            read().await
        }
        result => result,
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
    find::<StorageError>(error).is_none() && !matches!(find(error), Some(ObjectError::Unchecked { .. }))
}

/// An error with the next step: `repair` where something is damaged, else to upgrade or to let the store answer.
pub fn repair_or_wait(error: anyhow::Error, repair: impl Display) -> anyhow::Error {
    match is_damage(&error) {
        true => with_hint(error, repair),
        false if is_newer(&error) => with_hint(error, UPGRADE),
        false => with_hint(error, "check that the repository is reachable and can be read, then try again"),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use anyhow::anyhow;

    use super::*;
    use crate::error::hints;

    fn no_answer() -> anyhow::Error {
        let source = anyhow!("connection refused");
        let (key, store) = ("key".into(), "store".into());
        ObjectError::from(StorageError { operation: "get", key, store, lasting: false, source }).into()
    }

    #[tokio::test]
    async fn what_is_damaged_is_read_twice_and_what_no_store_gives_once() {
        for (first, second, reads) in [
            (None, None, 1),
            (Some(anyhow!("damaged")), None, 2),
            (Some(anyhow!("damaged")), Some("damaged"), 2),
            (Some(no_answer()), Some("connection refused"), 1),
            (Some(no_answer().context("cannot read it")), Some("connection refused"), 1),
        ] {
            let (left, done) = (Cell::new(first), Cell::new(0));
            let read = reread(is_damage, async || {
                done.set(done.get() + 1);
                left.take().or(second.filter(|_| done.get() > 1).map(|why| anyhow!(why))).map_or(Ok(()), Err)
            });
            let why = read.await.err().map(|error| error.root_cause().to_string());
            assert_eq!((why.as_deref(), done.get()), (second, reads));
        }
    }

    #[test]
    fn only_what_is_damaged_is_to_be_repaired() {
        assert_eq!(hints(&repair_or_wait(anyhow!("damaged"), "mend it")), ["mend it"]);
        assert!(hints(&repair_or_wait(no_answer(), "mend it"))[0].contains("reachable"));
        let newer = || ObjectError::Newer { key: "key".into(), store: "store".into(), what: "a codec".into() };
        assert_eq!(hints(&repair_or_wait(newer().into(), "mend it")), [UPGRADE]);
        assert!(is_unusable(&newer().into()) && !is_damage(&newer().into()));
        let source = anyhow!("no memory");
        let unchecked = ObjectError::Unchecked { key: "key".into(), store: "store".into(), source };
        assert!(!is_damage(&anyhow::Error::from(unchecked).context("cannot read it")));
    }
}
