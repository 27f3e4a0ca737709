//! What makes cron or systemd run the jobs: text, made of the settings. Pure.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::config::Cron;
use crate::jobs::Job;
use crate::jobs::schedule::Schedule;
use crate::postgres::command_line::shell_word;

/// The first line of every file. The second says for which cluster and by which configuration it is.
pub const MARK: &str =
    "# Made by `walden schedule install`: change the configuration, then run that again.";

/// Nothing runs that is not due, so this does no harm. In UTC, which has every hour.
const HOURLY: &str = "# Also what an hour skipped by the clocks leaves out, and what was broken off.\nOnCalendar=hourly UTC\nOnBootSec=2min\n";

/// What the files name beside the jobs.
#[derive(Debug)]
pub struct Runner {
    pub program: PathBuf,
    pub config: PathBuf,
    pub cluster: String,
    /// Whom the jobs run as; `None`: whose file it is.
    pub user: Option<String>,
}

impl Runner {
    fn words(&self, job: &str) -> Vec<String> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let verb = ["jobs", "run", job, "--scheduled"].map(String::from);
        [text(&self.program), "--config".into(), text(&self.config)]
            .into_iter()
            .chain(verb)
            .collect()
    }

    /// The first lines of its files: what has them is its own to replace.
    pub fn mark(&self) -> String {
        format!(
            "{MARK}\n# For cluster \"{}\" by {:?}.\n",
            self.cluster, self.config
        )
    }

    /// The names of the two units of a job, without what follows the dot.
    fn unit(&self, job: &str) -> String {
        format!("walden-{}-{job}", self.cluster)
    }

    /// The names of the units of a job: service and timer.
    pub fn unit_names(&self, job: &str) -> [String; 2] {
        ["service", "timer"].map(|kind| format!("{}.{kind}", self.unit(job)))
    }
}

fn scheduled(jobs: &[Job]) -> impl Iterator<Item = (&Job, &Schedule)> {
    jobs.iter()
        .filter_map(|job| Some((job, job.schedule.as_ref()?)))
}

/// A file for cron: of a user, or with the user's name in each line, as /etc/cron.d wants it.
pub fn cron_file(runner: &Runner, jobs: &[Job]) -> String {
    let mut text = format!(
        "{}# A cron that does not know CRON_TZ reads the times below by the machine's zone.\n",
        runner.mark()
    );
    let user = runner
        .user
        .iter()
        .fold(String::new(), |_, user| format!("{user} "));
    let mut zone = None;
    for (job, schedule) in scheduled(jobs) {
        if zone != Some(schedule.zone()) {
            zone = Some(schedule.zone());
            let _ = writeln!(text, "CRON_TZ={}", schedule.zone());
        }
        let words = runner.words(job.name);
        let line: Vec<String> = words.iter().map(|word| shell_word(word)).collect();
        // A percent sign would end the line there.
        let line = line.join(" ").replace('%', "\\%");
        let _ = writeln!(text, "{} {user}{line}", schedule.cron());
        // What was missed while the machine was off, and what was broken off.
        let _ = writeln!(text, "@reboot {user}{line}");
        if !schedule.cron().is_each_hour() {
            let _ = writeln!(text, "17 * * * * {user}{line}");
        }
    }
    text
}

/// Names and texts of the units for systemd, two a job.
pub fn units(runner: &Runner, jobs: &[Job]) -> Vec<(String, String)> {
    let both = |(job, schedule): (&Job, &Schedule)| {
        let [service, timer] = runner.unit_names(job.name);
        [
            (service, service_unit(runner, job)),
            (timer, timer_unit(runner, job, schedule)),
        ]
    };
    scheduled(jobs).flat_map(both).collect()
}

fn service_unit(runner: &Runner, job: &Job) -> String {
    let words = runner.words(job.name);
    let line: Vec<String> = words.iter().map(|word| systemd_word(word)).collect();
    let user = runner
        .user
        .iter()
        .fold(String::new(), |_, user| format!("User={user}\n"));
    format!(
        "{}[Unit]\nDescription=Walden: {} of cluster {}\nAfter=network-online.target\nWants=network-online.target\n\n\
         [Service]\nType=oneshot\n{user}ExecStart={}\n\
         # 5: another machine runs it.\nSuccessExitStatus=5\nTimeoutStopSec=90\nUMask=0077\n",
        runner.mark(),
        job.name,
        runner.cluster,
        line.join(" ")
    )
}

fn timer_unit(runner: &Runner, job: &Job, schedule: &Schedule) -> String {
    let calendars: String = calendar(schedule.cron())
        .iter()
        .map(|calendar| format!("OnCalendar={calendar} {}\n", schedule.zone()))
        .collect();
    format!(
        "{}[Unit]\nDescription=Walden: when {} of cluster {} runs ({})\n\n[Timer]\n{calendars}{HOURLY}\
         # What was missed while the machine was off is caught up once.\nPersistent=true\nAccuracySec=1s\n\n\
         [Install]\nWantedBy=timers.target\n",
        runner.mark(),
        job.name,
        runner.cluster,
        schedule.cron()
    )
}

/// A word of a command line of systemd, where quotes, backslashes, percent and dollar signs are special.
fn systemd_word(word: &str) -> String {
    let text = word
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('%', "%%")
        .replace('$', "$$");
    match text
        .chars()
        .any(|c| c.is_whitespace() || matches!(c, '"' | '\'' | '\\' | ';'))
        || text.is_empty()
    {
        true => format!("\"{text}\""),
        false => text,
    }
}

/// A cron expression as systemd writes it. Cron takes either day where it names both, systemd wants both: so there are two.
fn calendar(cron: &Cron) -> Vec<String> {
    let list = |values: &[u32], all: usize| match values.len() == all {
        true => "*".to_string(),
        false => values
            .iter()
            .map(|value| format!("{value:02}"))
            .collect::<Vec<_>>()
            .join(","),
    };
    let months = list(&cron.months(), 12);
    let time = format!(
        "{}:{}:00",
        list(&cron.hours(), 24),
        list(&cron.minutes(), 60)
    );
    let weekdays = cron.days_of_week().map(|days| {
        const NAMES: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
        let names: Vec<&str> = days
            .iter()
            .filter_map(|day| NAMES.get(*day as usize).copied())
            .collect();
        format!("{} *-{months}-* {time}", names.join(","))
    });
    let days = cron
        .days_of_month()
        .map(|days| format!("*-{months}-{} {time}", list(&days, 31)));
    match (days, weekdays) {
        (None, None) => vec![format!("*-{months}-* {time}")],
        (days, weekdays) => days.into_iter().chain(weekdays).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::jobs::Lane;

    fn job(name: &'static str, cron: &str) -> Job {
        let zone = "Europe/Berlin".parse().unwrap();
        Job {
            name,
            schedule: Some(Schedule::new(cron.parse().unwrap(), zone, Duration::ZERO)),
            lane: Lane::Long,
            deadline: Duration::from_secs(60),
            arguments: Ok(Vec::new()),
        }
    }

    fn runner(user: Option<&str>) -> Runner {
        Runner {
            program: "/opt/100% \"fun\"/walden".into(),
            config: "/etc/walden/o'clock $x.toml".into(),
            cluster: "main".into(),
            user: user.map(String::from),
        }
    }

    #[test]
    fn expressions_mean_the_same_to_systemd() {
        let calendar = |cron: &str| calendar(&cron.parse().unwrap());
        assert_eq!(calendar("0 2 * * 0"), ["Sun *-*-* 02:00:00"]);
        assert_eq!(calendar("*/15 * * * *"), ["*-*-* *:00,15,30,45:00"]);
        assert_eq!(
            calendar("5 4 1,15 JAN-MAR *"),
            ["*-01,02,03-01,15 04:05:00"]
        );
        assert_eq!(
            calendar("0 0 1 * MON-FRI"),
            ["*-*-01 00:00:00", "Mon,Tue,Wed,Thu,Fri *-*-* 00:00:00"]
        );
        assert_eq!(calendar("* * * * *"), ["*-*-* *:*:00"]);
    }

    #[test]
    fn systemd_itself_finds_the_same_moments() {
        let Ok(version) = std::process::Command::new("systemd-analyze")
            .arg("--version")
            .output()
        else {
            return eprintln!("skipped: systemd-analyze is not installed");
        };
        assert!(version.status.success());
        for cron in [
            "0 2 * * 0",
            "*/15 3-5 1,15 * *",
            "30 23 31 DEC *",
            "17 */6 * FEB 1-5",
        ] {
            let expression = &calendar(&cron.parse().unwrap())[0];
            let mut analyze = std::process::Command::new("systemd-analyze");
            analyze.args([
                "calendar",
                "--iterations=4",
                "--base-time=2026-11-30 12:34:56 UTC",
            ]);
            let output = analyze
                .arg(format!("{expression} UTC"))
                .env("TZ", "UTC")
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(
                output.status.success(),
                "{cron}: {said}{}",
                String::from_utf8_lossy(&output.stderr)
            );
            let zone = "UTC".parse().unwrap();
            let schedule = Schedule::new(cron.parse().unwrap(), zone, Duration::ZERO);
            let mut time = "2026-11-30T12:34:56Z".parse().unwrap();
            for _ in 0..4 {
                time = schedule.next_after(time).unwrap();
                let shown = time.format("%Y-%m-%d %H:%M:%S UTC").to_string();
                assert!(said.contains(&shown), "{cron}: {shown} is not in:\n{said}");
            }
        }
    }

    #[test]
    fn systemd_wakes_a_job_in_the_hour_that_the_clocks_skip() {
        let units = units(&runner(None), &[job("backup", "0 2 * * SUN")]);
        let calendars: Vec<&str> = units[1]
            .1
            .lines()
            .filter_map(|line| line.strip_prefix("OnCalendar="))
            .collect();
        assert_eq!(
            calendars,
            ["Sun *-*-* 02:00:00 Europe/Berlin", "hourly UTC"]
        );
        let mut analyze = std::process::Command::new("systemd-analyze");
        analyze.args(["calendar", "--base-time=2027-03-28 00:30:00 UTC"]);
        let Ok(output) = analyze.args(calendars).env("TZ", "UTC").output() else {
            return eprintln!("skipped: systemd-analyze is not installed");
        };
        let said = String::from_utf8_lossy(&output.stdout);
        // When the run that Walden has for that day is due; the first expression leaves it out.
        let due = job("backup", "0 2 * * SUN").schedule.unwrap();
        let due = due.next_after("2027-03-28T00:30:00Z".parse().unwrap());
        assert_eq!(due, "2027-03-28T01:00:00Z".parse().ok());
        assert!(
            said.contains("2027-04-04 00:00:00 UTC") && said.contains("2027-03-28 01:00:00 UTC"),
            "{said}"
        );
    }

    #[test]
    fn a_cron_file_is_one_that_cron_reads() {
        let jobs = [job("backup", "0 2 * * SUN"), job("dump", "@hourly")];
        let text = cron_file(&runner(Some("postgres")), &jobs);
        assert!(text.starts_with(MARK) && text.ends_with('\n'));
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(lines[0], "CRON_TZ=Europe/Berlin");
        let command = r#"'/opt/100\% "fun"/walden' --config '/etc/walden/o'\''clock $x.toml' jobs run backup --scheduled"#;
        assert_eq!(lines[1], format!("0 2 * * SUN postgres {command}"));
        assert_eq!(lines[2], format!("@reboot postgres {command}"));
        assert_eq!(lines[3], format!("17 * * * * postgres {command}"));
        assert!(lines[4].starts_with("0 * * * * postgres ") && lines.len() == 6);
        for line in [lines[1], lines[3], lines[4]] {
            let fields: Vec<&str> = line.splitn(6, ' ').collect();
            assert!(fields[..5].join(" ").parse::<Cron>().is_ok(), "{line}");
        }
        // Of a user's own: no name.
        assert!(cron_file(&runner(None), &jobs).contains("\n0 2 * * SUN '/opt"));
        // What a shell makes of a line, once cron took the percent signs back.
        let shell = lines[1].splitn(7, ' ').last().unwrap().replace("\\%", "%");
        let script = format!("for word in {shell}; do echo \"$word\"; done");
        let words = std::process::Command::new("sh")
            .args(["-c", &script])
            .output()
            .unwrap();
        let words = String::from_utf8(words.stdout).unwrap();
        assert_eq!(
            words.lines().collect::<Vec<_>>(),
            runner(None).words("backup")
        );
    }

    #[test]
    fn units_name_user_zone_and_command() {
        let jobs = [job("backup", "0 2 1 * SUN")];
        let units = units(&runner(Some("postgres")), &jobs);
        let names: Vec<&str> = units.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            ["walden-main-backup.service", "walden-main-backup.timer"]
        );
        let (service, timer) = (&units[0].1, &units[1].1);
        let command = r#"ExecStart="/opt/100%% \"fun\"/walden" --config "/etc/walden/o'clock $$x.toml" jobs run backup --scheduled"#;
        assert!(
            service.contains(command) && service.contains("\nUser=postgres\n"),
            "{service}"
        );
        assert!(timer.contains("OnCalendar=*-*-01 02:00:00 Europe/Berlin\nOnCalendar=Sun *-*-* 02:00:00 Europe/Berlin\n"), "{timer}");
        let mark = format!("{MARK}\n# For cluster \"main\" by \"/etc/walden/o'clock $x.toml\".\n");
        assert!(units.iter().all(|(_, text)| text.starts_with(&mark)));
    }
}
