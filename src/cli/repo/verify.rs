use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::anyhow;

use super::super::evidence::{Told, recorded};
use super::super::progress::{ProgressStep, show};
use super::super::{Context, Exit, Format, bytes, gap_lines, print_json, print_text};
use super::asked_to_end;
use crate::error::with_hint;
use crate::evidence::record::{Act, Scope, Verdict};
use crate::plain::counted;
use crate::postgres::cluster::Cluster;
use crate::postgres::repository::SampleExtent;
use crate::postgres::repository::verify::{Verification, VerifyOptions, VerifyReport, VerifyScope};
use crate::storage::Key;

/// The largest sample in objects: their numbers are kept in memory.
const MAX_SAMPLE: u32 = 1_000_000;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Read only so many segments, packs and files of dumps, chosen at random: a number of objects, or a percentage such as 5%. All
    /// else is read, and what is missing is found, anyway.
    #[arg(long, value_name = "N|PERCENT%")]
    sample: Option<SampleArg>,
    /// Choose the sample that this number gave before.
    #[arg(long, value_name = "NUMBER", requires = "sample")]
    seed: Option<u64>,
    /// Go on behind this object, as a verification that was interrupted says.
    #[arg(long, value_name = "KEY", value_parser = key)]
    after: Option<Key>,
}

#[derive(Debug, Clone, Copy)]
struct SampleArg(SampleExtent);

impl FromStr for SampleArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("expected a number of objects from 1 to {MAX_SAMPLE}, or more than 0% to 100%")
        };
        match text.strip_suffix('%') {
            Some(percent) => {
                let percent: f64 = percent.trim().parse().map_err(|_| wrong())?;
                if percent > 0.0 && percent <= 100.0 {
                    Ok(Self(SampleExtent::Percent(percent)))
                } else {
                    Err(wrong())
                }
            }
            None => {
                let count: u32 = text.parse().map_err(|_| wrong())?;
                if (1..=MAX_SAMPLE).contains(&count) {
                    Ok(Self(SampleExtent::Objects(count)))
                } else {
                    Err(wrong())
                }
            }
        }
    }
}

fn key(text: &str) -> Result<Key, String> {
    Key::new(text).map_err(|error| error.to_string())
}

/// Verifies. Exit code 3 when anything is damaged, missing or could not be read.
pub async fn run(context: &Context, args: &Args) -> anyhow::Result<Exit> {
    if args.sample.is_some() && args.after.is_some() && args.seed.is_none() {
        let error = anyhow!("--after goes on with a sample, and which one is not said");
        return Err(with_hint(
            error,
            "add the --seed that the interrupted verification printed",
        ));
    }
    let cluster = context.cluster().await?;
    recorded(
        &context.settings,
        &cluster,
        Act::Verification,
        async |told| verify(context, &cluster, args, told).await,
    )
    .await
}

async fn verify(
    context: &Context,
    cluster: &Cluster,
    args: &Args,
    told: &mut Told,
) -> anyhow::Result<Exit> {
    let settings = &context.settings;
    (told.subject, told.scope) = (subject(args), Some(Scope::Part));
    let options = VerifyOptions {
        scope: VerifyScope::All,
        extent: args.sample.map_or(SampleExtent::All, |sample| sample.0),
        // Short enough to be typed again.
        seed: args
            .seed
            .map_or_else(|| getrandom::u32().map(u64::from), Ok)?,
        after: args.after.clone(),
        workers: settings.restore.workers,
        memory: settings.wal.memory as u64,
    };
    let verification = Arc::new(Verification::new(cluster.clone(), options));
    let progress = &verification.progress;
    let step = || ProgressStep {
        done: progress.done.load(Ordering::Relaxed),
        total: progress.total.load(Ordering::Relaxed),
        phase: String::new(),
    };
    let ended = tokio::select! {
        ended = show(verification.run(), "verified", step) => ended,
        asked = asked_to_end() => asked.and_then(|()| Err(anyhow!("interrupted"))),
    };
    let report = verification.report(ended.is_ok());
    tell(told, args, &report)?;
    match context.format {
        Format::Json => print_json(&report)?,
        Format::Table => print_text(&in_words(&report))?,
    }
    ended.map_err(|error| go_on(error, &report, args))?;
    Ok(if report.sound {
        Exit::Success
    } else {
        Exit::Unsound
    })
}

fn subject(args: &Args) -> String {
    match (&args.sample, &args.after) {
        (None, None) => "all that is kept".into(),
        (Some(_), None) => "a sample of what is kept".into(),
        (None, Some(after)) => format!("what is kept behind \"{after}\""),
        (Some(_), Some(after)) => format!("a sample of what is kept behind \"{after}\""),
    }
}

fn tell(told: &mut Told, args: &Args, report: &VerifyReport) -> anyhow::Result<()> {
    told.details = serde_json::to_value(report)?;
    told.scope = Some(scope(args, report));
    if report.finished && report.found.is_open() {
        told.verdict = Some(Verdict::CouldNotRun);
        told.reason = "the repository did not give all that is kept".into();
    }
    Ok(())
}

/// Whether all that is kept was read.
fn scope(args: &Args, report: &VerifyReport) -> Scope {
    let is_whole = args.sample.is_none()
        && args.after.is_none()
        && report.finished
        && report.found.cold.is_empty();
    match is_whole {
        true => Scope::Whole,
        false => Scope::Part,
    }
}

/// The error with the arguments that go on where it ended.
fn go_on(error: anyhow::Error, report: &VerifyReport, args: &Args) -> anyhow::Error {
    let Some(done) = &report.done else {
        return error;
    };
    let sample = match (args.sample, report.seed) {
        (Some(SampleArg(SampleExtent::Percent(percent))), Some(seed)) => {
            format!(" --sample {percent}% --seed {seed}")
        }
        (Some(SampleArg(SampleExtent::Objects(count))), Some(seed)) => {
            format!(" --sample {count} --seed {seed}")
        }
        _ => String::new(),
    };
    with_hint(
        error,
        format!("`walden repo verify --after {done}{sample}` goes on where this one ended"),
    )
}

fn in_words(report: &VerifyReport) -> String {
    let found = &report.found;
    let mut text = String::new();
    for finding in &found.findings.list {
        let files = match finding.files {
            0 => String::new(),
            files => format!(" ({})", counted(files, "file")),
        };
        text += &format!(
            "{}: object \"{}\": {}{files}\n",
            finding.problem, finding.object, finding.why
        );
    }
    if found.findings.more > 0 {
        text += &format!("and {} more\n", found.findings.more);
    }
    if found.findings.more_files > 0 {
        text += &format!(
            "and {} of backups cannot be restored\n",
            counted(found.findings.more_files, "more file")
        );
    }
    text += &gap_lines("GAP", &found.gaps);
    for timeline in &found.missing_histories {
        text += &format!("MISSING: the history file of timeline {timeline}\n");
    }
    if !found.cold.is_empty() {
        text += &format!(
            "cold, not read: {}: to read them, thaw them first\n",
            found.cold
        );
    }
    for id in &found.unfinished {
        text += &format!("not verified: backup {id} is being taken, or was interrupted\n");
    }
    for object in &found.foreign {
        text += &format!("foreign: object \"{object}\"\n");
    }
    let verdict = match (report.sound, report.finished) {
        (true, true) => "sound",
        (true, false) => "sound so far",
        (false, _) => "NOT sound",
    };
    let drawn = found
        .drawn
        .map(|drawn| format!(", {} drawn", counted(drawn, "object")))
        .unwrap_or_default();
    let sample = |seed| {
        format!(
            ", {} (sample with --seed {seed}{drawn}, {} read)",
            counted(found.packs, "pack"),
            found.sampled
        )
    };
    let packs = report.seed.map(sample).unwrap_or_default();
    let after = report
        .began_after
        .as_ref()
        .map(|key| format!(", from behind {key} on"))
        .unwrap_or_default();
    text + &format!(
        "cluster \"{}\" in {} is {verdict}: read {}{packs}, {}, {}, {}{after}\n",
        report.cluster,
        report.repository,
        counted(found.backups, "backup"),
        counted(found.dumps, "dump"),
        counted(found.wal_files, "WAL file"),
        bytes(found.plain_bytes),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_a_number_of_objects_or_a_percentage() {
        let parse = |text: &str| text.parse::<SampleArg>().map(|sample| sample.0);
        assert_eq!(parse("7"), Ok(SampleExtent::Objects(7)));
        assert_eq!(parse("2.5%"), Ok(SampleExtent::Percent(2.5)));
        assert_eq!(parse("100%"), Ok(SampleExtent::Percent(100.0)));
        for text in ["", "0", "0%", "101%", "nan%", "-1", "1000001", "x"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
