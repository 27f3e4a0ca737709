//! Gathers what the file and the environment give, and refuses what the table of keys does not know.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::SettingKey;
use super::settings::KEYS;
use super::value::{self, Raw};
use super::{Origin, Secret};
use crate::error::{Hint, with_hint};

const PREFIX: &str = "WALDEN_";
/// Between section and key in a variable's name. A variable without it is not a setting.
const SEPARATOR: &str = "__";
/// Variables of the tests, never settings.
const TEST_PREFIX: &str = "WALDEN_TEST_";
const CONFIG_FILE: &str = crate::wire::CONFIG_VARIABLE;
const SEE_EXAMPLE: &str =
    "`walden config example` prints every setting with its default and what is allowed";

/// Walden's part of the environment.
pub(super) struct Environment {
    /// `WALDEN_CONFIG`, unless empty.
    pub config_file: Option<PathBuf>,
    /// Name and value of each variable that sets something, in the order of the names so that errors do not vary.
    settings: BTreeMap<String, String>,
}

impl Environment {
    pub fn collect<K: AsRef<OsStr>, V: AsRef<OsStr>>(
        env: impl IntoIterator<Item = (K, V)>,
    ) -> anyhow::Result<Self> {
        let mut collected = Environment {
            config_file: None,
            settings: BTreeMap::new(),
        };
        for (name, value) in env {
            let (name, value) = (name.as_ref().to_string_lossy(), value.as_ref());
            if name == CONFIG_FILE {
                collected.config_file =
                    (!value.is_empty()).then(|| PathBuf::from(OsString::from(value)));
            } else if is_setting(&name) {
                let value = value
                    .to_str()
                    .ok_or_else(|| anyhow!("environment variable {name} is not UTF-8"))
                    .hint("write the value as UTF-8 text, or put it into the configuration file")?;
                collected
                    .settings
                    .insert(name.into_owned(), value.to_owned());
            }
        }
        Ok(collected)
    }
}

fn is_setting(variable: &str) -> bool {
    !variable.starts_with(TEST_PREFIX)
        && variable
            .strip_prefix(PREFIX)
            .is_some_and(|rest| rest.contains(SEPARATOR))
}

/// The values given so far, by their keys' paths. Any may hold a password: all are hidden.
#[derive(Default)]
pub(super) struct Entries(BTreeMap<String, (Secret, Origin)>);

impl Entries {
    /// Takes every value of the file `path` with the content `text`.
    pub fn add_file(&mut self, path: &Path, text: &str) -> anyhow::Result<()> {
        let file = Text { path, text };
        // The parser's own rendering of an error quotes the line, which may hold a password: take its message alone.
        let table = DeTable::parse(text).map_err(|error| {
            with_hint(
                anyhow!(
                    "{}: not valid TOML: {}",
                    file.place(error.span().unwrap_or_default().start),
                    error.message()
                ),
                "correct that line; text values stand in double quotes",
            )
        })?;
        for (section, value) in table.get_ref() {
            let name: &str = section.get_ref();
            let known = KEYS.iter().any(|key| key.section == name);
            match value.get_ref() {
                DeValue::Table(keys) if known => self.add_section(&file, name, keys)?,
                DeValue::Table(_) => {
                    let place = file.place(section.span().start);
                    return Err(unknown(
                        format!("{place}: unknown section \"{name}\""),
                        &nearest_section(name),
                    ));
                }
                _ if known => {
                    let place = file.place(section.span().start);
                    return Err(anyhow!("{place}: \"{name}\" is a section, not a value"))
                        .hint(format!("write a line \"[{name}]\" and its keys below it"));
                }
                _ => {
                    let place = file.place(section.span().start);
                    let problem = format!("{place}: unknown key \"{name}\" outside of any section");
                    return Err(unknown(problem, &nearest_key("", name).path()));
                }
            }
        }
        Ok(())
    }

    fn add_section(&mut self, file: &Text, section: &str, keys: &DeTable) -> anyhow::Result<()> {
        for (name, value) in keys {
            let place = || file.place(name.span().start);
            let (name, path) = (name.get_ref(), format!("{section}.{}", name.get_ref()));
            let Some(key) = find(&path) else {
                return Err(unknown(
                    format!("{}: unknown key \"{path}\"", place()),
                    &nearest_key(section, name).path(),
                ));
            };
            let raw = file.raw(value);
            let value = value::parse(key, &raw, false)
                .map_err(|reason| refused(&place(), key, &path, &raw, &reason))?;
            self.0.insert(path, (Secret::new(value), Origin::File));
        }
        Ok(())
    }

    /// Takes every value of the environment; it wins over the file's.
    pub fn add_environment(&mut self, environment: Environment) -> anyhow::Result<()> {
        for (variable, text) in environment.settings {
            let Some(key) = KEYS.iter().find(|key| key.variable() == variable) else {
                let problem = format!("unknown environment variable {variable}");
                return Err(unknown(problem, &nearest_variable(&variable)));
            };
            let raw = Raw::Text(text);
            let value = value::parse(key, &raw, true)
                .map_err(|reason| refused("environment", key, &variable, &raw, &reason))?;
            self.0
                .insert(key.path(), (Secret::new(value), Origin::Environment));
        }
        Ok(())
    }

    /// The text given for `path` so far.
    pub fn secret(&self, path: &str) -> Option<&Secret> {
        self.0.get(path).map(|(text, _)| text)
    }

    /// The value given for `path`, which is no longer held afterwards.
    pub fn take(&mut self, path: &str) -> Option<(Secret, Origin)> {
        self.0.remove(path)
    }
}

/// A file's content, to tell places in it.
struct Text<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Text<'_> {
    /// File and line of a byte offset.
    fn place(&self, offset: usize) -> String {
        let before = self.text.bytes().take(offset);
        format!(
            "\"{}\" line {}",
            self.path.display(),
            1 + before.filter(|byte| *byte == b'\n').count()
        )
    }

    fn raw(&self, value: &Spanned<DeValue>) -> Raw {
        let written = || self.text.get(value.span()).unwrap_or_default().to_owned();
        match value.get_ref() {
            DeValue::String(text) => Raw::Text(text.to_string()),
            DeValue::Boolean(yes) => Raw::Bool(*yes),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or_else(|_| Raw::Other(written()), Raw::Integer),
            DeValue::Array(values) => {
                let texts = values.iter().map(|one| one.get_ref().as_str());
                let texts = texts.map(|text| text.map(str::to_owned));
                texts
                    .collect::<Option<_>>()
                    .map_or_else(|| Raw::Other(written()), Raw::List)
            }
            DeValue::Table(_) => Raw::Other("a table".into()),
            _ => Raw::Other(written()),
        }
    }
}

/// The key with this path.
pub(super) fn find(path: &str) -> Option<&'static SettingKey> {
    KEYS.iter().find(|key| key.is(path))
}

/// The error for a key that does not exist, also for callers that set keys by name.
pub(super) fn unknown_path(path: &str) -> anyhow::Error {
    let (section, name) = path.split_once('.').unwrap_or(("", path));
    unknown(
        format!("unknown key \"{path}\""),
        &nearest_key(section, name).path(),
    )
}

/// The error for a value that its key does not allow. A secret's value is left out.
pub(super) fn refused(
    place: &str,
    key: &SettingKey,
    name: &str,
    raw: &Raw,
    reason: &str,
) -> anyhow::Error {
    let given = if key.is_secret() {
        "a value of the wrong type".to_owned()
    } else {
        quoted(&raw.to_string())
    };
    with_hint(anyhow!("{place}: {name} is {given}: {reason}"), SEE_EXAMPLE)
}

/// `text` in quotes on one line, cut to a length that a message bears.
fn quoted(text: &str) -> String {
    const LONGEST: usize = 120;
    let cut: String = text.chars().take(LONGEST).collect();
    let more = if cut.len() < text.len() { "..." } else { "" };
    format!("{:?}", cut + more)
}

fn unknown(problem: String, nearest: &str) -> anyhow::Error {
    with_hint(
        anyhow!("{problem}; the nearest known is \"{nearest}\""),
        SEE_EXAMPLE,
    )
}

fn nearest_section(name: &str) -> String {
    nearest(KEYS, |key| strsim::damerau_levenshtein(name, key.section))
        .section
        .to_owned()
}

/// The key whose name is nearest, where a key of another section counts as two letters further off.
fn nearest_key(section: &str, name: &str) -> &'static SettingKey {
    nearest(KEYS, |key| {
        strsim::damerau_levenshtein(name, key.name) + if key.section == section { 0 } else { 2 }
    })
}

fn nearest_variable(variable: &str) -> String {
    let rest = variable
        .strip_prefix(PREFIX)
        .unwrap_or(variable)
        .to_lowercase();
    let (section, name) = rest.split_once(SEPARATOR).unwrap_or(("", &rest));
    nearest(KEYS, |key| {
        strsim::damerau_levenshtein(section, key.section)
            + strsim::damerau_levenshtein(name, key.name)
    })
    .variable()
}

/// The first key with the least distance. The table of keys is never empty.
fn nearest(
    keys: &'static [SettingKey],
    distance: impl FnMut(&&'static SettingKey) -> usize,
) -> &'static SettingKey {
    keys.iter().min_by_key(distance).unwrap_or(&keys[0])
}
