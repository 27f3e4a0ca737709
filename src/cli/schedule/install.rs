use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};

use super::super::jobs::kinds::{jobs, runnable};
use super::super::{Context, Exit, print_text};
use super::NOTHING_SCHEDULED;
use super::units::{MARK, Runner, cron_file, units};
use crate::config::{self, Origin, Settings, SettingsSource};
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
    /// Units that there may be of jobs that are scheduled no longer.
    unscheduled: Vec<PathBuf>,
    mark: String,
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
    let jobs = jobs(settings);
    let mut scheduled = jobs.iter().filter(|job| job.schedule.is_some()).peekable();
    if scheduled.peek().is_none() {
        let error = anyhow!("nothing is scheduled");
        return Err(with_hint(error, NOTHING_SCHEDULED));
    }
    scheduled.try_for_each(|job| runnable(job).map(drop))?;
    let runner = Runner {
        program: std::env::current_exe().context("where this program lies is not known")?,
        config: configuration(settings)?,
        cluster: settings.cluster.name.clone(),
        user: args.user.clone(),
    };
    let plan = match (&args.to.cron, &args.to.systemd) {
        (Some(file), _) => for_cron(file, &runner, &jobs),
        (None, folder) => for_systemd(folder.as_deref().unwrap_or(Path::new(".")), &runner, &jobs),
    };
    let mut said = carry_out(&plan)?;
    if settings.schedule.in_service {
        said += "to leave the jobs to them: set `schedule.in_service = false` and restart the service; else whoever \
                 comes first runs a job\n";
    }
    print_text(&said)?;
    Ok(Exit::Success)
}

/// The file that the jobs read. Errors: they would not have all that these settings are from.
fn configuration(settings: &Settings) -> anyhow::Result<PathBuf> {
    let shown = config::effective(settings);
    let mut lost = shown
        .iter()
        .filter(|shown| shown.origin == Origin::Environment);
    match (lost.next(), &settings.source) {
        (None, SettingsSource::File(file)) => Ok(file.clone()),
        (Some(lost), _) => Err(anyhow!(
            "{} is set by the environment, which cron and systemd do not have",
            lost.key
        ))
        .hint("set it in the configuration file"),
        (None, SettingsSource::Environment) => {
            Err(anyhow!("no configuration file was read")).hint("name one by `--config`")
        }
    }
}

fn for_cron(file: &Path, runner: &Runner, jobs: &[Job]) -> Plan {
    Plan {
        files: vec![(file.to_path_buf(), cron_file(runner, jobs))],
        unscheduled: Vec::new(),
        mark: runner.mark(),
        next: "cron reads /etc/cron.d by itself; else give the file to `crontab`".into(),
    }
}

fn for_systemd(folder: &Path, runner: &Runner, jobs: &[Job]) -> Plan {
    let (units, is_scheduled) = (units(runner, jobs), |job: &&Job| job.schedule.is_some());
    let timers: Vec<&str> = units
        .iter()
        .map(|(name, _)| name.as_str())
        .filter(|name| name.ends_with(".timer"))
        .collect();
    Plan {
        next: format!(
            "run `systemctl daemon-reload`, then `systemctl enable --now {}`",
            timers.join(" ")
        ),
        unscheduled: jobs
            .iter()
            .filter(|job| !is_scheduled(job))
            .flat_map(|job| runner.unit_names(job.name))
            .map(|name| folder.join(name))
            .collect(),
        mark: runner.mark(),
        files: units
            .into_iter()
            .map(|(name, text)| (folder.join(name), text))
            .collect(),
    }
}

/// Looks at all before it writes one; what was done.
fn carry_out(plan: &Plan) -> anyhow::Result<String> {
    for (path, _) in &plan.files {
        refuse_others(path, &plan.mark)?;
    }
    let mut said = String::new();
    for (path, text) in &plan.files {
        write(path, text)
            .with_context(|| format!("cannot write \"{}\"", path.display()))
            .hint(
                "name a file or folder that cron or systemd reads, such as /etc/systemd/system",
            )?;
        said += &format!("wrote {}\n", path.display());
    }
    for path in &plan.unscheduled {
        if matches!(whose(path, &plan.mark)?, Whose::Ours) {
            fs::remove_file(path)
                .with_context(|| format!("cannot remove \"{}\"", path.display()))?;
            let name = path.file_name().unwrap_or_default().display();
            said += &format!(
                "removed {}: its job is scheduled no longer; `systemctl stop {name}` ends it now\n",
                path.display()
            );
        }
    }
    Ok(said + &format!("next: {}\n", plan.next))
}

/// Who made a file.
#[derive(Debug, PartialEq, Eq)]
enum Whose {
    Nobodys,
    Ours,
    /// For another cluster, or by another configuration: as its second line says.
    Anothers(String),
    Foreign,
}

fn whose(path: &Path, mark: &str) -> anyhow::Result<Whose> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Whose::Nobodys),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read \"{}\"", path.display()));
        }
    };
    if text.starts_with(mark.as_bytes()) {
        return Ok(Whose::Ours);
    }
    Ok(match text.strip_prefix(MARK.as_bytes()) {
        Some(rest) => {
            let rest = String::from_utf8_lossy(rest);
            let second = rest.lines().nth(1).unwrap_or_default();
            let of = second.strip_prefix("# For ").unwrap_or_default();
            Whose::Anothers(of.trim_end_matches('.').to_string())
        }
        None => Whose::Foreign,
    })
}

fn refuse_others(path: &Path, mark: &str) -> anyhow::Result<()> {
    let why = match whose(path, mark)? {
        Whose::Nobodys | Whose::Ours => return Ok(()),
        Whose::Anothers(of) if of.is_empty() => {
            "made by Walden, and does not say for which cluster".into()
        }
        Whose::Anothers(of) => format!("made by Walden for {of}"),
        Whose::Foreign => "not made by Walden".into(),
    };
    let error = anyhow!("\"{}\" is there, and {why}", path.display());
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
    use crate::config::testing::defaults;
    use crate::error::one_line;

    fn runner(cluster: &str, config: &str) -> Runner {
        Runner {
            program: "/usr/bin/walden".into(),
            config: config.into(),
            cluster: cluster.into(),
            user: None,
        }
    }

    fn scheduled(names: &[&str]) -> Settings {
        let mut settings = defaults();
        let cron = |name: &str| names.contains(&name).then(|| "0 2 * * *".parse().unwrap());
        settings.schedule.backup = cron("backup");
        settings.schedule.dump = cron("dump");
        settings.schedule.schema_dump = cron("schema-dump");
        settings
    }

    fn install(folder: &Path, runner: &Runner, names: &[&str]) -> anyhow::Result<String> {
        carry_out(&for_systemd(folder, runner, &jobs(&scheduled(names))))
    }

    fn files(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn units_of_other_clusters_and_configurations_stay() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let main = runner("main", "/etc/walden/main.toml");
        // Whose names begin as those of "main".
        let second = runner("main-2", "/etc/walden/second.toml");
        install(folder, &second, &["backup"]).unwrap();
        install(folder, &main, &["backup", "dump"]).unwrap();
        let foreign = folder.join("walden-main-verify.timer");
        fs::write(&foreign, "[Timer]\n").unwrap();
        let said = install(folder, &main, &["backup"]).unwrap();
        assert!(
            said.contains("walden-main-dump.timer: its job is scheduled no longer"),
            "{said}"
        );
        assert_eq!(
            files(folder),
            [
                "walden-main-2-backup.service",
                "walden-main-2-backup.timer",
                "walden-main-backup.service",
                "walden-main-backup.timer",
                "walden-main-verify.timer",
            ]
        );
        // Two clusters of one name; a unit's name that two clusters share; a file that others made.
        let unit = folder.join("walden-main-backup.timer");
        let before = fs::read(&unit).unwrap();
        let error = install(folder, &runner("main", "/srv/b.toml"), &["backup"]).unwrap_err();
        assert!(
            one_line(&error).ends_with(
                "backup.service\" is there, and made by Walden for cluster \"main\" by \"/etc/walden/main.toml\""
            ),
            "{error:#}"
        );
        assert_eq!(fs::read(&unit).unwrap(), before);
        install(folder, &main, &["backup", "schema-dump"]).unwrap();
        let schema = runner("main-schema", "/etc/walden/main.toml");
        assert!(install(folder, &schema, &["dump"]).is_err());
        fs::rename(&foreign, &unit).unwrap();
        let error = install(folder, &main, &["backup"]).unwrap_err();
        assert!(
            one_line(&error).ends_with("not made by Walden"),
            "{error:#}"
        );
        assert_eq!(
            fs::metadata(folder.join("walden-main-backup.service"))
                .unwrap()
                .permissions()
                .mode()
                & 0o777,
            0o644
        );
    }

    #[test]
    fn a_file_for_cron_is_of_one_cluster() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("walden");
        let jobs = jobs(&scheduled(&["backup"]));
        let install = |runner: &Runner| carry_out(&for_cron(&file, runner, &jobs));
        let main = runner("main", "/etc/walden/main.toml");
        install(&main).unwrap();
        install(&main).unwrap();
        let error = install(&runner("second", "/etc/walden/second.toml")).unwrap_err();
        assert!(
            one_line(&error).contains("for cluster \"main\" by \"/etc/walden/main.toml\""),
            "{error:#}"
        );
        // As an earlier Walden made them.
        fs::write(&file, format!("{MARK}\n# A cron\n")).unwrap();
        assert!(one_line(&install(&main).unwrap_err()).contains("does not say"));
    }

    #[test]
    fn what_only_the_environment_says_is_refused() {
        let error = configuration(&defaults()).unwrap_err();
        assert!(
            one_line(&error).contains("repository.url is set by the environment"),
            "{error:#}"
        );
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("walden.toml");
        fs::write(&file, "repository.url = \"file:///srv/archive\"\n").unwrap();
        let environment = [("WALDEN_SCHEDULE__BACKUP", "0 2 * * *")];
        let settings = config::load(Some(&file), std::iter::empty::<(&str, &str)>()).unwrap();
        assert_eq!(configuration(&settings).unwrap(), file);
        let settings = config::load(Some(&file), environment).unwrap();
        let error = configuration(&settings).unwrap_err();
        assert!(
            one_line(&error).contains("schedule.backup is set by the environment"),
            "{error:#}"
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
