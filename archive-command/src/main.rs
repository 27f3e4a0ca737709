//! `archive_command` of PostgreSQL: stores one WAL file by asking the Walden service, or, where none answers, by
//! running `walden wal push`. Exit code 0: stored and durable; 1: anything else. Never above 125, which would end
//! PostgreSQL's archiver.

mod hook;
#[path = "../../src/wire.rs"]
#[allow(dead_code)] // the service's half of the protocol
mod wire;

use std::process::ExitCode;

use hook::{Answer, Options, absolute, say, say_silent};

fn main() -> ExitCode {
    match archive() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn archive() -> bool {
    let Some(options) = Options::parse(std::env::args_os().skip(1), 1, &[]) else {
        say(&[b"Usage: archive-command [--socket SOCKET] [--config FILE] [--walden PROGRAM] %p\n\
                HINT: archive_command = 'archive-command %p'; behind a second service: --socket /path/to/hook.sock\n"]);
        return false;
    };
    let Some(path) = absolute(&options.operands[0]) else { return false };
    match options.ask(&wire::Request::Push { path }) {
        Answer::Done => return true,
        Answer::Failed(text) => say(&[&text]),
        Answer::Silent => say_silent(),
        Answer::Absent | Answer::Delivered(_) => {
            say(&[b"ERROR: the Walden service gave an answer that does not belong to a push\n"])
        }
        Answer::NoService => options.exec_walden("push"),
    }
    false
}
