//! `restore_command` of PostgreSQL: gets one WAL file by asking the Walden service, or, where none answers, by running
//! `walden wal fetch`. With `--url` it asks a service on another machine over HTTP, and nobody else. Exit code 0:
//! delivered; 1: the repository proves that there is no such file; 200: not known. Above 125 PostgreSQL stops; at 1 it
//! ends recovery and opens the cluster. A standby does not, and is told 75 instead of 200, so that it goes on.

mod crc32c;
#[path = "../../src/data_directory.rs"]
#[allow(dead_code)] // what archive_command asks
mod data_directory;
#[path = "../../archive-command/src/hook.rs"]
mod hook;
mod remote;
#[path = "../../src/wire.rs"]
#[allow(dead_code)] // the service's half of the protocol
mod wire;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

use data_directory::{STANDBY_PATIENCE, UNKNOWN, is_in_haste};
use hook::{HookOptions, ServiceReply, absolute, say};

/// As `cluster.name` is when it is not set.
const DEFAULT_CLUSTER: &str = "main";
const DELIVERED: u8 = 0;
const ABSENT: u8 = 1;

/// Options beside those of both hook programs.
const FURTHER: [&str; 4] = ["--end", "--url", "--cluster", "--token-file"];

fn main() -> ExitCode {
    // A panic would exit with 101, which PostgreSQL takes for "absent".
    match std::panic::catch_unwind(restore).unwrap_or(UNKNOWN) {
        UNKNOWN => {
            data_directory::unknown(std::env::args_os().next_back().as_deref().map(Path::new))
        }
        known => known,
    }
    .into()
}

fn restore() -> u8 {
    let Some(options) = HookOptions::parse(std::env::args_os().skip(1), 2, &FURTHER) else {
        say(&[b"Usage: restore-command --config FILE --socket SOCKET [--walden PROGRAM] [--end SEGMENT] %f %p\n\
                Usage: restore-command --url http://HOST:PORT [--cluster NAME] [--token-file FILE] [--end SEGMENT] %f %p\n\
                HINT: FILE and SOCKET are those of archive_command, which `walden init` prints\n"]);
        return UNKNOWN;
    };
    let Some(destination) = absolute(&options.operands[1]) else {
        return UNKNOWN;
    };
    if let Some(url) = options.get("--url") {
        return restore_from(url, &options, Path::new(OsStr::from_bytes(&destination)));
    }
    let name = options.operands[0].as_bytes().to_vec();
    let end = options.get("--end").unwrap_or_default().as_bytes().to_vec();
    let Some(whose) = options.whose() else {
        return UNKNOWN;
    };
    let request = wire::HookRequest::Fetch {
        whose: whose.clone(),
        name,
        destination: destination.clone(),
        end,
    };
    let place = Path::new(&options.operands[1]);
    let history = is_history(&options.operands[0]);
    let gives_up = |waited| waited >= STANDBY_PATIENCE && is_in_haste(Some(place), history);
    match options.ask(&request, &gives_up) {
        ServiceReply::Delivered(path) => match deliver(&path, &destination) {
            Some(code) => return code,
            None => options.work_alone("fetch", &whose, false),
        },
        ServiceReply::Done | ServiceReply::Strange => {
            say(&[b"ERROR: the Walden service gave an answer that does not belong to a fetch\n"])
        }
        ServiceReply::Absent => return ABSENT,
        ServiceReply::Failed(text) => say(&[&text]),
        ServiceReply::Silent => options.work_alone("fetch", &whose, true),
        ServiceReply::NoService => options.work_alone("fetch", &whose, false),
        ServiceReply::GaveUp => say(&[
            b"ERROR: the Walden service has not found out yet whether there is a \"",
            options.operands[0].as_bytes(),
            b"\"\nHINT: this standby goes on without it and asks again; a promotion now would end before this file\n",
        ]),
    }
    UNKNOWN
}

/// Whether a timeline history file is asked for.
fn is_history(name: &OsStr) -> bool {
    name.as_bytes().ends_with(b".history")
}

/// Asks the service at a URL.
fn restore_from(url: &OsStr, options: &HookOptions, destination: &Path) -> u8 {
    let wanted = remote::RemoteFile {
        url,
        cluster: options
            .get("--cluster")
            .unwrap_or(OsStr::new(DEFAULT_CLUSTER)),
        token_file: options.get("--token-file"),
        name: &options.operands[0],
        end: options.get("--end"),
        destination,
    };
    match remote::fetch(&wanted) {
        Ok(remote::Delivery::Delivered) => DELIVERED,
        Ok(remote::Delivery::Absent) => ABSENT,
        Err(text) => {
            say(&[text.as_bytes()]);
            UNKNOWN
        }
    }
}

/// Puts what the service fetched where PostgreSQL wants it. Not the service does that: when this program is killed and
/// PostgreSQL asks for another file, nothing may replace that one. `None`: the service has removed it, as it does with
/// its spool when it ends.
fn deliver(path: &[u8], destination: &[u8]) -> Option<u8> {
    let path_of = |bytes| Path::new(OsStr::from_bytes(bytes));
    match std::fs::rename(path_of(path), path_of(destination)) {
        Ok(()) => Some(DELIVERED),
        Err(_) if !path_of(path).exists() => None,
        Err(error) => {
            let reason = error.to_string();
            say(&[
                b"ERROR: cannot rename \"",
                path,
                b"\" to \"",
                destination,
                b"\": ",
                reason.as_bytes(),
                b"\n\
                HINT: PostgreSQL and `walden serve` must run as the same user and see the same folders\n",
            ]);
            Some(UNKNOWN)
        }
    }
}
