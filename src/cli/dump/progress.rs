use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{BinaryBytes, ProgressBar, ProgressStyle};

use super::super::progress::{LOG_EVERY, target};
use crate::plain::{counted, plain};
use crate::postgres::dump::progress::{DumpProgress, DumpStep};

/// How often the line is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(200);

/// Runs work and shows how far the dump is: a line on a terminal, log lines elsewhere.
pub async fn show<T>(work: impl Future<Output = T>, progress: &DumpProgress) -> T {
    let terminal = std::io::stderr().is_terminal();
    let bar = ProgressBar::with_draw_target(None, target(terminal))
        .with_style(ProgressStyle::default_spinner());
    let mut every = tokio::time::interval(if terminal { DRAW_EVERY } else { LOG_EVERY });
    every.tick().await;
    tokio::pin!(work);
    let result = loop {
        tokio::select! {
            result = &mut work => break result,
            _ = every.tick() => {}
        }
        let line = line(&progress.step());
        if terminal {
            bar.set_message(line);
            bar.tick();
        } else {
            tracing::info!("{line}");
        }
    };
    bar.finish_and_clear();
    result
}

fn line(step: &DumpStep) -> String {
    let tables = match step.tables {
        0 => String::new(),
        count => format!(", {}", counted(count, "table")),
    };
    format!(
        "{}{tables}; {}",
        BinaryBytes(step.bytes),
        plain(&step.doing)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_bytes_tables_and_what_is_done() {
        let step = DumpStep {
            bytes: 3 << 20,
            tables: 2,
            doing: "public.a\nb".into(),
        };
        assert_eq!(line(&step), "3.00 MiB, 2 tables; public.a\\nb");
    }
}
