//! What a setting is.

/// What a setting may hold. Sizes are in bytes, bounds are inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingType {
    /// A repository URL.
    Url,
    /// `[a-z0-9][a-z0-9_-]{0,62}`: safe as a folder name and in an object key.
    Name,
    /// An absolute path of at most `max_bytes` bytes.
    Path {
        max_bytes: usize,
    },
    /// The URL of a server: `http` or `https`, a host, perhaps a port.
    Endpoint,
    /// Where to listen: an IP address and a port; empty for nowhere.
    Listen,
    /// Printable ASCII without spaces.
    Word,
    /// Free text that may hold a password.
    Secret,
    Integer {
        min: i64,
        max: i64,
    },
    /// An integer, or `"auto"`: the number of CPUs.
    Workers {
        max: i64,
    },
    /// Bytes, as `64MiB`.
    Size {
        min: u64,
        max: u64,
    },
    /// A time span with its unit, as `30s`; bounds in seconds.
    Duration {
        min: u64,
        max: u64,
    },
    Bool,
    /// A number of periods, or a duration.
    Keep,
    /// Texts, each at most as long as a word may be.
    List,
    /// A cron expression.
    Cron,
    /// A time zone's name.
    TimeZone,
    Choice(&'static [&'static str]),
}

/// What holds when a setting is not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// The setting must be given; the text is an example.
    Required(&'static str),
    /// Nothing, which the setting's text explains; also what an empty text means. The text is an example.
    Unset(&'static str),
    /// The value, as the file would write it.
    Value(&'static str),
}

/// One row of the table of settings.
#[derive(Debug, Clone, Copy)]
pub struct SettingKey {
    pub section: &'static str,
    pub name: &'static str,
    pub kind: SettingType,
    pub default: Fallback,
    /// One or more sentences for whoever sets it.
    pub doc: &'static str,
}

impl SettingKey {
    /// `section.name`.
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// The environment variable that sets it: `WALDEN_SECTION__NAME`.
    pub fn variable(&self) -> String {
        format!("WALDEN_{}__{}", self.section, self.name).to_uppercase()
    }

    /// Whether the value may hold a password.
    pub fn is_secret(&self) -> bool {
        self.kind == SettingType::Secret
    }

    /// Whether `path` is this key's `section.name`.
    pub(super) fn is(&self, path: &str) -> bool {
        path.split_once('.') == Some((self.section, self.name))
    }
}
