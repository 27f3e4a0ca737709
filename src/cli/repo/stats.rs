use super::super::{Context, Exit, Format, Table, bytes, print_json, print_text};
use crate::postgres::catalog::postgresql_time;
use crate::postgres::repository::stats::{
    BackupState, BackupStats, Stats, StatsKind, TimelineStats, stats,
};

/// Shows what the cluster takes in the repository.
pub async fn run(context: &Context) -> anyhow::Result<Exit> {
    let stats = stats(&context.cluster().await?).await?;
    match context.format {
        Format::Json => print_json(&stats)?,
        Format::Table => print_text(&in_words(&stats))?,
    }
    Ok(Exit::Success)
}

fn in_words(stats: &Stats) -> String {
    let mut text = format!("cluster \"{}\" in {}\n\n", stats.cluster, stats.repository);
    text += &kinds(stats);
    if !stats.timelines.is_empty() {
        text += &format!("\n{}", timelines(&stats.timelines));
    }
    if !stats.backups.is_empty() {
        text += &format!("\n{}", backups(&stats.backups));
    }
    text.push('\n');
    for (word, stored) in [("oldest", &stats.oldest), ("newest", &stats.newest)] {
        if let Some(stored) = stored {
            text += &format!("{word}: {} {}\n", postgresql_time(stored.at), stored.object);
        }
    }
    for object in &stats.foreign {
        text += &format!("foreign: object \"{object}\"\n");
    }
    for folder in &stats.unread {
        text += &format!("UNREAD, not counted: folder \"{folder}\"\n");
    }
    text
}

fn kinds(stats: &Stats) -> String {
    let mut table = Table::new(&["KIND", ">OBJECTS", ">STORED"]);
    for (kind, size) in &stats.kinds {
        table.row([
            name(*kind).into(),
            size.objects.to_string(),
            bytes(size.stored_bytes),
        ]);
    }
    table.row([
        "total".into(),
        stats.total.objects.to_string(),
        bytes(stats.total.stored_bytes),
    ]);
    for (class, size) in &stats.classes {
        table.row([
            format!("  of class {class}"),
            size.objects.to_string(),
            bytes(size.stored_bytes),
        ]);
    }
    table.render()
}

fn name(kind: StatsKind) -> &'static str {
    match kind {
        StatsKind::Segments => "WAL segments",
        StatsKind::Histories => "timeline histories",
        StatsKind::BackupHistories => "backup histories",
        StatsKind::Partials => "partial segments",
        StatsKind::Aside => "kept aside",
        StatsKind::Packs => "packs",
        StatsKind::Manifests => "manifests",
        StatsKind::Markers => "markers",
        StatsKind::Names => "names",
        StatsKind::Idle => "idle markers",
        StatsKind::Jobs => "jobs",
        StatsKind::Evidence => "evidence",
        StatsKind::Dumps => "logical dumps",
        StatsKind::Retention => "pins, leases",
        StatsKind::Alerts => "alerts",
        StatsKind::Foreign => "foreign",
    }
}

fn timelines(timelines: &[TimelineStats]) -> String {
    let mut table = Table::new(&[
        ">TLI",
        ">SEGMENTS",
        ">SIZE",
        ">STORED",
        ">RATIO",
        "FIRST",
        "LAST",
        ">GAPS",
    ]);
    for line in timelines {
        table.row([
            line.timeline.to_string(),
            line.segments.to_string(),
            bytes(line.plain_bytes),
            bytes(line.stored_bytes),
            ratio(line.plain_bytes, line.stored_bytes),
            line.first.to_string(),
            line.last.to_string(),
            line.gaps.to_string(),
        ]);
    }
    table.render()
}

fn backups(backups: &[BackupStats]) -> String {
    let mut table = Table::new(&["BACKUP", ">PACKS", ">SIZE", ">STORED", ">RATIO", ""]);
    for backup in backups {
        let state = match backup.state {
            BackupState::Complete => "",
            BackupState::Damaged => "DAMAGED",
            BackupState::Unread => "UNREAD",
            BackupState::Unfinished => "unfinished",
        };
        table.row([
            backup.id.to_string(),
            backup.packs.to_string(),
            backup.plain_bytes.map(bytes).unwrap_or_default(),
            bytes(backup.stored_bytes),
            backup
                .plain_bytes
                .map(|plain| ratio(plain, backup.stored_bytes))
                .unwrap_or_default(),
            state.into(),
        ]);
    }
    table.render()
}

fn ratio(plain: u64, stored: u64) -> String {
    format!("{:.1}", plain as f64 / stored.max(1) as f64)
}
