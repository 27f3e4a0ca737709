//! TLS in each sslmode.

use std::path::PathBuf;
use std::process::Command;

use walden::postgres::replication::{ConnectErrorKind, Mode};

use super::server::Server;
use super::{block_on, connect, failure};
use crate::harness::{Major, each_major};

const HBA: &str = "\
local all all trust
hostssl all tls_role 127.0.0.1/32 cert
host all,replication walden 127.0.0.1/32 trust
hostssl all only_tls 127.0.0.1/32 trust
hostnossl all only_plain 127.0.0.1/32 trust
hostssl all,replication scram_role 127.0.0.1/32 scram-sha-256
";

/// An authority, what it signed, and a server that uses it.
struct Pki {
    folder: tempfile::TempDir,
}

impl Pki {
    fn new() -> Self {
        let pki = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        pki.authority("ca");
        pki.authority("stranger");
        pki.signed(
            "server",
            "/CN=ignored",
            Some("subjectAltName=DNS:db.example,IP:127.0.0.1"),
        );
        pki.signed("old", "/CN=db.example", None);
        pki.signed("named", "/CN=db.example", Some("keyUsage=digitalSignature"));
        pki.signed("plain", "/CN=tls_role", None);
        pki.signed(
            "client",
            "/CN=tls_role",
            Some("extendedKeyUsage=clientAuth"),
        );
        pki
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn openssl(&self, line: &str) {
        run(Command::new("openssl")
            .args(line.split(' '))
            .current_dir(self.folder.path()));
    }

    /// A self-signed certificate that may sign others.
    fn authority(&self, name: &str) {
        self.openssl(&format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN={name}.db.example \
             -addext subjectAltName=DNS:db.example -keyout {name}.key -out {name}.crt"
        ));
    }

    /// A certificate signed by the authority; without extensions it is one of X.509's first version.
    fn signed(&self, name: &str, subject: &str, extension: Option<&str>) {
        self.openssl(&format!(
            "req -newkey rsa:2048 -nodes -subj {subject} -keyout {name}.key -out {name}.csr"
        ));
        let mut sign = format!(
            "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out {name}.crt"
        );
        if let Some(extension) = extension {
            std::fs::write(self.path("extension"), extension).unwrap();
            sign.push_str(" -extfile extension");
        }
        self.openssl(&sign);
    }

    /// `None`, said aloud, where the major was built without TLS.
    async fn server(&self, major: &Major, certificate: &str) -> Option<Server> {
        if !major.speaks_tls() {
            crate::harness::say_skipped(&format!(
                "PostgreSQL {}: skipped where TLS is needed (built without it)",
                major.number
            ));
            return None;
        }
        let mut server = Server::start(major, "", "");
        self.install(&server, certificate);
        let hba = server.scratch.write("hba.conf", HBA);
        server.cluster.append_conf(&format!(
            "hba_file = '{}'\nssl = on\nssl_cert_file = 'tls.crt'\nssl_key_file = 'tls.key'\nssl_ca_file = 'ca.crt'\n",
            hba.display()
        ));
        server.cluster.restart();
        let roles = "SET password_encryption = 'scram-sha-256'; CREATE ROLE scram_role LOGIN REPLICATION PASSWORD 'x';
                     CREATE ROLE tls_role LOGIN; CREATE ROLE only_tls LOGIN; CREATE ROLE only_plain LOGIN;";
        server.sql().await.simple_query(roles).await.unwrap();
        Some(server)
    }

    fn install(&self, server: &Server, certificate: &str) {
        server.install(&self.path(&format!("{certificate}.crt")), "tls.crt");
        server.install(&self.path(&format!("{certificate}.key")), "tls.key");
        server.install(&self.path("ca.crt"), "ca.crt");
    }

    fn trusting(&self, server: &Server, host: &str, authority: &str, mode: &str) -> String {
        format!(
            "hostaddr=127.0.0.1 {host} port={} user=walden dbname=postgres sslmode={mode} sslrootcert={}",
            server.port(),
            self.path(&format!("{authority}.crt")).display()
        )
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

const ENCRYPTED: &str = "SELECT ssl FROM pg_catalog.pg_stat_ssl WHERE pid = pg_backend_pid()";

async fn is_encrypted(text: &str) -> bool {
    let mut sql = connect(text, Mode::Sql).await;
    sql.simple_query(ENCRYPTED).await.unwrap()[0]
        .text(0, "ssl")
        .unwrap()
        == Some("t")
}

each_major!(
    each_sslmode_accepts_what_it_promises_and_nothing_less,
    each_sslmode_accepts_what_it_promises_and_nothing_less_on
);

fn each_sslmode_accepts_what_it_promises_and_nothing_less_on(major: Major) {
    block_on(async {
        let pki = Pki::new();
        let Some(server) = pki.server(&major, "server").await else {
            return;
        };
        let right = "host=db.example";
        for (mode, encrypted) in [
            ("disable", false),
            ("allow", false),
            ("prefer", true),
            ("require", true),
        ] {
            assert_eq!(
                is_encrypted(&pki.trusting(&server, right, "ca", mode)).await,
                encrypted,
                "{mode}"
            );
            let no_roots = pki.trusting(&server, "", "missing", mode);
            assert_eq!(is_encrypted(&no_roots).await, encrypted, "{mode}");
        }
        for mode in ["verify-ca", "verify-full"] {
            assert!(is_encrypted(&pki.trusting(&server, right, "ca", mode)).await);
            for authority in ["stranger", "missing"] {
                let (error, text) =
                    failure(&pki.trusting(&server, right, authority, mode), Mode::Sql).await;
                assert!(
                    matches!(error.reason, ConnectErrorKind::Tls(_))
                        && text.contains("sslrootcert"),
                    "{text}"
                );
            }
        }
        // A file of roots that exists counts for require, too; prefer falls back, as libpq does.
        let (error, _) = failure(
            &pki.trusting(&server, right, "stranger", "require"),
            Mode::Sql,
        )
        .await;
        assert!(matches!(error.reason, ConnectErrorKind::Tls(_)));
        assert!(!is_encrypted(&pki.trusting(&server, right, "stranger", "prefer")).await);
        let wrong = "host=other.example";
        assert!(is_encrypted(&pki.trusting(&server, wrong, "ca", "verify-ca")).await);
        let (error, text) = failure(
            &pki.trusting(&server, wrong, "ca", "verify-full"),
            Mode::Sql,
        )
        .await;
        assert!(
            matches!(error.reason, ConnectErrorKind::Tls(_)) && text.contains("another host"),
            "{text}"
        );
        let (error, text) =
            failure(&pki.trusting(&server, "", "ca", "verify-full"), Mode::Sql).await;
        assert!(
            matches!(error.reason, ConnectErrorKind::Tls(_)) && text.contains("host name"),
            "{text}"
        );
        let by_address = pki
            .trusting(&server, "", "ca", "verify-full")
            .replace("hostaddr", "host");
        assert!(is_encrypted(&by_address).await);
    });
}

each_major!(
    pg_hba_lines_for_one_kind_are_found_by_allow_and_prefer,
    pg_hba_lines_for_one_kind_are_found_by_allow_and_prefer_on
);

fn pg_hba_lines_for_one_kind_are_found_by_allow_and_prefer_on(major: Major) {
    block_on(async {
        let pki = Pki::new();
        let Some(server) = pki.server(&major, "server").await else {
            return;
        };
        let of = |role: &str, mode: &str| format!("{} user={role} sslmode={mode}", server.tcp());
        assert!(is_encrypted(&of("only_tls", "allow")).await);
        assert!(!is_encrypted(&of("only_plain", "prefer")).await);
        for (role, mode, kind) in [
            ("only_tls", "disable", "host "),
            ("only_plain", "require", "hostssl "),
        ] {
            let (error, text) = failure(&of(role, mode), Mode::Sql).await;
            assert!(
                matches!(error.reason, ConnectErrorKind::NoHbaEntry(_)) && text.contains(kind),
                "{text}"
            );
        }
    });
}

each_major!(
    scram_and_client_certificates_work_over_tls,
    scram_and_client_certificates_work_over_tls_on
);

fn scram_and_client_certificates_work_over_tls_on(major: Major) {
    block_on(async {
        let pki = Pki::new();
        let Some(server) = pki.server(&major, "server").await else {
            return;
        };
        let scram = format!(
            "{} user=scram_role password=x sslmode=require",
            server.tcp()
        );
        let mut replication = connect(&scram, Mode::Physical).await;
        replication.identify_system().await.unwrap();
        let base = format!("{} user=tls_role sslmode=require", server.tcp());
        let with = |key: &str| {
            let (certificate, key) = (pki.path("client.crt"), pki.path(key));
            format!(
                "{base} sslcert={} sslkey={}",
                certificate.display(),
                key.display()
            )
        };
        assert!(is_encrypted(&with("client.key")).await);
        // Of X.509 version 1: the server judges.
        assert!(is_encrypted(&with("plain.key").replace("client.crt", "plain.crt")).await);
        let (_, text) = failure(&with("plain.key"), Mode::Sql).await;
        assert!(text.contains("does not fit its key"), "{text}");
        let (error, text) = failure(&base, Mode::Sql).await;
        assert!(
            matches!(error.reason, ConnectErrorKind::RoleRefused(_)),
            "{text}"
        );
        let (error, text) = failure(&with("missing.key"), Mode::Sql).await;
        assert!(
            matches!(error.reason, ConnectErrorKind::Tls(_)) && text.contains("missing.key"),
            "{text}"
        );
        std::fs::copy(pki.path("client.key"), pki.path("open.key")).unwrap();
        run(Command::new("chmod").arg("0644").arg(pki.path("open.key")));
        let (error, text) = failure(&with("open.key"), Mode::Sql).await;
        assert!(
            matches!(error.reason, ConnectErrorKind::Tls(_)) && text.contains("chmod 0600"),
            "{text}"
        );
    });
}

#[tokio::test]
async fn a_server_without_tls_is_refused_only_by_modes_that_need_it() {
    let major = Major::newest();
    let server = Server::start(&major, "", "");
    for mode in ["require", "verify-ca", "verify-full"] {
        let root = if mode == "require" {
            ""
        } else {
            "sslrootcert=/nonexistent"
        };
        let text = format!("{} user=walden sslmode={mode} {root}", server.tcp());
        let (error, text) = failure(&text, Mode::Sql).await;
        assert!(
            matches!(error.reason, ConnectErrorKind::TlsNotOffered) && text.contains("ssl = on"),
            "{text}"
        );
    }
    for mode in ["disable", "allow", "prefer"] {
        assert!(!is_encrypted(&format!("{} user=walden sslmode={mode}", server.tcp())).await);
    }
}

each_major!(
    certificates_that_people_really_have_are_accepted,
    certificates_that_people_really_have_are_accepted_on
);

fn certificates_that_people_really_have_are_accepted_on(major: Major) {
    block_on(async {
        let pki = Pki::new();
        // Self-signed, listed as its own authority.
        let Some(mut server) = pki.server(&major, "stranger").await else {
            return;
        };
        assert!(
            is_encrypted(&pki.trusting(&server, "host=db.example", "stranger", "verify-full"))
                .await
        );
        let (error, _) = failure(
            &pki.trusting(&server, "host=other", "stranger", "verify-full"),
            Mode::Sql,
        )
        .await;
        assert!(matches!(error.reason, ConnectErrorKind::Tls(_)));
        // X.509 version 1: good enough where nothing is verified.
        pki.install(&server, "old");
        server.cluster.restart();
        assert!(is_encrypted(&pki.trusting(&server, "", "missing", "require")).await);
        // Else it is told how to make one that can be verified.
        let (error, text) = failure(&pki.trusting(&server, "", "ca", "require"), Mode::Sql).await;
        assert!(matches!(error.reason, ConnectErrorKind::Tls(_)), "{text}");
        assert!(
            text.contains("version 1,") && text.contains("HINT: make") && !text.contains("Other("),
            "{text}"
        );
        pki.install(&server, "named");
        server.cluster.restart();
        assert!(is_encrypted(&pki.trusting(&server, "", "ca", "verify-ca")).await);
        let (_, text) = failure(
            &pki.trusting(&server, "host=db.example", "ca", "verify-full"),
            Mode::Sql,
        )
        .await;
        assert!(
            text.contains("common name") && text.contains("subjectAltName=DNS:"),
            "{text}"
        );
    });
}
