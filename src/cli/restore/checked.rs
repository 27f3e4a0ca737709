//! `--check`: the started server is looked at as a drill looks.

use anyhow::anyhow;

use super::super::checks::{lines, open};
use super::super::evidence::Told;
use super::super::exit::wrong_usage;
use super::super::repo::asked_to_end;
use super::super::{Context, Exit};
use crate::error::{one_line, with_hint};
use crate::evidence::record::Verdict;
use crate::postgres::drill::{Asserts, Checked, check_restored};
use crate::postgres::restore::job::RestoreJob;
use crate::postgres::restore::start::Recovered;
use crate::postgres::restore::target_action::TargetAction;

/// Errors: what is asked for would leave no server to look at.
pub fn refuse_shutdown(action: TargetAction) -> anyhow::Result<()> {
    if action != TargetAction::Shutdown {
        return Ok(());
    }
    let error = anyhow!("--check needs a server that runs: it shuts down at the target");
    Err(wrong_usage(with_hint(
        error,
        "use --target-action pause or promote",
    )))
}

/// Looks, and tells the record. The server runs on, whatever is found.
pub async fn look(
    context: &Context,
    asserts: &Asserts,
    job: &RestoreJob<'_>,
    recovered: &Recovered,
    told: &mut Told,
) -> anyhow::Result<Checked> {
    let data = job.data_directory()?;
    let looking = check_restored(&context.settings, asserts, &job.plan, recovered, data);
    let checked = tokio::select! {
        checked = looking => checked,
        asked = asked_to_end() => Checked {
            verdict: Verdict::CouldNotRun,
            reason: asked.err().map_or("interrupted".into(), |error| one_line(&error)),
            checks: Vec::new(),
            phases: Vec::new(),
        },
    };
    told.phases.extend(checked.phases.iter().cloned());
    told.checks.clone_from(&checked.checks);
    told.reason.clone_from(&checked.reason);
    // A restore that nobody could look at did not fail, and is not proven.
    told.verdict = Some(checked.verdict).filter(|verdict| *verdict == Verdict::CouldNotRun);
    Ok(checked)
}

/// How the command ends.
pub fn exit(recovered: Option<&Recovered>, checked: Option<&Checked>) -> Exit {
    if recovered.is_some_and(|recovered| !recovered.doubts.is_empty()) {
        return Exit::Unsound;
    }
    match checked.map(|checked| checked.verdict) {
        None | Some(Verdict::Passed) => Exit::Success,
        Some(Verdict::Failed) => Exit::Unsound,
        Some(Verdict::CouldNotRun) => Exit::Failed,
    }
}

/// All checks, for people.
pub fn in_words(checked: &Checked) -> String {
    let Checked {
        verdict,
        reason,
        checks,
        ..
    } = checked;
    let reason = match reason.as_str() {
        "" => String::new(),
        reason => format!("REASON: {reason}\n"),
    };
    format!(
        "checks {verdict}{}\n{reason}{}",
        open(checks),
        lines(checks)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::record::Check;

    fn checked(verdict: Verdict, reason: &str) -> Checked {
        let check = |name: &str, verdict| Check {
            name: name.into(),
            verdict,
            seen: String::new(),
        };
        Checked {
            verdict,
            reason: reason.into(),
            checks: vec![
                check("orders", verdict),
                check("tables", Verdict::CouldNotRun),
            ],
            phases: Vec::new(),
        }
    }

    #[test]
    fn a_check_that_failed_ends_as_a_server_that_missed_its_target() {
        for (verdict, expected) in [
            (Verdict::Passed, Exit::Success),
            (Verdict::Failed, Exit::Unsound),
            (Verdict::CouldNotRun, Exit::Failed),
        ] {
            assert_eq!(exit(None, Some(&checked(verdict, ""))), expected);
        }
        assert_eq!(exit(None, None), Exit::Success);
        assert_eq!(
            in_words(&checked(Verdict::Failed, "orders: 7")),
            "checks failed (1 check could not run)\nREASON: orders: 7\n  failed        orders\n  could not run tables\n"
        );
    }
}
