//! Patience where no answer would decide what a standby becomes.

use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::data_directory::decides;
use crate::error::find;
use crate::postgres::archive::{GapError, HistoryLost};
use crate::postgres::types::WalFileName;
use crate::storage::pause;

/// Tries again where a standby that wants `name` at `destination` would take no answer for one: for so long for a history
/// file; once for a segment that was asked for in haste before the promotion, since another attempt has its time by itself.
/// That the file was lost is an answer.
pub async fn retry_for_standby<T, F: Future<Output = anyhow::Result<T>>>(
    limit: Duration,
    destination: &Path,
    name: &WalFileName,
    attempt: impl Fn() -> F,
) -> anyhow::Result<T> {
    let history = matches!(name, WalFileName::History(_));
    let decides = || decides(Some(destination), history);
    let began = Instant::now();
    for number in 0.. {
        let patient = !history && decides();
        let error = match attempt().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let pause = pause(number);
        let lost = find::<GapError>(&error).is_some() || find::<HistoryLost>(&error).is_some();
        if lost || patient || began.elapsed() + pause > limit || !decides() {
            return Err(error);
        }
        tracing::debug!("{error:#}: again in {} ms", pause.as_millis());
        sleep(pause).await;
    }
    unreachable!("the loop above ends by returning")
}
