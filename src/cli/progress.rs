//! How far long work is: a bar on a terminal, log lines elsewhere.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{BinaryBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often the bar is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(200);
/// How often a log line tells how far it is.
pub const LOG_EVERY: Duration = Duration::from_secs(10);

/// How far work is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProgressStep {
    /// Bytes.
    pub done: u64,
    /// Bytes; 0 while it is not known.
    pub total: u64,
    /// What is being done, where that is more than the bytes tell.
    pub phase: String,
}

/// Runs work and shows how far it is; `verb` is what is done to the bytes, such as `restored`.
pub async fn show<T>(
    work: impl Future<Output = anyhow::Result<T>>,
    verb: &str,
    step: impl Fn() -> ProgressStep,
) -> anyhow::Result<T> {
    let terminal = std::io::stderr().is_terminal();
    let bar = ProgressBar::with_draw_target(Some(0), target(terminal)).with_style(bar_style());
    let begun = Instant::now();
    let mut every = tokio::time::interval(if terminal { DRAW_EVERY } else { LOG_EVERY });
    every.tick().await;
    tokio::pin!(work);
    let result = loop {
        tokio::select! {
            result = &mut work => break result,
            _ = every.tick() => {}
        }
        let step = step();
        if terminal {
            draw(&bar, step);
        } else {
            tracing::info!("{}", line(&step, verb, begun.elapsed()));
        }
    };
    bar.finish_and_clear();
    result
}

fn draw(bar: &ProgressBar, step: ProgressStep) {
    // More can be done than was estimated, such as what arrived meanwhile.
    bar.set_length(step.total.max(step.done));
    bar.set_position(step.done);
    bar.set_message(step.phase);
}

/// Shows work that itself tells how far it is, as long as some is left.
#[derive(Debug, Default)]
pub struct Bar(Mutex<Option<DrawnBar>>);

#[derive(Debug)]
struct DrawnBar {
    bar: ProgressBar,
    begun: Instant,
    /// Log lines written.
    lines: u32,
}

impl Bar {
    /// Shows a step; the last one takes the bar away. `verb` as of [`show`].
    pub fn show(&self, verb: &str, step: ProgressStep) {
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if step.done >= step.total {
            // Dropped, it clears itself.
            *shown = None;
            return;
        }
        let terminal = std::io::stderr().is_terminal();
        let DrawnBar { bar, begun, lines } = shown.get_or_insert_with(|| DrawnBar {
            bar: ProgressBar::with_draw_target(Some(0), target(terminal)).with_style(bar_style()),
            begun: Instant::now(),
            lines: 0,
        });
        if terminal {
            draw(bar, step);
        } else if begun.elapsed() >= LOG_EVERY * (*lines + 1) {
            *lines += 1;
            tracing::info!("{}", line(&step, verb, begun.elapsed()));
        }
    }
}

fn line(step: &ProgressStep, verb: &str, elapsed: Duration) -> String {
    let rate = step.done as f64 / elapsed.as_secs_f64();
    let left = step.total.saturating_sub(step.done) as f64 / rate.max(1.0);
    let (done, total, rate) = (
        BinaryBytes(step.done),
        BinaryBytes(step.total.max(step.done)),
        BinaryBytes(rate as u64),
    );
    let phase = if step.phase.is_empty() {
        String::new()
    } else {
        format!("; {}", step.phase)
    };
    format!("{done} of {total} {verb}, {rate}/s, {left:.0} s left{phase}")
}

/// Where a bar is drawn.
pub fn target(terminal: bool) -> ProgressDrawTarget {
    if terminal {
        ProgressDrawTarget::stderr_with_hz(5)
    } else {
        ProgressDrawTarget::hidden()
    }
}

fn bar_style() -> ProgressStyle {
    let template = "{bar:30} {percent:>3} %  {binary_bytes} of {binary_total_bytes}  {binary_bytes_per_sec}  {eta} left  {msg}";
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_says_how_far_how_fast_and_how_long() {
        let step = ProgressStep {
            done: 10 << 20,
            total: 30 << 20,
            phase: String::new(),
        };
        let second = Duration::from_secs(1);
        assert_eq!(
            line(&step, "restored", second),
            "10.00 MiB of 30.00 MiB restored, 10.00 MiB/s, 2 s left"
        );
        let step = ProgressStep {
            done: 40 << 20,
            phase: "reading back".into(),
            ..step
        };
        assert!(
            line(&step, "copied", second)
                .ends_with("40.00 MiB of 40.00 MiB copied, 40.00 MiB/s, 0 s left; reading back")
        );
    }
}
