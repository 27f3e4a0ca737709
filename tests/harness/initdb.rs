//! New data directories: a copy takes a tenth of what initdb takes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use walden::postgres::types::ControlFile;

use super::{Major, process, run_as_server};

/// Major, MiB of a segment, checksums.
type Kind = (u32, u32, bool);

/// What initdb makes, under a system identifier of its own.
pub fn copy(major: &Major, segment_mib: u32, checksums: bool, data: &Path) {
    static MADE: Mutex<BTreeMap<Kind, PathBuf>> = Mutex::new(BTreeMap::new());
    let original = {
        let mut made = MADE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let make = || make(major, segment_mib, checksums);
        made.entry((major.number, segment_mib, checksums))
            .or_insert_with(make)
            .clone()
    };
    run_as_server(
        "cp",
        ["-a".as_ref(), original.as_os_str(), data.as_os_str()],
    );
    identify(data);
}

fn make(major: &Major, segment_mib: u32, checksums: bool) -> PathBuf {
    let data =
        process::shared_folder().join(format!("initdb-{}-{segment_mib}-{checksums}", major.number));
    // The folder's own maker is not the server's user.
    fs::create_dir_all(&data).expect("make a folder for initdb");
    if let Some(user) = process::server_user() {
        chown(&data, Some(user.uid), Some(user.gid)).expect("give it to the server's user");
    }
    let mut initdb = process::command(major.program("initdb"));
    initdb.args([
        "--locale=C",
        "-E",
        "UTF8",
        "-N",
        "-U",
        "walden",
        "-A",
        "trust",
    ]);
    initdb
        .arg(format!("--wal-segsize={segment_mib}"))
        .arg("-D")
        .arg(&data);
    if checksums {
        initdb.arg("-k");
    } else if major.number >= 18 {
        initdb.arg("--no-data-checksums");
    }
    let output = process::finish(&mut initdb);
    assert!(
        output.success(),
        "initdb of {} failed: {}",
        major.number,
        output.stderr
    );
    data
}

/// Gives a new data directory its system identifier, as initdb makes one: seconds since 1970, then what is hardly ever
/// the same. It begins pg_control, whose CRC follows the fields, and is in the long header that begins each segment.
fn identify(data: &Path) {
    let seconds = u64::try_from(chrono::Utc::now().timestamp()).expect("a time after 1970");
    let number = seconds << 32 | getrandom::u64().expect("randomness") >> 32;
    let path = data.join("global/pg_control");
    let mut control = fs::read(&path).expect("read pg_control");
    let crc_of = |control: &[u8], end: usize| crc32c::crc32c(&control[..end]).to_le_bytes();
    let is_crc = |end: &usize| crc_of(&control, *end) == control[*end..*end + 4];
    let end = (200..400)
        .step_by(4)
        .find(is_crc)
        .expect("the CRC of pg_control");
    control[..8].copy_from_slice(&number.to_le_bytes());
    let crc = crc_of(&control, end);
    control[end..end + 4].copy_from_slice(&crc);
    fs::write(&path, &control).expect("write pg_control");
    let said = ControlFile::parse(&control).expect("pg_control");
    assert_eq!(said.system_identifier.0, number);
    for entry in fs::read_dir(data.join("pg_wal")).expect("list pg_wal") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            let file = fs::OpenOptions::new()
                .read(true)
                .write(true)
                .open(&path)
                .expect("open a segment");
            let mut magic = [0; 2];
            file.read_exact_at(&mut magic, 0).expect("read a segment");
            // Zeros until the server gets there.
            if magic != [0; 2] {
                file.write_all_at(&number.to_le_bytes(), 24)
                    .expect("write a segment");
            }
        }
    }
}
