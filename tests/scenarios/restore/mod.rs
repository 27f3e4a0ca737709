//! Restores: exactly the moment asked for, or not at all.

mod apart;
mod aside;
mod checked;
mod damage;
pub mod exact;
mod forks;
mod idle;
mod interrupted;
mod promise;
mod refused;
mod repaired;
mod replaced;
mod shapes;
mod stalled;
mod timelines;
mod trees;
mod unsound;

use std::path::{Path, PathBuf};

use crate::harness::{Cluster, Major, Scratch, Walden};

/// A restored cluster and what `walden restore` said of it.
pub struct Restored {
    pub cluster: Cluster,
    pub said: serde_json::Value,
}

/// Arguments that restore into `data` and start the server there.
pub fn arguments<S: AsRef<str>>(major: &Major, data: &Path, target: &[S]) -> Vec<String> {
    let mut all: Vec<String> = vec![
        "restore".into(),
        "--to-dir".into(),
        data.display().to_string(),
    ];
    all.extend([
        "--start".into(),
        "--pg-bin".into(),
        major.bin().display().to_string(),
    ]);
    all.extend(target.iter().map(|argument| argument.as_ref().to_string()));
    all
}

/// Restores, starts and takes the server over.
pub fn restore<S: AsRef<str>>(
    walden: &Walden,
    major: &Major,
    data: PathBuf,
    target: &[S],
) -> Restored {
    let said = walden.json(arguments(major, &data, target));
    Restored::adopt(major, data, said)
}

impl Restored {
    /// Takes over the server that `walden restore` said it started.
    fn adopt(major: &Major, data: PathBuf, said: serde_json::Value) -> Self {
        let recovered = &said["recovered"];
        let port = recovered["port"].as_u64().expect("a port") as u32;
        let socket = PathBuf::from(recovered["socket_directory"].as_str().expect("a folder"));
        let mut cluster = Cluster::of(major.clone(), data, socket.clone());
        if recovered["pid"].is_u64() {
            cluster.adopt(port, &socket);
        }
        Self { cluster, said }
    }
}

/// A registered cluster that archives into a new repository through the hook, without a service.
fn archiving(scratch: &Scratch, mut cluster: Cluster) -> (Cluster, Walden) {
    let walden = Walden::beside(scratch, &cluster);
    register(&mut cluster, &walden);
    (cluster, walden)
}

/// Registers a cluster and archives it through the hook.
pub fn register(cluster: &mut Cluster, walden: &Walden) {
    walden.ok(["init"]);
    cluster.archive_with(walden);
}

/// A backup's id.
pub fn take_backup(walden: &Walden) -> String {
    walden.json(["backup", "take"])["id"]
        .as_str()
        .expect("an id")
        .to_string()
}
