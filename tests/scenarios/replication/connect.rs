//! Who gets in, who does not, and what each is told.

use walden::error::{find, hints, one_line};
use walden::postgres::replication::{ConnInfo, ConnectErrorKind, Connection, Mode, ServerError};

use super::server::Server;
use super::{block_on, connect, failure};
use crate::harness::{Major, each_major};

const HBA: &str = "\
local all,replication all trust
host all,replication scram_role 127.0.0.1/32 scram-sha-256
host all,replication md5_role 127.0.0.1/32 md5
host all,replication plain_role 127.0.0.1/32 password
host all,replication trusted,plain_user,nologin,missing 127.0.0.1/32 trust
host all,replication peerless 127.0.0.1/32 reject
";

const ROLES: &str = "\
SET password_encryption = 'scram-sha-256';
CREATE ROLE scram_role LOGIN REPLICATION PASSWORD 'p w''\\ä';
CREATE ROLE plain_role LOGIN REPLICATION PASSWORD 'p w''\\ä';
SET password_encryption = 'md5';
CREATE ROLE md5_role LOGIN REPLICATION PASSWORD 'p w''\\ä';
CREATE ROLE trusted LOGIN REPLICATION;
CREATE ROLE nologin REPLICATION;
CREATE ROLE plain_user LOGIN;
CREATE ROLE stranger LOGIN REPLICATION;";

/// The roles' password as a quoted value of a connection string.
const PASSWORD: &str = r"password='p w\'\\ä'";

async fn server_with_roles(major: &Major) -> Server {
    let server = Server::start(major, "", HBA);
    server.sql().await.simple_query(ROLES).await.unwrap();
    server
}

each_major!(
    the_right_password_opens_both_kinds_of_session_and_the_wrong_one_neither,
    the_right_password_opens_both_kinds_of_session_and_the_wrong_one_neither_on
);

fn the_right_password_opens_both_kinds_of_session_and_the_wrong_one_neither_on(major: Major) {
    block_on(async {
        let server = server_with_roles(&major).await;
        for role in ["scram_role", "md5_role", "plain_role"] {
            for mode in [Mode::Sql, Mode::Physical] {
                let base = format!("{} user={role}", server.tcp());
                connect(&format!("{base} {PASSWORD}"), mode)
                    .await
                    .close()
                    .await
                    .unwrap();
                let wrong = failure(&format!("{base} password=guessed"), mode).await;
                assert!(
                    matches!(wrong.0.reason, ConnectErrorKind::WrongPassword(_)),
                    "{role} {}",
                    wrong.1
                );
                assert!(
                    wrong.1.contains(role)
                        && wrong.1.contains("127.0.0.1")
                        && !wrong.1.contains("guessed")
                );
                let none = failure(&base, mode).await;
                assert!(
                    matches!(none.0.reason, ConnectErrorKind::NoPassword),
                    "{role} {}",
                    none.1
                );
                assert!(none.1.contains("PGPASSWORD"), "{}", none.1);
            }
        }
    });
}

each_major!(
    each_refusal_says_what_to_change,
    each_refusal_says_what_to_change_on
);

fn each_refusal_says_what_to_change_on(major: Major) {
    block_on(async {
        let server = server_with_roles(&major).await;
        let of = |role: &str| format!("{} user={role}", server.tcp());
        let (error, text) = failure(&of("stranger"), Mode::Physical).await;
        assert!(
            matches!(error.reason, ConnectErrorKind::NoHbaEntry(_)),
            "{text}"
        );
        assert!(text.contains("host replication stranger"), "{text}");
        let (error, text) = failure(&of("stranger"), Mode::Sql).await;
        assert!(
            matches!(error.reason, ConnectErrorKind::NoHbaEntry(_)),
            "{text}"
        );
        assert!(text.contains("host postgres stranger"), "{text}");
        let (error, text) = failure(&of("peerless"), Mode::Sql).await;
        assert!(
            matches!(error.reason, ConnectErrorKind::NoHbaEntry(_)),
            "{text}"
        );
        let (error, text) = failure(&of("plain_user"), Mode::Physical).await;
        assert!(
            matches!(error.reason, ConnectErrorKind::NoReplicationPrivilege(_)),
            "{text}"
        );
        assert!(
            text.contains("ALTER ROLE \"plain_user\" REPLICATION"),
            "{text}"
        );
        for role in ["missing", "nologin"] {
            let (error, text) = failure(&of(role), Mode::Sql).await;
            assert!(
                matches!(error.reason, ConnectErrorKind::RoleRefused(_)),
                "{text}"
            );
            assert!(text.contains(&format!("ROLE \"{role}\" LOGIN")), "{text}");
        }
        let (error, text) = failure(&format!("{} dbname=nosuch", of("trusted")), Mode::Sql).await;
        assert!(
            matches!(&error.reason, ConnectErrorKind::Refused(server) if server.code == "3D000"),
            "{text}"
        );
    });
}

each_major!(
    a_server_without_room_or_on_its_way_down_may_be_asked_again,
    a_server_without_room_or_on_its_way_down_may_be_asked_again_on
);

fn a_server_without_room_or_on_its_way_down_may_be_asked_again_on(major: Major) {
    block_on(async {
        let server = Server::start(&major, "max_wal_senders = 2\nmax_replication_slots = 2", "");
        let (_one, _two) = (
            connect(&server.dsn(), Mode::Physical).await,
            connect(&server.dsn(), Mode::Physical).await,
        );
        let (error, text) = failure(&server.dsn(), Mode::Physical).await;
        assert!(
            matches!(&error.reason, ConnectErrorKind::NotReady(server) if server.code == "53300"),
            "{text}"
        );
        assert!(text.contains("max_wal_senders"), "{text}");
        let mut session = server.sql().await;
        server.ask_to_stop(rustix::process::Signal::TERM);
        // Requests for shutdown are handled in their own time.
        let text = loop {
            match Connection::connect(&ConnInfo::from_process(&server.dsn()).unwrap(), Mode::Sql)
                .await
            {
                Ok(early) => early.close().await.unwrap(),
                Err(error) => break one_line(&error),
            }
        };
        assert!(text.contains("57P03"), "{text}");
        session.simple_query("SELECT 1").await.unwrap();
    });
}

#[tokio::test]
async fn where_no_server_is_the_search_goes_on_to_the_next_host() {
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let (error, text) = failure(&format!("host=127.0.0.1 port={free} user=u"), Mode::Sql).await;
    assert!(
        matches!(error.reason, ConnectErrorKind::NoServer(_)),
        "{text}"
    );
    assert!(
        text.contains("listen_addresses") && text.contains(&free.to_string()),
        "{text}"
    );
    let folder = tempfile::tempdir().unwrap();
    let (error, text) = failure(
        &format!("host={} user=u", folder.path().display()),
        Mode::Sql,
    )
    .await;
    assert!(
        matches!(error.reason, ConnectErrorKind::NoServer(_)),
        "{text}"
    );
    assert!(
        text.contains(".s.PGSQL.5432") && text.contains("unix_socket_directories"),
        "{text}"
    );

    let major = Major::newest();
    let server = server_with_roles(&major).await;
    let ports = format!("port={free},{}", server.port());
    let found = connect(
        &format!("host=127.0.0.1,127.0.0.1 {ports} user=trusted dbname=postgres"),
        Mode::Sql,
    )
    .await;
    assert!(found.server().contains(&server.port().to_string()));
    let both = format!(
        "host=127.0.0.1,{} {ports} user=trusted",
        folder.path().display()
    );
    let (error, text) = failure(&both, Mode::Sql).await;
    assert!(
        matches!(error.reason, ConnectErrorKind::NoServer(_))
            && text.contains("none of the servers"),
        "{text}"
    );
}

#[tokio::test]
async fn a_refusal_ends_the_search_so_that_no_password_is_tried_all_around() {
    let major = Major::newest();
    let server = server_with_roles(&major).await;
    let twice = format!(
        "host=127.0.0.1,127.0.0.1 port={0} user=scram_role password=guessed",
        server.port()
    );
    let (error, text) = failure(&twice, Mode::Sql).await;
    assert!(
        matches!(error.reason, ConnectErrorKind::WrongPassword(_))
            && !text.contains("none of the servers"),
        "{text}"
    );
}

#[tokio::test]
async fn a_listener_that_never_answers_is_given_up_after_the_timeout() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    for mode in ["disable", "prefer", "require"] {
        let text = format!("host=127.0.0.1 port={port} user=u connect_timeout=1 sslmode={mode}");
        let (error, text) = failure(&text, Mode::Sql).await;
        assert!(
            matches!(error.reason, ConnectErrorKind::TimedOut(_)),
            "{text}"
        );
    }
}

#[tokio::test]
async fn what_does_not_speak_postgresql_is_told_so() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let web = std::thread::spawn(move || {
        use std::io::{Read, Write};
        for _ in 0..2 {
            let (mut socket, _) = listener.accept().unwrap();
            let _ = socket.read(&mut [0; 1024]).unwrap();
            socket
                .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                .unwrap();
        }
    });
    for mode in ["disable", "prefer"] {
        let (error, text) = failure(
            &format!("host=127.0.0.1 port={port} user=u sslmode={mode}"),
            Mode::Sql,
        )
        .await;
        assert!(
            matches!(error.reason, ConnectErrorKind::Broken(_))
                && text.contains("PostgreSQL's port"),
            "{text}"
        );
    }
    web.join().unwrap();
}

each_major!(
    the_wanted_kind_of_server_is_looked_for,
    the_wanted_kind_of_server_is_looked_for_on
);

fn the_wanted_kind_of_server_is_looked_for_on(major: Major) {
    block_on(async {
        let server = server_with_roles(&major).await;
        for mode in [Mode::Sql, Mode::Physical] {
            for wanted in ["any", "read-write", "primary", "prefer-standby"] {
                connect(
                    &format!("{} target_session_attrs={wanted}", server.dsn()),
                    mode,
                )
                .await
                .close()
                .await
                .unwrap();
            }
            for unwanted in ["read-only", "standby"] {
                let (error, text) = failure(
                    &format!("{} target_session_attrs={unwanted}", server.dsn()),
                    mode,
                )
                .await;
                assert!(
                    matches!(error.reason, ConnectErrorKind::WrongKindOfServer(_)),
                    "{text}"
                );
            }
        }
    });
}

each_major!(
    sql_returns_text_and_an_error_leaves_the_session_usable,
    sql_returns_text_and_an_error_leaves_the_session_usable_on
);

fn sql_returns_text_and_an_error_leaves_the_session_usable_on(major: Major) {
    block_on(async {
        let server = Server::start(&major, "", "");
        let mut sql = server.sql().await;
        assert_eq!(sql.version_num() / 10_000, server.major);
        let results = sql
            .simple_query(
                "SELECT 1 AS a, NULL AS b, '' AS c; CREATE TABLE public.t (); SELECT 'ä' AS d",
            )
            .await;
        let results = results.unwrap();
        let tags: Vec<&str> = results.iter().map(|result| result.tag.as_str()).collect();
        assert_eq!(tags, ["SELECT 1", "CREATE TABLE", "SELECT 1"]);
        let text = |column| results[0].text(0, column).unwrap();
        assert_eq!(
            (text("a"), text("b"), text("c")),
            (Some("1"), None, Some(""))
        );
        assert_eq!(results[2].text(0, "d").unwrap(), Some("ä"));
        let error = sql.simple_query("SELECT 1/0").await.unwrap_err();
        assert_eq!(find::<ServerError>(&error).unwrap().code, "22012");
        let error = sql
            .simple_query("SELECT nosuch FROM pg_class WHERE relnam = ''")
            .await
            .unwrap_err();
        assert!(!hints(&error).is_empty() || find::<ServerError>(&error).unwrap().hint.is_none());
        let long = sql
            .simple_query("SELECT repeat('x', 3000000) AS x FROM generate_series(1, 3)")
            .await
            .unwrap();
        assert_eq!(long[0].bytes(2, "x").unwrap().unwrap().len(), 3_000_000);
        assert_eq!(sql.simple_query("").await.unwrap().len(), 1);
    });
}

#[tokio::test]
async fn a_session_that_the_server_ends_says_why_and_is_of_no_more_use() {
    let major = Major::newest();
    let server = Server::start(&major, "", "");
    let mut sql = server.sql().await;
    let error = sql
        .simple_query("SELECT pg_terminate_backend(pg_backend_pid())")
        .await
        .unwrap_err();
    assert_eq!(find::<ServerError>(&error).unwrap().code, "57P01");
    let error = sql.simple_query("SELECT 1").await.unwrap_err();
    assert!(one_line(&error).contains("broken") && hints(&error)[0].contains("new connection"));
}

#[tokio::test]
async fn an_abandoned_command_is_never_taken_for_the_next_ones_answer() {
    let major = Major::newest();
    let server = Server::start(&major, "", "");
    let mut sql = server.sql().await;
    let limit = std::time::Duration::from_millis(20);
    assert!(
        tokio::time::timeout(limit, sql.simple_query("SELECT pg_sleep(600)"))
            .await
            .is_err()
    );
    let error = sql.simple_query("SELECT 1").await.unwrap_err();
    assert!(one_line(&error).contains("was not finished"));
}

#[tokio::test]
async fn a_session_that_waits_for_wal_is_not_ended_as_idle() {
    let server = server_with_roles(&Major::newest()).await;
    server
        .sql()
        .await
        .simple_query("ALTER ROLE trusted SET idle_session_timeout = '1s'")
        .await
        .unwrap();
    let mut waiting = connect(&format!("{} user=trusted", server.tcp()), Mode::Sql).await;
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    waiting.simple_query("SELECT 1").await.unwrap();
}

#[tokio::test]
async fn a_pooler_between_is_told_from_the_server() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // As PgBouncer answers; the server itself would also say where in its code it refused.
    let text = "SFATAL\0VFATAL\0C08P01\0Munsupported startup parameter: replication\0\0";
    let pooler = tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let _ = client.read(&mut [0; 1024]).await.unwrap();
            let answer = [
                &b"E"[..],
                &(text.len() as u32 + 4).to_be_bytes(),
                text.as_bytes(),
            ]
            .concat();
            client.write_all(&answer).await.unwrap();
        }
    });
    for mode in [Mode::Sql, Mode::Physical] {
        let (error, text) = failure(
            &format!("host=127.0.0.1 port={port} user=x sslmode=disable"),
            mode,
        )
        .await;
        assert!(
            matches!(error.reason, ConnectErrorKind::Refused(_)),
            "{text}"
        );
        assert!(
            text.contains("startup parameter") && text.contains("HINT: name the server itself"),
            "{text}"
        );
    }
    pooler.abort();
}
