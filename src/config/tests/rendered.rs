//! What is printed, written, and kept secret.

use super::*;
use crate::config::testing::assert_fresh;

#[test]
fn no_secret_is_ever_printed() {
    let secret = "hunter2";
    let machine = Machine::with_url_and(&format!(
        "[postgresql]\ndsn = \"host=h password={secret}\"\n"
    ));
    let settings = machine.settings();
    assert!(settings.postgresql.dsn.expose().contains(secret));
    let json = serde_json::to_string(&effective(&settings)).unwrap();
    for text in [
        format!("{settings:?}"),
        show(&settings),
        json,
        settings.postgresql.dsn.to_string(),
    ] {
        assert!(!text.contains(secret), "{text}");
    }
    assert_says(&show(&settings), &["postgresql.dsn", "***"]);
}

#[test]
fn no_secret_is_printed_by_an_error() {
    for line in [
        "dsn = \"password=hunter2",
        "dsn = [\"hunter2\"]",
        "dsn = \"hunter2\" hunter2",
        "dsn = hunter2",
    ] {
        let (error, hint) = Machine::with_url_and(&format!("[postgresql]\n{line}\n")).error();
        assert_says(&error, &["walden.toml\" line 4"]);
        assert!(
            !error.contains("hunter2") && !hint.contains("hunter2"),
            "{error}"
        );
    }
}

#[test]
fn a_password_in_a_file_that_all_can_read_is_warned_of() {
    for (dsn, mode, expected) in [
        ("host=h password=x", 0o644, true),
        ("host=h password = 'x'", 0o604, true),
        ("postgresql://user:x@h/db", 0o644, true),
        ("postgresql://h/db?password=x", 0o644, true),
        ("host=h password=x", 0o640, false),
        ("postgresql://user:x@h/db", 0o600, false),
        ("postgresql://user@h:5432/db", 0o644, false),
        ("host=h passfile=/x", 0o644, false),
    ] {
        let machine = Machine::with_url_and(&format!("[postgresql]\ndsn = \"{dsn}\"\n"))
            .mode("walden.toml", mode);
        let warnings = machine.settings().warnings;
        assert_eq!(!warnings.is_empty(), expected, "{dsn} {mode:o}");
        if let Some(warning) = warnings.first() {
            assert_says(
                warning,
                &["walden.toml", "chmod o-rwx", &format!("mode {mode:04o}")],
            );
            assert!(!warning.contains(dsn));
        }
    }
}

#[test]
fn a_secret_key_in_a_file_that_all_can_read_is_warned_of() {
    for (key, mode, expected) in [
        ("hunter2", 0o644, true),
        ("hunter2", 0o600, false),
        ("", 0o644, false),
    ] {
        let machine = Machine::with_url_and(&format!("[s3]\nsecret_access_key = \"{key}\"\n"))
            .mode("walden.toml", mode);
        let warnings = machine.settings().warnings;
        assert_eq!(!warnings.is_empty(), expected, "{mode:o}");
        assert!(warnings.iter().all(
            |warning| warning.contains("s3.secret_access_key") && !warning.contains("hunter2")
        ));
    }
}

#[test]
fn show_tells_where_each_value_comes_from() {
    let machine = Machine::with_url_and("[cluster]\nname = \"blue\"\n")
        .variable("WALDEN_LOG__FORMAT", "json");
    let text = show(&machine.settings());
    let words = |key: &str| {
        let line = text.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(words("cluster.name"), ["cluster.name", "file", "\"blue\""]);
    assert_eq!(
        words("log.format"),
        ["log.format", "environment", "\"json\""]
    );
    assert_eq!(words("wal.memory"), ["wal.memory", "default", "\"64MiB\""]);
    assert_eq!(
        words("backup.max_rate"),
        ["backup.max_rate", "default", "not", "set"]
    );
}

#[test]
fn the_example_reads_back_as_the_defaults() {
    let example = Machine::with(&example()).settings();
    let set: Vec<_> = effective(&example)
        .into_iter()
        .filter(|one| one.origin != Origin::Default)
        .collect();
    assert_eq!(set.len(), 1);
    assert_eq!(
        (set[0].key.as_str(), set[0].value.as_deref()),
        ("repository.url", Some("file:///var/lib/walden/repository"))
    );
}

#[test]
fn the_example_with_its_defaults_uncommented_means_the_same() {
    let uncommented: String = example()
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let values = |text: &str| {
        let shown = effective(&Machine::with(text).settings());
        shown
            .into_iter()
            .map(|one| (one.key, one.value))
            .collect::<Vec<_>>()
    };
    assert_eq!(values(&uncommented), values(&example()));
    let unset = KEYS
        .iter()
        .filter(|key| matches!(key.default, Fallback::Unset(_)))
        .count();
    let from_file = effective(&Machine::with(&uncommented).settings());
    assert_eq!(
        from_file
            .iter()
            .filter(|one| one.origin == Origin::File)
            .count(),
        KEYS.len() - unset
    );
}

#[test]
fn the_examples_of_unset_keys_are_valid() {
    for key in KEYS {
        if let Fallback::Unset(example) | Fallback::Required(example) = key.default {
            Machine::with(URL)
                .variable(&key.variable(), example)
                .settings();
        }
    }
}

#[test]
fn a_rendered_file_sets_what_was_given() {
    let given: Vec<(String, String)> = KEYS
        .iter()
        .map(|key| (key.path(), other_value(key).0))
        .collect();
    let given: Vec<(&str, &str)> = given
        .iter()
        .map(|(path, text)| (path.as_str(), text.as_str()))
        .collect();
    let file = Machine::with(&render_commented(&given).unwrap()).settings();
    let environment = KEYS.iter().fold(Machine::new(), |machine, key| {
        machine.variable(&key.variable(), other_value(key).0)
    });
    for (from_file, from_environment) in effective(&file)
        .iter()
        .zip(effective(&environment.settings()))
    {
        assert_eq!(from_file.origin, Origin::File, "{}", from_file.key);
        assert_eq!(from_file.value, from_environment.value, "{}", from_file.key);
    }
    assert_eq!(file.postgresql.dsn.expose(), "host=other");
}

#[test]
fn nothing_wrong_is_rendered() {
    let error = |given| one_line(&render_commented(&[given]).unwrap_err());
    assert_says(
        &error(("wal.levle", "3")),
        &["\"wal.levle\"", "nearest known"],
    );
    assert_says(
        &error(("wal.look_ahead", "65")),
        &["wal.look_ahead is \"65\"", "0 to 64"],
    );
}

#[test]
fn the_example_in_the_tree_is_fresh() {
    assert_fresh("deploy/walden.toml", &example());
}

#[test]
fn the_reference_in_the_tree_is_fresh() {
    assert_fresh("docs/operations/configuration.md", &render_reference());
}

/// A preset as a file: with a repository that is to be changed.
fn preset_file(preset: &Preset) -> String {
    let url = ("repository.url", "file:///var/lib/walden/repository");
    let given: Vec<_> = [url]
        .into_iter()
        .chain(preset.settings.iter().copied())
        .collect();
    let text = render_commented(&given).unwrap();
    format!("# Preset \"{}\": {}\n{text}", preset.name, preset.about)
}

#[test]
fn each_preset_in_the_tree_is_fresh_and_is_read_as_it_says() {
    for preset in PRESETS {
        let text = preset_file(preset);
        assert_fresh(&format!("deploy/presets/{}.toml", preset.name), &text);
        let settings = Machine::with(&text).settings();
        for (path, value) in preset.settings {
            let shown = effective(&settings)
                .into_iter()
                .find(|shown| shown.key == *path);
            let shown = shown.unwrap_or_else(|| panic!("{path} of {}", preset.name));
            assert_eq!(
                (shown.value.as_deref(), shown.origin),
                (Some(*value), Origin::File),
                "{path}"
            );
        }
    }
}
