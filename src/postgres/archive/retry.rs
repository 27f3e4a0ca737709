use std::io::ErrorKind;
use std::time::Duration;

use anyhow::anyhow;
use tokio::time::{Instant, sleep, timeout_at};

use crate::error::{find, with_hint};
use crate::repo::ObjectError;
use crate::storage::StorageError;

/// The pause after the first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// No pause is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How often and how long a failed access to the repository is repeated. The one place that repeats.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// Repetitions at most.
    pub retries: u32,
    /// No repetition begins, and no answer is waited for, beyond this.
    pub timeout: Duration,
}

impl Retry {
    /// Runs `access` until it answers, what it meets will not change by itself, or the bounds are reached. `what` says
    /// in an error what was going on.
    pub async fn run<T, E, F>(&self, what: &str, mut access: impl FnMut() -> F) -> anyhow::Result<T>
    where
        E: Into<anyhow::Error>,
        F: Future<Output = Result<T, E>>,
    {
        let deadline = Instant::now() + self.timeout;
        for attempt in 0.. {
            let error = match timeout_at(deadline, access()).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => error.into(),
                Err(_) => {
                    let error =
                        anyhow!("{what}: the repository did not answer within {} s", self.timeout.as_secs_f32());
                    return Err(with_hint(error, "check that the repository is reachable, or raise `wal.timeout`"));
                }
            };
            let pause = pause(attempt);
            if attempt == self.retries || !may_pass(&error) || Instant::now() + pause >= deadline {
                return Err(error.context(what.to_string()));
            }
            tracing::debug!("{what}: {error:#}: again in {} ms", pause.as_millis());
            sleep(pause).await;
        }
        unreachable!("the loop above ends by returning")
    }
}

/// Half to all of the doubled pause: several processes that failed together do not come back together.
pub(super) fn pause(attempt: u32) -> Duration {
    let full = FIRST_PAUSE.saturating_mul(1 << attempt.min(10)).min(LONGEST_PAUSE);
    let random = getrandom::u32().unwrap_or(u32::MAX);
    full / 2 + (full / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// Whether repeating can help: the store did not answer, and for no reason that stays.
fn may_pass(error: &anyhow::Error) -> bool {
    let unanswered = match find::<ObjectError>(error) {
        Some(ObjectError::Storage(error)) => Some(error),
        Some(ObjectError::Damaged { .. }) => None,
        None => find::<StorageError>(error),
    };
    unanswered.is_some_and(|error| {
        !matches!(
            error.source.kind(),
            ErrorKind::PermissionDenied
                | ErrorKind::StorageFull
                | ErrorKind::QuotaExceeded
                | ErrorKind::ReadOnlyFilesystem
        )
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io;

    use super::*;

    fn failure(kind: ErrorKind) -> ObjectError {
        let source = io::Error::from(kind);
        StorageError { operation: "put", key: "k".into(), store: "s".into(), source }.into()
    }

    /// Calls made until an access answered that works at call `works_at`, or that were made in vain.
    async fn calls(works_at: u32, kind: ErrorKind) -> Result<u32, u32> {
        let calls = Cell::new(0);
        let access = || {
            calls.set(calls.get() + 1);
            std::future::ready(if calls.get() == works_at { Ok(()) } else { Err(failure(kind)) })
        };
        let retry = Retry { retries: 2, timeout: Duration::from_secs(60) };
        retry.run("storing", access).await.map(|()| calls.get()).map_err(|_| calls.get())
    }

    #[tokio::test]
    async fn a_passing_failure_is_overcome_and_a_lasting_one_told() {
        assert_eq!(calls(3, ErrorKind::TimedOut).await, Ok(3));
        assert_eq!(calls(4, ErrorKind::TimedOut).await, Err(3));
        assert_eq!(calls(2, ErrorKind::PermissionDenied).await, Err(1));
    }

    #[tokio::test]
    async fn no_answer_ends_at_the_timeout() {
        let retry = Retry { retries: 2, timeout: Duration::from_millis(30) };
        let error = retry.run::<(), ObjectError, _>("storing", std::future::pending).await.unwrap_err();
        assert!(error.to_string().contains("did not answer"));
    }
}
