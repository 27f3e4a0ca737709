//! A made-up machine, and the short words for what was resolved on it.

use std::collections::BTreeMap;
use std::io;

use super::*;
use crate::error;

/// A made-up machine: variables and files.
#[derive(Default)]
pub struct Machine {
    pub variables: BTreeMap<String, String>,
    pub files: BTreeMap<PathBuf, FileStat>,
}

impl Machine {
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    pub fn file(mut self, path: &str, mode: u32, content: &str) -> Self {
        self.files.insert(
            path.into(),
            FileStat {
                content: content.into(),
                mode,
                owner: 1000,
                regular: true,
            },
        );
        self
    }

    pub fn resolve(&self, text: &str) -> ConnInfo {
        ConnInfo::resolve(text, self).unwrap_or_else(|error| panic!("{text:?}: {error:#}"))
    }

    pub fn refusal(&self, text: &str) -> String {
        let error = ConnInfo::resolve(text, self).expect_err(text);
        format!(
            "{} HINT: {}",
            error::one_line(&error),
            error::hints(&error).join("; ")
        )
    }
}

impl LibpqEnv for Machine {
    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }
    fn user(&self) -> Option<String> {
        Some("osuser".into())
    }
    fn home(&self) -> Option<PathBuf> {
        Some("/home/osuser".into())
    }
    fn file(&self, path: &Path) -> io::Result<Option<FileStat>> {
        Ok(self.files.get(path).cloned())
    }
    fn exists(&self, path: &Path) -> bool {
        self.files.contains_key(path)
    }
}

pub fn unix(folder: &str, port: u16) -> Host {
    Host {
        address: Address::Unix(folder.into()),
        port,
    }
}

pub fn named(name: &str, port: u16) -> Host {
    Host {
        address: Address::Name(name.into()),
        port,
    }
}

pub fn password(info: &ConnInfo) -> Option<&str> {
    info.password_for(&info.hosts[0], &info.database)
}
