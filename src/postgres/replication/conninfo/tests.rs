use std::collections::BTreeMap;
use std::io;

use proptest::prelude::*;

use super::*;
use crate::error;

/// A made-up machine: variables and files.
#[derive(Default)]
struct Machine {
    variables: BTreeMap<String, String>,
    files: BTreeMap<PathBuf, FileStat>,
}

impl Machine {
    fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    fn file(mut self, path: &str, mode: u32, content: &str) -> Self {
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

    fn resolve(&self, text: &str) -> ConnInfo {
        ConnInfo::resolve(text, self).unwrap_or_else(|error| panic!("{text:?}: {error:#}"))
    }

    fn refusal(&self, text: &str) -> String {
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

#[test]
fn what_the_environment_adds_can_be_said_by_a_connection_string() {
    let machine = Machine::default()
        .variable("PGHOST", "/run/it's")
        .variable("PGPORT", "5433")
        .variable("PGPASSWORD", "s3cret")
        .variable("PGDATABASE", "");
    let added = resolve::added_by_environment("port=1", &machine).unwrap();
    let names: Vec<&str> = added.iter().map(|added| added.variable).collect();
    assert_eq!(names, ["PGHOST", "PGPASSWORD"]);
    let pairs: Vec<String> = added.iter().filter_map(Added::pair).collect();
    assert_eq!(
        Machine::default().resolve(&pairs.join(" ")).hosts,
        [unix("/run/it's", 5432)]
    );
    assert!(!pairs.concat().contains("s3cret"));
}

fn unix(folder: &str, port: u16) -> Host {
    Host {
        address: Address::Unix(folder.into()),
        port,
    }
}

fn named(name: &str, port: u16) -> Host {
    Host {
        address: Address::Name(name.into()),
        port,
    }
}

fn password(info: &ConnInfo) -> Option<&str> {
    info.password_for(&info.hosts[0], &info.database)
}

#[test]
fn nothing_given_means_the_local_server_as_this_user() {
    let info = Machine::default().file("/tmp", 0o777, "").resolve("");
    assert_eq!(info.hosts, [unix("/tmp", 5432)]);
    assert_eq!(
        (info.user.as_str(), info.database.as_str()),
        ("osuser", "osuser")
    );
    assert_eq!(
        (info.tls.mode, info.application_name.as_str()),
        (SslMode::Prefer, "walden")
    );
}

#[test]
fn the_default_socket_folder_is_the_one_with_a_server_in_it() {
    let both = || {
        Machine::default()
            .file("/var/run/postgresql", 0o755, "")
            .file("/tmp", 0o777, "")
    };
    assert_eq!(
        both().resolve("").hosts,
        [unix("/var/run/postgresql", 5432)]
    );
    let info = both()
        .file("/tmp/.s.PGSQL.6000", 0o777, "")
        .resolve("port=6000");
    assert_eq!(info.hosts, [unix("/tmp", 6000)]);
}

#[test]
fn keyword_strings_are_read_as_libpq_does() {
    let machine = Machine::default();
    let info = machine
        .resolve(r" host = /tmp port=5433 user='two words' password='a b\'c\\' dbname=x\ y ");
    assert_eq!(info.hosts, [unix("/tmp", 5433)]);
    assert_eq!(
        (info.user.as_str(), info.database.as_str()),
        ("two words", "x y")
    );
    assert_eq!(password(&info), Some(r"a b'c\"));
    assert_eq!(machine.resolve("host=a host=b").hosts, [named("b", 5432)]);
    assert_eq!(machine.resolve("user='' dbname=").user, "osuser");
}

#[test]
fn uris_are_read_as_libpq_does() {
    let machine = Machine::default();
    let cases: &[(&str, &[Host], &str, &str)] = &[
        (
            "postgresql://",
            &[unix("/var/run/postgresql", 5432)],
            "osuser",
            "osuser",
        ),
        ("postgres://db1", &[named("db1", 5432)], "osuser", "osuser"),
        (
            "postgresql://bob@db1:5433/app",
            &[named("db1", 5433)],
            "bob",
            "app",
        ),
        (
            "postgresql://b%40b:p%2Fw@db1/a%20b?sslmode=require",
            &[named("db1", 5432)],
            "b@b",
            "a b",
        ),
        (
            "postgresql://[::1]:5433/app",
            &[named("::1", 5433)],
            "osuser",
            "app",
        ),
        (
            "postgresql://%2Fvar%2Frun/app",
            &[unix("/var/run", 5432)],
            "osuser",
            "app",
        ),
        (
            "postgresql:///app?host=/tmp&port=6432&user=u",
            &[unix("/tmp", 6432)],
            "u",
            "app",
        ),
        (
            "postgresql://a:1,b:2/app",
            &[named("a", 1), named("b", 2)],
            "osuser",
            "app",
        ),
        (
            "postgresql://a,b:2",
            &[named("a", 5432), named("b", 2)],
            "osuser",
            "osuser",
        ),
        (
            "postgresql://u:p?w@a?dbname=d",
            &[named("a", 5432)],
            "u",
            "d",
        ),
    ];
    for (text, hosts, user, database) in cases {
        let info = machine.resolve(text);
        assert_eq!(
            (&info.hosts[..], info.user.as_str(), info.database.as_str()),
            (*hosts, *user, *database),
            "{text}"
        );
    }
    assert_eq!(
        password(&machine.resolve("postgresql://u:p%2Fw@h")),
        Some("p/w")
    );
    assert_eq!(
        machine.resolve("postgresql://h?ssl=true").tls.mode,
        SslMode::Require
    );
}

#[test]
fn several_hosts_share_one_port_or_have_one_each() {
    let machine = Machine::default();
    assert_eq!(
        machine.resolve("host=a,b port=7").hosts,
        [named("a", 7), named("b", 7)]
    );
    assert_eq!(
        machine.resolve("host=a,b port=7,").hosts,
        [named("a", 7), named("b", 5432)]
    );
    let ip = machine.resolve("host=a hostaddr=10.0.0.1").hosts;
    assert_eq!(
        ip,
        [Host {
            address: Address::Ip("10.0.0.1".parse().unwrap(), Some("a".into())),
            port: 5432
        }]
    );
    assert!(
        machine
            .refusal("host=a,b,c port=1,2")
            .contains("2 ports for 3 hosts")
    );
    assert!(
        machine
            .refusal("host=a,b hostaddr=::1")
            .contains("2 host names for 1 hosts")
    );
}

#[test]
fn the_string_wins_over_the_service_over_the_environment() {
    let machine = Machine::default()
        .variable("PGSERVICE", "prod")
        .variable("PGHOST", "from-environment")
        .variable("PGUSER", "from-environment")
        .variable("PGDATABASE", "from-environment")
        .file(
            "/home/osuser/.pg_service.conf",
            0o644,
            "# c\n[other]\nhost=no\n[prod]\nhost=from-service\nuser=from-service\n",
        );
    let info = machine.resolve("host=from-string");
    assert_eq!(info.hosts, [named("from-string", 5432)]);
    assert_eq!(
        (info.user.as_str(), info.database.as_str()),
        ("from-service", "from-environment")
    );
}

#[test]
fn a_service_is_looked_up_in_the_named_file_then_in_the_systems() {
    let machine = Machine::default()
        .file(
            "/etc/postgresql-common/pg_service.conf",
            0o644,
            "[prod]\r\nhost=system\r\n",
        )
        .file("/srv/services", 0o644, "[mine]\nhost=mine\n");
    assert_eq!(
        machine.resolve("service=prod").hosts,
        [named("system", 5432)]
    );
    let machine = machine.variable("PGSERVICEFILE", "/srv/services");
    assert_eq!(machine.resolve("service=mine").hosts, [named("mine", 5432)]);
    assert_eq!(
        machine.resolve("service=prod").hosts,
        [named("system", 5432)]
    );
    assert!(
        machine
            .refusal("service=none")
            .contains("[none] to one of \"/srv/services\"")
    );
    let machine = machine.variable("PGSERVICEFILE", "/srv/gone");
    assert!(
        machine
            .refusal("service=mine")
            .contains("\"/srv/gone\" does not exist")
    );
}

#[test]
fn mistakes_in_a_service_file_name_file_and_line() {
    let machine = Machine::default().file(
        "/home/osuser/.pg_service.conf",
        0o644,
        "[a]\nhost=x\nhots=y\n[b]\nservice=a\n[c]\nx\n",
    );
    let text = machine.refusal("service=a");
    assert!(
        text.contains("line 3")
            && text.contains("\"hots\"")
            && text.contains("did you mean \"host\""),
        "{text}"
    );
    assert!(
        machine
            .refusal("service=b")
            .contains("cannot name another service")
    );
    assert!(machine.refusal("service=c").contains("missing \"=\""));
}

#[test]
fn a_password_file_gives_the_first_line_that_matches() {
    let lines = "# comment\nlocalhost:5432:app:bob:socket\ndb1:5432:*:bob:one\n*:*:replication:bob:repl\\:\\\\x\n*:*:*:*:any\n";
    let machine = Machine::default().file("/home/osuser/.pgpass", 0o600, lines);
    let of = |text: &str| password(&machine.resolve(text)).map(str::to_owned);
    assert_eq!(
        of("host=/tmp user=bob dbname=app").as_deref(),
        Some("socket")
    );
    assert_eq!(
        of("host=/elsewhere user=bob dbname=app").as_deref(),
        Some("any")
    );
    assert_eq!(of("host=db1 user=bob dbname=zzz").as_deref(), Some("one"));
    assert_eq!(of("host=db1 port=1 user=bob").as_deref(), Some("any"));
    assert_eq!(
        of("host=db2 user=bob dbname=replication").as_deref(),
        Some(r"repl:\x")
    );
    assert_eq!(
        of("host=db2 user=bob password=given").as_deref(),
        Some("given")
    );
}

#[test]
fn a_password_file_open_to_others_is_ignored_with_a_warning() {
    let machine = Machine::default().file("/home/osuser/.pgpass", 0o640, "*:*:*:*:any\n");
    let info = machine.resolve("host=a");
    assert_eq!(password(&info), None);
    assert!(
        info.warnings[0].contains("mode 0640"),
        "{:?}",
        info.warnings
    );
    let machine = machine
        .variable("PGPASSFILE", "/safe")
        .file("/safe", 0o400, "*:*:*:*:any\n");
    assert_eq!(password(&machine.resolve("host=a")), Some("any"));
}

#[test]
fn an_unknown_keyword_names_the_nearest() {
    let machine = Machine::default();
    assert!(machine.refusal("hots=a").contains("did you mean \"host\""));
    assert!(
        machine
            .refusal("postgresql://a?sslmod=require")
            .contains("did you mean \"sslmode\"")
    );
    assert!(
        machine
            .refusal("zzzz=a")
            .contains("unknown connection keyword \"zzzz\"")
    );
}

#[test]
fn what_would_weaken_the_connection_is_refused_not_ignored() {
    let machine = Machine::default();
    for text in [
        "channel_binding=require",
        "require_auth=scram-sha-256",
        "gssencmode=require",
        "sslcrl=/x",
        "requirepeer=p",
    ] {
        assert!(machine.refusal(text).contains("not supported"), "{text}");
    }
    assert!(
        machine
            .refusal("sslrootcert=system sslmode=require")
            .contains("too weak")
    );
    assert_eq!(
        machine.resolve("sslrootcert=system").tls.mode,
        SslMode::VerifyFull
    );
    let machine = machine.variable("PGREQUIREAUTH", "scram-sha-256");
    assert!(machine.refusal("").contains("PGREQUIREAUTH"));
}

#[test]
fn wrong_values_are_named() {
    let machine = Machine::default();
    assert!(machine.refusal("port=0").contains("invalid port \"0\""));
    assert!(
        machine
            .refusal("port=70000")
            .contains("invalid port \"70000\"")
    );
    assert!(
        machine
            .refusal("sslmode=verify_full")
            .contains("verify-full")
    );
    assert!(machine.refusal("connect_timeout=soon").contains("\"soon\""));
    assert!(
        machine
            .refusal("host='unterminated")
            .contains("unterminated")
    );
    assert!(
        machine
            .refusal("host=a lonely")
            .contains("missing \"=\" after \"lonely\"")
    );
    assert!(
        machine
            .refusal("postgresql://[::1")
            .contains("missing \"]\"")
    );
    assert!(machine.refusal("postgresql://h/%zz").contains("%"));
    assert!(machine.refusal("postgresql://h/a%00b").contains("%"));
}

#[test]
fn connect_timeout_has_a_bound_unless_zero_lifts_it() {
    let machine = Machine::default();
    assert_eq!(
        machine.resolve("").connect_timeout,
        Some(Duration::from_secs(30))
    );
    assert_eq!(
        machine.resolve("connect_timeout=5").connect_timeout,
        Some(Duration::from_secs(5))
    );
    assert_eq!(machine.resolve("connect_timeout=0").connect_timeout, None);
    assert_eq!(machine.resolve("connect_timeout=-1").connect_timeout, None);
}

#[test]
fn no_text_shows_a_password() {
    let machine = Machine::default().file("/home/osuser/.pgpass", 0o600, "*:*:*:*:hush-file\n");
    for text in ["host=a password=hush", "postgresql://u:hush@a/b", "host=b"] {
        let info = machine.resolve(text);
        assert!(password(&info).is_some());
        let shown = format!("{info} {info:?}");
        assert!(!shown.contains("hush"), "{shown}");
    }
    for text in [
        "password=my hush",
        "password=my hush=5",
        "password='hush",
        "postgresql://u:pa@hush@h/b",
        "postgresql://u:hush/x@h/b",
        "postgresql://u:hush%zz@h/b",
    ] {
        let shown = machine.refusal(text);
        assert!(!shown.contains("hush"), "{text}: {shown}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in ".{0,80}") {
        let _ = ConnInfo::resolve(&text, &Machine::default());
    }

    #[test]
    fn no_connection_like_text_makes_it_panic(
        start in prop::sample::select(vec!["", "postgresql://", "host=", "password='"]),
        text in r"[a-z0-9:/@%?&=,'\\\[\] \n]{0,60}",
    ) {
        let _ = ConnInfo::resolve(&format!("{start}{text}"), &Machine::default());
    }

    #[test]
    fn no_file_makes_it_panic(text in r"[a-z0-9:*\\#\[\]= \r\n]{0,120}") {
        let machine = Machine::default()
            .variable("PGSERVICE", "a")
            .file("/home/osuser/.pg_service.conf", 0o644, &text)
            .file("/home/osuser/.pgpass", 0o600, &text);
        let _ = ConnInfo::resolve("", &machine);
        let info = ConnInfo::resolve("", &Machine { variables: BTreeMap::new(), ..machine });
        if let Ok(info) = info {
            let _ = password(&info);
        }
    }

    #[test]
    fn what_is_quoted_comes_back(value in r"[^\x00]{1,40}") {
        let quoted = value.replace('\\', r"\\").replace('\'', r"\'");
        let info = Machine::default().resolve(&format!("host=a password='{quoted}' user='{quoted}'"));
        prop_assert_eq!(password(&info), Some(value.as_str()));
        prop_assert_eq!(&info.user, &value);
    }
}
