//! What changed in the settings since they were recorded last. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::record::{Act, Record, SettingsSeen};
use crate::codec::Digest;

/// Names that are told in a subject.
const MAX_NAMED: usize = 5;

/// Settings that are not the default, by their keys. Of secrets only that there is one.
pub type Values = BTreeMap<String, String>;

/// What records say of settings.
pub fn seen(source: String, values: &Values) -> SettingsSeen {
    let text: String = values
        .iter()
        .map(|(key, value)| format!("{key} = {value:?}\n"))
        .collect();
    let digest = Digest::of(text.as_bytes());
    SettingsSeen { source, digest }
}

/// Whether a record says what the settings of this source were.
pub fn tells(record: &Record, source: &str) -> bool {
    let of_record = record.who.settings.as_ref();
    record.evidence.act == Act::Configuration && of_record.is_some_and(|one| one.source == source)
}

/// A change, as a record tells it: subject and details. `None`: they are as the last record says; without one they are new.
pub fn change(
    last: Option<&Record>,
    now: &SettingsSeen,
    values: &Values,
) -> Option<(String, Value)> {
    let source = &now.source;
    let Some(last) = last else {
        let subject = format!("settings of \"{source}\", as they are");
        return Some((subject, json!({ "settings": values })));
    };
    if last.who.settings.as_ref() == Some(now) {
        return None;
    }
    let before = last.evidence.details.get("settings").cloned();
    let before: Values = serde_json::from_value(before.unwrap_or_default()).unwrap_or_default();
    let keys = before.keys().chain(values.keys());
    let mut changed: Vec<&String> = keys
        .filter(|key| before.get(*key) != values.get(*key))
        .collect();
    changed.sort();
    changed.dedup();
    let named: Vec<&str> = changed
        .iter()
        .take(MAX_NAMED)
        .map(|key| key.as_str())
        .collect();
    let more = match changed.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let subject = format!("settings of \"{source}\": {}{more}", named.join(", "));
    let changed = changed.iter().map(|key| {
        // Absent: the default.
        json!({ "key": key, "from": before.get(*key), "to": values.get(*key) })
    });
    let changed: Vec<Value> = changed.collect();
    Some((subject, json!({ "settings": values, "changed": changed })))
}

#[cfg(test)]
mod tests {
    use super::super::record::testing::{evidence, record};
    use super::*;

    fn values(all: &[(&str, &str)]) -> Values {
        let pairs = all.iter();
        pairs
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect()
    }

    #[test]
    fn a_change_is_told_key_by_key_and_what_did_not_change_is_no_news() {
        let before = values(&[("a.b", "1"), ("c.d", "2")]);
        let was = seen("x.toml".into(), &before);
        let (subject, details) = change(None, &was, &before).unwrap();
        assert!(subject.contains("as they are"), "{subject}");
        let mut last = record(evidence(Act::Configuration));
        (last.evidence.details, last.who.settings) = (details, Some(was.clone()));
        assert!(tells(&last, "x.toml") && !tells(&last, "y.toml"));
        assert_eq!(change(Some(&last), &was, &before), None);
        let after = values(&[("a.b", "1"), ("c.d", "3"), ("e.f", "4")]);
        let now = seen("x.toml".into(), &after);
        let (subject, details) = change(Some(&last), &now, &after).unwrap();
        assert_eq!(subject, "settings of \"x.toml\": c.d, e.f");
        let changed = json!([
            {"key": "c.d", "from": "2", "to": "3"},
            {"key": "e.f", "from": null, "to": "4"},
        ]);
        assert_eq!(details["changed"], changed);
    }
}
