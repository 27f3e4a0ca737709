use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

mod identity;
mod rendered;
mod values;

use super::*;
use crate::error::{hints, one_line};

const URL: &str = "[repository]\nurl = \"file:///srv/archive\"\n";

/// A folder for configuration files, and an environment.
struct Machine {
    folder: tempfile::TempDir,
    env: Vec<(String, String)>,
    named: Option<PathBuf>,
}

impl Machine {
    fn new() -> Self {
        Machine {
            folder: tempfile::tempdir().unwrap(),
            env: Vec::new(),
            named: None,
        }
    }

    /// A machine whose default file holds `text`.
    fn with(text: &str) -> Self {
        Machine::new().file("walden.toml", text)
    }

    /// A machine whose default file holds a repository and `text`.
    fn with_url_and(text: &str) -> Self {
        Machine::with(&format!("{URL}{text}"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(self, name: &str, text: &str) -> Self {
        std::fs::write(self.path(name), text).unwrap();
        self
    }

    fn mode(self, name: &str, mode: u32) -> Self {
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
        self
    }

    fn variable(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    fn named(mut self, name: &str) -> Self {
        self.named = Some(self.path(name));
        self
    }

    fn load(&self) -> anyhow::Result<Settings> {
        load_with_default(
            self.named.as_deref(),
            self.env.iter().map(|(k, v)| (k, v)),
            &self.path("walden.toml"),
        )
    }

    fn settings(&self) -> Settings {
        self.load()
            .unwrap_or_else(|error| panic!("{}", one_line(&error)))
    }

    /// The error's chain and its hints.
    fn error(&self) -> (String, String) {
        let error = self.load().expect_err("these settings must be refused");
        (one_line(&error), hints(&error).join("\n"))
    }
}

#[track_caller]
fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
}

/// A valid text of `key` that is not its default, and how TOML writes it.
fn other_value(key: &SettingKey) -> (String, String) {
    let text = match key.kind {
        SettingType::Url => "file:///other/folder",
        SettingType::Name => "other-1",
        SettingType::Path { .. } => "/other/path",
        SettingType::Endpoint => "https://other:9000",
        SettingType::Listen => "[::1]:9000",
        SettingType::Word => "other/word",
        SettingType::Secret => "host=other",
        SettingType::Integer { .. } | SettingType::Workers { .. } | SettingType::Keep => {
            return ("7".into(), "7".into());
        }
        SettingType::Size { .. } => "32MiB",
        SettingType::Duration { .. } => "90s",
        SettingType::Bool if key.default == Fallback::Value("true") => {
            return ("false".into(), "false".into());
        }
        SettingType::Bool => return ("true".into(), "true".into()),
        SettingType::List => return ("[\"other\",\"-i\"]".into(), "[\"other\", '-i']".into()),
        SettingType::Cron => "7 3 * * 1",
        SettingType::TimeZone => "Europe/Berlin",
        SettingType::Choice(choices) => choices[1],
    };
    let text = if key.path() == "log.level" {
        "trace"
    } else {
        text
    };
    (text.into(), format!("\"{text}\""))
}

fn shown(settings: &Settings, key: &SettingKey) -> DisplayedSetting {
    effective(settings)
        .into_iter()
        .find(|one| one.key == key.path())
        .unwrap()
}

#[test]
fn every_key_can_be_set_by_the_file_and_by_the_environment() {
    for key in KEYS {
        let (text, toml) = other_value(key);
        let default = Machine::with(URL).settings();
        let file = match key.section {
            "repository" if key.name == "url" => format!("[repository]\nurl = {toml}\n"),
            "repository" => format!("{URL}{} = {toml}\n", key.name),
            section => format!("{URL}[{section}]\n{} = {toml}\n", key.name),
        };
        let by_file = Machine::with(&file).settings();
        let by_variable = Machine::with(URL)
            .variable(&key.variable(), text)
            .settings();
        assert_ne!(shown(&default, key).origin, Origin::Environment);
        assert_eq!(shown(&by_file, key).origin, Origin::File, "{}", key.path());
        assert_eq!(
            shown(&by_variable, key).origin,
            Origin::Environment,
            "{}",
            key.path()
        );
        assert_eq!(shown(&by_file, key).value, shown(&by_variable, key).value);
        assert_ne!(
            shown(&by_file, key).value,
            shown(&default, key).value,
            "{}",
            key.path()
        );
        let typed = |settings: &Settings| {
            let s = settings;
            format!(
                "{:?} {:?} {} {} {:?} {} {:?} {:?} {:?} {} {:?} {:?} {:?} {:?} {} {:?} {:?} {:?} {:?}",
                s.repository,
                s.s3,
                s.s3.access_key_id.expose(),
                s.s3.secret_access_key.expose(),
                s.cluster,
                s.postgresql.dsn.expose(),
                s.wal,
                s.backup,
                s.dump,
                s.dump.dsn.expose(),
                s.catalog,
                s.restore,
                s.service,
                s.http,
                s.http.token.expose(),
                s.health,
                (
                    &s.retention,
                    &s.retention_base,
                    &s.retention_dump,
                    &s.retention_schema
                ),
                (&s.schedule, &s.drill, &s.evidence, &s.alerts, &s.metrics),
                s.log
            )
        };
        assert_eq!(typed(&by_file), typed(&by_variable));
        assert_ne!(
            typed(&by_file),
            typed(&default),
            "{} does not reach its field",
            key.path()
        );
    }
}

#[test]
fn keys_and_variables_are_unique_and_the_keys_of_a_section_stand_together() {
    let mut variables: Vec<_> = KEYS.iter().map(SettingKey::variable).collect();
    variables.sort();
    variables.dedup();
    assert_eq!(variables.len(), KEYS.len());
    let mut sections: Vec<_> = KEYS.iter().map(|key| key.section).collect();
    sections.dedup();
    let runs = sections.len();
    sections.sort();
    sections.dedup();
    assert_eq!(sections.len(), runs);
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let settings = Machine::with(URL).settings();
    assert_eq!(
        settings.repository.url,
        RepositoryUrl::File("/srv/archive".into())
    );
    assert_eq!(
        (
            settings.cluster.name.as_str(),
            &settings.cluster.data_directory
        ),
        ("main", &None)
    );
    assert!(settings.postgresql.dsn.is_empty());
    let wal = &settings.wal;
    assert_eq!(
        (
            wal.compression_level,
            wal.look_ahead,
            wal.prefetch,
            settings.repository.retries
        ),
        (1, 8, 8, 8)
    );
    assert_eq!(
        (wal.memory, wal.timeout),
        (64 << 20, Duration::from_secs(60))
    );
    let cpus = std::thread::available_parallelism().unwrap().get().min(64);
    assert_eq!(
        (
            wal.workers,
            settings.backup.workers,
            settings.restore.workers
        ),
        (cpus, cpus, cpus)
    );
    let backup = &settings.backup;
    assert_eq!(
        (backup.compression_level, backup.pack_size, backup.max_rate),
        (3, 16 << 20, None)
    );
    assert_eq!(
        (backup.checkpoint, backup.wal_timeout),
        (Checkpoint::Fast, Duration::from_secs(300))
    );
    assert!(backup.verify_checksums);
    assert_eq!(settings.service.socket, Path::new("/run/walden/hook.sock"));
    assert_eq!(settings.service.max_connections, 32);
    let http = &settings.http;
    assert_eq!(
        (http.listen, http.max_connections),
        ("127.0.0.1:8432".parse().ok(), 64)
    );
    assert_eq!(
        (http.refresh_interval, http.wal_memory),
        (Duration::from_secs(60), 48 << 20)
    );
    assert!(http.token.is_empty() && http.token_file.is_none() && http.tls_certificate.is_none());
    assert_eq!(
        (settings.log.level.as_str(), settings.log.format),
        ("info", LogFormat::Text)
    );
    assert!(settings.warnings.is_empty());
}

#[test]
fn the_environment_alone_is_enough() {
    let machine = Machine::new().variable("WALDEN_REPOSITORY__URL", "file:///srv/archive");
    assert_eq!(machine.settings().source, SettingsSource::Environment);
}

#[test]
fn the_environment_beats_the_file() {
    let machine = Machine::with_url_and("[wal]\ncompression_level = 4\n")
        .variable("WALDEN_WAL__COMPRESSION_LEVEL", "-3");
    assert_eq!(machine.settings().wal.compression_level, -3);
}

#[test]
fn the_argument_beats_walden_config_which_beats_the_default_file() {
    let named = |name: &str| format!("{URL}[cluster]\nname = \"{name}\"\n");
    let machine = Machine::with(&named("default"))
        .file("a.toml", &named("a"))
        .file("b.toml", &named("b"));
    assert_eq!(machine.settings().cluster.name, "default");
    let by_variable = machine.path("b.toml").display().to_string();
    let machine = machine.variable("WALDEN_CONFIG", by_variable);
    assert_eq!(machine.settings().cluster.name, "b");
    let machine = machine.named("a.toml");
    assert_eq!(machine.settings().cluster.name, "a");
    assert_eq!(
        machine.settings().source,
        SettingsSource::File(machine.path("a.toml"))
    );
}

#[test]
fn an_empty_walden_config_names_no_file() {
    let machine = Machine::with(URL).variable("WALDEN_CONFIG", "");
    assert_eq!(
        machine.settings().source,
        SettingsSource::File(machine.path("walden.toml"))
    );
}

#[test]
fn a_file_that_is_named_must_exist() {
    let (error, hint) = Machine::with(URL).named("gone.toml").error();
    assert_says(
        &error,
        &["gone.toml\"", "named by --config", "does not exist"],
    );
    assert_says(&hint, &["walden init"]);
    let (error, _) = Machine::with(URL)
        .variable("WALDEN_CONFIG", "/nowhere/walden.toml")
        .error();
    assert_says(
        &error,
        &[
            "\"/nowhere/walden.toml\"",
            "named by WALDEN_CONFIG",
            "does not exist",
        ],
    );
}

#[test]
fn a_file_that_cannot_be_read_is_not_taken_for_an_absent_one() {
    let machine = Machine::new().variable("WALDEN_REPOSITORY__URL", "file:///srv/archive");
    std::fs::create_dir(machine.path("walden.toml")).unwrap();
    assert_says(
        &machine.error().0,
        &["cannot read configuration file", "walden.toml\""],
    );
}

#[test]
fn only_a_file_of_some_length_is_read_and_nothing_is_waited_for() {
    let machine = Machine::new().file("long", &"#".repeat(LONGEST_FILE as usize + 1));
    let pipe = std::process::Command::new("mkfifo")
        .arg(machine.path("pipe"))
        .status()
        .unwrap();
    assert!(pipe.success());
    for name in ["/dev/zero", "long", "pipe"] {
        let machine = Machine {
            named: Some(machine.path(name)),
            ..Machine::new()
        };
        assert_says(
            &machine.error().0,
            &["cannot read configuration file", name],
        );
    }
    let none = Machine::with("cluster.name = \"other\"\n")
        .variable("WALDEN_REPOSITORY__URL", "file:///srv/archive");
    assert_eq!(
        none.named("/dev/null").settings().cluster.name,
        "main",
        "nothing is read"
    );
}

#[test]
fn a_relative_file_name_is_kept_absolute_for_commands_that_run_elsewhere() {
    let read = read(Path::new("Cargo.toml")).unwrap().unwrap();
    assert_eq!(
        read.path,
        std::env::current_dir().unwrap().join("Cargo.toml")
    );
}

#[test]
fn a_missing_repository_says_where_to_set_it() {
    let (error, hint) = Machine::new().error();
    assert_says(&error, &["\"repository.url\" is not set"]);
    assert_says(
        &hint,
        &[DEFAULT_FILE, "walden init", "WALDEN_REPOSITORY__URL"],
    );
    let machine = Machine::with("[log]\n");
    assert_says(
        &machine.error().1,
        &[&machine.path("walden.toml").display().to_string()],
    );
}

#[test]
fn an_unknown_key_names_file_line_and_the_nearest_key() {
    let (error, hint) = Machine::with_url_and("\n[wal]\ncompresion_level = 3\n").error();
    assert_says(
        &error,
        &[
            "walden.toml\" line 5",
            "\"wal.compresion_level\"",
            "\"wal.compression_level\"",
        ],
    );
    assert_says(&hint, &["walden config example"]);
}

#[test]
fn a_key_of_another_section_is_found() {
    let (error, _) = Machine::with_url_and("[wal]\nmax_rate = \"1MiB\"\n").error();
    assert_says(&error, &["\"wal.max_rate\"", "\"backup.max_rate\""]);
    let (error, _) = Machine::with("url = \"file:///srv/archive\"\n").error();
    assert_says(
        &error,
        &[
            "line 1",
            "\"url\" outside of any section",
            "\"repository.url\"",
        ],
    );
}

#[test]
fn an_unknown_section_names_the_nearest_section() {
    let (error, _) = Machine::with_url_and("[postgres]\ndsn = \"\"\n").error();
    assert_says(
        &error,
        &["line 3", "unknown section \"postgres\"", "\"postgresql\""],
    );
}

#[test]
fn a_section_is_not_a_value_and_a_value_is_not_a_section() {
    let (error, hint) = Machine::with("log = \"debug\"\n").error();
    assert_says(&error, &["line 1", "\"log\" is a section"]);
    assert_says(&hint, &["\"[log]\""]);
    let (error, _) = Machine::with_url_and("[log.level]\nx = 1\n").error();
    assert_says(&error, &["log.level is \"a table\"", "\"error\" or"]);
}

#[test]
fn an_unknown_variable_names_the_nearest_variable() {
    let (error, _) = Machine::with(URL)
        .variable("WALDEN_WAL__LOOKAHEAD", "3")
        .error();
    assert_says(
        &error,
        &["WALDEN_WAL__LOOKAHEAD", "\"WALDEN_WAL__LOOK_AHEAD\""],
    );
    let (error, _) = Machine::with(URL).variable("WALDEN_REPO__URL", "x").error();
    assert_says(&error, &["\"WALDEN_REPOSITORY__URL\""]);
}

#[test]
fn variables_that_set_nothing_are_left_alone() {
    let names = [
        "WALDEN_LOG",
        "WALDEN_SOCKET",
        "WALDEN_TEST_A__B",
        "WALDEN_HOME",
        "PGHOST",
        "OTHER_WAL__X",
        "walden_a__b",
    ];
    let machine = names.iter().fold(Machine::with(URL), |machine, name| {
        machine.variable(name, "x")
    });
    assert!(
        effective(&machine.settings())
            .iter()
            .all(|one| one.origin != Origin::Environment)
    );
}

#[test]
fn a_variable_that_is_not_utf8_is_refused_only_if_it_is_a_setting() {
    let bad = || std::ffi::OsString::from_vec(vec![0xff]);
    let load =
        |name: &str| load_with_default(None, [(name, bad())], Path::new("/nowhere/walden.toml"));
    assert_says(
        &one_line(&load("WALDEN_REPOSITORY__URL").unwrap_err()),
        &["WALDEN_REPOSITORY__URL is not UTF-8"],
    );
    assert_says(
        &one_line(&load("LS_COLORS").unwrap_err()),
        &["\"repository.url\" is not set"],
    );
}
