//! `walden evidence`: the records of what was done, and whether they are all there and as they were written.

mod configuration;
mod export;
mod keep;
mod list;
mod report;
mod verdict;

use chrono::{DateTime, Utc};
use clap::Subcommand;

use super::exit::wrong_usage;
use super::restore::target::moment;
use super::{Context, Exit, OwnFormat};
use crate::evidence::RecordId;
use crate::evidence::chain::{Chains, Fault};
use crate::evidence::record::{Act, Record};

pub use configuration::{tell_settings, who};
pub use keep::{Told, append, keep, recorded};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: EvidenceVerb,
}

#[derive(Debug, Subcommand)]
enum EvidenceVerb {
    /// List records, the newest first.
    List(list::ListArgs),
    /// Show one record.
    Show(list::ShowArgs),
    /// Check that no record was removed, changed or moved. Exit code 3 if one was, 1 if one cannot be read.
    Verify,
    /// Write a report: --format html is one page to print, csv a table, json everything.
    Export(export::Args),
}

/// What a report is written as; else it is JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportFormat {
    Csv,
    Html,
}

/// Which records.
#[derive(Debug, clap::Args)]
struct Chosen {
    /// Not before this moment; in the form of `walden restore --time`.
    #[arg(long, value_name = "T")]
    since: Option<String>,
    /// Not after this moment.
    #[arg(long, value_name = "T")]
    until: Option<String>,
    /// Only of this act: drill, restore, dump-restore, table-recovery, verification, deletion, configuration or trim. May be
    /// repeated.
    #[arg(long, value_name = "ACT", value_parser = act)]
    act: Vec<Act>,
}

fn act(text: &str) -> Result<Act, String> {
    Act::named(text).ok_or_else(|| "there is no such act".into())
}

/// The ends of a report; absent where nobody named one.
#[derive(Debug, Clone, Copy)]
struct Span {
    since: Option<DateTime<Utc>>,
    until: Option<DateTime<Utc>>,
}

impl Chosen {
    fn span(&self) -> anyhow::Result<Span> {
        let read = |text: &Option<String>| {
            let read = text.as_deref().map(|text| moment(text, Utc::now()));
            read.transpose().map_err(wrong_usage)
        };
        Ok(Span {
            since: read(&self.since)?,
            until: read(&self.until)?,
        })
    }

    /// All acts until then, however long ago: what still counts.
    fn all_until(until: DateTime<Utc>, chains: &Chains) -> Vec<Record> {
        let all = Self {
            since: None,
            until: None,
            act: Vec::new(),
        };
        let span = Span {
            since: None,
            until: Some(until),
        };
        all.records(span, chains)
    }

    /// The records that are meant, by when they ended.
    fn records(&self, span: Span, chains: &Chains) -> Vec<Record> {
        let readable = chains.values().flatten();
        let readable = readable.filter_map(|found| found.record.as_ref().ok());
        let is_meant = |record: &&Record| {
            let ended = record.evidence.ended;
            span.since.is_none_or(|since| ended >= since)
                && span.until.is_none_or(|until| ended <= until)
                && (self.act.is_empty() || self.act.contains(&record.evidence.act))
        };
        let mut records: Vec<Record> = readable.filter(is_meant).cloned().collect();
        records.sort_by_key(|record| record.evidence.ended);
        records
    }
}

fn id(record: &Record) -> RecordId {
    let (writer, number) = (record.writer.clone(), record.number);
    RecordId { writer, number }
}

/// Exit code 3 where a record was removed, changed or moved; 1 where one was not given.
fn exit_for(faults: &[Fault]) -> Exit {
    match faults {
        [] => Exit::Success,
        faults if faults.iter().any(Fault::is_break) => Exit::Unsound,
        _ => Exit::Failed,
    }
}

impl Args {
    /// Whether the verb writes a report.
    pub fn exports(&self) -> bool {
        matches!(self.verb, EvidenceVerb::Export(_))
    }
}

/// Runs the verb.
pub async fn run(context: &Context, args: &Args, own: OwnFormat) -> anyhow::Result<Exit> {
    let format = match own {
        OwnFormat::Report(format) => Some(format),
        _ => None,
    };
    match &args.verb {
        EvidenceVerb::List(args) => list::list(context, args).await,
        EvidenceVerb::Show(args) => list::show(context, args).await,
        EvidenceVerb::Verify => list::verify(context).await,
        EvidenceVerb::Export(args) => export::run(context, args, format).await,
    }
}
