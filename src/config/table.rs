//! The macros that make types, keys and reading of the table in [`super::settings`].

use anyhow::anyhow;

use super::keys::{Fallback, SettingKey};
use super::value::{self, Raw};
use super::{DEFAULT_FILE, Origin, Secret, SettingsSource};
use crate::error::Hint;

/// A key's value, as text, and what decided it. Any text may hold a password: all are hidden.
#[derive(Debug, Clone)]
pub(super) struct Effective {
    pub key: &'static SettingKey,
    pub text: Secret,
    pub origin: Origin,
}

impl Effective {
    /// What was given, else the default.
    pub fn of(
        key: &'static SettingKey,
        given: Option<(Secret, Origin)>,
        source: &SettingsSource,
    ) -> anyhow::Result<Self> {
        let (text, origin) = match given {
            Some(given) => given,
            None => (Secret::new(default(key, source)?), Origin::Default),
        };
        Ok(Self { key, text, origin })
    }

    /// The value as its field wants it. What a key allows fits its field: else the table is wrong.
    pub fn typed<T: value::Field>(&self) -> anyhow::Result<T> {
        T::of(self.text.expose())
            .ok_or_else(|| anyhow!("{} does not fit its field", self.key.path()))
    }
}

fn default(key: &SettingKey, source: &SettingsSource) -> anyhow::Result<String> {
    let text = match key.default {
        Fallback::Value(text) => text,
        Fallback::Unset(_) => "",
        Fallback::Required(_) => {
            let file = match source {
                SettingsSource::File(path) => path.display().to_string(),
                SettingsSource::Environment => DEFAULT_FILE.into(),
            };
            return Err(anyhow!("\"{}\" is not set ({source})", key.path())).hint(format!(
                "set it in \"{file}\" (`walden init` writes one) or by {}",
                key.variable()
            ));
        }
    };
    // Only a mistake in the table gets an error here.
    let raw = Raw::Text(text.into());
    value::parse(key, &raw, true)
        .map_err(|reason| anyhow!("the default {text:?} of {}: {reason}", key.path()))
}

/// Makes the sections' types, `Settings`, `KEYS` and the reading of them from rows
/// `/// doc` `name: type = kind, default;`. The doc is what users read.
macro_rules! settings {
    ($($(#[$about:meta])+ $section:ident: $type:ident {
        $($(#[doc = $doc:literal])+ $name:ident: $field:ty = $kind:expr, $default:expr;)+
    })+) => {
        $(
            $(#[$about])+
            #[derive(Debug, Clone)]
            pub struct $type { $($(#[doc = $doc])+ pub $name: $field,)+ }
        )+

        /// Every setting, validated. Sizes are in bytes. `Debug` hides secrets.
        #[derive(Debug, Clone)]
        pub struct Settings {
            pub source: super::SettingsSource,
            /// Sentences for the caller to log once logging is up.
            pub warnings: Vec<String>,
            $($(#[$about])+ pub $section: $type,)+
            /// In the order of the table.
            pub(super) values: Vec<super::table::Effective>,
        }

        /// Every setting there is, in the order in which it is documented; the settings of a section stand together.
        pub const KEYS: &[super::keys::SettingKey] = &[$($(super::keys::SettingKey {
            section: stringify!($section),
            name: stringify!($name),
            kind: $kind,
            default: $default,
            doc: concat!($($doc),+).trim_ascii_start(),
        },)+)+];

        /// Fills in the defaults and types the values. `given` tells what was given for a path.
        pub(super) fn build(
            mut given: impl FnMut(&str) -> Option<(super::Secret, super::Origin)>,
            source: super::SettingsSource,
            warnings: Vec<String>,
        ) -> anyhow::Result<Settings> {
            let values = KEYS.iter().map(|key| super::table::Effective::of(key, given(&key.path()), &source));
            let values = values.collect::<anyhow::Result<Vec<_>>>()?;
            // Fields are made in the order in which they stand: that of the keys.
            let mut next = values.iter();
            Ok(Settings {
                $($section: $type {
                    $($name: anyhow::Context::context(next.next(), stringify!($name))?.typed()?,)+
                },)+
                source,
                warnings,
                values,
            })
        }
    };
}
pub(super) use settings;

/// Makes enums of which the file and the environment give a variant by its name.
macro_rules! choices {
    ($($(#[$about:meta])* $name:ident { $($variant:ident = $text:literal),+ })+) => { $(
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($variant),+ }

        impl $name {
            pub const ALLOWED: super::keys::SettingType = super::keys::SettingType::Choice(&[$($text),+]);

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl super::value::Field for $name {
            fn of(text: &str) -> Option<Self> {
                [$(Self::$variant),+].into_iter().find(|one| one.as_str() == text)
            }
        }
    )+ };
}
pub(super) use choices;
