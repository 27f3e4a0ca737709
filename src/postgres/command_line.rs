//! Command lines: those that PostgreSQL runs, and those that people copy. Pure but for [`program`].

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::config::{DEFAULT_FILE, Settings, SettingsSource};

/// What stands for "no file" where one must be named: then the environment alone tells.
const NO_FILE: &str = "/dev/null";

/// A word for `sh`, safe whatever it holds.
pub fn shell_word(text: &str) -> String {
    let plain = |c: char| {
        c.is_ascii_alphanumeric()
            || matches!(c, '/' | '_' | '-' | '.' | '+' | ',' | ':' | '@' | '=')
    };
    match !text.is_empty() && text.chars().all(plain) {
        true => text.to_string(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

/// Words quoted as a shell needs them, to be copied by people.
pub fn for_people<W: AsRef<Path>>(words: impl IntoIterator<Item = W>) -> String {
    let words: Vec<String> = words
        .into_iter()
        .map(|word| shell_word(&word.as_ref().to_string_lossy()))
        .collect();
    words.join(" ")
}

/// A command line as archive_command and restore_command hold it, where `%` is special; `placeholders` are what
/// PostgreSQL fills in. Errors: a word that is not UTF-8.
pub fn for_postgresql<W: AsRef<Path>>(
    words: impl IntoIterator<Item = W>,
    placeholders: &str,
) -> anyhow::Result<String> {
    let mut line = String::new();
    for word in words {
        let word = word.as_ref();
        let text = word
            .to_str()
            .with_context(|| format!("the path \"{}\" is not UTF-8", word.display()))?;
        line += &shell_word(text).replace('%', "%%");
        line.push(' ');
    }
    Ok(line + placeholders)
}

/// The configuration file that a hook must name; `file` is the one that was read.
pub fn named_file(file: Option<&Path>) -> PathBuf {
    file.unwrap_or(Path::new(NO_FILE)).to_path_buf()
}

/// The value of archive_command: always with its configuration, by which the hook does the work itself and the service
/// knows whom it is for, and with the socket. Errors: a path that is not UTF-8.
pub fn archive_command(config: &Path, socket: &Path) -> anyhow::Result<String> {
    let program = program("archive-command").unwrap_or_else(|| "archive-command".into());
    let config = std::path::absolute(config).unwrap_or_else(|_| config.to_path_buf());
    for_postgresql(
        [
            &program,
            Path::new("--config"),
            &config,
            Path::new("--socket"),
            socket,
        ],
        "%p",
    )
}

/// The same by settings, for hints.
pub fn archive_command_of(settings: &Settings) -> String {
    let file = match &settings.source {
        SettingsSource::File(path) => Some(path.as_path()),
        SettingsSource::Environment => None,
    };
    let line = archive_command(&named_file(file), &settings.service.socket);
    line.unwrap_or_else(|_| format!("archive-command --config {DEFAULT_FILE} --socket SOCKET %p"))
}

/// A program that lies beside this one.
pub fn program(name: &str) -> Option<PathBuf> {
    let beside = std::env::current_exe().ok()?.with_file_name(name);
    beside.exists().then_some(beside)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_for_postgresql_keeps_what_postgresql_and_the_shell_take_for_special() {
        let line = for_postgresql(
            ["/my 'to%ols/archive-command", "--config", "/etc/x.toml"],
            "%p",
        )
        .unwrap();
        assert_eq!(
            line,
            "'/my '\\''to%%ols/archive-command' --config /etc/x.toml %p"
        );
    }

    #[test]
    fn an_archive_command_names_its_configuration_and_its_socket() {
        let line =
            archive_command(Path::new("x.toml"), Path::new("/run/walden/hook.sock")).unwrap();
        let here = std::env::current_dir().unwrap().join("x.toml");
        assert!(
            line.contains(&for_people([Path::new("--config"), &here])),
            "{line}"
        );
        assert!(
            line.ends_with(" --socket /run/walden/hook.sock %p"),
            "{line}"
        );
    }

    proptest! {
        #[test]
        fn a_line_is_its_words_whatever_they_hold(words in proptest::collection::vec("[ -~ä\n]{0,20}", 1..4)) {
            let script = format!("printf '%s\\001' {}", for_people(&words));
            let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            let expected: String = words.iter().map(|word| format!("{word}\u{1}")).collect();
            prop_assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
        }
    }
}
