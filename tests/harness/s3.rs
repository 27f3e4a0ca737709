//! S3 servers on loopback: radosgw, which is a real one, and moto, an emulator of what radosgw does not have.
//!
//! Each is started when a test first asks for it and ends with the test process; `tests/run` starts them once for all
//! test binaries and says where they are by the environment that tests/s3-start prints.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use walden::storage::s3::{CreateOnly, Credentials, S3Options};
use walden::storage::{S3Storage, Storage};

use super::{Proxy, say_skipped};

/// An S3 server.
#[derive(Debug)]
pub struct ObjectStore {
    pub endpoint: String,
    pub region: String,
    pub access_key_id: String,
    pub secret_access_key: String,
}

impl ObjectStore {
    /// The real server; `None`, said aloud, where it is not installed.
    pub fn radosgw() -> Option<&'static Self> {
        static STORE: OnceLock<Option<ObjectStore>> = OnceLock::new();
        let found = STORE.get_or_init(|| {
            let facts = started("radosgw", "WALDEN_TEST_S3_ENDPOINT")?;
            let fact = |name: &str| facts[&format!("WALDEN_TEST_S3_{name}")].clone();
            Some(Self {
                endpoint: fact("ENDPOINT"),
                region: fact("REGION"),
                access_key_id: fact("ACCESS_KEY_ID"),
                secret_access_key: fact("SECRET_ACCESS_KEY"),
            })
        });
        found.as_ref()
    }

    /// The emulator, for SSE headers and storage classes: it checks no signature, no digest and no key.
    pub fn moto() -> Option<&'static Self> {
        static STORE: OnceLock<Option<ObjectStore>> = OnceLock::new();
        let found = STORE.get_or_init(|| {
            let facts = started("moto", "WALDEN_TEST_MOTO_ENDPOINT")?;
            Some(Self {
                endpoint: facts["WALDEN_TEST_MOTO_ENDPOINT"].clone(),
                region: "us-east-1".into(),
                access_key_id: "unchecked".into(),
                secret_access_key: "unchecked".into(),
            })
        });
        found.as_ref()
    }

    /// A new, empty bucket.
    pub fn fresh_bucket(&'static self) -> Bucket {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::SeqCst);
        // Several test processes may share the server.
        let name = format!("walden-{}-{number}", std::process::id());
        let bucket = Bucket {
            store: self,
            name,
            endpoint: self.endpoint.clone(),
        };
        let answer = bucket.request("PUT", "", &[]);
        assert_eq!(
            answer.status, 200,
            "make bucket {}: {answer:?}",
            bucket.name
        );
        bucket
    }
}

/// What tests/s3-start says of a server, taken from the environment when that has it.
fn started(server: &str, known_by: &str) -> Option<HashMap<String, String>> {
    if std::env::var_os(known_by).is_some() {
        return Some(
            std::env::vars()
                .filter(|(name, _)| name.starts_with("WALDEN_TEST_"))
                .collect(),
        );
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/s3-start");
    let mut command = Command::new(script);
    // A signal from the terminal ends us; the server ends by the end of its input.
    command
        .arg(server)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0);
    let mut child = command.spawn().expect("run tests/s3-start");
    let mut facts = String::new();
    child
        .stdout
        .take()
        .expect("its output")
        .read_to_string(&mut facts)
        .expect("read what tests/s3-start says");
    if facts.is_empty() {
        let status = child.wait().expect("wait for tests/s3-start");
        assert_eq!(status.code(), Some(3), "tests/s3-start {server} failed");
        say_skipped(&format!(
            "S3 on {server}: skipped (not installed; run tests/s3-servers)"
        ));
        return None;
    }
    // Its input closes when this process ends, however that happens.
    std::mem::forget(child);
    let pair = |line: &str| {
        line.split_once('=')
            .map(|(name, value)| (name.to_string(), value.to_string()))
    };
    Some(facts.lines().filter_map(pair).collect())
}

/// One test's bucket.
#[derive(Debug, Clone)]
pub struct Bucket {
    pub store: &'static ObjectStore,
    pub name: String,
    /// Where Walden finds the store: there, or a proxy before it.
    endpoint: String,
}

/// What the store answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Bucket {
    /// The same bucket, which Walden reaches through a proxy.
    pub fn through(&self, proxy: &Proxy) -> Self {
        Self {
            endpoint: proxy.endpoint(),
            ..self.clone()
        }
    }

    /// `repository.url` for a repository in it.
    pub fn url(&self) -> String {
        format!("s3://{}/walden/store", self.name)
    }

    /// Settings of Walden that reach the bucket, as TOML.
    pub fn settings(&self) -> String {
        let ObjectStore {
            region,
            access_key_id,
            secret_access_key,
            ..
        } = self.store;
        format!(
            "s3.endpoint = \"{}\"\ns3.region = \"{region}\"\ns3.path_style = true\n\
             s3.access_key_id = \"{access_key_id}\"\ns3.secret_access_key = \"{secret_access_key}\"\n",
            self.endpoint
        )
    }

    /// Walden's storage in the bucket, below a prefix, with changed options.
    pub fn storage(&self, prefix: &str, change: impl FnOnce(&mut S3Options)) -> Arc<dyn Storage> {
        let ObjectStore {
            region,
            access_key_id,
            secret_access_key,
            ..
        } = self.store;
        let mut options = S3Options {
            bucket: self.name.clone(),
            prefix: format!("{prefix}/"),
            region: Some(region.clone()),
            endpoint: Some(self.endpoint.clone()),
            path_style: true,
            credentials: Some(Credentials::new(
                access_key_id,
                secret_access_key,
                None,
                None,
                "test",
            )),
            profile: None,
            ca_file: None,
            bucket_owner: None,
            classes: Vec::new(),
            kind_of: |_| None,
            encryption: None,
            kms_key: None,
            create_only: CreateOnly::Conditional,
            multipart_threshold: 64 << 20,
            connect_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(30),
            requests: 16,
        };
        change(&mut options);
        Arc::new(S3Storage::new(options))
    }

    /// A request by an independent client. The key is below the repository's prefix and has only characters that URLs
    /// leave as they are; an empty one asks for the bucket.
    pub fn request(&self, method: &str, key: &str, body: &[u8]) -> Answer {
        self.try_request(method, key, body)
            .unwrap_or_else(|error| panic!("{method} {key}: {error}"))
    }

    /// A request about a part of the bucket's own configuration, such as `lifecycle`.
    pub fn of_bucket(&self, method: &str, what: &str, body: &str) -> Answer {
        let url = format!("{}/{}?{what}=", self.endpoint, self.name);
        let answer = self.ask(method, &url, body.as_bytes());
        answer.unwrap_or_else(|error| panic!("{method} {what}: {error}"))
    }

    /// The same; what curl said when there was no whole answer.
    pub fn try_request(&self, method: &str, key: &str, body: &[u8]) -> Result<Answer, String> {
        let mut url = format!("{}/{}", self.endpoint, self.name);
        if !key.is_empty() {
            url.push_str(&format!("/walden/store/{key}"));
        }
        self.ask(method, &url, body)
    }

    fn ask(&self, method: &str, url: &str, body: &[u8]) -> Result<Answer, String> {
        let mut curl = Command::new("curl");
        // Older versions do not say by themselves that the body is not signed.
        curl.args([
            "-sS",
            "-i",
            "--noproxy",
            "*",
            "--max-time",
            "60",
            "-H",
            "x-amz-content-sha256: UNSIGNED-PAYLOAD",
            "-K",
            "-",
        ]);
        let verb: &[&str] = if method == "HEAD" {
            &["--head"]
        } else {
            &["-X", method]
        };
        curl.args(verb)
            .args(["--aws-sigv4", &format!("aws:amz:{}:s3", self.store.region)]);
        let folder = tempfile::tempdir().expect("a folder for the body");
        if !body.is_empty() {
            let file = folder.path().join("body");
            std::fs::write(&file, body).expect("write the body");
            if url.contains('?') {
                // Required of configurations.
                curl.arg("-H").arg(format!("Content-MD5: {}", md5(&file)));
            }
            curl.arg("-T").arg(file);
        }
        let mut child = curl
            .arg(url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("run curl (apt-get install curl)");
        let user = format!(
            "user = \"{}:{}\"\n",
            self.store.access_key_id, self.store.secret_access_key
        );
        child
            .stdin
            .take()
            .expect("its input")
            .write_all(user.as_bytes())
            .expect("give curl the keys");
        let output = child.wait_with_output().expect("wait for curl");
        if output.status.success() {
            Ok(parsed(&output.stdout))
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// Removes an object.
    pub fn delete(&self, key: &str) {
        let answer = self.request("DELETE", key, &[]);
        assert_eq!(answer.status, 204, "{answer:?}");
    }

    /// Headers of an object that must be there.
    pub fn head(&self, key: &str) -> BTreeMap<String, String> {
        let answer = self.request("HEAD", key, &[]);
        assert_eq!(answer.status, 200, "{key}: {answer:?}");
        answer.headers
    }

    /// The key of a WAL segment's object of cluster `main`.
    pub fn segment_key(segment: &str) -> String {
        format!("main/wal/{}/{segment}.zst", &segment[..16])
    }
}

/// As a header has it.
fn md5(file: &Path) -> String {
    let script = "openssl dgst -md5 -binary \"$1\" | base64";
    let output = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(file)
        .output()
        .expect("run openssl");
    String::from_utf8_lossy(&output.stdout).trim().to_string()
}

fn parsed(output: &[u8]) -> Answer {
    let end = output
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .expect("the end of the headers");
    let head = String::from_utf8_lossy(&output[..end]).into_owned();
    let mut lines = head.lines();
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1)?.parse().ok())
        .expect("a status");
    let pair = |line: &str| {
        line.split_once(": ")
            .map(|(name, value)| (name.to_lowercase(), value.to_string()))
    };
    if status == 100 {
        return parsed(&output[end + 4..]);
    }
    Answer {
        status,
        headers: lines.filter_map(pair).collect(),
        body: output[end + 4..].to_vec(),
    }
}
