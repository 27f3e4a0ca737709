use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

use super::super::progress::{LOG_EVERY, target};
use crate::plain::counted;
use crate::postgres::restore::server_log::ServerLog;

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
        let bar = ProgressBar::with_draw_target(None, target(terminal))
            .with_style(ProgressStyle::default_spinner());
        Self {
            bar,
            terminal,
            begun: Instant::now(),
            lines: AtomicU64::new(0),
        }
    }

    /// Shows what the server's log tells.
    pub fn show(&self, log: &ServerLog) {
        let message = || format!("replaying: {} fetched", counted(log.fetched, "WAL file"));
        if self.terminal {
            self.bar.set_message(message());
            self.bar.tick();
        } else if self.begun.elapsed()
            >= LOG_EVERY * (self.lines.load(Ordering::Relaxed) as u32 + 1)
        {
            self.lines.fetch_add(1, Ordering::Relaxed);
            tracing::info!("{}", message());
        }
    }

    /// Takes the bar away.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}
