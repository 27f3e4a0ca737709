//! Connection strings, the environment and defaults, as libpq resolves them.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::testing::*;
use super::*;

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
