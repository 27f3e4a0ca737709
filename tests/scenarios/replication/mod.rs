//! The replication connection against real servers of every major that is there.

mod backup;
mod connect;
mod server;
mod tls;

use walden::error::{find, hints, one_line};
use walden::postgres::replication::{ConnInfo, ConnectError, Connection, Mode};

/// Runs a scenario that connects.
fn block_on(scenario: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(scenario);
}

/// A connection that must succeed.
async fn connect(text: &str, mode: Mode) -> Connection {
    let info = ConnInfo::from_process(text).unwrap();
    Connection::connect(&info, mode)
        .await
        .unwrap_or_else(|error| panic!("{text}: {}", one_line(&error)))
}

/// Why a connection failed.
struct Refusal(anyhow::Error);

impl std::ops::Deref for Refusal {
    type Target = ConnectError;
    fn deref(&self) -> &ConnectError {
        find(&self.0).expect("a ConnectError in the chain")
    }
}

/// A connection that must fail: with what, and what a person would read.
async fn failure(text: &str, mode: Mode) -> (Refusal, String) {
    let info = ConnInfo::from_process(text).unwrap();
    match Connection::connect(&info, mode).await {
        Ok(_) => panic!("connected with {text}"),
        Err(error) => {
            let shown = format!(
                "{} HINT: {}",
                one_line(&error),
                hints(&error).join(" HINT: ")
            );
            (Refusal(error), shown)
        }
    }
}
