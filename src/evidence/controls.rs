//! Which records prove which control of an audit. Pure.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::record::{Act, Evidence, Record, Scope, Verdict};
use crate::error::toml_problem;

/// What is taken unless a file says otherwise.
pub const DEFAULT: &str = include_str!("../../deploy/controls.toml");

/// A control of an audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Control {
    pub id: String,
    pub title: String,
    pub asks: String,
    pub acts: Vec<Act>,
    /// What was about a part only, such as a sample, does not count as passed.
    #[serde(default)]
    pub whole: bool,
    /// So long before the end of a report one of the acts must have passed.
    pub days: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    control: Vec<Control>,
}

/// Controls from the text of a file. Errors: why it cannot be understood, with the line.
pub fn parse(text: &str) -> Result<Vec<Control>, String> {
    let file: File = toml::from_str(text).map_err(|error| toml_problem(text, &error))?;
    match file
        .control
        .iter()
        .find(|control| control.acts.contains(&Act::Other))
    {
        Some(control) => Err(format!(
            "control \"{}\" names an act that is not known",
            control.id
        )),
        None => Ok(file.control),
    }
}

impl Control {
    /// Whether an act is of those that prove it. What failed in a part failed.
    fn counts(&self, evidence: &Evidence) -> bool {
        let is_part = evidence.scope.is_some_and(|scope| scope != Scope::Whole);
        let is_enough = !self.whole || !is_part || evidence.verdict == Verdict::Failed;
        self.acts.contains(&evidence.act) && is_enough
    }
}

/// How a control stands at the end of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ControlStanding {
    #[serde(flatten)]
    pub control: Control,
    pub passed: u64,
    pub failed: u64,
    pub could_not_run: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_passed: Option<DateTime<Utc>>,
    pub is_met: bool,
}

/// How each control stands at the `end` of a report: counts by the records of the report, the rest by `all` until then.
pub fn standings(
    controls: &[Control],
    records: &[Record],
    all: &[Record],
    end: DateTime<Utc>,
) -> Vec<ControlStanding> {
    let standing = |control: &Control| {
        let mut counts = [0; 3];
        let of_report = records.iter().map(|record| &record.evidence);
        for evidence in of_report.filter(|evidence| control.counts(evidence)) {
            counts[evidence.verdict as usize] += 1;
        }
        let [passed, failed, could_not_run] = counts;
        let passes = all
            .iter()
            .map(|record| &record.evidence)
            .filter(|evidence| evidence.verdict == Verdict::Passed && control.counts(evidence));
        let last_passed = passes.map(|evidence| evidence.ended).max();
        let since = end - TimeDelta::days(control.days.into());
        ControlStanding {
            control: control.clone(),
            passed,
            failed,
            could_not_run,
            last_passed,
            is_met: last_passed.is_some_and(|last| last >= since),
        }
    };
    controls.iter().map(standing).collect()
}

#[cfg(test)]
mod tests {
    use super::super::record::testing::{evidence, record};
    use super::*;

    fn day(day: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::days(day)
    }

    #[test]
    fn the_shipped_file_is_understood_and_a_wrong_act_is_named() {
        assert_eq!(parse(DEFAULT).unwrap().len(), 4);
        let wrong = DEFAULT.replacen("\"drill\"", "\"dril\"", 1);
        assert!(parse(&wrong).unwrap_err().contains("SOC 2 CC9.1"));
        assert!(parse("[[control]]\nid = 1").is_err());
    }

    #[test]
    fn a_control_is_met_by_an_act_that_passed_lately_and_never_by_one_that_could_not_run() {
        let controls = parse(DEFAULT).unwrap();
        let drill = |at, verdict| {
            let mut evidence = evidence(Act::Drill);
            (evidence.ended, evidence.verdict) = (day(at), verdict);
            record(evidence)
        };
        let met_in = |report: &[Record], records: &[Record], end| {
            let all = standings(&controls, report, records, day(end));
            all.into_iter()
                .find(|one| one.control.id.starts_with("HIPAA"))
                .unwrap()
        };
        let met = |records: &[Record], end| met_in(records, records, end);
        let records = [
            drill(1, Verdict::Passed),
            drill(80, Verdict::Failed),
            drill(99, Verdict::CouldNotRun),
        ];
        let standing = met(&records, 93);
        assert!(standing.is_met);
        assert_eq!(
            (standing.passed, standing.failed, standing.could_not_run),
            (1, 1, 1)
        );
        assert!(!met(&records, 94).is_met);
        assert!(!met(&[], 1).is_met);
        let lately = met_in(&records[1..], &records, 93);
        assert_eq!((lately.is_met, lately.passed), (true, 0));
    }

    #[test]
    fn a_part_that_passed_counts_only_where_a_control_does_not_ask_for_the_whole() {
        let record = |scope, verdict| {
            let mut evidence = evidence(Act::Verification);
            (evidence.scope, evidence.verdict, evidence.ended) = (scope, verdict, day(1));
            record(evidence)
        };
        let stands = |whole, record: Record| {
            let mut controls = parse(DEFAULT).unwrap();
            controls.retain(|control| control.acts.contains(&Act::Verification));
            controls[0].whole = whole;
            let records = [record];
            let one = standings(&controls, &records, &records, day(2)).remove(0);
            (one.is_met, one.passed, one.failed)
        };
        let (passed, failed) = (Verdict::Passed, Verdict::Failed);
        let part = Some(Scope::Part);
        assert_eq!(
            stands(true, record(Some(Scope::Whole), passed)),
            (true, 1, 0)
        );
        assert_eq!(stands(true, record(None, passed)), (true, 1, 0));
        assert_eq!(stands(true, record(part, passed)), (false, 0, 0));
        assert_eq!(stands(true, record(part, failed)), (false, 0, 1));
        assert_eq!(stands(false, record(part, passed)), (true, 1, 0));
    }
}
