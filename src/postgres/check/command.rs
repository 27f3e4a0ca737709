//! An archive_command or restore_command, read as PostgreSQL and the shell would. Pure.

use std::path::{Path, PathBuf};

/// How often a word may hold a command line, as that of `sh -c` does.
const DEPTH: u32 = 3;

/// What a command runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Program {
    /// Walden's, perhaps behind something else, such as `timeout 600`.
    Ours(WaldenCommand),
    Other,
}

/// A hook, or `walden` itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct WaldenCommand {
    /// As it is called.
    pub program: String,
    /// `archive-command` or `restore-command`, which ask a service.
    pub is_hook: bool,
    pub socket: Option<PathBuf>,
    pub config: Option<PathBuf>,
    /// What is set for it on the command line.
    pub variables: Vec<(String, String)>,
}

/// What the command runs.
pub(super) fn program(command: &str) -> Program {
    commands(&command.replace("%%", "%"))
        .iter()
        .find_map(|words| ours(words, DEPTH))
        .map_or(Program::Other, Program::Ours)
}

/// The first word of a command line.
pub(super) fn first_word(command: &str) -> Option<String> {
    commands(&command.replace("%%", "%"))
        .into_iter()
        .next()?
        .into_iter()
        .next()
}

fn ours(words: &[String], depth: u32) -> Option<WaldenCommand> {
    let name = |word: &String| {
        Path::new(word)
            .file_name()
            .and_then(|name| name.to_str())
            .map(str::to_string)
    };
    for (at, word) in words.iter().enumerate() {
        let is_hook = match name(word).as_deref() {
            Some("archive-command" | "restore-command") => true,
            Some("walden") => false,
            _ => {
                let holds_commands = depth > 0 && word.contains(char::is_whitespace);
                match holds_commands
                    .then(|| {
                        commands(word)
                            .iter()
                            .find_map(|words| ours(words, depth - 1))
                    })
                    .flatten()
                {
                    Some(found) => return Some(found),
                    None => continue,
                }
            }
        };
        let variables = words[..at].iter().filter_map(|word| word.split_once('='));
        let variables = variables
            .filter(|(name, _)| !name.is_empty() && !name.starts_with('-') && !name.contains('/'));
        return Some(WaldenCommand {
            program: word.clone(),
            is_hook,
            socket: option(&words[at..], "--socket"),
            config: option(&words[at..], "--config"),
            variables: variables
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .collect(),
        });
    }
    None
}

/// The last value of an option, as `--name VALUE` or `--name=VALUE`.
fn option(words: &[String], name: &str) -> Option<PathBuf> {
    let value = |(at, word): (usize, &String)| match word.strip_prefix(name)? {
        "" => words.get(at + 1).map(PathBuf::from),
        rest => rest.strip_prefix('=').map(PathBuf::from),
    };
    words.iter().enumerate().filter_map(value).next_back()
}

/// The commands of a command line, each as its words: quotes and backslashes as in sh(1), nothing expanded.
fn commands(line: &str) -> Vec<Vec<String>> {
    let mut commands = vec![Vec::new()];
    let mut word: Option<String> = None;
    let (mut rest, mut quote) = (line.chars(), None);
    while let Some(c) = rest.next() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('\\', quote) if quote != Some('\'') => {
                word.get_or_insert_default().extend(rest.next())
            }
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            // `2>&1` is one word.
            ('&', None)
                if word
                    .as_deref()
                    .is_some_and(|word| word.ends_with(['>', '<'])) =>
            {
                word.get_or_insert_default().push(c);
            }
            ('&' | '|' | ';' | '(' | ')' | '{' | '}' | '\n', None) => {
                commands
                    .last_mut()
                    .expect("there is one")
                    .extend(word.take());
                commands.push(Vec::new());
            }
            (c, None) if c.is_ascii_whitespace() => commands
                .last_mut()
                .expect("there is one")
                .extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    commands
        .last_mut()
        .expect("there is one")
        .extend(word.take());
    commands.retain(|words| !words.is_empty());
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_the_shell_does() {
        let one = |line: &str| commands(line).concat();
        assert_eq!(one("a  b\tc"), ["a", "b", "c"]);
        assert_eq!(
            one("\"/a b/c\" 'd \"e' f\\ g h''i \"\""),
            ["/a b/c", "d \"e", "f g", "hi", ""]
        );
        assert_eq!(one("\"a\\\"b\""), ["a\"b"]);
        assert!(one("  ").is_empty());
        assert_eq!(commands("test -f x&&(a b 2>&1); 'c;d' | e").len(), 4);
    }

    fn hook(program: &str) -> WaldenCommand {
        WaldenCommand {
            program: program.into(),
            is_hook: true,
            socket: Some("/run/a b.sock".into()),
            config: Some("c".into()),
            variables: Vec::new(),
        }
    }

    #[test]
    fn the_hook_is_known_by_its_name_and_tells_whom_it_asks() {
        let bare = WaldenCommand {
            program: "archive-command".into(),
            is_hook: true,
            ..WaldenCommand::default()
        };
        assert_eq!(program("archive-command %p"), Program::Ours(bare));
        let told = program("\"/opt/x y/archive-command\" --config c --socket \"/run/a b.sock\" %p");
        assert_eq!(told, Program::Ours(hook("/opt/x y/archive-command")));
        let walden = WaldenCommand {
            program: "/usr/bin/walden".into(),
            config: Some("/x".into()),
            ..WaldenCommand::default()
        };
        assert_eq!(
            program("/usr/bin/walden --config=/x wal push %p"),
            Program::Ours(walden)
        );
        assert_eq!(program("cp %p /archive-command/%f"), Program::Other);
        assert_eq!(program(""), Program::Other);
    }

    #[test]
    fn the_hook_is_found_behind_whatever_runs_it() {
        let line = "/x/archive-command --config=c --socket='/run/a b.sock' %p";
        for wrapped in [
            format!("timeout 600 {line}"),
            format!("nice -n 5 {line} 2>&1"),
            format!("test -f %p && {line}"),
            format!("test ! -f /x/stop&&{line}||exit 1"),
            format!("sh -c \"exec {line}\""),
            format!("(cd / ; {line})"),
        ] {
            assert_eq!(
                program(&wrapped),
                Program::Ours(hook("/x/archive-command")),
                "{wrapped}"
            );
        }
        let expected = WaldenCommand {
            variables: vec![("A".into(), "b c".into())],
            ..hook("/x/archive-command")
        };
        assert_eq!(
            program(&format!("env A='b c' {line}")),
            Program::Ours(expected)
        );
    }

    #[test]
    fn a_percent_sign_is_written_twice() {
        assert_eq!(
            program("'/a%%b/archive-command' --config c --socket '/run/a b.sock' %p"),
            Program::Ours(hook("/a%b/archive-command"))
        );
        assert_eq!(first_word("/a%%b %p").as_deref(), Some("/a%b"));
    }
}
