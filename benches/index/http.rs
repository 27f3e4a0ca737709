//! Questions over HTTP, on connections that stay open, and what the right answers are.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;
use walden::postgres::types::Lsn;
use walden::postgres::wal::{Commit, Timestamp};

use crate::made_up::{Random, SIZE, STEP, Shape, TIMELINES, restore_point, time};
use crate::real::Told;

/// The path of a question about the cluster.
pub fn path(rest: &str) -> String {
    format!("/v1/clusters/main/{rest}")
}

/// An answer.
pub struct Answer {
    pub status: u16,
    body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

/// A connection that stays open.
pub struct Connection {
    stream: BufReader<TcpStream>,
    address: SocketAddr,
}

impl Connection {
    pub fn open(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: BufReader::new(stream),
            address,
        })
    }

    pub fn get(&mut self, path: &str) -> Answer {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address);
        self.stream
            .get_mut()
            .write_all(request.as_bytes())
            .expect("a request");
        let (mut status, mut length) = (0, 0);
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).expect("an answer");
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            } else if let Some(rest) = line.strip_prefix("http/1.1 ") {
                status = rest[..3].parse().expect("a status");
            } else if let Some(bytes) = line.strip_prefix("content-length:") {
                length = bytes.trim().parse().expect("a length");
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).expect("a body");
        Answer { status, body }
    }
}

/// What can be asked for.
pub struct World<'a> {
    pub shape: Shape,
    pub real: &'a [Told],
    /// By segment of `real`.
    pub events: &'a [String],
}

/// A kind of question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Time,
    Lsn,
    Xid,
    Name,
    Before,
    Latest,
    Wal,
    Events,
    Cluster,
}

impl Kind {
    pub const ALL: [(Self, &'static str); 9] = [
        (Self::Time, "recovery-target?time="),
        (Self::Lsn, "recovery-target?lsn="),
        (Self::Xid, "recovery-target?xid="),
        (Self::Name, "recovery-target?name="),
        (Self::Before, "recovery-target?before=EVENT"),
        (Self::Latest, "recovery-target?latest=true"),
        (Self::Wal, "wal"),
        (Self::Events, "events of an hour"),
        (Self::Cluster, "the cluster"),
    ];
}

/// A question and its answer.
pub struct Question {
    pub path: String,
    pub right: Box<dyn Fn(&Value) -> bool>,
}

/// Where replay must stop, and what the last transaction is then.
struct Stop {
    kind: &'static str,
    lsn: Lsn,
    last: Commit,
    first_excluded: Option<Commit>,
}

impl World<'_> {
    pub fn question(&self, kind: Kind, random: &mut Random) -> Question {
        let pick = random.below(self.real.len() as u64) as usize;
        let told = &self.real[pick];
        let commits = &told.commits;
        // Not the last ones: what comes after it is in this segment, too.
        let commit = commits[1 + random.below(commits.len() as u64 - 10) as usize];
        let after = |lsn| {
            let behind = commits.partition_point(|commit| commit.lsn <= lsn);
            Stop {
                kind: "after",
                lsn,
                last: commits[behind - 1],
                first_excluded: commits.get(behind).copied(),
            }
        };
        match kind {
            Kind::Time => {
                let later = commits
                    .iter()
                    .find(|other| other.time > commit.time)
                    .expect("a later one");
                let time = commit
                    .time
                    .to_utc()
                    .expect("a time")
                    .format("%Y-%m-%dT%H:%M:%S%.6fZ");
                self.target(&format!("time={time}"), told, before(commits, later.lsn))
            }
            Kind::Lsn => self.target(&format!("lsn={}", commit.lsn), told, after(commit.lsn)),
            Kind::Xid => self.target(&format!("xid={}", commit.xid), told, after(commit.lsn)),
            Kind::Name => self.target(
                &format!("name={}", restore_point(told.place)),
                told,
                after(told.restore_point),
            ),
            Kind::Before => self.target(
                &format!("before={}", self.events[pick]),
                told,
                before(commits, told.drop),
            ),
            Kind::Latest => self.latest(),
            Kind::Wal => self.wal(),
            Kind::Events => self.events_of_an_hour(random),
            Kind::Cluster => Question {
                path: "/v1/clusters/main".into(),
                right: Box::new(|answer| {
                    answer["gaps"] == 0
                        && answer["windows"].as_array().map(Vec::len) == Some(TIMELINES as usize)
                }),
            },
        }
    }

    /// Of a line that has the segment.
    fn target(&self, target: &str, told: &Told, stop: Stop) -> Question {
        let line = match self.shape.line(told.place) {
            TIMELINES => String::new(),
            left => format!("&timeline={left}"),
        };
        Question {
            path: path(&format!("recovery-target?{target}{line}")),
            right: Box::new(move |answer| {
                let plan = &answer["plan"];
                plan["stop"]["kind"] == stop.kind
                    && plan["stop"]["lsn"] == stop.lsn.to_string()
                    && is(&plan["last_included"], Some(stop.last))
                    && stop
                        .first_excluded
                        .is_none_or(|commit| is(&plan["first_excluded"], Some(commit)))
            }),
        }
    }

    fn latest(&self) -> Question {
        let end = Lsn(self.shape.end(TIMELINES) * SIZE);
        let last = crate::made_up::summary(self.shape, (TIMELINES, self.shape.end(TIMELINES) - 1))
            .commits
            .last;
        Question {
            path: path("recovery-target?latest=true"),
            right: Box::new(move |answer| {
                let plan = &answer["plan"];
                plan["stop"]["kind"] == "end"
                    && plan["wal_reaches"] == end.to_string()
                    && is(&plan["last_included"], last)
                    && is(&plan["first_excluded"], None)
            }),
        }
    }

    fn wal(&self) -> Question {
        let each = self.shape.each;
        Question {
            path: path("wal"),
            right: Box::new(move |answer| {
                let ranges = answer["ranges"].as_array().map_or(&[][..], Vec::as_slice);
                ranges.len() == TIMELINES as usize
                    && ranges.iter().all(|range| range["segments"] == each)
            }),
        }
    }

    fn events_of_an_hour(&self, random: &mut Random) -> Question {
        const HOUR: i64 = 3_600_000_000;
        let last = self.shape.end(TIMELINES) - 1;
        let number = 1 + random.below(last.saturating_sub((HOUR / STEP) as u64).max(1));
        let text = |time: Timestamp| {
            time.to_utc()
                .expect("a time")
                .format("%Y-%m-%dT%H:%M:%SZ")
                .to_string()
        };
        let (since, until) = (
            text(time(number, 0)),
            text(Timestamp(time(number, 0).0 + HOUR)),
        );
        let path = path(&format!("events?since={since}&until={until}&limit=1000"));
        // Every tenth segment has a mass delete, but for the real ones.
        let least = (HOUR / STEP / 20).min((last - number) as i64 / 20) as usize;
        Question {
            path,
            right: Box::new(move |answer| {
                let events = answer["events"].as_array().map_or(&[][..], Vec::as_slice);
                let second = |event: &Value| {
                    event["time"]
                        .as_str()
                        .and_then(|time| time.get(..19))
                        .map(str::to_string)
                };
                let within =
                    |second: String| (&since[..19]..=&until[..19]).contains(&second.as_str());
                events.len() >= least
                    && events.iter().all(|event| second(event).is_some_and(within))
            }),
        }
    }
}

fn before(commits: &[Commit], lsn: Lsn) -> Stop {
    let at = commits.partition_point(|commit| commit.lsn < lsn);
    Stop {
        kind: "before",
        lsn,
        last: commits[at - 1],
        first_excluded: Some(commits[at]),
    }
}

fn is(answer: &Value, commit: Option<Commit>) -> bool {
    match commit {
        Some(commit) => answer["xid"] == commit.xid && answer["lsn"] == commit.lsn.to_string(),
        None => answer.is_null(),
    }
}

/// Questions of a kind, and how long they may take in all: fewer are asked where answers are slow.
const QUESTIONS: u64 = 2000;
const LONGEST: Duration = Duration::from_secs(20);

/// Asks on so many connections at once; how long each answer took. Answers are checked, which is not measured.
pub fn ask(
    address: SocketAddr,
    world: &World<'_>,
    kind: Kind,
    connections: u64,
    seed: u64,
) -> Vec<Duration> {
    let begun = Instant::now();
    let one = |nth| {
        let mut random = Random(seed ^ nth);
        let mut connection = Connection::open(address).expect("a connection");
        let mut times = Vec::new();
        while (times.len() as u64) < QUESTIONS / connections && begun.elapsed() < LONGEST {
            let question = world.question(kind, &mut random);
            let before = Instant::now();
            let answer = connection.get(&question.path);
            times.push(before.elapsed());
            let text = String::from_utf8_lossy(&answer.body);
            assert!(
                answer.status == 200 && (question.right)(&answer.json()),
                "{}: {text}",
                question.path
            );
        }
        times
    };
    let one = &one;
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..connections)
            .map(|nth| scope.spawn(move || one(nth)))
            .collect();
        all.into_iter()
            .flat_map(|thread| thread.join().expect("answers"))
            .collect()
    })
}

/// The id of the event that drops a table in a segment.
pub fn drop_event(address: SocketAddr, told: &Told) -> String {
    let mut connection = Connection::open(address).expect("a connection");
    let second = time(told.place.1, 0)
        .to_utc()
        .expect("a time")
        .format("%Y-%m-%dT%H:%M:%S");
    let path = path(&format!(
        "events?kind=drop&since={second}Z&until={second}.999999Z"
    ));
    let answer = connection.get(&path).json();
    let events = answer["events"].as_array().map_or(&[][..], Vec::as_slice);
    let ours = events
        .iter()
        .find(|event| event["lsn"] == told.drop.to_string() && event["timeline"] == told.place.0);
    let id = ours.and_then(|event| event["id"].as_str());
    id.unwrap_or_else(|| panic!("no drop at {} in {answer}", told.drop))
        .to_string()
}
