//! Questions before something is replaced or dropped.

use std::io::{IsTerminal, Write};

use anyhow::{Context as _, anyhow};

use crate::error::with_hint;
use crate::plain::plain;

/// Asks on a terminal; `None`: there is none.
pub fn answer(question: &str) -> anyhow::Result<Option<String>> {
    if !std::io::stdin().is_terminal() {
        return Ok(None);
    }
    let mut terminal = std::io::stderr();
    write!(terminal, "{} ", plain(question))?;
    terminal.flush()?;
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .context("cannot read the answer")?;
    Ok(Some(answer.trim_end_matches(['\n', '\r']).to_string()))
}

/// Whether a database of a cluster in production may be restored to: its name must be given, by `--yes-restore` or by hand.
pub fn production(cluster: &str, database: &str, given: Option<&str>) -> anyhow::Result<()> {
    let asked = format!(
        "Cluster \"{cluster}\" is in production. Type the name of the database to restore (\"{database}\"):"
    );
    let (answer, from) = match given {
        Some(given) => (given.to_string(), "--yes-restore"),
        None => (answer(&asked)?.unwrap_or_default(), "the answer"),
    };
    if answer == database {
        return Ok(());
    }
    let error = match answer.is_empty() {
        true => anyhow!(
            "cluster \"{cluster}\" is in production: restoring \"{database}\" needs its name once more"
        ),
        false => anyhow!(
            "cluster \"{cluster}\" is in production, and {from} \"{answer}\" is not \"{database}\""
        ),
    };
    Err(with_hint(
        error,
        format!("add --yes-restore {}", crate::plain::shell_quoted(database)),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn production_takes_the_very_name_alone() {
        assert!(production("main", "shop", Some("shop")).is_ok());
        for wrong in ["", "Shop", "shop ", "main"] {
            assert!(production("main", "shop", Some(wrong)).is_err(), "{wrong}");
        }
    }
}
