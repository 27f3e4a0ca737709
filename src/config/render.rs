//! Text made from the table of keys and from settings: example file, reference, `walden config show`.

use std::fmt::Write;

use super::keys::{Fallback, SettingKey, SettingType};
use super::raw;
use super::settings::{KEYS, Settings};
use super::table::Effective;
use super::value::{self, Raw};
use super::{DEFAULT_FILE, Origin};

/// Columns of the comments in the example file.
const WIDTH: usize = 100;

/// The example file: every setting with its text, required ones set to their examples.
pub fn example() -> String {
    file(|key| match key.default {
        Fallback::Required(example) => Some(example),
        _ => None,
    })
}

/// A configuration file in which every setting is documented, the given ones (`section.name`, value as a variable
/// would give it) are set, and the others stand commented out with their defaults (`#name = value`).
///
/// Secrets are written as they are: give the file mode 0600.
///
/// # Errors
/// An unknown key, or a value that its key does not allow.
pub fn render_commented(given: &[(&str, &str)]) -> anyhow::Result<String> {
    for (path, text) in given {
        let key = raw::find(path).ok_or_else(|| raw::unknown_path(path))?;
        let raw = Raw::Text((*text).to_owned());
        value::parse(key, &raw, true)
            .map_err(|reason| raw::refused("configuration", key, path, &raw, &reason))?;
    }
    Ok(file(|key| {
        given
            .iter()
            .rev()
            .find(|(path, _)| key.is(path))
            .map(|(_, text)| *text)
    }))
}

/// The file in which `set` gives the values, as text, of the keys that are not commented out.
fn file<'a>(set: impl Fn(&'static SettingKey) -> Option<&'a str>) -> String {
    let mut file = format!(
        "# Walden's configuration, read from --config, else WALDEN_CONFIG, else {DEFAULT_FILE}.\n\
         # Lines that begin with \"#\" and no space show defaults. The environment overrides this file: key \"b\" of\n\
         # section [a] is WALDEN_A__B.\n"
    );
    for key in KEYS {
        file += &section(key);
        file += &body(
            key,
            set(key).map(|text| toml_text(key.kind, text)).as_deref(),
        );
    }
    file
}

/// The section's line, if the key is the first of its section.
fn section(key: &SettingKey) -> String {
    let first = KEYS
        .iter()
        .find(|other| other.section == key.section)
        .is_some_and(|first| first.name == key.name);
    if first {
        format!("\n[{}]\n", key.section)
    } else {
        "\n".into()
    }
}

/// Comment and line of a key; `set` is its value in TOML.
fn body(key: &SettingKey, set: Option<&str>) -> String {
    let mut text = String::new();
    for line in wrap(&format!("{} Allowed: {}.", key.doc, value::allowed(key))) {
        let _ = writeln!(text, "# {line}");
    }
    if let Fallback::Required(_) = key.default {
        text += "# Required.\n";
    }
    let _ = match (set, key.default) {
        (Some(set), _) => writeln!(text, "{} = {set}", key.name),
        (None, Fallback::Value(default)) => {
            writeln!(text, "#{} = {}", key.name, toml_text(key.kind, default))
        }
        (None, Fallback::Required(example) | Fallback::Unset(example)) => {
            writeln!(
                text,
                "# Example:\n# {} = {}",
                key.name,
                toml_text(key.kind, example)
            )
        }
    };
    text
}

/// A valid value, given as text, as TOML writes it.
fn toml_text(kind: SettingType, text: &str) -> String {
    let bare = match kind {
        SettingType::Integer { .. } | SettingType::Workers { .. } | SettingType::Keep => {
            text.parse::<i64>().ok().map(|number| number.to_string())
        }
        SettingType::Bool => Some(text.to_owned()),
        SettingType::List => {
            value::parse_list(text).map(|texts| toml::Value::from(texts).to_string())
        }
        _ => None,
    };
    bare.unwrap_or_else(|| toml::Value::String(text.to_owned()).to_string())
}

fn wrap(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.len() + 1 + word.len() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// The reference of all settings: a Markdown page.
pub fn render_reference() -> String {
    let mut text = format!(
        "# Settings\n\n\
         One TOML file holds them: `--config`, else `WALDEN_CONFIG`, else `{DEFAULT_FILE}` if it exists. A variable beats \
         the file, so a container needs no file. Unknown keys and unknown variables `WALDEN_…__…` are errors. \
         `walden config show` prints the effective values and where each comes from; `walden init` writes a commented \
         file.\n\n\
         `archive-command` and `restore-command` take `--config FILE` and `--socket SOCKET`, also as \
         `--config=FILE`; name both, as the line that `walden init` prints does. The service answers for the \
         cluster of the repository that FILE (with the server's `WALDEN_…__…` variables) names, and for no other; \
         where it does not answer, or serves another, the program does the work by itself with FILE. With \
         `--socket` alone it has nothing to fall back to, and fails while no service answers. Settings that come \
         from the environment alone are named by `--config /dev/null`.\n\n\
         | key | variable | default | allowed | meaning |\n|---|---|---|---|---|\n"
    );
    for key in KEYS {
        let default = match key.default {
            Fallback::Required(_) => "required".into(),
            Fallback::Unset(_) => "not set".into(),
            Fallback::Value(default) => format!("`{}`", toml_text(key.kind, default)),
        };
        let (path, variable, allowed) = (key.path(), key.variable(), value::allowed(key));
        let _ = writeln!(
            text,
            "| `{path}` | `{variable}` | {default} | {allowed} | {} |",
            key.doc
        );
    }
    text
}

/// A setting as it is shown to people and programs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct DisplayedSetting {
    /// `section.name`.
    pub key: String,
    /// `None`: not set. A secret is `***`.
    pub value: Option<String>,
    pub origin: Origin,
}

/// Every effective value, in the order of the table.
pub fn effective(settings: &Settings) -> Vec<DisplayedSetting> {
    let shown = |Effective { key, text, origin }: &Effective| {
        let unset = text.is_empty() && matches!(key.default, Fallback::Unset(_));
        let shown = if key.is_secret() && !text.is_empty() {
            text.to_string()
        } else {
            text.expose().into()
        };
        DisplayedSetting {
            key: key.path(),
            value: (!unset).then_some(shown),
            origin: *origin,
        }
    };
    settings.values.iter().map(shown).collect()
}

/// Every effective value with its origin, one a line, secrets hidden.
pub fn show(settings: &Settings) -> String {
    let mut text = format!("source: {}\n", settings.source);
    for DisplayedSetting { key, value, origin } in effective(settings) {
        let value = value.map_or("not set".into(), |value| format!("{value:?}"));
        let _ = writeln!(text, "{key:<28} {origin:<11} {value}");
    }
    text
}
