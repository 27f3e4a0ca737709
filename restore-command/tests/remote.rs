//! `restore-command --url` against a server that answers, cuts, garbles, and vanishes.

#[path = "../../archive-command/tests/common/mod.rs"]
mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Output;
use std::thread::JoinHandle;

use common::{Scratch, code, stderr};

const NAME: &str = "000000010000000000000001";
/// "123456789", whose CRC-32C every table of CRCs has.
const CONTENT: &str = "123456789";
const DIGEST: &str = "crc32c=:4waSgw==:";

/// Answers one connection after the other with these; gives the heads of the requests.
fn service(answers: Vec<String>) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serve = move || {
        let answer = |answer: String| {
            let (mut stream, _) = listener.accept().unwrap();
            let head = read_head(&mut stream);
            stream.write_all(answer.as_bytes()).unwrap();
            head
        };
        answers.into_iter().map(answer).collect()
    };
    (url, std::thread::spawn(serve))
}

fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn answer(status: &str, headers: &[(&str, &str)], body: &str) -> String {
    let headers: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    format!("HTTP/1.1 {status}\r\n{headers}\r\n{body}")
}

fn delivered(length: &str, digest: &str, content: &str) -> String {
    let said = format!("delivered {NAME}");
    answer(
        "200 OK",
        &[
            ("Content-Length", length),
            ("repr-digest", digest),
            ("Walden-Wal", &said),
        ],
        content,
    )
}

fn fetch(scratch: &Scratch, arguments: &[&str]) -> Output {
    let mut command = common::hook(env!("CARGO_BIN_EXE_restore-command"), scratch);
    command
        .env_remove("WALDEN_TOKEN")
        .args(arguments)
        .args([NAME, "pg_wal/RECOVERYXLOG"]);
    command.output().unwrap()
}

fn data_directory() -> Scratch {
    let scratch = Scratch::new();
    std::fs::create_dir_all(scratch.0.join("pg_wal")).unwrap();
    std::fs::create_dir_all(scratch.0.join("global")).unwrap();
    std::fs::write(scratch.0.join("global/pg_control"), 7u64.to_ne_bytes()).unwrap();
    scratch
}

/// What lies in pg_wal.
fn files(scratch: &Scratch) -> Vec<String> {
    let entries = std::fs::read_dir(scratch.0.join("pg_wal")).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn a_file_is_asked_for_by_name_and_lies_whole_at_its_destination() {
    let scratch = data_directory();
    std::fs::write(scratch.0.join("token"), "a-token-of-16-characters\n").unwrap();
    // Left by one that was killed.
    std::fs::write(
        scratch.0.join("pg_wal/.walden-fetch-RECOVERYXLOG"),
        "half of anoth",
    )
    .unwrap();
    let (url, service) = service(vec![delivered("9", DIGEST, CONTENT)]);
    let arguments = [
        "--url",
        &url,
        "--cluster",
        "c-1",
        "--token-file",
        "token",
        "--end",
        "00000001000000000000000A",
    ];
    let output = fetch(&scratch, &arguments);
    assert_eq!((code(&output), stderr(&output).as_str()), (0, ""));
    assert_eq!(
        std::fs::read_to_string(scratch.0.join("pg_wal/RECOVERYXLOG")).unwrap(),
        CONTENT
    );
    assert_eq!(files(&scratch), ["RECOVERYXLOG"]);
    let head = service.join().unwrap().remove(0);
    assert!(
        head.starts_with(&format!("GET /v1/clusters/c-1/wal/{NAME}?session=")),
        "{head}"
    );
    assert!(
        head.contains("&end=00000001000000000000000A&system_identifier=7 HTTP/1.1\r\n"),
        "{head}"
    );
    assert!(
        head.contains("Authorization: Bearer a-token-of-16-characters\r\n"),
        "{head}"
    );
    assert!(
        head.contains(&format!("Host: {}\r\n", url.trim_start_matches("http://"))),
        "{head}"
    );
}

#[test]
fn absent_is_believed_only_when_the_service_says_so() {
    let said = format!("absent {NAME}");
    let other = "absent 000000010000000000000002";
    for (headers, expected) in [
        (&[("Walden-Wal", said.as_str())][..], 1),
        (&[], 200),
        (&[("Walden-Wal", other)], 200),
    ] {
        let scratch = data_directory();
        let (url, service) = service(vec![answer("404 Not Found", headers, "not found")]);
        let output = fetch(&scratch, &["--url", &url]);
        assert_eq!(code(&output), expected, "{}", stderr(&output));
        assert_eq!(
            stderr(&output).contains("as no Walden service does"),
            expected == 200
        );
        service.join().unwrap();
        assert_eq!(files(&scratch), [""; 0]);
    }
}

#[test]
fn what_comes_cut_or_damaged_is_asked_for_again() {
    let scratch = data_directory();
    let (url, service) = service(vec![
        delivered("9", DIGEST, "12345"),
        delivered("9", DIGEST, "123456780"),
        delivered("9", "", CONTENT),
        answer(
            "503 Service Unavailable",
            &[],
            "ERROR: not now\nHINT: later\n",
        ),
        String::new(),
        delivered("9", DIGEST, CONTENT),
    ]);
    let output = fetch(&scratch, &["--url", &url]);
    assert_eq!((code(&output), stderr(&output).as_str()), (0, ""));
    assert_eq!(service.join().unwrap().len(), 6);
    assert_eq!(files(&scratch), ["RECOVERYXLOG"]);
}

#[test]
fn what_the_service_says_is_told() {
    let scratch = data_directory();
    let (url, service) = service(vec![answer(
        "409 Conflict",
        &[],
        "ERROR: it was lost\nHINT: look for it\n",
    )]);
    let output = fetch(&scratch, &["--url", &url]);
    assert_eq!(
        (code(&output), stderr(&output).as_str()),
        (200, "ERROR: it was lost\nHINT: look for it\n")
    );
    service.join().unwrap();
}

#[test]
fn what_cannot_be_asked_is_unknown_never_absent() {
    let scratch = data_directory();
    std::fs::write(scratch.0.join("empty"), "\n").unwrap();
    for arguments in [
        &["--url", "https://archive.example"][..],
        &["--url", "archive.example:8432"],
        &["--url", "http://user:password@archive.example"],
        &["--url", "http://archive.example/path"],
        &["--url", "http://:8432"],
        &["--url", "http://archive.example:port"],
        &["--url", "http://127.0.0.1:1", "--cluster", "a b"],
        &["--url", "http://127.0.0.1:1", "--end", "x/y"],
        &["--url", "http://127.0.0.1:1", "--token-file", "nowhere"],
        &["--url", "http://127.0.0.1:1", "--token-file", "empty"],
    ] {
        let output = fetch(&scratch, arguments);
        assert_eq!(code(&output), 200, "{arguments:?}");
        assert!(
            stderr(&output).contains("HINT: "),
            "{arguments:?}: {}",
            stderr(&output)
        );
    }
    assert_eq!(code(&fetch(&scratch, &["--url"])), 200);
}

#[test]
fn a_service_that_is_away_is_unknown_after_a_while() {
    if std::env::var_os("WALDEN_TEST_LONG").is_none() {
        return eprintln!("skipped: takes a minute; WALDEN_TEST_LONG=1 runs it");
    }
    let scratch = data_directory();
    let output = fetch(&scratch, &["--url", "http://127.0.0.1:1"]);
    assert_eq!(code(&output), 200);
    assert!(stderr(&output).contains("HINT: "));
}

/// It would stream meanwhile, and asks again by itself.
#[test]
fn a_standby_does_not_wait_for_a_service_that_is_away() {
    let scratch = data_directory();
    std::fs::write(scratch.0.join("standby.signal"), "").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let began = std::time::Instant::now();
    let silent = fetch(&scratch, &["--url", &url]);
    assert_eq!(code(&silent), 75);
    assert!(
        stderr(&silent).contains("does not answer") && stderr(&silent).contains("HINT: "),
        "{}",
        stderr(&silent)
    );
    drop(listener);
    assert_eq!(code(&fetch(&scratch, &["--url", &url])), 75);
    assert!(
        began.elapsed().as_secs() < 30,
        "a recovery without standby.signal waits a minute"
    );
}

/// Its timeline may hang on it.
#[test]
fn a_standby_asks_again_for_a_history_file() {
    let scratch = data_directory();
    std::fs::write(scratch.0.join("standby.signal"), "").unwrap();
    let busy = answer(
        "503 Service Unavailable",
        &[],
        "ERROR: not now\nHINT: later\n",
    );
    let absent = answer(
        "404 Not Found",
        &[("Walden-Wal", "absent 00000002.history")],
        "not found",
    );
    let (url, service) = service(vec![busy.clone(), String::new(), busy, absent]);
    let mut command = common::hook(env!("CARGO_BIN_EXE_restore-command"), &scratch);
    let output = command
        .args(["--url", &url, "00000002.history", "pg_wal/RECOVERYHISTORY"])
        .output()
        .unwrap();
    assert_eq!(code(&output), 1, "{}", stderr(&output));
    assert_eq!(service.join().unwrap().len(), 4);
}
