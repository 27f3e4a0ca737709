//! Text from data for people: what moves a cursor, forges a line or turns the direction of writing is shown, not done. Names
//! in a database, labels and messages of servers may hold anything. JSON has its own escapes.

use std::borrow::Cow;
use std::io::{self, Write};

/// Controls (C0, DEL, C1), separators of lines and paragraphs, and what directs bidirectional text.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}' | '\u{feff}'
        )
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escaped(text: &str, keeps: impl Fn(char) -> bool) -> Cow<'_, str> {
    let is_escaped = |c: char| is_unsafe(c) && !keeps(c);
    if !text.contains(is_escaped) {
        return text.into();
    }
    let mut plain = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match is_escaped(c) {
            true => plain.extend(c.escape_default()),
            false => plain.push(c),
        }
    }
    plain.into()
}

/// A number of things, such as `1 segment` and `2 segments`.
pub fn counted(count: u64, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

/// So many seconds, as precise as people say it.
pub fn lasting(seconds: f64) -> String {
    let number = |number: f64, unit: &str| match number < 9.95 {
        true => format!("{number:.1} {unit}"),
        false => format!("{number:.0} {unit}"),
    };
    match seconds.max(0.0) {
        seconds @ ..90.0 => format!("{seconds:.0} s"),
        seconds @ ..5400.0 => format!("{:.0} min", seconds / 60.0),
        seconds @ ..172_800.0 => number(seconds / 3600.0, "h"),
        seconds => number(seconds / 86400.0, "days"),
    }
}

/// A name or message within a line.
pub fn plain(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false)
}

/// Text of several lines that were laid out here.
pub fn plain_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c == '\n')
}

/// A word for a shell that stands for exactly this text.
pub fn shell_quoted(text: &str) -> String {
    if !text.contains(is_unsafe) {
        return format!("'{}'", text.replace('\'', "'\\''"));
    }
    let mut quoted = String::from("$'");
    for c in text.chars() {
        match c {
            '\'' | '\\' => quoted.extend(['\\', c]),
            c if is_unsafe(c) => {
                quoted.extend(c.to_string().bytes().map(|byte| format!("\\x{byte:02x}")))
            }
            c => quoted.push(c),
        }
    }
    quoted + "'"
}

/// Standard error for log lines: each event is one line, and one for each hint.
#[derive(Debug)]
pub struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let (text, end) = text
            .strip_suffix('\n')
            .map_or((&*text, ""), |text| (text, "\n"));
        let lines: Vec<Cow<'_, str>> = text.split("\nHINT: ").map(plain).collect();
        io::stderr().write_all((lines.join("\nHINT: ") + end).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_as_precise_as_people_say_it() {
        for (seconds, expected) in [
            (-3.0, "0 s"),
            (89.4, "89 s"),
            (90.0, "2 min"),
            (5399.0, "90 min"),
            (5400.0, "1.5 h"),
            (36000.0, "10 h"),
            (172_800.0, "2.0 days"),
            (8_640_000.0, "100 days"),
        ] {
            assert_eq!(lasting(seconds), expected);
        }
    }

    #[test]
    fn what_a_terminal_would_obey_is_shown() {
        assert_eq!(
            plain("public.orders Ä – 表 'x'\\"),
            "public.orders Ä – 表 'x'\\"
        );
        assert_eq!(
            plain("x\nforged\t\u{1b}[2J\u{7f}\u{9b}2J"),
            "x\\nforged\\t\\u{1b}[2J\\u{7f}\\u{9b}2J"
        );
        assert_eq!(
            plain("a\u{202e}b\u{2066}c\u{2028}d\u{200f}"),
            "a\\u{202e}b\\u{2066}c\\u{2028}d\\u{200f}"
        );
        assert_eq!(plain_lines("a\nb\r\u{1b}c\n"), "a\nb\\r\\u{1b}c\n");
    }

    #[test]
    fn one_is_no_plural() {
        assert_eq!(
            [0, 1, 2].map(|count| counted(count, "WAL file")),
            ["0 WAL files", "1 WAL file", "2 WAL files"]
        );
    }

    #[test]
    fn a_shell_gets_exactly_the_text() {
        for text in ["plain", "it's gone", "a\nb'c\\d\u{1b}[2J\u{202e}", "$'x"] {
            let script = format!("printf %s {}", shell_quoted(text));
            let output = std::process::Command::new("bash")
                .args(["-c", &script])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), text, "{script}");
        }
        assert_eq!(shell_quoted("it's"), r"'it'\''s'");
    }
}
