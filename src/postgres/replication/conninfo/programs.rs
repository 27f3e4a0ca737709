//! What libpq's own programs are given, so that they connect as Walden does: nothing secret on their command line.

use std::fmt::Write;

use super::secret::Password;
use super::{Address, ConnInfo, Host, SslMode, TrustedRoots, parse};

/// A connection for `pg_dump` and its like.
#[derive(Debug, Clone)]
pub struct ProgramConnection {
    /// `keyword='value'` pairs without a password.
    pub conninfo: String,
    password: Option<Password>,
}

impl ProgramConnection {
    /// As a connection string says it, and nothing else: for programs that run elsewhere. Errors: it cannot be read.
    pub fn elsewhere(connection_string: &str, database: &str) -> anyhow::Result<Self> {
        let mut values = parse::connection_string(connection_string)?;
        let password = values.remove("password").map(Password::new);
        values.insert("dbname", database.to_string());
        let mut conninfo = String::new();
        for (keyword, value) in values {
            add(&mut conninfo, keyword, &value);
        }
        Ok(Self { conninfo, password })
    }

    /// The password, for the environment of one process: never for a command line, a log or an error.
    pub fn password(&self) -> Option<&str> {
        self.password.as_ref().map(Password::reveal)
    }
}

impl ConnInfo {
    /// The same session for a program on this machine, on the server that [`Connection::server`] named.
    ///
    /// [`Connection::server`]: super::super::Connection::server
    pub fn for_programs(&self, server: &str, database: &str) -> ProgramConnection {
        let found = self.hosts.iter().find(|host| host.to_string() == server);
        let host = found.unwrap_or(&self.hosts[0]);
        let mut conninfo = String::new();
        let mut pair = |keyword, value: &str| add(&mut conninfo, keyword, value);
        match &host.address {
            Address::Unix(folder) => pair("host", &folder.to_string_lossy()),
            Address::Name(name) => pair("host", name),
            Address::Ip(ip, name) => {
                pair("hostaddr", &ip.to_string());
                if let Some(name) = name {
                    pair("host", name);
                }
            }
        }
        pair("port", &host.port.to_string());
        pair("user", &self.user);
        pair("dbname", database);
        pair("application_name", &self.application_name);
        if let Some(options) = &self.options {
            pair("options", options);
        }
        if let Some(limit) = self.connect_timeout {
            pair("connect_timeout", &limit.as_secs().max(1).to_string());
        }
        self.add_tls(host, &mut pair);
        ProgramConnection {
            password: self
                .password_for(host, database)
                .map(|password| Password::new(password.to_string())),
            conninfo,
        }
    }

    fn add_tls(&self, host: &Host, pair: &mut impl FnMut(&'static str, &str)) {
        pair("gssencmode", "disable");
        if matches!(host.address, Address::Unix(_)) {
            return;
        }
        pair("sslmode", word(self.tls.mode));
        match &self.tls.roots {
            Some(TrustedRoots::System) => pair("sslrootcert", "system"),
            Some(TrustedRoots::File(path)) => pair("sslrootcert", &path.to_string_lossy()),
            None => (),
        }
        if let Some(client) = &self.tls.client {
            pair("sslcert", &client.certificate.to_string_lossy());
            pair("sslkey", &client.key.to_string_lossy());
        }
        // A keyword of 14 and later.
        if !self.tls.server_name_indication {
            pair("sslsni", "0");
        }
    }
}

fn word(mode: SslMode) -> &'static str {
    match mode {
        SslMode::Disable => "disable",
        SslMode::Allow => "allow",
        SslMode::Prefer => "prefer",
        SslMode::Require => "require",
        SslMode::VerifyCa => "verify-ca",
        SslMode::VerifyFull => "verify-full",
    }
}

fn add(conninfo: &mut String, keyword: &str, value: &str) {
    let blank = if conninfo.is_empty() { "" } else { " " };
    let value = value.replace('\\', "\\\\").replace('\'', "\\'");
    write!(conninfo, "{blank}{keyword}='{value}'").expect("a string takes it");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_get_what_walden_uses_and_no_password_on_the_command_line() {
        let dsn = "host=a,127.0.0.1 port=1,2 user='o''k\\'s' password=geheim options='-c x=1' sslmode=verify-full sslrootcert=system";
        let dsn = dsn.replace("o''k", "ok");
        let info = ConnInfo::from_process(&dsn).unwrap();
        let server = info.hosts[1].to_string();
        let programs = info.for_programs(&server, "it's \\ a");
        for part in [
            "127.0.0.1'",
            "port='2'",
            "user='ok\\'s'",
            "dbname='it\\'s \\\\ a'",
            "options='-c x=1'",
            "sslmode='verify-full'",
            "sslrootcert='system'",
        ] {
            assert!(
                programs.conninfo.contains(part),
                "{part}: {}",
                programs.conninfo
            );
        }
        assert!(!programs.conninfo.contains("geheim"));
        assert_eq!(programs.password(), Some("geheim"));
        let back = ConnInfo::from_process(&programs.conninfo).unwrap();
        assert_eq!(
            (back.database.as_str(), back.user.as_str()),
            ("it's \\ a", "ok's")
        );
    }

    #[test]
    fn elsewhere_only_what_is_given_counts() {
        let there = ProgramConnection::elsewhere("postgresql://u:p%27w@/x", "shop").unwrap();
        assert_eq!(there.conninfo, "dbname='shop' user='u'");
        assert_eq!(there.password(), Some("p'w"));
        assert_eq!(
            ProgramConnection::elsewhere("", "a b").unwrap().conninfo,
            "dbname='a b'"
        );
    }
}
