use std::time::Duration;

use anyhow::anyhow;
use tokio::time::{Instant, timeout};

use crate::error::with_hint;
use crate::storage::until;

/// Waits for an access to the repository no longer than `limit`; repeating is the store's business. `what` says in an
/// error what was going on.
pub async fn within<T, E: Into<anyhow::Error>>(
    limit: Duration,
    what: &str,
    access: impl Future<Output = Result<T, E>>,
) -> anyhow::Result<T> {
    match timeout(limit, until(Instant::now() + limit, access)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(error.into().context(what.to_string())),
        Err(_) => {
            let error = anyhow!(
                "{what}: the repository did not answer within {} s",
                limit.as_secs_f32()
            );
            Err(with_hint(
                error,
                "check that the repository is reachable, or raise `wal.timeout`",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_answer_ends_at_the_limit() {
        let never = std::future::pending::<anyhow::Result<()>>();
        let error = within(Duration::from_millis(30), "storing", never)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("did not answer"));
    }
}
