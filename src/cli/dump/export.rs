use std::os::fd::AsFd;
use std::path::PathBuf;

use super::super::{Context, Exit, Format, print_json, print_text};
use super::{chosen, progress};
use crate::postgres::dump::export::{to_folder, to_writer};
use crate::postgres::dump::progress::DumpProgress;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The dump, as `walden dump list` names it; its file's name will do.
    #[arg(value_name = "ID")]
    id: String,
    /// The folder for the dump, its globals and its checksums; it is made where it is missing. Nothing there is replaced.
    #[arg(
        value_name = "FOLDER",
        required_unless_present = "stdout",
        conflicts_with = "stdout"
    )]
    folder: Option<PathBuf>,
    /// Write the dump alone to standard output, for a pipe to pg_restore.
    #[arg(long)]
    stdout: bool,
}

/// Writes a dump to disk or to standard output, checked.
pub async fn run(context: &Context, args: &Args) -> anyhow::Result<Exit> {
    let cluster = context.cluster().await?;
    let (_, manifest) = chosen::with_manifest(&cluster, &args.id).await?;
    let progress = DumpProgress::new();
    progress.now(format!("exporting {}", manifest.id));
    let Some(folder) = &args.folder else {
        let out = std::io::stdout().as_fd().try_clone_to_owned()?;
        let mut out = tokio::fs::File::from_std(out.into());
        progress::show(
            to_writer(&cluster, &manifest, &mut out, &progress),
            &progress,
        )
        .await?;
        return Ok(Exit::Success);
    };
    let written =
        progress::show(to_folder(&cluster, &manifest, folder, &progress), &progress).await?;
    match context.format {
        Format::Json => print_json(&written)?,
        Format::Table => {
            let lines = written.iter().map(|path| format!("{}\n", path.display()));
            print_text(&lines.collect::<String>())?;
        }
    }
    Ok(Exit::Success)
}
