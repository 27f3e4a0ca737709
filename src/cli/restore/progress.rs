use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{BinaryBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::postgres::restore::files::Progress;
use crate::postgres::restore::server_log::ServerLog;

/// How often the bar is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(200);
/// How often a log line tells how far a restore is.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Runs a restore and shows how far it is: a bar on a terminal, log lines elsewhere.
pub async fn show<T>(
    restoring: impl Future<Output = anyhow::Result<T>>,
    progress: &Progress,
    total: u64,
) -> anyhow::Result<T> {
    let terminal = std::io::stderr().is_terminal();
    let bar = ProgressBar::with_draw_target(Some(total), target(terminal)).with_style(bar_style());
    let begun = Instant::now();
    let mut every = tokio::time::interval(if terminal { DRAW_EVERY } else { LOG_EVERY });
    every.tick().await;
    tokio::pin!(restoring);
    let result = loop {
        tokio::select! {
            result = &mut restoring => break result,
            _ = every.tick() => {}
        }
        let done = progress.bytes.load(Ordering::Relaxed);
        bar.set_position(done);
        if !terminal {
            let rate = done as f64 / begun.elapsed().as_secs_f64();
            let left = total.saturating_sub(done) as f64 / rate.max(1.0);
            let (done, total, rate) = (BinaryBytes(done), BinaryBytes(total), BinaryBytes(rate as u64));
            tracing::info!("{done} of {total} restored, {rate}/s, {left:.0} s left");
        }
    };
    bar.finish_and_clear();
    result
}

fn target(terminal: bool) -> ProgressDrawTarget {
    if terminal { ProgressDrawTarget::stderr_with_hz(5) } else { ProgressDrawTarget::hidden() }
}

fn bar_style() -> ProgressStyle {
    let template =
        "{bar:30} {percent:>3} %  {binary_bytes} of {binary_total_bytes}  {binary_bytes_per_sec}  {eta} left";
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Shows how far replay is.
pub struct Replay {
    bar: ProgressBar,
    terminal: bool,
    begun: Instant,
    /// Log lines written.
    lines: AtomicU64,
}

impl Replay {
    pub fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = ProgressBar::with_draw_target(None, target(terminal)).with_style(ProgressStyle::default_spinner());
        Self { bar, terminal, begun: Instant::now(), lines: AtomicU64::new(0) }
    }

    /// Shows what the server's log tells.
    pub fn show(&self, log: &ServerLog) {
        let message = || format!("replaying: {} WAL files fetched", log.fetched);
        if self.terminal {
            self.bar.set_message(message());
            self.bar.tick();
        } else if self.begun.elapsed() >= LOG_EVERY * (self.lines.load(Ordering::Relaxed) as u32 + 1) {
            self.lines.fetch_add(1, Ordering::Relaxed);
            tracing::info!("{}", message());
        }
    }

    /// Takes the bar away.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}
