//! Is an archived file whole? It is read and checked against its own header, its name and the cluster.

use super::aside;
use super::file_identity::{check_backup, check_history, check_segment};
use crate::codec::VerifyLevel;
use crate::error::one_line;
use crate::postgres::catalog::{WAL_KIND, WalDescription};
use crate::postgres::cluster::Cluster;
use crate::postgres::object_problem::ObjectProblem;
use crate::postgres::types::{LongPageHeader, WalFileName};
use crate::repo::{SealedObject, reread};

/// Reads one object whole, twice if it is damaged; the bytes of its content, or what is wrong with it.
pub async fn check(cluster: &Cluster, name: WalFileName) -> Result<u64, ObjectProblem> {
    let longest = name.longest(cluster.description.segment_size);
    let read = async || {
        let object = cluster
            .repository
            .get_sealed(&cluster.layout.wal(&name), WAL_KIND, longest)
            .await?;
        let object = object
            .ok_or_else(|| ObjectProblem::missing("it vanished while the archive was read"))?;
        check_object(cluster, name, object).await
    };
    reread(ObjectProblem::is_damage, read).await
}

/// Checks a whole object against its own header, its name and the cluster's identity; the bytes of its content, or
/// what is wrong with it.
pub async fn check_object(
    cluster: &Cluster,
    name: WalFileName,
    object: SealedObject,
) -> Result<u64, ObjectProblem> {
    let cluster = cluster.clone();
    let checking = tokio::task::spawn_blocking(move || check_content(&cluster, name, &object));
    checking
        .await
        .unwrap_or_else(|panicked| Err(ObjectProblem::unread(&panicked.into())))
}

fn check_content(
    cluster: &Cluster,
    name: WalFileName,
    object: &SealedObject,
) -> Result<u64, ObjectProblem> {
    let mut content = Beginning {
        bytes: Vec::new(),
        most: beginning(name),
    };
    object
        .unseal(VerifyLevel::Content, &mut content)
        .map_err(|error| ObjectProblem::unread(&error.into()))??;
    let header = object.header();
    let about: WalDescription = header.about.read().map_err(|error| {
        ObjectProblem::damaged(format!("its header does not describe a WAL file: {error}"))
    })?;
    let ours = &cluster.description;
    if about.name != name.handed_over() {
        return Err(ObjectProblem::damaged(format!(
            "it holds \"{}\"",
            about.name
        )));
    }
    if about.system_identifier != ours.system_identifier {
        let why = format!(
            "it is of the cluster with system identifier {}",
            about.system_identifier
        );
        return Err(ObjectProblem::damaged(why));
    }
    let refused = match name {
        WalFileName::Segment(segment) | WalFileName::Partial(segment) => {
            check_segment(ours, &segment, header.plain.size, &content.bytes).err()
        }
        WalFileName::History(timeline) => check_history(timeline, &content.bytes).err(),
        WalFileName::Backup { segment, offset } => {
            check_backup(ours, &segment, offset, &content.bytes).err()
        }
        // It is there because it is not what its name says; its own name says what it is.
        WalFileName::Aside { .. } => {
            match aside::name(&name.handed_over(), &header.plain.digest) == Some(name) {
                true => None,
                false => {
                    return Err(ObjectProblem::damaged(format!(
                        "its content has digest {}",
                        header.plain.digest
                    )));
                }
            }
        }
    };
    match refused {
        Some(refused) => Err(ObjectProblem::damaged(one_line(&refused.into()))),
        None => Ok(header.plain.size),
    }
}

/// How much of a file's content is looked at: a segment's first header; a text file whole.
fn beginning(name: WalFileName) -> usize {
    match name {
        WalFileName::Segment(_) | WalFileName::Partial(_) | WalFileName::Aside { .. } => {
            LongPageHeader::LEN
        }
        WalFileName::History(_) | WalFileName::Backup { .. } => 1 << 20,
    }
}

/// Keeps the first bytes written to it.
struct Beginning {
    bytes: Vec<u8>,
    most: usize,
}

impl std::io::Write for Beginning {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let room = self.most - self.bytes.len();
        self.bytes
            .extend_from_slice(&bytes[..room.min(bytes.len())]);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
