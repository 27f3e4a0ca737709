//! Patience where no answer would decide what a standby becomes.

use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::data_directory::decides;
use crate::error::find;
use crate::postgres::archive::{Gap, HistoryLost};
use crate::postgres::types::WalFileName;
use crate::storage::pause;

/// Tries again for so long while a standby that wants `name` at `destination` would take no answer for one. That the file
/// was lost is an answer.
pub async fn insist<T, F: Future<Output = anyhow::Result<T>>>(
    limit: Duration,
    destination: &Path,
    name: &WalFileName,
    attempt: impl Fn() -> F,
) -> anyhow::Result<T> {
    let began = Instant::now();
    for number in 0.. {
        let error = match attempt().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let pause = pause(number);
        let lost = find::<Gap>(&error).is_some() || find::<HistoryLost>(&error).is_some();
        let history = matches!(name, WalFileName::History(_));
        if lost || began.elapsed() + pause > limit || !decides(Some(destination), history) {
            return Err(error);
        }
        tracing::debug!("{error:#}: again in {} ms", pause.as_millis());
        sleep(pause).await;
    }
    unreachable!("the loop above ends by returning")
}
