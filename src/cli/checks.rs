//! Checks of restored servers: one's own from their file, and how all of them ended, in words.

use anyhow::{Context as _, anyhow};

use super::Context;
use crate::error::{Hint, with_hint};
use crate::evidence::record::{Check, Verdict};
use crate::plain::counted;
use crate::postgres::drill::{Asserts, parse_asserts};

/// One's own checks, as `drill.asserts` names them.
pub fn asserts(context: &Context) -> anyhow::Result<Asserts> {
    let Some(file) = &context.settings.drill.asserts else {
        return Ok(Asserts::default());
    };
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read \"{}\"", file.display()))
        .hint(
            "name a file with [[assert]], [[http]] and [[table]] in `drill.asserts`, or nothing",
        )?;
    parse_asserts(&text).map_err(|why| {
        let error = anyhow!(
            "the checks in \"{}\" cannot be understood: {why}",
            file.display()
        );
        with_hint(error, "see docs/operations/drill.md for the form")
    })
}

/// How many could not run, for behind a verdict.
pub fn open(checks: &[Check]) -> String {
    let open = checks.iter();
    let open = open.filter(|check| check.verdict == Verdict::CouldNotRun);
    match open.count() as u64 {
        0 => String::new(),
        count => format!(" ({} could not run)", counted(count, "check")),
    }
}

/// A line for each.
pub fn lines(checks: &[Check]) -> String {
    let line = |check: &Check| {
        let seen = match check.seen.as_str() {
            "" => String::new(),
            seen => format!(": {seen}"),
        };
        format!("  {:<13} {}{seen}\n", check.verdict.to_string(), check.name)
    };
    checks.iter().map(line).collect()
}
