use std::fmt::Write;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use serde::Serialize;

use super::super::{Context, Exit, Format, Table, print_json, print_text};
use crate::error::{Hint, with_hint};
use crate::postgres::archive::summarize::{Summarized, summary_of};
use crate::postgres::types::{LongPageHeader, Lsn, SegmentName};
use crate::postgres::wal::{
    Commit, EventDetail, RelFileLocator, Summary, Timestamp, WalEvent, Xid,
};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// An archived segment by its name, or a file by its path (`./` before a name in this folder).
    #[arg(value_name = "SEGMENT")]
    segment: PathBuf,
}

/// For `--format json`; the summary is in the form of docs/repository-format.md.
#[derive(Serialize)]
struct SegmentOutput<'a> {
    segment: String,
    summary: &'a Summary,
}

/// Shows what a segment holds.
pub async fn run(context: &Context, args: &Args) -> anyhow::Result<Exit> {
    let segment = args.segment.display().to_string();
    let summary = match segment.parse() {
        Ok(name) => archived(context, name).await?,
        Err(_) if args.segment.file_name() == Some(args.segment.as_os_str()) => {
            let error = anyhow!("\"{segment}\" is not the name of a WAL segment");
            return Err(with_hint(
                error,
                "give a name that `walden wal list` shows, or a file as ./<name>",
            ));
        }
        Err(_) => of_file(&args.segment)?,
    };
    match context.format {
        Format::Json => print_json(&SegmentOutput {
            segment,
            summary: &summary,
        })?,
        Format::Table => print_text(&in_words(&segment, &summary))?,
    }
    Ok(Exit::Success)
}

async fn archived(context: &Context, name: SegmentName) -> anyhow::Result<Summary> {
    let cluster = context.cluster().await?;
    summary_of(&cluster, name).await?.ok_or_else(|| {
        let error = anyhow!(
            "WAL segment \"{name}\" is not archived in {}",
            cluster.repository.describe()
        );
        with_hint(
            error,
            "`walden wal list` shows what is there; a file is named by its path, such as ./<name>",
        )
    })
}

fn of_file(path: &Path) -> anyhow::Result<Summary> {
    let mut first = [0; LongPageHeader::LEN];
    let mut open = || {
        io::Read::read_exact(&mut File::open(path)?, &mut first)?;
        File::open(path)
    };
    let what = || format!("cannot read \"{}\"", path.display());
    let file = open()
        .with_context(what)
        .hint("give the path of a WAL segment, not compressed")?;
    let header = LongPageHeader::parse(&first)
        .with_context(what)
        .hint("only WAL segments begin with such a header")?;
    let mut source = Summarized::new(file, header.address, header.segment_size);
    io::copy(&mut source, &mut io::sink()).with_context(what)?;
    Ok(source.finish())
}

fn in_words(segment: &str, summary: &Summary) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{name:<20} {value}");
    };
    line("segment", segment.to_string());
    if let Some(major) = summary.major {
        line("written by", format!("PostgreSQL {major}"));
    }
    if let Some(timeline) = summary.timeline {
        line("timeline", timeline.to_string());
    }
    line(
        "records",
        format!(
            "{}{}",
            summary.records,
            span(summary.first.map(|first| first.lsn), summary.end)
        ),
    );
    let rolled_back = summary.ends.count - summary.commits.count;
    line(
        "transactions",
        format!(
            "{} committed, {rolled_back} rolled back",
            summary.commits.count
        ),
    );
    if let (Some(first), Some(last)) = (summary.commits.first, summary.commits.last) {
        line("first commit", commit(&first));
        line("last commit", commit(&last));
    }
    if let (Some(min), Some(max)) = (summary.ends.min_time, summary.ends.max_time) {
        line("first end at", min.to_string());
        line("last end at", max.to_string());
    }
    if let Some(head) = &summary.head {
        line(
            "begins with",
            format!(
                "the last {} bytes of a record of the segment before",
                head.remaining
            ),
        );
    }
    match (&summary.stop, &summary.tail) {
        (Some(stop), _) => line("breaks off", stop.to_string()),
        (None, Some(tail)) => line(
            "ends with",
            format!("the beginning of the record at {}", tail.lsn),
        ),
        (None, None) if summary.switched => {
            line("ends with", "a switch to the next segment".into())
        }
        (None, None) => {}
    }
    if summary.unreadable > 0 {
        line("not decoded", format!("{} records", summary.unreadable));
    }
    text + &events(summary) + &rows(summary)
}

fn span(from: Option<Lsn>, to: Option<Lsn>) -> String {
    from.zip(to)
        .map(|(from, to)| format!(", {from} to {to}"))
        .unwrap_or_default()
}

fn commit(commit: &Commit) -> String {
    format!(
        "{} at {}, transaction {}",
        commit.time, commit.lsn, commit.xid
    )
}

fn events(summary: &Summary) -> String {
    if summary.events.is_empty() && summary.events_left_out.total() == 0 {
        return String::new();
    }
    let mut table = Table::new(&["LSN", ">transaction", "event"]);
    for WalEvent { lsn, xid, what, .. } in &summary.events {
        table.row([lsn.to_string(), xid_text(*xid), event(what, *xid, summary)]);
    }
    format!(
        "\n{}{}",
        table.render(),
        more(summary.events_left_out.total())
    )
}

fn event(what: &EventDetail, xid: Xid, summary: &Summary) -> String {
    match what {
        EventDetail::RestorePoint { name, time } => format!("restore point \"{name}\", {time}"),
        EventDetail::FilesRemoved {
            time,
            subxids,
            files,
            cut,
            ..
        } => {
            let own = |made: Xid| made == xid || subxids.contains(&made);
            let made: Vec<RelFileLocator> = summary
                .created
                .iter()
                .filter(|file| own(file.xid))
                .map(|file| file.file)
                .collect();
            let instead = if made.is_empty() {
                String::new()
            } else {
                format!(", made {}", list(&made, false))
            };
            format!(
                "files removed: {}{instead}; commit {time}",
                list(files, *cut)
            )
        }
        EventDetail::FileTruncated { file, blocks } => {
            format!("file {file} cut to {blocks} blocks")
        }
        EventDetail::TablesTruncated {
            database,
            tables,
            cut,
        } => {
            format!(
                "TRUNCATE in database {database}: tables {}",
                list(tables, *cut)
            )
        }
        EventDetail::DatabaseCreated { database, .. } => format!("database {database} created"),
        EventDetail::DatabaseMoved {
            database,
            tablespace,
        } => {
            format!("database {database} moved to tablespace {tablespace}")
        }
        EventDetail::DatabaseDropped { database } if xid == 0 => {
            format!("old files of database {database} removed")
        }
        EventDetail::DatabaseDropped { database } => format!("database {database} dropped"),
        EventDetail::Prepared { gid, time } => format!("prepared as \"{gid}\", {time}"),
        EventDetail::TimelineBegan { timeline, previous } => {
            format!("timeline {timeline} began, from timeline {previous}")
        }
        EventDetail::ParametersChanged(_) => {
            "settings that a standby must match were changed".into()
        }
        EventDetail::FullPageWrites { on } => {
            format!("full_page_writes turned {}", if *on { "on" } else { "off" })
        }
        EventDetail::Overwritten { lost } => format!("the record at {lost} was lost in a crash"),
    }
}

/// The first few, with commas.
fn list<T: ToString>(items: &[T], cut: bool) -> String {
    const SHOWN: usize = 8;
    let shown: Vec<String> = items.iter().take(SHOWN).map(ToString::to_string).collect();
    let more = if items.len() > SHOWN || cut {
        ", …"
    } else {
        ""
    };
    shown.join(", ") + more
}

fn rows(summary: &Summary) -> String {
    if summary.rows.largest.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&[
        ">transaction",
        "file",
        ">inserted",
        ">updated",
        ">deleted",
        ">moved",
        "committed at",
        "time",
    ]);
    for rows in &summary.rows.largest {
        let counts = rows.counts;
        let numbers = [
            counts.inserted,
            counts.updated,
            counts.deleted,
            counts.moved,
        ]
        .map(|rows| rows.to_string());
        let end = match rows.commit {
            Some((lsn, time)) => [lsn.to_string(), Timestamp::to_string(&time)],
            None => ["still open".into(), String::new()],
        };
        table.row(
            [xid_text(rows.xid), rows.file.to_string()]
                .into_iter()
                .chain(numbers)
                .chain(end),
        );
    }
    format!("\n{}{}", table.render(), more(summary.rows.left_out))
}

fn xid_text(xid: Xid) -> String {
    if xid == 0 {
        String::new()
    } else {
        xid.to_string()
    }
}

fn more(left_out: u64) -> String {
    if left_out == 0 {
        String::new()
    } else {
        format!("and {left_out} more\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::wal::{RowCounts, RowsOf};

    #[test]
    fn a_dropped_file_is_shown_with_what_was_made_in_its_place() {
        let file = |number| RelFileLocator {
            tablespace: 1663,
            database: 5,
            number,
        };
        let (time, subxids, files) = (Timestamp(0), vec![8], vec![file(1)]);
        let what = EventDetail::FilesRemoved {
            time,
            subxids,
            files,
            relations: vec![],
            cut: true,
        };
        let created = [(7, 2), (8, 3), (9, 4)].map(|(xid, number)| crate::postgres::wal::Created {
            xid,
            file: file(number),
            filled: false,
            pages: false,
        });
        let counts = RowCounts {
            deleted: 12,
            ..RowCounts::default()
        };
        let mut summary = Summary {
            created: created.into(),
            ..Summary::default()
        };
        summary.events.push(WalEvent {
            lsn: Lsn(16),
            end: Lsn(32),
            xid: 7,
            what,
        });
        summary.rows.largest.push(RowsOf {
            xid: 7,
            file: file(1),
            counts,
            commit: None,
        });
        summary.rows.left_out = 3;
        let text = in_words("x", &summary);
        assert!(
            text.contains(
                "0/10            7  files removed: 1663/5/1, …, made 1663/5/2, 1663/5/3; commit 2000-01-01 00:00:00.000000+00\n"
            ),
            "{text}"
        );
        assert!(
            text.contains(
                "          7  1663/5/1         0        0       12      0  still open\nand 3 more\n"
            ),
            "{text}"
        );
    }
}
