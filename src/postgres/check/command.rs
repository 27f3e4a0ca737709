//! An archive_command, read as the shell would. Pure.

use std::path::{Path, PathBuf};

/// What an archive_command runs first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Program {
    /// `archive-command`, and the hook socket that it is told to use.
    Hook {
        socket: Option<PathBuf>,
    },
    /// `walden` itself.
    Walden,
    Other,
}

/// What the command runs.
pub(super) fn program(command: &str) -> Program {
    let words = words(command);
    let name = words.first().and_then(|word| Path::new(word).file_name()?.to_str());
    match name {
        Some("archive-command") => {
            let after = words.iter().skip_while(|word| *word != "--socket").nth(1);
            Program::Hook { socket: after.map(PathBuf::from) }
        }
        Some("walden") => Program::Walden,
        _ => Program::Other,
    }
}

/// The words of a command line: quotes and backslashes as in sh(1), nothing expanded.
pub(super) fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut rest = command.chars();
    let mut quote = None;
    while let Some(c) = rest.next() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('\\', quote) if quote != Some('\'') => word.get_or_insert_default().extend(rest.next()),
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_ascii_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_the_shell_does() {
        assert_eq!(words("a  b\tc"), ["a", "b", "c"]);
        assert_eq!(words("\"/a b/c\" 'd \"e' f\\ g h''i \"\""), ["/a b/c", "d \"e", "f g", "hi", ""]);
        assert_eq!(words("\"a\\\"b\""), ["a\"b"]);
        assert!(words("  ").is_empty());
    }

    #[test]
    fn the_hook_is_known_by_its_name_and_tells_its_socket() {
        assert_eq!(program("archive-command %p"), Program::Hook { socket: None });
        let told = program("\"/opt/x y/archive-command\" --config c --socket \"/run/a b.sock\" %p");
        assert_eq!(told, Program::Hook { socket: Some("/run/a b.sock".into()) });
        assert_eq!(program("/usr/bin/walden wal push %p"), Program::Walden);
        assert_eq!(program("cp %p /archive-command/%f"), Program::Other);
        assert_eq!(program(""), Program::Other);
    }
}
