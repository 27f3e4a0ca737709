//! Reading what came damaged once more: bytes can also be damaged on their way here.

use std::fmt::Display;
use std::future::Future;

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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use anyhow::anyhow;

    use super::*;
    use crate::repo::error::testing::no_answer;
    use crate::repo::is_damage;

    #[tokio::test]
    async fn what_is_damaged_is_read_twice_and_what_no_store_gives_once() {
        for (first, second, reads) in [
            (None, None, 1),
            (Some(anyhow!("damaged")), None, 2),
            (Some(anyhow!("damaged")), Some("damaged"), 2),
            (Some(no_answer()), Some("connection refused"), 1),
            (
                Some(no_answer().context("cannot read it")),
                Some("connection refused"),
                1,
            ),
        ] {
            let (left, done) = (Cell::new(first), Cell::new(0));
            let read = reread(is_damage, async || {
                done.set(done.get() + 1);
                left.take()
                    .or(second.filter(|_| done.get() > 1).map(|why| anyhow!(why)))
                    .map_or(Ok(()), Err)
            });
            let why = read.await.err().map(|error| error.root_cause().to_string());
            assert_eq!((why.as_deref(), done.get()), (second, reads));
        }
    }
}
