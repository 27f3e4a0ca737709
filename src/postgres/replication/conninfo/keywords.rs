//! The connection keywords of libpq (fe-connect.c, PQconninfoOptions) and what Walden makes of each.

use anyhow::{Result, bail};
use std::collections::BTreeMap;

use super::Added;
use crate::error::Hint;

/// Connection keywords with their values. A keyword that is present with an empty value counts as given.
pub(super) type Values = BTreeMap<&'static str, String>;

/// What Walden does with a keyword.
enum Support {
    /// Honoured.
    Used,
    /// Accepted without effect: nothing that it asks for matters here.
    NoEffect,
    /// Only these values can be granted; any other asks for protection or behaviour that Walden lacks.
    Only(&'static [&'static str]),
}

use Support::{NoEffect, Only, Used};

const NOTHING: Support = Only(&[]);

/// Keyword, environment variable, support.
const KEYWORDS: &[(&str, Option<&str>, Support)] = &[
    ("service", Some("PGSERVICE"), Used),
    ("servicefile", Some("PGSERVICEFILE"), Used),
    ("host", Some("PGHOST"), Used),
    ("hostaddr", Some("PGHOSTADDR"), Used),
    ("port", Some("PGPORT"), Used),
    ("user", Some("PGUSER"), Used),
    ("dbname", Some("PGDATABASE"), Used),
    ("password", Some("PGPASSWORD"), Used),
    ("passfile", Some("PGPASSFILE"), Used),
    ("connect_timeout", Some("PGCONNECT_TIMEOUT"), Used),
    ("application_name", Some("PGAPPNAME"), Used),
    ("fallback_application_name", None, Used),
    ("options", Some("PGOPTIONS"), Used),
    ("sslmode", Some("PGSSLMODE"), Used),
    ("sslrootcert", Some("PGSSLROOTCERT"), Used),
    ("sslcert", Some("PGSSLCERT"), Used),
    ("sslkey", Some("PGSSLKEY"), Used),
    ("sslsni", Some("PGSSLSNI"), Used),
    (
        "sslcertmode",
        Some("PGSSLCERTMODE"),
        Only(&["allow", "disable"]),
    ),
    ("target_session_attrs", Some("PGTARGETSESSIONATTRS"), Used),
    ("keepalives", None, Used),
    ("keepalives_idle", None, Used),
    ("keepalives_interval", None, Used),
    ("keepalives_count", None, Used),
    ("tcp_user_timeout", None, Used),
    (
        "channel_binding",
        Some("PGCHANNELBINDING"),
        Only(&["prefer", "disable"]),
    ),
    ("require_auth", Some("PGREQUIREAUTH"), NOTHING),
    ("requirepeer", Some("PGREQUIREPEER"), NOTHING),
    ("sslcrl", Some("PGSSLCRL"), NOTHING),
    ("sslcrldir", Some("PGSSLCRLDIR"), NOTHING),
    ("sslpassword", None, NOTHING),
    (
        "sslnegotiation",
        Some("PGSSLNEGOTIATION"),
        Only(&["postgres"]),
    ),
    (
        "ssl_min_protocol_version",
        Some("PGSSLMINPROTOCOLVERSION"),
        Only(&["TLSv1", "TLSv1.1", "TLSv1.2"]),
    ),
    (
        "ssl_max_protocol_version",
        Some("PGSSLMAXPROTOCOLVERSION"),
        Only(&["TLSv1.3"]),
    ),
    (
        "gssencmode",
        Some("PGGSSENCMODE"),
        Only(&["prefer", "disable"]),
    ),
    ("scram_client_key", None, NOTHING),
    ("scram_server_key", None, NOTHING),
    ("oauth_issuer", None, NOTHING),
    ("oauth_client_id", None, NOTHING),
    ("oauth_client_secret", None, NOTHING),
    ("oauth_scope", None, NOTHING),
    ("load_balance_hosts", Some("PGLOADBALANCEHOSTS"), NoEffect),
    ("client_encoding", Some("PGCLIENTENCODING"), NoEffect),
    ("sslcompression", Some("PGSSLCOMPRESSION"), NoEffect),
    ("sslkeylogfile", None, NoEffect),
    ("gssdelegation", Some("PGGSSDELEGATION"), NoEffect),
    ("gsslib", Some("PGGSSLIB"), NoEffect),
    ("krbsrvname", Some("PGKRBSRVNAME"), NoEffect),
    (
        "min_protocol_version",
        Some("PGMINPROTOCOLVERSION"),
        Only(&["3.0"]),
    ),
    (
        "max_protocol_version",
        Some("PGMAXPROTOCOLVERSION"),
        NoEffect,
    ),
    ("replication", None, NoEffect),
];

/// The keyword as this table spells it, if there is such a keyword.
pub(super) fn known(name: &str) -> Option<&'static str> {
    KEYWORDS
        .iter()
        .map(|(keyword, ..)| *keyword)
        .find(|keyword| *keyword == name)
}

/// The known keyword that looks most like `name`, if one looks like it at all.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    let scored = KEYWORDS
        .iter()
        .map(|(keyword, ..)| (strsim::jaro_winkler(name, keyword), *keyword));
    scored
        .filter(|(score, _)| *score > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, keyword)| keyword)
}

/// Sets what is not given yet from the environment.
pub(super) fn fill_from_environment(
    values: &mut Values,
    variable: impl Fn(&str) -> Option<String>,
) {
    for (keyword, name, _) in KEYWORDS {
        if !values.contains_key(keyword)
            && let Some(value) = name.and_then(&variable)
        {
            values.insert(keyword, value);
        }
    }
}

/// Keyword, variable and value of what the environment adds to the values.
pub(super) fn added_by_environment(
    values: &Values,
    variable: impl Fn(&str) -> Option<String>,
) -> Vec<Added> {
    let added = KEYWORDS.iter().filter_map(|(keyword, name, support)| {
        let variable_name =
            name.filter(|_| matches!(support, Used) && !values.contains_key(keyword))?;
        let value = variable(variable_name).filter(|value| !value.is_empty())?;
        Some(Added {
            keyword,
            variable: variable_name,
            value,
        })
    });
    added.collect()
}

/// Refuses what asks for something that Walden cannot do: silence would weaken the connection unseen.
pub(super) fn check_support(values: &Values) -> Result<()> {
    for (keyword, variable, support) in KEYWORDS {
        let (Some(value), Only(granted)) = (values.get(keyword), support) else {
            continue;
        };
        if value.is_empty() || granted.contains(&value.as_str()) {
            continue;
        }
        let from = variable
            .map(|name| format!(" (environment variable {name})"))
            .unwrap_or_default();
        let error = match granted {
            [] => anyhow::anyhow!("the connection keyword \"{keyword}\"{from} is not supported"),
            _ => anyhow::anyhow!("{keyword}=\"{value}\"{from} is not supported"),
        };
        return Err(error).hint(match granted {
            [] => format!("remove \"{keyword}\" from the connection settings"),
            _ => format!("leave it out, or use one of: {}", granted.join(", ")),
        });
    }
    Ok(())
}

/// The error for a keyword that libpq does not know, naming the nearest one.
pub(super) fn unknown<T>(name: &str) -> Result<T> {
    match nearest(name) {
        Some(near) => Err(anyhow::anyhow!("unknown connection keyword \"{name}\""))
            .hint(format!("did you mean \"{near}\"?")),
        None => bail!("unknown connection keyword \"{name}\""),
    }
}
