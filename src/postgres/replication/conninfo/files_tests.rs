//! Service files and password files.

use super::testing::*;

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
