//! A proxy between Walden and an S3 server that makes the faults of networks and stores.
//!
//! It speaks HTTP/1.1, one thread a connection, and passes headers on as they are: the Host header is signed. Answers
//! are read whole before they go on, so they carry a length.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use super::http::{self, Message};
use super::{ObjectStore, Random};

/// What goes wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The store's answer is this status with this S3 error code, and the request never reaches it.
    Answer(u16, &'static str),
    /// The connection ends when half of the request's body is sent.
    CutRequest,
    /// The store carries the request out; the connection ends in the middle of its answer's body.
    CutAnswer,
    /// The store carries the request out; the connection ends before its answer.
    LoseAnswer,
    /// The answer's body is half as long, and its length says so.
    Truncate,
    /// A byte of the answer's body is another.
    Corrupt,
}

/// Which requests a fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    Next(u64),
    /// By chance, one in so many.
    OneIn(usize),
    Always,
}

/// How a store is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vanished {
    /// Connections are refused, as when the server's process is gone.
    Refuses,
    /// Connections hang, as when its machine or the network is gone.
    Swallows,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    Here,
    Gone(Vanished),
    /// The proxy itself ends.
    Over,
}

#[derive(Debug)]
struct Rule {
    fault: Fault,
    /// Kinds of requests that it hits, as [`http::kind`] names them; none: all.
    kinds: &'static [&'static str],
    when: When,
}

#[derive(Debug)]
struct State {
    rules: Vec<Rule>,
    latency: Duration,
    ignores_if_none_match: bool,
    presence: Presence,
    /// Requests by kind, and how often each fault struck.
    requests: BTreeMap<&'static str, u64>,
    struck: u64,
    random: Random,
    /// Clients' ends, to end them when the store vanishes.
    connections: Vec<TcpStream>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    presence_changed: Condvar,
    upstream: String,
}

/// A running proxy; it ends when this goes away.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl Proxy {
    /// A proxy without faults.
    pub fn before(store: &ObjectStore) -> Self {
        let upstream = store
            .endpoint
            .strip_prefix("http://")
            .expect("an http:// endpoint")
            .to_string();
        let state = State {
            rules: Vec::new(),
            latency: Duration::ZERO,
            ignores_if_none_match: false,
            presence: Presence::Here,
            requests: BTreeMap::new(),
            struck: 0,
            random: Random::seeded("proxy"),
            connections: Vec::new(),
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            presence_changed: Condvar::new(),
            upstream,
        });
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen on loopback");
        let address = listener.local_addr().expect("an address");
        let inside = shared.clone();
        let acceptor = Some(std::thread::spawn(move || {
            accept(listener, address, &inside)
        }));
        Self {
            address,
            shared,
            acceptor,
        }
    }

    /// Where Walden finds it.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Each request waits this long before it goes on.
    pub fn delay(&self, latency: Duration) {
        self.shared.state().latency = latency;
    }

    /// From now on the store does not know `If-None-Match`, as some servers do not. The header is signed: for stores
    /// that check no signatures.
    pub fn ignore_if_none_match(&self) {
        self.shared.state().ignores_if_none_match = true;
    }

    /// Adds a fault for requests of some kinds, or of all when none is named. The first that fits strikes.
    pub fn fault(&self, fault: Fault, kinds: &'static [&'static str], when: When) {
        self.shared.state().rules.push(Rule { fault, kinds, when });
    }

    /// Removes all faults; how often they struck.
    pub fn heal(&self) -> u64 {
        let mut state = self.shared.state();
        state.rules.clear();
        std::mem::take(&mut state.struck)
    }

    /// How often faults have struck since the last [`Self::heal`].
    pub fn strikes(&self) -> u64 {
        self.shared.state().struck
    }

    /// The store is gone until [`Self::come_back`].
    pub fn vanish(&self, how: Vanished) {
        self.set(Presence::Gone(how));
    }

    pub fn come_back(&self) {
        self.set(Presence::Here);
    }

    /// Requests of a kind so far.
    pub fn requests(&self, kind: &str) -> u64 {
        self.shared.state().requests.get(kind).copied().unwrap_or(0)
    }

    fn set(&self, presence: Presence) {
        let mut state = self.shared.state();
        state.presence = presence;
        if presence != Presence::Gone(Vanished::Swallows) {
            // Those that hung never go on: what they waited for is lost.
            for connection in state.connections.drain(..) {
                let _ = connection.shutdown(Shutdown::Both);
            }
        }
        drop(state);
        self.shared.presence_changed.notify_all();
        // Wakes the acceptor.
        let _ = TcpStream::connect(self.address);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.set(Presence::Over);
        let ended = self.acceptor.take().map(JoinHandle::join);
        assert!(
            std::thread::panicking() || ended.is_some_and(|ended| ended.is_ok()),
            "the proxy panicked"
        );
    }
}

fn accept(listener: TcpListener, address: SocketAddr, shared: &Shared) {
    std::thread::scope(|scope| {
        let mut listener = Some(listener);
        loop {
            match shared.state().presence {
                Presence::Over => return,
                Presence::Gone(Vanished::Refuses) => listener = None,
                _ if listener.is_none() => {
                    listener = Some(TcpListener::bind(address).expect("listen again"))
                }
                _ => {}
            }
            let Some(open) = &listener else {
                shared.wait_while(|presence| presence == Presence::Gone(Vanished::Refuses));
                continue;
            };
            let (client, _) = open.accept().expect("accept a connection");
            if shared.adopt(&client) {
                // An error is a connection that ended, by a fault or by the client.
                scope.spawn(move || shared.serve(client).err());
            }
        }
    });
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn wait_while(&self, waits: impl Fn(Presence) -> bool) {
        let state = self.state();
        drop(
            self.presence_changed
                .wait_while(state, |state| waits(state.presence)),
        );
    }

    /// Keeps a connection to end it when the store vanishes; false when it is gone already.
    fn adopt(&self, client: &TcpStream) -> bool {
        let mut state = self.state();
        let here = !matches!(
            state.presence,
            Presence::Over | Presence::Gone(Vanished::Refuses)
        );
        if here {
            state
                .connections
                .push(client.try_clone().expect("a second handle"));
        }
        here
    }

    /// Counts a request and says what goes wrong with it.
    fn fate(&self, kind: &'static str) -> Option<Fault> {
        let state = &mut *self.state();
        *state.requests.entry(kind).or_default() += 1;
        for rule in &mut state.rules {
            let strikes = (rule.kinds.is_empty() || rule.kinds.contains(&kind))
                && match &mut rule.when {
                    When::Next(0) => false,
                    When::Next(left) => {
                        *left -= 1;
                        true
                    }
                    When::OneIn(many) => state.random.below(*many) == 0,
                    When::Always => true,
                };
            if strikes {
                state.struck += 1;
                return Some(rule.fault);
            }
        }
        None
    }

    /// A store that swallows everything takes this connection with it.
    fn swallow(&self) -> io::Result<()> {
        let swallows = |presence| presence == Presence::Gone(Vanished::Swallows);
        if swallows(self.state().presence) {
            self.wait_while(swallows);
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }

    /// One request after the other until the client is done or a fault ends the connection.
    fn serve(&self, client: TcpStream) -> io::Result<()> {
        let result = self.requests_of(&client);
        let _ = client.shutdown(Shutdown::Both);
        result
    }

    fn requests_of(&self, client: &TcpStream) -> io::Result<()> {
        let mut reader = BufReader::new(client);
        while let Some(mut request) = Message::read_head(&mut reader)? {
            self.swallow()?;
            let kind = http::kind(&request.start);
            let fault = self.fate(kind);
            let latency = self.state().latency;
            std::thread::sleep(latency);
            if request.header("expect").is_some() {
                (&*client).write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            if fault == Some(Fault::CutRequest) {
                request.read_half(&mut reader)?;
                return self.send(&request).map(drop);
            }
            request.read_body(&mut reader)?;
            if self.state().ignores_if_none_match {
                request.remove("if-none-match");
            }
            let answer = match fault {
                Some(Fault::Answer(status, code)) => http::refusal(status, code),
                _ => self.ask(&request)?,
            };
            self.swallow()?;
            self.answer(client, &request, answer, fault)?;
        }
        Ok(())
    }

    fn send(&self, request: &Message) -> io::Result<TcpStream> {
        let mut upstream = TcpStream::connect(&self.upstream)?;
        upstream.write_all(&request.bytes())?;
        Ok(upstream)
    }

    /// The store's answer, on a connection of its own: one that was kept may have ended in the meantime.
    fn ask(&self, request: &Message) -> io::Result<Message> {
        let upstream = self.send(request)?;
        let mut reader = BufReader::new(&upstream);
        Message::read_answer(&mut reader, request)
    }

    fn answer(
        &self,
        mut client: &TcpStream,
        to: &Message,
        mut answer: Message,
        fault: Option<Fault>,
    ) -> io::Result<()> {
        let ended = || Err(io::ErrorKind::ConnectionAborted.into());
        match fault {
            Some(Fault::LoseAnswer) => return ended(),
            Some(Fault::CutAnswer) => {
                let bytes = answer.answer_bytes(to);
                // At least a byte of the body is missing, or of the head where there is none.
                client.write_all(&bytes[..bytes.len() - (answer.body.len() / 2).max(1)])?;
                return ended();
            }
            Some(Fault::Truncate) => answer.body.truncate(answer.body.len() / 2),
            Some(Fault::Corrupt) if !answer.body.is_empty() => {
                let place = self.state().random.below(answer.body.len());
                answer.body[place] ^= 0x20;
            }
            _ => {}
        }
        client.write_all(&answer.answer_bytes(to))
    }
}
