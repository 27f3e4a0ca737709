//! Verdicts as text: the first line is what monitoring systems show.

use serde::Serialize;

use crate::postgres::check::{CheckStatus, Verdict};

/// Wider lines are hard to read.
const WIDEST: usize = 120;
/// Narrower terminals get lines as long as they come out.
const NARROWEST: usize = 50;
/// Between columns.
const GAP: usize = 2;

/// For `--format json`.
#[derive(Debug, Serialize)]
pub struct CheckOutput<'a> {
    status: CheckStatus,
    /// The first line of the table.
    summary: String,
    checks: &'a [Verdict],
}

impl<'a> CheckOutput<'a> {
    pub fn new(status: CheckStatus, checks: &'a [Verdict]) -> Self {
        Self {
            status,
            summary: summary(status, checks),
            checks,
        }
    }
}

/// The columns a terminal on standard output has; `None`: lines are not broken.
pub fn width_of_terminal() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(usize::from(size.ws_col).min(WIDEST)).filter(|width| *width >= NARROWEST)
}

/// The summary, then a line for each check with its hint below.
pub fn text(status: CheckStatus, verdicts: &[Verdict], width: Option<usize>) -> String {
    let mut text = wrapped(&summary(status, verdicts), "", "  ", width) + "\n";
    let longest = |of: fn(&Verdict) -> usize| verdicts.iter().map(of).max().unwrap_or(0);
    let first = longest(|verdict| word(verdict.status).len());
    let second = longest(|verdict| verdict.check.name().len());
    for verdict in verdicts {
        let lead = format!(
            "{:first$}{:GAP$}{:second$}{:GAP$}",
            word(verdict.status),
            "",
            verdict.check.name(),
            ""
        );
        let indent = " ".repeat(lead.len());
        text += &wrapped(&verdict.message, &lead, &indent, width);
        if let Some(hint) = &verdict.hint {
            text += &wrapped(&format!("HINT: {hint}"), &indent, &indent, width);
        }
    }
    text
}

/// Such as `WALDEN OK - 18 checks passed, 1 skipped`.
fn summary(status: CheckStatus, verdicts: &[Verdict]) -> String {
    let count = |status| {
        verdicts
            .iter()
            .filter(|verdict| verdict.status == status)
            .count()
    };
    let skipped = match count(CheckStatus::Skipped) {
        0 => String::new(),
        skipped => format!(", {skipped} skipped"),
    };
    let name = word(status).to_uppercase();
    let passed = count(CheckStatus::Ok);
    let Some(worst) = verdicts
        .iter()
        .find(|verdict| verdict.status == status && status > CheckStatus::Ok)
    else {
        return format!(
            "WALDEN {name} - {passed} {} passed{skipped}",
            if passed == 1 { "check" } else { "checks" }
        );
    };
    let others = [
        (CheckStatus::Critical, "critical"),
        (CheckStatus::Unknown, "unknown"),
        (CheckStatus::Warning, "warning"),
    ]
    .map(|(other, word)| (count(other) - usize::from(other == status), word));
    let others: String = others
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} more {word}, "))
        .collect();
    // Behind a "|" monitoring systems expect numbers.
    let message = worst.message.replace('|', "/");
    format!(
        "WALDEN {name} - {}: {message} ({others}{passed} passed{skipped})",
        worst.check.name()
    )
}

/// What is well stands back.
fn word(status: CheckStatus) -> &'static str {
    match status {
        CheckStatus::Skipped => "skipped",
        CheckStatus::Ok => "ok",
        CheckStatus::Warning => "WARNING",
        CheckStatus::Unknown => "UNKNOWN",
        CheckStatus::Critical => "CRITICAL",
    }
}

/// `text` behind `first`, broken between words at `width`; further lines behind `next`.
fn wrapped(text: &str, first: &str, next: &str, width: Option<usize>) -> String {
    let mut lines = String::from(first);
    let mut used = first.chars().count();
    let mut fresh = true;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if !fresh && width.is_some_and(|width| used + 1 + length > width) {
            lines += "\n";
            lines += next;
            (used, fresh) = (next.chars().count(), true);
        }
        if !fresh {
            lines.push(' ');
            used += 1;
        }
        lines += word;
        used += length;
        fresh = false;
    }
    lines + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::check::Check;

    fn verdict(check: Check, status: CheckStatus, message: &str, hint: Option<&str>) -> Verdict {
        Verdict {
            check,
            status,
            message: message.into(),
            hint: hint.map(str::to_string),
            because: None,
        }
    }

    fn mixed() -> Vec<Verdict> {
        vec![
            verdict(
                Check::Repository,
                CheckStatus::Ok,
                "file:///srv/walden, format 1",
                None,
            ),
            verdict(
                Check::ArchiveCommand,
                CheckStatus::Warning,
                "is \"a | b\"",
                Some("set it"),
            ),
            verdict(Check::EndToEnd, CheckStatus::Skipped, "left out", None),
        ]
    }

    #[test]
    fn the_first_line_is_what_nagios_shows() {
        let one = &mixed()[..1];
        assert_eq!(summary(CheckStatus::Ok, one), "WALDEN OK - 1 check passed");
        let all = mixed();
        assert_eq!(
            summary(CheckStatus::Warning, &all),
            "WALDEN WARNING - archive-command: is \"a / b\" (1 passed, 1 skipped)"
        );
        let mut worse = mixed();
        worse.push(verdict(Check::Server, CheckStatus::Critical, "down", None));
        worse.push(verdict(Check::Hook, CheckStatus::Unknown, "because", None));
        assert_eq!(
            summary(CheckStatus::Critical, &worse),
            "WALDEN CRITICAL - server: down (1 more unknown, 1 more warning, 1 passed, 1 skipped)"
        );
        assert_eq!(
            summary(CheckStatus::Ok, &all[2..]),
            "WALDEN OK - 0 checks passed, 1 skipped"
        );
    }

    #[test]
    fn columns_line_up_and_hints_stand_below() {
        let expected = "WALDEN WARNING - archive-command: is \"a / b\" (1 passed, 1 skipped)\n\n\
            ok       repository       file:///srv/walden, format 1\n\
            WARNING  archive-command  is \"a | b\"\n                          HINT: set it\n\
            skipped  end-to-end       left out\n";
        assert_eq!(text(CheckStatus::Warning, &mixed(), None), expected);
    }

    #[test]
    fn long_lines_are_broken_between_words_and_stay_in_their_column() {
        assert_eq!(
            wrapped("one two three four", "a: ", "   ", Some(10)),
            "a: one two\n   three\n   four\n"
        );
        assert_eq!(
            wrapped("unbreakable-word x", "a: ", "   ", Some(10)),
            "a: unbreakable-word\n   x\n"
        );
        assert_eq!(wrapped("one two", "a: ", "", None), "a: one two\n");
    }
}
