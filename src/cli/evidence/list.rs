use std::collections::BTreeMap;

use anyhow::anyhow;
use serde::Serialize;

use super::super::{Context, Exit, Format, Table, print_json, print_text};
use super::{Chosen, exit_for, id};
use crate::error::with_hint;
use crate::evidence::chain::{Fault, heads};
use crate::evidence::record::{Head, Record, Scope};
use crate::health::moment;
use crate::plain::counted;

#[derive(Debug, clap::Args)]
pub struct ListArgs {
    #[command(flatten)]
    chosen: Chosen,
    /// Show at most N records, the newest.
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
}

#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    /// The record, as `walden evidence list` names it.
    #[arg(value_name = "WRITER/NUMBER")]
    id: String,
}

/// Lists records.
pub async fn list(context: &Context, args: &ListArgs) -> anyhow::Result<Exit> {
    let span = args.chosen.span()?;
    let chains = context.cluster().await?.journal().load().await?;
    let records = args.chosen.records(span, &chains);
    let newest: Vec<&Record> = records.iter().rev().take(args.limit).collect();
    if context.format == Format::Json {
        print_json(&newest)?;
        return Ok(Exit::Success);
    }
    let mut table = Table::new(&["RECORD", "ENDED", "ACT", "VERDICT", ">SECONDS", "OF WHAT"]);
    for record in &newest {
        let evidence = &record.evidence;
        let seconds = (evidence.ended - evidence.began).as_seconds_f64();
        table.row([
            id(record).to_string(),
            moment(evidence.ended),
            evidence.act.to_string(),
            evidence.verdict.to_string(),
            format!("{seconds:.1}"),
            evidence.subject.clone(),
        ]);
    }
    print_text(&match newest.is_empty() {
        true => "no records\n".into(),
        false => table.render(),
    })?;
    Ok(Exit::Success)
}

/// Shows one record.
pub async fn show(context: &Context, args: &ShowArgs) -> anyhow::Result<Exit> {
    let chains = context.cluster().await?.journal().load().await?;
    let readable = chains
        .values()
        .flatten()
        .filter_map(|found| found.record.as_ref().ok());
    let record = readable
        .into_iter()
        .find(|record| id(record).to_string() == args.id);
    let record = record.ok_or_else(|| {
        let error = anyhow!("there is no record \"{}\"", args.id);
        with_hint(error, "`walden evidence list` shows the records")
    })?;
    match context.format {
        Format::Json => print_json(record)?,
        Format::Table => print_text(&in_words(record))?,
    }
    Ok(Exit::Success)
}

fn in_words(record: &Record) -> String {
    let evidence = &record.evidence;
    let mut lines = vec![
        ("record", id(record).to_string()),
        ("act", evidence.act.to_string()),
        ("of what", evidence.subject.clone()),
        ("began", moment(evidence.began)),
        ("ended", moment(evidence.ended)),
        (
            "by",
            format!(
                "user {} on {}, Walden {}",
                record.who.user, record.who.host, record.walden
            ),
        ),
        ("verdict", evidence.verdict.to_string()),
    ];
    if !evidence.reason.is_empty() {
        lines.push(("reason", evidence.reason.clone()));
    }
    let phases = evidence.phases.iter();
    let phases: Vec<String> = phases
        .map(|phase| format!("{} {:.1} s", phase.name, phase.seconds))
        .collect();
    if !phases.is_empty() {
        lines.push(("phases", phases.join(", ")));
    }
    if evidence.scope == Some(Scope::Part) {
        lines.push(("scope", "a part only".into()));
    }
    for (writer, why) in &record.unread {
        lines.push(("unread", format!("the newest of {writer}: {why}")));
    }
    for check in &evidence.checks {
        let seen = match check.seen.is_empty() {
            true => String::new(),
            false => format!(": {}", check.seen),
        };
        lines.push(("check", format!("{} {}{seen}", check.name, check.verdict)));
    }
    let line =
        |(name, value): (&str, String)| format!("{name:<8} {}\n", crate::plain::plain(&value));
    let mut text: String = lines.into_iter().map(line).collect();
    if !evidence.details.is_null() {
        text += &format!(
            "details  {}\n",
            serde_json::to_string_pretty(&evidence.details).unwrap_or_default()
        );
    }
    text
}

#[derive(Debug, Serialize)]
struct VerifyOutput<'a> {
    records: u64,
    faults: &'a [Fault],
    /// The newest record of each writer: whoever keeps these elsewhere can tell later that the end was not changed either.
    heads: &'a BTreeMap<String, Head>,
}

/// Checks the chains.
pub async fn verify(context: &Context) -> anyhow::Result<Exit> {
    let (chains, faults) = context.cluster().await?.journal().verified().await?;
    let heads = heads(&chains);
    let records = chains.values().map(Vec::len).sum::<usize>() as u64;
    match context.format {
        Format::Json => print_json(&VerifyOutput {
            records,
            faults: &faults,
            heads: &heads,
        })?,
        Format::Table => print_text(&verified(records, &faults, &heads))?,
    }
    Ok(exit_for(&faults))
}

fn verified(records: u64, faults: &[Fault], heads: &BTreeMap<String, Head>) -> String {
    let line = |fault: &Fault| match fault.is_break() {
        true => format!("BROKEN: {fault}\n"),
        false => format!("UNREAD: {fault}\n"),
    };
    let mut text: String = faults.iter().map(line).collect();
    let breaks = faults.iter().filter(|fault| fault.is_break()).count() as u64;
    text += &match (breaks, faults.is_empty()) {
        (0, true) => format!(
            "{} of {}, none removed or changed\n",
            counted(records, "record"),
            counted(heads.len() as u64, "writer")
        ),
        (0, false) => format!(
            "{}: of those that can be read none was removed or changed\n",
            counted(records, "record")
        ),
        _ => format!(
            "{} in {}\n",
            counted(breaks, "break"),
            counted(records, "record")
        ),
    };
    for (writer, head) in heads {
        text += &format!("newest of {writer}: {} {}\n", head.number, head.digest);
    }
    text
}
