//! `archive_command` of PostgreSQL: stores one WAL file by asking the Walden service, or, where none answers, by
//! running `walden wal push`. Exit code 0: stored and durable; 1: anything else. Never above 125, which would end
//! PostgreSQL's archiver.

#[path = "../../src/data_directory.rs"]
#[allow(dead_code)] // what restore_command asks
mod data_directory;
mod hook;
#[path = "../../src/wire.rs"]
#[allow(dead_code)] // the service's half of the protocol
mod wire;

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

use hook::{HookOptions, ServiceReply, absolute, say};

fn main() -> ExitCode {
    match archive() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn archive() -> bool {
    let Some(options) = HookOptions::parse(std::env::args_os().skip(1), 1, &[]) else {
        say(&[b"Usage: archive-command --config FILE --socket SOCKET [--walden PROGRAM] %p\n\
                HINT: `walden init` prints the line for archive_command; FILE and SOCKET are absolute paths\n"]);
        return false;
    };
    let (Some(path), Some(whose)) = (absolute(&options.operands[0]), options.whose()) else {
        return false;
    };
    let file = Path::new(&options.operands[0]);
    let gives_up = |waited| data_directory::gives_up(file, waited);
    match options.ask(&wire::HookRequest::Push { whose: whose.clone(), path }, &gives_up) {
        ServiceReply::Done => return true,
        ServiceReply::Failed(text) => say(&[&text]),
        ServiceReply::GaveUp => say(&[
            b"ERROR: PostgreSQL is stopping, and the Walden service has not stored \"",
            file.as_os_str().as_bytes(),
            b"\" yet\nHINT: nothing is lost: PostgreSQL keeps the file and hands it over again once it runs\n",
        ]),
        ServiceReply::Absent | ServiceReply::Delivered(_) | ServiceReply::Strange => {
            say(&[b"ERROR: the Walden service gave an answer that does not belong to a push\n"])
        }
        // Stored twice is stored once: an object is never replaced.
        ServiceReply::Silent => options.work_alone("push", &whose, true),
        ServiceReply::NoService => options.work_alone("push", &whose, false),
    }
    false
}
