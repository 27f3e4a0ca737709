//! What the documents say of commands, options and settings is true: each parses. `tests/documents` follows them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use super::Cli;
use crate::config;

/// Options of the two hooks, which have no clap, and of other programs.
const OTHER_OPTIONS: [&str; 11] = [
    "--socket",
    "--list",
    "--analyze-in-stages",
    "--end",
    "--url",
    "--cluster",
    "--token-file",
    "--test",
    "--bench",
    "--long",
    "--describe-config",
];

/// A fenced block.
struct Block {
    document: String,
    /// What stands behind the fence: how the block is followed.
    how: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files with one of these endings below a folder.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> = entries
        .flat_map(|path| {
            if path.is_dir() {
                files(&path, ending)
            } else {
                vec![path]
            }
        })
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == ending)
        })
        .collect();
    found.sort();
    found
}

/// Name and text of README.md and everything in docs/.
fn documents() -> Vec<(String, String)> {
    let paths = files(&root().join("docs"), "md")
        .into_iter()
        .chain([root().join("README.md")]);
    let named = |path: PathBuf| {
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        (name, fs::read_to_string(path).unwrap())
    };
    paths.map(named).collect()
}

fn blocks() -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    for (document, text) in documents() {
        for (number, part) in text
            .split("\n```")
            .enumerate()
            .filter(|(number, _)| number % 2 == 1)
        {
            let (how, text) = part
                .split_once('\n')
                .unwrap_or_else(|| panic!("{document}: block {number} is empty"));
            found.push(Block {
                document: document.clone(),
                how: how.trim().into(),
                text: text.into(),
            });
        }
    }
    found
}

/// The pieces of code between single backticks.
fn spans(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().filter(|line| !line.starts_with("```"));
    lines.flat_map(|line| {
        line.split('`')
            .enumerate()
            .filter(|(number, _)| number % 2 == 1)
            .map(|(_, span)| span)
    })
}

/// Words as a shell splits them, without its comment; what may be left out, in brackets, is left out.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for letter in line.chars().chain([' ']) {
        match (letter, quote) {
            ('\'' | '"', None) => quote = Some(letter),
            (letter, Some(open)) if letter == open => quote = None,
            ('#', None) if word.is_empty() => break,
            (' ', None) if !word.is_empty() => words.push(std::mem::take(&mut word)),
            (' ', None) => (),
            _ => word.push(letter),
        }
    }
    words.retain(|word| {
        !(word.starts_with('[') && word.ends_with(']') || word == "…" || word == "...")
    });
    words
}

/// Why a command line is none, if so. A mention may leave out arguments, and have a word in capitals for a value.
fn refusal(line: &str, is_mention: bool) -> Option<String> {
    let words = words(line);
    let stands_in = words
        .iter()
        .any(|word| word.len() < 24 && word.chars().all(|letter| !letter.is_lowercase()));
    let error = Cli::try_parse_from(&words).err()?;
    let is_fine = match error.kind() {
        ErrorKind::DisplayVersion | ErrorKind::DisplayHelp => true,
        ErrorKind::MissingSubcommand | ErrorKind::MissingRequiredArgument => is_mention,
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => is_mention,
        ErrorKind::ValueValidation => stands_in,
        ErrorKind::InvalidValue => stands_in || is_mention,
        _ => false,
    };
    (!is_fine).then(|| format!("`{line}`: {error}"))
}

/// A word in capitals in place of each value that a message or a document leaves open.
fn with_values(line: &str, open: char, close: char) -> String {
    let parts: Vec<&str> = line
        .split(open)
        .map(|part| part.split_once(close).map_or(part, |(_, rest)| rest))
        .collect();
    parts.join("X")
}

#[test]
fn every_command_line_of_the_documents_parses() {
    let mut refused = Vec::new();
    let mut count = 0;
    for block in blocks().iter() {
        for line in block.text.lines() {
            for (at, _) in line.match_indices("walden ") {
                // Behind other words it is prose of a comment or an output.
                let before = &line[..at];
                if before.is_empty() || before.ends_with("bin/") || before.ends_with("$ ") {
                    count += 1;
                    refused.extend(
                        refusal(&line[at..], false).map(|why| format!("{}: {why}", block.document)),
                    );
                }
            }
        }
    }
    assert!(count > 20, "only {count} command lines");
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

#[test]
fn every_command_that_documents_and_messages_name_exists() {
    let mut texts = documents();
    for path in ["src", "archive-command/src", "restore-command/src"]
        .iter()
        .flat_map(|at| files(&root().join(at), "rs"))
    {
        let text = fs::read_to_string(&path).unwrap();
        let strings: Vec<&str> = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .collect();
        texts.push((
            path.display().to_string(),
            strings.join("\n").replace("\\\n", "").replace("\\\"", "\""),
        ));
    }
    let mut count = 0;
    let mut refused = Vec::new();
    for (name, text) in &texts {
        for span in spans(text).filter(|span| span.starts_with("walden ")) {
            count += 1;
            let line = with_values(&with_values(span, '{', '}'), '<', '>');
            refused.extend(refusal(&line, true).map(|why| format!("{name}: {why}")));
        }
    }
    assert!(count > 50, "only {count} commands");
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

#[test]
fn every_option_that_the_documents_name_exists() {
    fn collect(command: &clap::Command, known: &mut BTreeSet<String>) {
        known.extend(
            command
                .get_arguments()
                .filter_map(|argument| Some(format!("--{}", argument.get_long()?))),
        );
        command
            .get_subcommands()
            .for_each(|command| collect(command, known));
    }
    let mut known: BTreeSet<String> = OTHER_OPTIONS.map(str::to_string).into();
    collect(&Cli::command(), &mut known);
    known.extend(["--version", "--help"].map(str::to_string));
    for (name, text) in documents() {
        for word in spans(&text)
            .flat_map(|span| span.split(' '))
            .filter(|word| word.starts_with("--"))
        {
            let option = word.split('=').next().unwrap();
            assert!(
                known.contains(option),
                "{name}: there is no option {option}"
            );
        }
    }
}

#[test]
fn every_setting_that_the_documents_name_exists() {
    let sections: BTreeSet<&str> = config::KEYS.iter().map(|key| key.section).collect();
    let others = [".rs", ".json", ".conf", ".status", ".problems"];
    for (name, text) in documents() {
        for span in spans(&text).filter(|span| {
            span.chars()
                .all(|l| l.is_ascii_lowercase() || "._0123456789".contains(l))
        }) {
            let is_setting = span
                .split_once('.')
                .is_some_and(|(section, _)| sections.contains(section));
            if is_setting && !others.iter().any(|ending| span.ends_with(ending)) {
                assert!(
                    config::KEYS.iter().any(|key| key.path() == span),
                    "{name}: there is no setting {span}"
                );
            }
        }
    }
}

#[test]
fn every_configuration_in_the_documents_is_one() {
    let mut count = 0;
    for block in blocks().iter().filter(|block| block.how == "toml") {
        // A line that is switched off must be one, too.
        let lines = block.text.lines().map(|line| {
            line.strip_prefix('#')
                .filter(|rest| rest.contains(" = "))
                .unwrap_or(line)
        });
        let text = lines.collect::<Vec<_>>().join("\n");
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), &text).unwrap();
        let url =
            (!text.contains("url = ")).then_some(("WALDEN_REPOSITORY__URL", "file:///srv/walden"));
        if let Err(error) = config::load(Some(file.path()), url) {
            panic!("{}: {error:#}\n{text}", block.document);
        }
        count += 1;
    }
    assert!(count >= 3);
    for block in blocks()
        .iter()
        .filter(|block| block.how == "json" && block.document.starts_with("docs/operations"))
    {
        serde_json::from_str::<serde_json::Value>(&block.text)
            .unwrap_or_else(|error| panic!("{}: {error}", block.document));
    }
}

#[test]
fn what_the_documents_show_is_followed_but_for_what_needs_other_programs() {
    let of_operators = |block: &Block| {
        block.document == "README.md" || block.document.starts_with("docs/operations")
    };
    let blocks: Vec<Block> = blocks().into_iter().filter(of_operators).collect();
    assert!(
        blocks.iter().all(|block| !block.how.is_empty()),
        "a block says how it is followed"
    );
    let left_out: Vec<(&str, &str)> = blocks
        .iter()
        .filter_map(|block| {
            Some((
                block.document.as_str(),
                block.how.split_once("not-run: ")?.1,
            ))
        })
        .collect();
    let expected = [
        ("docs/operations/check.md", "needs NRPE"),
        ("docs/operations/check.md", "needs systemd"),
        ("docs/operations/drill.md", "needs a database of that name"),
        ("docs/operations/dumps.md", "shows the way by hand"),
        ("docs/operations/monitoring.md", "needs Prometheus"),
        ("docs/operations/monitoring.md", "needs Prometheus"),
        ("docs/operations/retention.md", "needs an archive"),
        ("docs/operations/retention.md", "needs an archive"),
        ("README.md", "installs packages and builds"),
    ];
    assert_eq!(left_out, expected);
}
