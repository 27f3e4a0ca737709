use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{BinaryBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::postgres::backup::BackupStep;

/// How often a log line tells how far a backup is.
const LOG_EVERY: Duration = Duration::from_secs(10);
/// How often the bar is drawn, a second.
const DRAW_RATE: u8 = 5;

/// Shows how far a backup is: a bar on a terminal, log lines elsewhere.
pub struct BackupProgress {
    bar: ProgressBar,
    log: Option<Mutex<ProgressLog>>,
}

struct ProgressLog {
    begun: Instant,
    last: Instant,
    phase: Option<std::mem::Discriminant<BackupStep>>,
}

impl BackupProgress {
    pub fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = match terminal {
            true => ProgressDrawTarget::stderr_with_hz(DRAW_RATE),
            false => ProgressDrawTarget::hidden(),
        };
        let now = Instant::now();
        let log = (!terminal).then(|| {
            Mutex::new(ProgressLog {
                begun: now,
                last: now,
                phase: None,
            })
        });
        Self {
            bar: ProgressBar::with_draw_target(None, target)
                .with_style(ProgressStyle::default_spinner()),
            log,
        }
    }

    /// Moves the bar, or prints a line where there is no terminal.
    pub fn show(&self, event: BackupStep) {
        match &self.log {
            Some(log) => log
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .show(event),
            None => self.draw(event),
        }
    }

    /// Takes the bar away.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }

    fn draw(&self, event: BackupStep) {
        match event {
            BackupStep::Checkpoint => self.bar.set_message("waiting for the server's checkpoint"),
            BackupStep::Streaming { done, total } => {
                if let Some(total) =
                    total.filter(|total| self.bar.length() != Some((*total).max(done)))
                {
                    // The server's estimate does not count the padding of the archives.
                    self.bar.set_length(total.max(done));
                    self.bar.set_style(bar_style());
                    self.bar.set_message("");
                }
                self.bar.set_position(done);
            }
            BackupStep::WaitingForWal { missing } => {
                self.bar.set_style(ProgressStyle::default_spinner());
                self.bar
                    .set_message(format!("waiting for the WAL file {missing} to be archived"));
                self.bar.tick();
            }
        }
    }
}

fn bar_style() -> ProgressStyle {
    let template = "{bar:30} {percent:>3} %  {binary_bytes} of {binary_total_bytes}  {binary_bytes_per_sec}  {eta} left";
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl ProgressLog {
    /// The first event of a phase is told at once, but for the transfer, which begins with nothing done.
    fn show(&mut self, event: BackupStep) {
        let phase = std::mem::discriminant(&event);
        let new = self.phase != Some(phase);
        if new && matches!(event, BackupStep::Streaming { .. }) {
            (self.begun, self.last) = (Instant::now(), Instant::now());
        }
        self.phase = Some(phase);
        if (!new || matches!(event, BackupStep::Streaming { .. }))
            && self.last.elapsed() < LOG_EVERY
        {
            return;
        }
        self.last = Instant::now();
        match event {
            BackupStep::Checkpoint => tracing::info!("waiting for the server's checkpoint"),
            BackupStep::WaitingForWal { missing } => {
                tracing::info!("waiting for the WAL file {missing} to be archived")
            }
            BackupStep::Streaming { done, total } => {
                let rate = done as f64 / self.begun.elapsed().as_secs_f64();
                let of = total
                    .map(|total| format!(" of {}", BinaryBytes(total)))
                    .unwrap_or_default();
                let left = total.map(|total| total.saturating_sub(done) as f64 / rate.max(1.0));
                let left = left
                    .map(|left| format!(", {left:.0} s left"))
                    .unwrap_or_default();
                tracing::info!(
                    "{}{of} transferred, {}/s{left}",
                    BinaryBytes(done),
                    BinaryBytes(rate as u64)
                );
            }
        }
    }
}
