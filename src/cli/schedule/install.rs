use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};

use super::super::jobs::kinds::jobs;
use super::super::{Context, Exit, print_text};
use super::NOTHING_SCHEDULED;
use super::units::{MARK, Runner, cron_file, units};
use crate::config::SettingsSource;
use crate::error::{Hint, with_hint};
use crate::jobs::Job;
use crate::owner;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    to: To,
    /// Whom the jobs run as. Root must say so: each line of the cron file, or each unit, names that user.
    #[arg(long, value_name = "USER", value_parser = user)]
    user: Option<String>,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct To {
    /// Write a file for cron, such as one in /etc/cron.d, or one for `crontab`.
    #[arg(long, value_name = "FILE")]
    cron: Option<PathBuf>,
    /// Write timers and services for systemd into this folder.
    #[arg(long, value_name = "FOLDER")]
    systemd: Option<PathBuf>,
}

fn user(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    match !text.is_empty() && !text.starts_with('-') && text.bytes().all(fits) {
        true => Ok(text.into()),
        false => Err("expected a user's name".into()),
    }
}

/// What is to be done, and what is left to do.
struct Plan {
    files: Vec<(PathBuf, String)>,
    /// Units of jobs that are scheduled no longer.
    stale: Vec<PathBuf>,
    next: String,
}

/// Writes what makes cron or systemd run the jobs.
pub fn run(context: &Context, args: &Args) -> anyhow::Result<Exit> {
    let settings = &context.settings;
    if args.user.is_none() && owner::is_root() {
        let error = anyhow!("root would run the jobs");
        return Err(with_hint(
            error,
            "name the user that PostgreSQL runs as by `--user`",
        ));
    }
    let jobs = jobs(settings)?;
    if jobs.iter().all(|job| job.schedule.is_none()) {
        let error = anyhow!("nothing is scheduled");
        return Err(with_hint(error, NOTHING_SCHEDULED));
    }
    let runner = Runner {
        program: std::env::current_exe().context("where this program lies is not known")?,
        config: match &settings.source {
            SettingsSource::File(file) => Some(file.clone()),
            SettingsSource::Environment => None,
        },
        cluster: settings.cluster.name.clone(),
        user: args.user.clone(),
    };
    let plan = match (&args.to.cron, &args.to.systemd) {
        (Some(file), _) => for_cron(file, &runner, &jobs),
        (None, folder) => for_systemd(folder.as_deref().unwrap_or(Path::new(".")), &runner, &jobs)?,
    };
    let mut said = carry_out(&plan)?;
    if settings.schedule.in_service {
        said += "to leave the jobs to them: set `schedule.in_service = false` and restart the service; else whoever \
                 comes first runs a job\n";
    }
    print_text(&said)?;
    Ok(Exit::Success)
}

fn for_cron(file: &Path, runner: &Runner, jobs: &[Job]) -> Plan {
    Plan {
        files: vec![(file.to_path_buf(), cron_file(runner, jobs))],
        stale: Vec::new(),
        next: "cron reads /etc/cron.d by itself; else give the file to `crontab`".into(),
    }
}

fn for_systemd(folder: &Path, runner: &Runner, jobs: &[Job]) -> anyhow::Result<Plan> {
    let units = units(runner, jobs);
    let names: Vec<String> = units.iter().map(|(name, _)| name.clone()).collect();
    let timers: Vec<&str> = names
        .iter()
        .filter(|name| name.ends_with(".timer"))
        .map(String::as_str)
        .collect();
    Ok(Plan {
        next: format!(
            "run `systemctl daemon-reload`, then `systemctl enable --now {}`",
            timers.join(" ")
        ),
        stale: stale(folder, &runner.unit(""), &names)?,
        files: units
            .into_iter()
            .map(|(name, text)| (folder.join(name), text))
            .collect(),
    })
}

/// Looks at all before it writes one; what was done.
fn carry_out(plan: &Plan) -> anyhow::Result<String> {
    plan.files
        .iter()
        .try_for_each(|(path, _)| refuse_foreign(path))?;
    let mut said = String::new();
    for (path, text) in &plan.files {
        write(path, text).with_context(|| format!("cannot write \"{}\"", path.display()))?;
        said += &format!("wrote {}\n", path.display());
    }
    for path in &plan.stale {
        fs::remove_file(path).with_context(|| format!("cannot remove \"{}\"", path.display()))?;
        said += &format!("removed {}: it is scheduled no longer\n", path.display());
    }
    Ok(said + &format!("next: {}\n", plan.next))
}

/// Units of ours that are no longer among `names`.
fn stale(folder: &Path, prefix: &str, names: &[String]) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)
        .with_context(|| format!("cannot list \"{}\"", folder.display()))
        .hint("name a folder that systemd reads, such as /etc/systemd/system")?;
    let mut stale = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_unit =
            name.starts_with(prefix) && (name.ends_with(".timer") || name.ends_with(".service"));
        if is_unit && !names.contains(&name.into_owned()) && is_ours(&path)? {
            stale.push(path);
        }
    }
    Ok(stale)
}

fn is_ours(path: &Path) -> anyhow::Result<bool> {
    match fs::read(path) {
        Ok(text) => Ok(text.starts_with(MARK.as_bytes())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error).with_context(|| format!("cannot read \"{}\"", path.display())),
    }
}

fn refuse_foreign(path: &Path) -> anyhow::Result<()> {
    if is_ours(path)? {
        return Ok(());
    }
    let error = anyhow!("\"{}\" is there, and not made by Walden", path.display());
    Err(with_hint(error, "name another file, or move that one away"))
}

/// Whole, or not at all.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let name = path
        .file_name()
        .context("it names no file")?
        .to_string_lossy();
    // Neither cron nor systemd reads a file of such a name.
    let temporary = path.with_file_name(format!(".{name}.walden-{}", std::process::id()));
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&temporary)?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.set_permissions(fs::Permissions::from_mode(0o644)))
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    Ok(written?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::one_line;

    #[test]
    fn foreign_files_stay_and_ours_are_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, foreign) = (
            folder.path().join("walden-main-backup.timer"),
            folder.path().join("walden-main-x.timer"),
        );
        write(&ours, &format!("{MARK}\nold\n")).unwrap();
        fs::write(&foreign, "[Timer]\n").unwrap();
        refuse_foreign(&ours).unwrap();
        refuse_foreign(&folder.path().join("absent")).unwrap();
        let error = refuse_foreign(&foreign).unwrap_err();
        assert!(one_line(&error).contains("not made by Walden"), "{error:#}");
        let gone = stale(
            folder.path(),
            "walden-main-",
            &["walden-main-dump.timer".into()],
        )
        .unwrap();
        assert_eq!(gone, std::slice::from_ref(&ours));
        assert_eq!(
            fs::metadata(&ours).unwrap().permissions().mode() & 0o777,
            0o644
        );
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            2,
            "nothing else is left"
        );
    }

    #[test]
    fn a_user_is_a_name() {
        assert!(user("postgres").is_ok() && user("svc.walden-1").is_ok());
        for wrong in ["", "-x", "a b", "a\nExecStart=x", "a%b"] {
            assert!(user(wrong).is_err(), "{wrong:?}");
        }
    }
}
