use std::path::{Path, PathBuf};
use std::process::Command;

use walden::postgres::replication::{ConnInfo, Connection, Mode};

/// Majors that can be run here, with the folder of their programs.
pub fn majors() -> Vec<(u32, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/postgres");
    (13..=18)
        .filter_map(|major| {
            let own = root.join(major.to_string()).join("bin");
            let debian = PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"));
            [own, debian].into_iter().find(|bin| bin.join("postgres").exists()).map(|bin| (major, bin))
        })
        .collect()
}

pub fn as_postgres(program: &str) -> Command {
    if rustix::process::geteuid().is_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--", program]);
        command
    } else {
        Command::new(program)
    }
}

pub fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

pub struct Server {
    pub folder: tempfile::TempDir,
    pub port: u16,
    pub major: u32,
    bin: PathBuf,
}

impl Server {
    pub fn start(major: u32, settings: &str, hba: &str) -> Self {
        let (_, bin) = majors().into_iter().find(|(known, _)| *known == major).unwrap();
        let folder = tempfile::Builder::new().prefix("walden").tempdir_in("/tmp").unwrap();
        run(Command::new("chown").arg("postgres").arg(folder.path()));
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = Self { folder, port, major, bin };
        let data = server.data();
        run(as_postgres(server.bin.join("initdb").to_str().unwrap())
            .args(["-k", "-N", "-A", "trust", "-U", "postgres", "--locale=C", "-E", "UTF8", "-D"])
            .arg(&data));
        let own = format!(
            "port={port}\nlisten_addresses='127.0.0.1'\nunix_socket_directories='{}'\nfsync=off\n{settings}\n",
            server.folder.path().display()
        );
        let conf = data.join("postgresql.conf");
        let mut text = std::fs::read_to_string(&conf).unwrap();
        text.push_str(&own);
        std::fs::write(&conf, text).unwrap();
        if !hba.is_empty() {
            std::fs::write(data.join("pg_hba.conf"), hba).unwrap();
        }
        run(as_postgres(server.bin.join("pg_ctl").to_str().unwrap())
            .args(["-w", "-l"])
            .arg(server.folder.path().join("log"))
            .arg("-D")
            .arg(&data)
            .arg("start"));
        server
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn dsn(&self) -> String {
        format!("host={} port={} user=postgres dbname=postgres", self.folder.path().display(), self.port)
    }

    pub fn tcp(&self) -> String {
        format!("host=127.0.0.1 port={} dbname=postgres", self.port)
    }

    pub async fn sql(&self) -> Connection {
        Connection::connect(&ConnInfo::from_process(&self.dsn()).unwrap(), Mode::Sql).await.unwrap()
    }

    /// Appends settings.
    pub fn set(&self, settings: &str) {
        let conf = self.data().join("postgresql.conf");
        let text = std::fs::read_to_string(&conf).unwrap() + settings;
        std::fs::write(&conf, text).unwrap();
    }

    pub fn control(&self, args: &[&str]) {
        run(as_postgres(self.bin.join("pg_ctl").to_str().unwrap())
            .args(["-w", "-l"])
            .arg(self.folder.path().join("log"))
            .arg("-D")
            .arg(self.data())
            .args(args));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = as_postgres(self.bin.join("pg_ctl").to_str().unwrap())
            .args(["-m", "immediate", "-D"])
            .arg(self.data())
            .arg("stop")
            .output();
    }
}
