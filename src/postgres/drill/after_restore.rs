//! The checks of a drill, of a restored server that goes into use: nothing is written to it.

use std::path::Path;

use serde::Serialize;

use super::asserts::Asserts;
use super::checks::stopped_as_planned;
use super::database::Access;
use super::known::Known;
use super::look::Look;
use super::report::{DrillKind, DrillReport};
use super::verdict::{Ended, of_checks, of_error};
use crate::config::Settings;
use crate::evidence::record::{Check, Phase, Verdict};
use crate::postgres::catalog::RecoveryPlan;
use crate::postgres::replication::ConnInfo;
use crate::postgres::restore::start::Recovered;

/// How they ended.
#[derive(Debug, Serialize)]
pub struct Checked {
    pub verdict: Verdict,
    /// Why, unless they passed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    pub checks: Vec<Check>,
    #[serde(skip)]
    pub phases: Vec<Phase>,
}

/// Looks at a server that was restored by a plan and runs from `data`.
pub async fn check_restored(
    settings: &Settings,
    asserts: &Asserts,
    plan: &RecoveryPlan,
    recovered: &Recovered,
    data: &Path,
) -> Checked {
    let look = Look {
        settings,
        asserts,
        data,
        recovered,
        known: &Known::default(),
        access: Access::ReadOnly,
        moment: plan.moment(),
        database: None,
    };
    let mut report = DrillReport::begin(DrillKind::Physical);
    report.checks.push(stopped_as_planned(recovered));
    let user = ConnInfo::from_process(settings.postgresql.dsn.expose()).map(|info| info.user);
    let (verdict, reason) = match look.at_all(user.ok(), &mut report).await {
        Ok(()) => of_checks(&report.checks),
        // That it stopped elsewhere is known, whatever else could not be looked at.
        Err(Ended(stage, error)) => match of_checks(&report.checks) {
            failed @ (Verdict::Failed, _) => failed,
            _ => of_error(stage, &error),
        },
    };
    Checked {
        verdict,
        reason,
        checks: report.checks,
        phases: report.phases,
    }
}
