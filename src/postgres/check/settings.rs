//! The server's settings. Pure.

use super::command::{Program, first_word, program};
use super::server::ArchivingSettings;
use super::{Check, Verdict};

/// What the settings are judged by.
pub(super) struct SettingsFacts<'a> {
    pub standby: bool,
    /// The right archive_command.
    pub line: &'a str,
    /// The end-to-end check passed.
    pub proven: bool,
}

/// One verdict for each setting that archiving depends on.
pub(super) fn decide(settings: &ArchivingSettings, known: &SettingsFacts) -> Vec<Verdict> {
    let archive_mode = archive_mode(&settings.archive_mode, known.standby);
    let archive_command = match settings.archive_mode.as_str() {
        "off" => Check::ArchiveCommand.because(Check::ArchiveMode),
        _ => archive_command(settings, known),
    };
    vec![
        wal_level(&settings.wal_level),
        archive_mode,
        archive_command,
        archive_timeout(settings.archive_timeout),
        full_page_writes(settings.full_page_writes),
    ]
}

fn wal_level(level: &str) -> Verdict {
    match level {
        "minimal" => Check::WalLevel
            .critical("wal_level = minimal: the WAL cannot restore a backup")
            .hint("set wal_level = replica in postgresql.conf and restart the server"),
        level => Check::WalLevel.ok(format!("wal_level = {level}")),
    }
}

fn archive_mode(mode: &str, standby: bool) -> Verdict {
    match (mode, standby) {
        ("off", _) => Check::ArchiveMode
            .critical("archive_mode = off: no WAL is archived")
            .hint("set archive_mode = on in postgresql.conf and restart the server"),
        ("on", true) => {
            Check::ArchiveMode.ok("archive_mode = on: this standby archives once it is promoted")
        }
        (mode, _) => Check::ArchiveMode.ok(format!("archive_mode = {mode}")),
    }
}

fn archive_command(settings: &ArchivingSettings, known: &SettingsFacts) -> Verdict {
    let set = format!(
        "set {} in postgresql.conf (`walden init` prints it, too) and reload the server",
        known.line
    );
    let ArchivingSettings {
        archive_command: command,
        archive_library: library,
        ..
    } = settings;
    if !library.is_empty() {
        return Check::ArchiveCommand
            .critical(format!("archive_library = \"{library}\" takes the place of archive_command: Walden gets no WAL"))
            .hint("set archive_library = '' in postgresql.conf and reload the server");
    }
    if first_word(command).is_none() {
        return Check::ArchiveCommand
            .critical("archive_command is empty: the server keeps all WAL and archives none")
            .hint(set);
    }
    match program(command) {
        Program::Ours(_) if !command.contains("%p") => Check::ArchiveCommand
            .critical(format!(
                "archive_command is given no file: \"{command}\" lacks %p"
            ))
            .hint(set),
        Program::Ours(_) => Check::ArchiveCommand.ok(command.clone()),
        Program::Other if known.proven => Check::ArchiveCommand.ok(format!(
            "{command}: not a program of Walden, but what it archives arrives"
        )),
        Program::Other => Check::ArchiveCommand
            .warning(format!(
                "archive_command does not name archive-command or walden: \"{command}\""
            ))
            .hint(format!(
                "{set}; if this is a script of yours that does, the end-to-end check proves it"
            )),
    }
}

fn archive_timeout(seconds: u32) -> Verdict {
    match seconds {
        0 => Check::ArchiveTimeout
            .ok("archive_timeout = 0: on an idle server, commits wait for a full segment before they are archived")
            .hint("advice: set archive_timeout = 60s, which bounds what is lost with the server's disk"),
        seconds => Check::ArchiveTimeout.ok(format!("archive_timeout = {seconds}s")),
    }
}

fn full_page_writes(on: bool) -> Verdict {
    match on {
        true => Check::FullPageWrites.ok("full_page_writes = on"),
        false => Check::FullPageWrites
            .warning("full_page_writes = off: pages torn by a crash stay torn, and standbys give no backups")
            .hint("set full_page_writes = on in postgresql.conf and reload the server"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::check::CheckStatus;
    use crate::postgres::check::testing::server;

    const KNOWN: SettingsFacts = SettingsFacts {
        standby: false,
        line: "archive_command = 'x'",
        proven: false,
    };

    /// The status of one check after one change to settings that are right.
    fn status(check: Check, change: fn(&mut ArchivingSettings)) -> CheckStatus {
        let mut settings = server().settings;
        change(&mut settings);
        let verdicts = decide(&settings, &KNOWN);
        verdicts
            .iter()
            .find(|verdict| verdict.check == check)
            .unwrap()
            .status
    }

    #[test]
    fn right_settings_pass() {
        assert!(
            decide(&server().settings, &KNOWN)
                .iter()
                .all(|verdict| verdict.status == CheckStatus::Ok)
        );
    }

    #[test]
    fn what_makes_restores_impossible_is_critical() {
        assert_eq!(
            status(Check::WalLevel, |s| s.wal_level = "minimal".into()),
            CheckStatus::Critical
        );
        assert_eq!(
            status(Check::WalLevel, |s| s.wal_level = "logical".into()),
            CheckStatus::Ok
        );
        assert_eq!(
            status(Check::ArchiveMode, |s| s.archive_mode = "off".into()),
            CheckStatus::Critical
        );
        assert_eq!(
            status(Check::ArchiveMode, |s| s.archive_mode = "always".into()),
            CheckStatus::Ok
        );
        assert_eq!(
            status(Check::ArchiveCommand, |s| s.archive_mode = "off".into()),
            CheckStatus::Unknown
        );
        assert_eq!(
            status(Check::ArchiveCommand, |s| s.archive_library =
                "basic_archive".into()),
            CheckStatus::Critical
        );
    }

    #[test]
    fn an_archive_command_must_be_there_name_walden_and_the_file() {
        for (command, expected) in [
            ("", CheckStatus::Critical),
            ("  ", CheckStatus::Critical),
            ("/usr/local/bin/archive-command", CheckStatus::Critical),
            ("/usr/local/bin/archive-command %p", CheckStatus::Ok),
            (
                "\"/opt/my tools/archive-command\" --config \"x y\" %p",
                CheckStatus::Ok,
            ),
            ("walden wal push %p", CheckStatus::Ok),
            (
                "test -f %p && timeout 600 /usr/local/bin/archive-command --config=x %p",
                CheckStatus::Ok,
            ),
            ("cp %p /mnt/%f", CheckStatus::Warning),
            ("/usr/local/bin/archive-wal.sh %p", CheckStatus::Warning),
        ] {
            let settings = ArchivingSettings {
                archive_command: command.into(),
                ..server().settings
            };
            assert_eq!(
                archive_command(&settings, &KNOWN).status,
                expected,
                "{command}"
            );
            let proven = archive_command(
                &settings,
                &SettingsFacts {
                    proven: true,
                    ..KNOWN
                },
            )
            .status;
            assert_eq!(
                proven == CheckStatus::Ok,
                expected < CheckStatus::Critical,
                "{command}"
            );
        }
    }

    #[test]
    fn advice_is_no_warning_and_torn_pages_are() {
        assert_eq!(
            status(Check::ArchiveTimeout, |s| s.archive_timeout = 0),
            CheckStatus::Ok
        );
        assert_eq!(
            status(Check::FullPageWrites, |s| s.full_page_writes = false),
            CheckStatus::Warning
        );
    }
}
