//! From keywords to a [`ConnInfo`]: precedence, defaults, checks.

use anyhow::{Context, Result, anyhow, bail};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use super::files::{self, PasswordFile};
use super::keywords::{self, Values};
use super::parse;
use super::secret::Password;
use super::{
    Added, Address, ClientCertificate, ConnInfo, Host, Keepalive, LibpqEnv, SslMode, TargetSession,
};
use super::{TlsSettings, TrustedRoots};
use crate::error::Hint;

/// The socket folders that distributions (first) and PostgreSQL's own builds (second) use.
pub(super) const SOCKET_FOLDERS: [&str; 2] = ["/var/run/postgresql", "/tmp"];
const DEFAULT_PORT: u16 = 5432;
/// Unlike libpq, which waits for as long as the kernel does (minutes), unless told so by `connect_timeout=0`.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) fn resolve(connection_string: &str, around: &dyn LibpqEnv) -> Result<ConnInfo> {
    let mut values =
        parse::connection_string(connection_string).context("cannot read the connection string")?;
    files::apply_service(&mut values, around)?;
    keywords::fill_from_environment(&mut values, |name| around.variable(name));
    keywords::check_support(&values)?;
    let mut warnings = Vec::new();
    let home = around.home();
    let user = match given(&values, "user") {
        Some(user) => user.to_owned(),
        None => around
            .user()
            .ok_or_else(|| anyhow!("no user name is given and this process's user has none"))
            .hint("set PGUSER, or user=… in the connection string")?,
    };
    let password_file = given(&values, "passfile")
        .map(PathBuf::from)
        .or_else(|| home.as_ref().map(|home| home.join(".pgpass")))
        .map(|path| PasswordFile::read(&path, around, &mut warnings))
        .unwrap_or_default();
    let name =
        given(&values, "application_name").or_else(|| given(&values, "fallback_application_name"));
    Ok(ConnInfo {
        hosts: hosts(&values, around)?,
        database: given(&values, "dbname").unwrap_or(&user).to_owned(),
        user,
        tls: tls(&values, home.as_deref(), around, &mut warnings)?,
        connect_timeout: connect_timeout(&values)?,
        application_name: name.unwrap_or("walden").to_owned(),
        options: given(&values, "options").map(str::to_owned),
        target_session: target_session(&values)?,
        keepalive: keepalive(&values)?,
        warnings,
        password: given(&values, "password").map(|password| Password::new(password.to_owned())),
        password_file,
    })
}

/// What the environment adds to a connection string and the service that it names.
pub(super) fn added_by_environment(
    connection_string: &str,
    around: &dyn LibpqEnv,
) -> Result<Vec<Added>> {
    let mut values =
        parse::connection_string(connection_string).context("cannot read the connection string")?;
    files::apply_service(&mut values, around)?;
    Ok(keywords::added_by_environment(&values, |name| {
        around.variable(name)
    }))
}

/// The value of a keyword, unless it is missing or empty.
fn given<'a>(values: &'a Values, keyword: &str) -> Option<&'a str> {
    values
        .get(keyword)
        .map(String::as_str)
        .filter(|value| !value.is_empty())
}

fn hosts(values: &Values, around: &dyn LibpqEnv) -> Result<Vec<Host>> {
    let list = |keyword| {
        given(values, keyword).map(|value| value.split(',').map(str::trim).collect::<Vec<_>>())
    };
    let (names, addresses, ports) = (list("host"), list("hostaddr"), list("port"));
    let count = addresses.as_ref().or(names.as_ref()).map_or(1, Vec::len);
    let check = |what, list: &Option<Vec<&str>>, one_for_all| match list.as_ref().map(Vec::len) {
        Some(len) if len != count && !(one_for_all && len == 1) => {
            Err(anyhow!("{len} {what} for {count} hosts"))
                .hint("give one port for each host, separated by commas, or one for all")
        }
        _ => Ok(()),
    };
    check("host names", &names, false)?;
    check("ports", &ports, true)?;
    let at = |list: &Option<Vec<&str>>, index: usize| -> String {
        list.as_ref()
            .and_then(|list| list.get(index).or(list.first()))
            .map_or("", |value| *value)
            .to_owned()
    };
    (0..count)
        .map(|index| {
            let port = match at(&ports, index).as_str() {
                "" => DEFAULT_PORT,
                text => text.parse().ok().filter(|port| *port != 0).ok_or_else(|| {
                    anyhow!("invalid port \"{text}\": expected a number from 1 to 65535")
                })?,
            };
            Ok(Host {
                address: address(&at(&names, index), &at(&addresses, index), port, around)?,
                port,
            })
        })
        .collect()
}

fn address(name: &str, ip: &str, port: u16, around: &dyn LibpqEnv) -> Result<Address> {
    if !ip.is_empty() {
        let ip = ip
            .parse()
            .with_context(|| format!("hostaddr \"{ip}\" is not an IP address"))?;
        return Ok(Address::Ip(
            ip,
            Some(name.to_owned()).filter(|name| !name.is_empty()),
        ));
    }
    match name {
        "" => {
            let folders = SOCKET_FOLDERS.map(Path::new);
            let listening = folders
                .iter()
                .find(|folder| around.exists(&Host::socket(folder, port)));
            let folder = listening.or_else(|| folders.iter().find(|folder| around.exists(folder)));
            Ok(Address::Unix(folder.unwrap_or(&folders[0]).to_path_buf()))
        }
        _ if name.starts_with('/') => Ok(Address::Unix(name.into())),
        _ if name.starts_with('@') => {
            bail!("abstract Unix sockets, as in host \"{name}\", are not supported")
        }
        _ => Ok(Address::Name(name.to_owned())),
    }
}

fn tls(
    values: &Values,
    home: Option<&Path>,
    around: &dyn LibpqEnv,
    warnings: &mut Vec<String>,
) -> Result<TlsSettings> {
    let in_home = |name: &str| home.map(|home| home.join(".postgresql").join(name));
    let roots = match given(values, "sslrootcert") {
        Some("system") => Some(TrustedRoots::System),
        Some(path) => Some(TrustedRoots::File(path.into())),
        None => in_home("root.crt").map(TrustedRoots::File),
    };
    let system = roots == Some(TrustedRoots::System);
    let mode = match given(values, "sslmode") {
        // As in libpq 16 and later: any public authority would do, so the host name must be checked.
        None if system => SslMode::VerifyFull,
        None => SslMode::Prefer,
        Some(text) => ssl_mode(text)?,
    };
    if system && mode != SslMode::VerifyFull {
        return Err(anyhow!(
            "sslmode=\"{mode}\" is too weak for sslrootcert=system"
        ))
        .hint("use sslmode=verify-full, or any certificate of a public authority passes");
    }
    let certificate = given(values, "sslcert")
        .map(PathBuf::from)
        .or_else(|| in_home("postgresql.crt"));
    let key = given(values, "sslkey")
        .map(PathBuf::from)
        .or_else(|| in_home("postgresql.key"));
    let client = match (certificate, key) {
        (Some(certificate), Some(key)) if given(values, "sslcertmode") != Some("disable") => {
            Some(ClientCertificate { certificate, key })
        }
        _ => None,
    };
    if mode >= SslMode::Require
        && let Some(list) = in_home("root.crl").filter(|path| around.exists(path))
    {
        warnings.push(format!(
            "the certificate revocation list \"{}\" is not used",
            list.display()
        ));
    }
    Ok(TlsSettings {
        mode,
        roots,
        client,
        server_name_indication: given(values, "sslsni") != Some("0"),
    })
}

fn ssl_mode(text: &str) -> Result<SslMode> {
    use SslMode::*;
    let modes = [Disable, Allow, Prefer, Require, VerifyCa, VerifyFull];
    modes
        .into_iter()
        .find(|mode| mode.to_string() == text)
        .ok_or_else(|| anyhow!("invalid sslmode \"{text}\""))
        .hint("use disable, allow, prefer, require, verify-ca or verify-full")
}

fn target_session(values: &Values) -> Result<TargetSession> {
    match given(values, "target_session_attrs") {
        None | Some("any") => Ok(TargetSession::Any),
        Some("read-write") => Ok(TargetSession::ReadWrite),
        Some("read-only") => Ok(TargetSession::ReadOnly),
        Some("primary") => Ok(TargetSession::Primary),
        Some("standby") => Ok(TargetSession::Standby),
        Some("prefer-standby") => Ok(TargetSession::PreferStandby),
        Some(other) => Err(anyhow!("invalid target_session_attrs \"{other}\""))
            .hint("use any, read-write, read-only, primary, standby or prefer-standby"),
    }
}

fn number<T: FromStr>(values: &Values, keyword: &str) -> Result<Option<T>> {
    let Some(text) = given(values, keyword) else {
        return Ok(None);
    };
    let number = text.trim().parse().ok();
    number
        .map(Some)
        .ok_or_else(|| anyhow!("invalid number \"{text}\" for \"{keyword}\""))
}

fn connect_timeout(values: &Values) -> Result<Option<Duration>> {
    Ok(match number::<i32>(values, "connect_timeout")? {
        None => Some(DEFAULT_CONNECT_TIMEOUT),
        Some(seconds) => u64::try_from(seconds)
            .ok()
            .filter(|seconds| *seconds > 0)
            .map(Duration::from_secs),
    })
}

fn keepalive(values: &Values) -> Result<Keepalive> {
    let seconds = |keyword| {
        Ok::<_, anyhow::Error>(number::<u16>(values, keyword)?.filter(|number| *number > 0))
    };
    let duration = |number: Option<u16>| number.map(|number| Duration::from_secs(number.into()));
    Ok(Keepalive {
        enabled: number::<i32>(values, "keepalives")? != Some(0),
        idle: duration(seconds("keepalives_idle")?),
        interval: duration(seconds("keepalives_interval")?),
        count: seconds("keepalives_count")?.map(u32::from),
        user_timeout: number::<u32>(values, "tcp_user_timeout")?
            .filter(|milliseconds| *milliseconds > 0)
            .map(|milliseconds| Duration::from_millis(milliseconds.into())),
    })
}
