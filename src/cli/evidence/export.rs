use std::path::Path;

use anyhow::{Context as _, anyhow};
use chrono::Utc;

use super::super::{Context, Exit, print_json, print_text};
use super::report::{Report, page};
use super::{Chosen, ReportFormat, exit_for, id};
use crate::error::{Hint, with_hint};
use crate::evidence::chain::heads;
use crate::evidence::controls::{self, Control};
use crate::evidence::record::Record;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    chosen: Chosen,
}

/// Writes a report to standard output. Exit code 3 if records were removed or changed.
pub async fn run(
    context: &Context,
    args: &Args,
    format: Option<ReportFormat>,
) -> anyhow::Result<Exit> {
    let (span, controls) = (
        args.chosen.span()?,
        controls_of(context.settings.evidence.controls.as_deref())?,
    );
    let cluster = context.cluster().await?;
    let (chains, faults) = cluster.journal().verified().await?;
    let records = args.chosen.records(span, &chains);
    let made_at = Utc::now();
    let until = span.until.unwrap_or(made_at);
    let first = || records.first().map(|record| record.evidence.ended);
    let report = Report {
        cluster: cluster.layout.cluster().to_string(),
        repository: cluster.repository.describe(),
        made_at,
        since: span.since.or_else(first).unwrap_or(until),
        until,
        controls: controls::standings(
            &controls,
            &records,
            &Chosen::all_until(until, &chains),
            until,
        ),
        faults,
        heads: heads(&chains),
        records,
    };
    match format {
        None => print_json(&report)?,
        Some(ReportFormat::Csv) => print_text(&csv(&report.records)?)?,
        Some(ReportFormat::Html) => print_text(&page(&report)?)?,
    }
    Ok(exit_for(&report.faults))
}

fn controls_of(file: Option<&Path>) -> anyhow::Result<Vec<Control>> {
    let text = match file {
        None => controls::DEFAULT.to_string(),
        Some(file) => std::fs::read_to_string(file)
            .with_context(|| format!("cannot read \"{}\"", file.display()))
            .hint(
                "name a changed copy of deploy/controls.toml in `evidence.controls`, or nothing",
            )?,
    };
    controls::parse(&text).map_err(|why| {
        let file = file.unwrap_or(Path::new("deploy/controls.toml")).display();
        let error = anyhow!("the controls in \"{file}\" cannot be understood: {why}");
        with_hint(error, "compare it with deploy/controls.toml")
    })
}

/// A line a record. What a spreadsheet would take for a formula is made text.
fn csv(records: &[Record]) -> anyhow::Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record([
        "record",
        "act",
        "subject",
        "began",
        "ended",
        "verdict",
        "reason",
        "rto_seconds",
        "rpo_seconds",
        "user",
        "host",
        "walden",
    ])?;
    for record in records {
        let evidence = &record.evidence;
        let seconds = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
        let cells = [
            id(record).to_string(),
            evidence.act.to_string(),
            evidence.subject.clone(),
            evidence.began.to_rfc3339(),
            evidence.ended.to_rfc3339(),
            evidence.verdict.to_string(),
            evidence.reason.clone(),
            seconds(evidence.rto_seconds),
            seconds(evidence.rpo_seconds),
            record.who.user.clone(),
            record.who.host.clone(),
            record.walden.clone(),
        ];
        writer.write_record(
            cells.map(|cell| match cell.starts_with(['=', '+', '-', '@']) {
                true => format!("'{cell}"),
                false => cell,
            }),
        )?;
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::record::Act;
    use crate::evidence::record::testing::{evidence, record};

    #[test]
    fn a_table_holds_any_text_and_no_formula() {
        let mut evidence = evidence(Act::Restore);
        evidence.subject = "=HYPERLINK(\"http://x\")".into();
        evidence.reason = "a, \"b\"\nc".into();
        let text = csv(&[record(evidence)]).unwrap();
        assert!(text.contains("\"'=HYPERLINK(\"\"http://x\"\")\""), "{text}");
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let row = reader.records().next().unwrap().unwrap();
        assert_eq!(row.get(6), Some("a, \"b\"\nc"));
    }

    #[test]
    fn controls_that_cannot_be_understood_are_told_with_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[[control]]\nid = 3\n").unwrap();
        let error = format!("{:#}", controls_of(Some(file.path())).unwrap_err());
        assert!(error.contains(file.path().to_str().unwrap()), "{error}");
        assert_eq!(controls_of(None).unwrap().len(), 4);
    }
}
