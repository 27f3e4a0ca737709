//! postgresql.conf as text: finding, removing and writing settings exactly as the server reads them (guc-file.l). Pure.

/// The name that a line sets, in lower case; `None` for comments, blank lines and directives such as `include`.
pub fn setting_of(line: &str) -> Option<String> {
    let line = line.trim_start();
    let end = line
        .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '$')))
        .unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let separated = rest.starts_with([' ', '\t', '=', '\'']);
    (begins && separated).then(|| name.to_ascii_lowercase())
}

/// The value of a line that sets something, unquoted.
pub fn value_of(line: &str) -> Option<String> {
    let name = setting_of(line)?;
    let rest = line.trim_start()[name.len()..].trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
    let Some(quoted) = rest.strip_prefix('\'') else {
        return Some(
            rest.split(['#', ' ', '\t'])
                .next()
                .unwrap_or_default()
                .trim_end()
                .to_string(),
        );
    };
    let mut value = String::new();
    let mut characters = quoted.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\'' if characters.peek() == Some(&'\'') => value.extend(characters.next()),
            '\'' => break,
            '\\' => value.extend(characters.next()),
            other => value.push(other),
        }
    }
    Some(value)
}

/// The text without the lines that set one of the settings.
pub fn without(text: &str, is_meant: impl Fn(&str) -> bool) -> String {
    let kept = text
        .lines()
        .filter(|line| !setting_of(line).is_some_and(|name| is_meant(&name)));
    kept.map(|line| format!("{line}\n")).collect()
}

/// The text with the lines that set one of the settings made comments; and which settings those were.
pub fn commented_out(text: &str, is_meant: impl Fn(&str) -> bool) -> (String, Vec<String>) {
    let mut found = Vec::new();
    let mut changed = String::with_capacity(text.len() + 64);
    for line in text.lines() {
        if let Some(name) = setting_of(line).filter(|name| is_meant(name)) {
            changed.push_str("# walden restore: ");
            found.push(name);
        }
        changed.push_str(line);
        changed.push('\n');
    }
    (changed, found)
}

/// A line that sets `name` to `value`.
pub fn assignment(name: &str, value: &str) -> String {
    let mut quoted = String::with_capacity(value.len() + 2);
    for character in value.chars() {
        match character {
            '\'' => quoted.push_str("''"),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            other => quoted.push(other),
        }
    }
    format!("{name} = '{quoted}'\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_are_read_as_the_server_reads_them() {
        for (line, name, value) in [
            ("port = 5432", "port", "5432"),
            ("  PORT 5432 # the usual", "port", "5432"),
            (
                "restore_command='cp \"/a''b\" %p'  # x",
                "restore_command",
                "cp \"/a'b\" %p",
            ),
            (
                "recovery_target_name\t=\t'x # y'",
                "recovery_target_name",
                "x # y",
            ),
            ("my.extension = on", "my.extension", "on"),
            (r"x = 'a\\b'", "x", r"a\b"),
        ] {
            assert_eq!(setting_of(line).as_deref(), Some(name), "{line}");
            assert_eq!(value_of(line).as_deref(), Some(value), "{line}");
        }
        for line in ["", "# port = 1", "   ", "#port=1", "='x'"] {
            assert_eq!(setting_of(line), None, "{line:?}");
        }
    }

    #[test]
    fn settings_are_removed_or_made_comments_and_nothing_else_changes() {
        let text = "a = 1\n# b = 2\nB = '3'\nbb = 4\n";
        assert_eq!(
            without(text, |name| name == "b"),
            "a = 1\n# b = 2\nbb = 4\n"
        );
        let (changed, found) = commented_out(text, |name| name == "b");
        assert_eq!(
            changed,
            "a = 1\n# b = 2\n# walden restore: B = '3'\nbb = 4\n"
        );
        assert_eq!(found, ["b"]);
    }

    proptest! {
        #[test]
        fn an_assignment_reads_back(value in "[ -~äö]{0,40}") {
            prop_assert_eq!(value_of(assignment("x", &value).trim_end()), Some(value));
        }
    }
}
