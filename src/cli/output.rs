//! What verbs print: tables for people, JSON for programs.

use std::io::{self, ErrorKind, Write};

use anyhow::Context;
use serde::Serialize;

use crate::plain::{plain, plain_lines};
use crate::postgres::catalog::Gap;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Table,
    Json,
}

/// Writes text to standard output; what is in it of data does nothing to a terminal. A reader that went away (`| head`) is
/// no error.
pub fn print_text(text: &str) -> anyhow::Result<()> {
    write(&plain_lines(text))
}

fn write(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

/// Writes one JSON document to standard output.
pub fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    write(&(serde_json::to_string_pretty(value)? + "\n"))
}

/// A size for people, such as `1.5 GiB`.
pub fn bytes(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// Columns under headings, as wide as their content needs.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
    /// Columns whose cells are aligned to the right: numbers.
    right: Vec<bool>,
}

impl Table {
    /// A table with these headings; a heading that begins with `>` is a column of numbers.
    pub fn new(headings: &[&str]) -> Self {
        let right = headings
            .iter()
            .map(|heading| heading.starts_with('>'))
            .collect();
        let row = headings
            .iter()
            .map(|heading| heading.trim_start_matches('>').to_string())
            .collect();
        Self {
            rows: vec![row],
            right,
        }
    }

    /// Adds a row of as many cells as there are headings.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(
            cells
                .into_iter()
                .map(|cell| plain(&cell).into_owned())
                .collect(),
        );
    }

    /// The text, a line a row.
    pub fn render(&self) -> String {
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.right.len()).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells =
                row.iter().zip(&widths).zip(&self.right).map(
                    |((cell, &width), &right)| match right {
                        true => format!("{cell:>width$}"),
                        false => format!("{cell:<width$}"),
                    },
                );
            text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

/// A line for each gap, and what to do.
pub fn gap_lines(what: &str, gaps: &[Gap]) -> String {
    let lines: String = gaps.iter().map(|gap| format!("{what}: {gap}\n")).collect();
    match gaps {
        [] => lines,
        _ => {
            lines
                + "HINT: look for missing WAL in the server's pg_wal and in other copies, and store it with `walden wal push`\n"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_one_line_whatever_is_in_it() {
        let mut table = Table::new(&["name"]);
        table.row(["a\nforged".into()]);
        assert_eq!(table.render(), "name\na\\nforged\n");
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["name", ">size"]);
        table.row(["a".into(), "1".into()]);
        table.row(["longer".into(), "100".into()]);
        assert_eq!(table.render(), "name    size\na          1\nlonger   100\n");
    }
}
