//! Values: what stands in a file or a variable → what a [`SettingType`] allows.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::keys::{Fallback, SettingKey, SettingType};
use super::units::{duration_text, parse_amount, parse_duration, parse_size, size_text};
use super::{Cron, Keep, RepositoryUrl, Secret, TimeZone};

/// A value as it was given, not yet judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Raw {
    /// A TOML string, or any value of a variable.
    Text(String),
    /// A TOML integer.
    Integer(i64),
    /// A TOML boolean.
    Bool(bool),
    /// A TOML array of strings.
    List(Vec<String>),
    /// A TOML value that no setting takes, as it was written.
    Other(String),
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Raw::Text(text) | Raw::Other(text) => f.write_str(text),
            Raw::Integer(number) => write!(f, "{number}"),
            Raw::Bool(yes) => write!(f, "{yes}"),
            Raw::List(texts) => f.write_str(&list_text(texts)),
        }
    }
}

/// Judges a value, and writes it in the one way in which it is shown; empty is unset. `Err` says what is allowed instead.
/// `from_variable`: numbers and booleans arrive as text.
pub(super) fn parse(key: &SettingKey, raw: &Raw, from_variable: bool) -> Result<String, String> {
    if let (Fallback::Unset(_), Raw::Text(text)) = (key.default, raw)
        && text.is_empty()
    {
        return Ok(String::new());
    }
    let allowed = || Err(format!("allowed is {}", allowed(key)));
    let text = match (key.kind, raw) {
        (SettingType::Integer { .. } | SettingType::Workers { .. }, Raw::Integer(number)) => {
            number.to_string()
        }
        (SettingType::Keep, Raw::Integer(number)) => number.to_string(),
        (SettingType::Bool, Raw::Bool(yes)) => yes.to_string(),
        (SettingType::List, Raw::List(texts)) => list_text(texts),
        (SettingType::Workers { .. }, Raw::Text(text)) if text == "auto" => text.clone(),
        (
            SettingType::Integer { .. }
            | SettingType::Workers { .. }
            | SettingType::Bool
            | SettingType::List,
            _,
        ) if !from_variable => return allowed(),
        (_, Raw::Text(text)) => text.clone(),
        _ => return allowed(),
    };
    match of_text(key.kind, &text) {
        Ok(Some(value)) => Ok(value),
        Ok(None) => allowed(),
        Err(reason) => Err(reason),
    }
}

/// `Ok(None)`: not what [`allowed`] says; `Err`: a more telling reason.
fn of_text(kind: SettingType, text: &str) -> Result<Option<String>, String> {
    let as_is = |fits: bool| fits.then(|| text.to_owned());
    Ok(match kind {
        SettingType::Url => Some(RepositoryUrl::parse(text)?.to_string()),
        SettingType::Name => as_is(is_name(text)),
        SettingType::Path { max_bytes } if text.len() > max_bytes => {
            return Err(format!(
                "it has {} bytes, allowed is {}",
                text.len(),
                allowed_path(max_bytes)
            ));
        }
        SettingType::Path { .. } => as_is(text.starts_with('/') && !text.contains('\0')),
        SettingType::Endpoint => is_endpoint(text).then(|| text.trim_end_matches('/').to_owned()),
        SettingType::Listen => as_is(text.is_empty() || text.parse::<SocketAddr>().is_ok()),
        SettingType::Word => as_is(is_word(text)),
        SettingType::Secret => as_is(true),
        SettingType::Bool => as_is(text.parse::<bool>().is_ok()),
        SettingType::List => parse_list(text)
            .filter(|texts| texts.iter().all(|one| one.len() <= LONGEST_WORD))
            .map(|texts| list_text(&texts)),
        SettingType::Keep => text.parse::<Keep>().ok().map(|keep| keep.to_string()),
        SettingType::Cron => Some(text.parse::<Cron>()?.to_string()),
        SettingType::TimeZone => Some(text.parse::<TimeZone>()?.to_string()),
        SettingType::Choice(choices) => as_is(choices.contains(&text)),
        SettingType::Integer { .. }
        | SettingType::Workers { .. }
        | SettingType::Size { .. }
        | SettingType::Duration { .. } => of_amount(kind, text),
    })
}

/// A number within the bounds of its key.
fn of_amount(kind: SettingType, text: &str) -> Option<String> {
    let integer = |min, max| {
        text.parse()
            .ok()
            .filter(|n: &i64| (min..=max).contains(n))
            .map(|n| n.to_string())
    };
    match kind {
        SettingType::Integer { min, max } => integer(min, max),
        SettingType::Workers { max } if text == "auto" => Some(cpus().min(max).to_string()),
        SettingType::Workers { max } => integer(1, max),
        SettingType::Size { min, max } => parse_size(text)
            .filter(|n| (min..=max).contains(n))
            .map(size_text),
        SettingType::Duration { min, max } => parse_duration(text)
            .filter(|span| (Duration::from_secs(min)..=Duration::from_secs(max)).contains(span))
            .map(duration_text),
        _ => None,
    }
}

/// A type of fields.
pub(super) trait Field: Sized {
    /// Of what [`parse`] made.
    fn of(text: &str) -> Option<Self>;
}

impl<T: Field> Field for Option<T> {
    fn of(text: &str) -> Option<Self> {
        if text.is_empty() {
            Some(None)
        } else {
            T::of(text).map(Some)
        }
    }
}

macro_rules! fields {
    ($($how:expr => $($type:ty),+;)+) => { $($(impl Field for $type {
        fn of(text: &str) -> Option<Self> { ($how)(text) }
    })+)+ };
}
fields! {
    |text: &str| text.parse().ok() => bool, i32, u32, String, PathBuf, SocketAddr, Keep, Cron, TimeZone;
    parse_amount => u64;
    |text| parse_amount(text)?.try_into().ok() => usize;
    parse_duration => Duration;
    |text| RepositoryUrl::parse(text).ok() => RepositoryUrl;
    |text| Some(Secret::new(text)) => Secret;
    parse_list => Vec<String>;
}

/// What a key allows, as the end of a sentence.
pub(super) fn allowed(key: &SettingKey) -> String {
    let text = match key.kind {
        SettingType::Url => "a URL file:///absolute/path or s3://bucket/prefix".into(),
        SettingType::Name => {
            "up to 63 of a-z, 0-9, \"_\" and \"-\", a letter or digit first".into()
        }
        SettingType::Path { max_bytes } => allowed_path(max_bytes),
        SettingType::Endpoint => "a URL http://host:port or https://host:port".into(),
        SettingType::Listen => {
            "an IP address and a port, such as 127.0.0.1:8432 or [::1]:8432, or \"\" for none"
                .into()
        }
        SettingType::Word => format!("up to {LONGEST_WORD} printable characters without spaces"),
        SettingType::Secret => "text".into(),
        SettingType::Integer { min, max } => format!("an integer from {min} to {max}"),
        SettingType::Workers { max } => {
            format!("an integer from 1 to {max}, or \"auto\": the number of CPUs")
        }
        SettingType::Size { min, max } => {
            format!(
                "a size from \"{}\" to \"{}\" (units KiB, MiB, GiB)",
                size_text(min),
                size_text(max)
            )
        }
        SettingType::Duration { min, max } => format!(
            "a duration from \"{}\" to \"{}\" (units ms, s, m, h, d)",
            duration_text(Duration::from_secs(min)),
            duration_text(Duration::from_secs(max))
        ),
        SettingType::Bool => "true or false".into(),
        SettingType::Keep => Keep::allowed().into(),
        SettingType::List => {
            format!("a list of texts of up to {LONGEST_WORD} bytes, such as [\"a\", \"b\"]")
        }
        SettingType::Cron => "a cron expression of five fields, such as \"0 2 * * 0\", or @hourly, @daily, @weekly, @monthly, @yearly".into(),
        SettingType::TimeZone => "a name of the IANA database, such as \"Europe/Berlin\"".into(),
        SettingType::Choice(choices) => choices
            .iter()
            .map(|one| format!("\"{one}\""))
            .collect::<Vec<_>>()
            .join(" or "),
    };
    match key.default {
        Fallback::Unset(_) => format!("{text}, or \"\" for none"),
        _ => text,
    }
}

fn allowed_path(max_bytes: usize) -> String {
    format!("an absolute path of at most {max_bytes} bytes")
}

/// Bytes of a [`SettingType::Word`].
const LONGEST_WORD: usize = 2048;

fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= LONGEST_WORD
        && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// No path, user or query: requests bring their own.
fn is_endpoint(text: &str) -> bool {
    let host = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    let host = host.map(|host| host.strip_suffix('/').unwrap_or(host));
    host.is_some_and(|host| is_word(host) && !host.contains(['/', '@', '?', '#']))
}

fn is_name(text: &str) -> bool {
    let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.len() <= 63
        && text.starts_with(lower)
        && text.chars().all(|c| lower(c) || matches!(c, '_' | '-'))
}

/// CPUs this process may use; 1 if that is unknown.
fn cpus() -> i64 {
    std::thread::available_parallelism()
        .map_or(1, |count| i64::try_from(count.get()).unwrap_or(i64::MAX))
}

/// The texts of `["a", "b"]`, as TOML and JSON write them; empty is none.
pub(super) fn parse_list(text: &str) -> Option<Vec<String>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    serde_json::from_str(text).ok()
}

fn list_text(texts: &[String]) -> String {
    serde_json::Value::from(texts).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: SettingKey = SettingKey {
        section: "dump",
        name: "command_prefix",
        kind: SettingType::List,
        default: Fallback::Value("[]"),
        doc: "",
    };

    #[test]
    fn a_list_is_an_array_in_the_file_and_its_text_in_a_variable() {
        let raw = Raw::List(vec!["docker".into(), "a \"b\"".into()]);
        let text = parse(&PREFIX, &raw, false).unwrap();
        assert_eq!(Vec::<String>::of(&text).unwrap(), ["docker", "a \"b\""]);
        assert_eq!(parse(&PREFIX, &Raw::Text(text.clone()), true), Ok(text));
        assert_eq!(
            parse(&PREFIX, &Raw::Text("[]".into()), true),
            Ok("[]".into())
        );
    }

    #[test]
    fn what_is_no_list_of_texts_is_refused() {
        for raw in [
            Raw::Text("docker exec".into()),
            Raw::Text("[1]".into()),
            Raw::Other("[1]".into()),
            Raw::List(vec!["a".repeat(LONGEST_WORD + 1)]),
        ] {
            let refused = parse(&PREFIX, &raw, true);
            assert!(
                refused.is_err_and(|why| why.starts_with("allowed is a list")),
                "{raw:?}"
            );
        }
        // A text of the file is no list, even if it looks like one.
        assert!(parse(&PREFIX, &Raw::Text("[]".into()), false).is_err());
    }
}
