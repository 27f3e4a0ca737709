//! A headless Chromium, driven over WebDriver (https://www.w3.org/TR/webdriver2/) as somebody at the page would.

use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::http::Message;
use super::{say_skipped, wait_until};

/// How WebDriver names an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// Loopback alone, and nothing that Chromium does of itself.
const ARGUMENTS: [&str; 10] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--lang=en-GB",
];

/// A browser with one window, ended when it goes away.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    port: u16,
    session: String,
    profile: tempfile::TempDir,
}

impl Browser {
    /// Starts it; `None`, said aloud, where there is none.
    pub fn start() -> Option<Self> {
        let there = |program: &str| Path::new("/usr/bin").join(program).exists();
        if !there("chromium") || !there("chromedriver") {
            say_skipped("the page in a browser: skipped (tests/browser brings Chromium)");
            return None;
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|it| it.local_addr())
            .expect("a port")
            .port();
        let profile = tempfile::tempdir().expect("a folder for the browser");
        let mut command = Command::new("/usr/bin/chromedriver");
        command
            .arg(format!("--port={port}"))
            .env("HOME", profile.path())
            .env("TZ", "UTC")
            .process_group(0);
        let driver = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut browser = Self {
            driver: driver.expect("start chromedriver"),
            port,
            session: String::new(),
            profile,
        };
        wait_until("the browser's driver answers", || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        let mut arguments = ARGUMENTS.map(str::to_string).to_vec();
        arguments.push(format!(
            "--user-data-dir={}",
            browser.profile.path().join("profile").display()
        ));
        let options = json!({"binary": "/usr/bin/chromium", "args": arguments});
        let wanted =
            json!({"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}});
        let session = browser.send(
            "POST",
            "/session",
            &json!({"capabilities": {"alwaysMatch": wanted}}),
        );
        browser.session = session["sessionId"]
            .as_str()
            .expect("a session")
            .to_string();
        Some(browser)
    }

    /// One command of the session.
    fn command(&self, method: &str, path: &str, body: &Value) -> Value {
        self.send(method, &format!("/session/{}{path}", self.session), body)
    }

    #[track_caller]
    fn send(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, value) = self.try_send(method, path, body);
        assert_eq!(status, 200, "{method} {path} {body}: {}", value["message"]);
        value
    }

    fn try_send(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = if method == "POST" {
            body.to_string().into_bytes()
        } else {
            Vec::new()
        };
        let request = Message::request(format!("{method} {path} HTTP/1.1"), body);
        let mut stream =
            TcpStream::connect(("127.0.0.1", self.port)).expect("reach the browser's driver");
        stream
            .write_all(&request.bytes())
            .expect("ask the browser's driver");
        let answer = Message::read_answer(&mut BufReader::new(stream), &request)
            .expect("the driver's answer");
        let document: Value = serde_json::from_slice(&answer.body).expect("JSON of the driver");
        (answer.status(), document["value"].clone())
    }

    /// A command of the DevTools protocol.
    fn devtools(&self, name: &str, params: Value) -> Value {
        self.command(
            "POST",
            "/goog/cdp/execute",
            &json!({"cmd": name, "params": params}),
        )
    }

    /// The window's size; below 600 as a telephone has it.
    pub fn resize(&self, width: u32, height: u32) {
        let params = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.devtools("Emulation.setDeviceMetricsOverride", params);
    }

    /// What the person at the browser prefers: `light` or `dark`.
    pub fn prefer(&self, scheme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.devtools("Emulation.setEmulatedMedia", json!({"features": features}));
    }

    /// Where the person at the browser is, such as `Asia/Kolkata`.
    pub fn be_in(&self, zone: &str) {
        self.devtools("Emulation.setTimezoneOverride", json!({"timezoneId": zone}));
    }

    /// Whether pages may run scripts, from the next one on.
    pub fn allow_scripts(&self, allowed: bool) {
        self.devtools(
            "Emulation.setScriptExecutionDisabled",
            json!({"value": !allowed}),
        );
    }

    pub fn open(&self, url: &str) {
        self.command("POST", "/url", &json!({"url": url}));
    }

    pub fn address(&self) -> String {
        self.command("GET", "/url", &Value::Null)
            .as_str()
            .expect("an address")
            .to_string()
    }

    fn try_find(&self, selector: &str) -> Option<String> {
        let body = json!({"using": "css selector", "value": selector});
        let (status, found) =
            self.try_send("POST", &format!("/session/{}/element", self.session), &body);
        (status == 200).then(|| found[ELEMENT].as_str().expect("an element").to_string())
    }

    /// A command about an element: about its successor when the page replaces it meanwhile, which is all a person sees.
    #[track_caller]
    fn of_element(&self, selector: &str, method: &str, path: &str, body: &Value) -> Value {
        loop {
            let element = self.try_find(selector);
            let element =
                element.unwrap_or_else(|| panic!("there is no {selector} at {}", self.address()));
            let path = format!("/session/{}/element/{element}{path}", self.session);
            match self.try_send(method, &path, body) {
                (200, value) => return value,
                (_, error) if error["error"] == "stale element reference" => continue,
                (_, error) => panic!("{method} {path} of {selector}: {}", error["message"]),
            }
        }
    }

    /// Whether there is such an element.
    pub fn has(&self, selector: &str) -> bool {
        self.try_find(selector).is_some()
    }

    /// Waits until there is such an element.
    pub fn wait_for(&self, selector: &str) {
        wait_until(&format!("there is {selector}"), || self.has(selector));
    }

    #[track_caller]
    pub fn click(&self, selector: &str) {
        self.of_element(selector, "POST", "/click", &json!({}));
    }

    /// What of an element can be seen.
    #[track_caller]
    pub fn text(&self, selector: &str) -> String {
        let text = self.of_element(selector, "GET", "/text", &Value::Null);
        text.as_str().expect("a text").to_string()
    }

    /// What a screen reader calls an element.
    #[track_caller]
    pub fn label(&self, selector: &str) -> String {
        let label = self.of_element(selector, "GET", "/computedlabel", &Value::Null);
        label.as_str().expect("a label").to_string()
    }

    /// Empties a field and types into it.
    #[track_caller]
    pub fn fill(&self, selector: &str, text: &str) {
        self.of_element(selector, "POST", "/clear", &json!({}));
        self.of_element(selector, "POST", "/value", &json!({"text": text}));
    }

    /// Chooses from a list what begins with this.
    #[track_caller]
    pub fn choose(&self, selector: &str, text: &str) {
        self.of_element(selector, "POST", "/value", &json!({"text": text}));
    }

    /// Presses keys, one after the other, wherever the focus is; WebDriver's code points for those without a letter.
    pub fn press(&self, keys: &str) {
        let down_and_up = |key: char| {
            let key = key.to_string();
            [
                json!({"type": "keyDown", "value": key}),
                json!({"type": "keyUp", "value": key}),
            ]
        };
        let actions: Vec<Value> = keys.chars().flat_map(down_and_up).collect();
        let keyboard = json!({"type": "key", "id": "keyboard", "actions": actions});
        self.command("POST", "/actions", &json!({"actions": [keyboard]}));
    }

    /// Runs a script's body and gives what it returns.
    #[track_caller]
    pub fn run(&self, script: &str) -> Value {
        self.command(
            "POST",
            "/execute/sync",
            &json!({"script": script, "args": []}),
        )
    }

    /// Lets pages read and write the clipboard, as a person would who is asked.
    pub fn allow_clipboard(&self, origin: &str) {
        let permissions = json!(["clipboardReadWrite", "clipboardSanitizedWrite"]);
        self.devtools(
            "Browser.grantPermissions",
            json!({"origin": origin, "permissions": permissions}),
        );
    }

    /// A picture of the whole page, below target/page.
    pub fn picture(&self, name: &str) -> PathBuf {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/page");
        std::fs::create_dir_all(&folder).expect("make a folder for pictures");
        let path = folder.join(format!("{name}.png"));
        let picture = self.devtools(
            "Page.captureScreenshot",
            json!({"captureBeyondViewport": true, "clip": {
                "x": 0, "y": 0, "scale": 1,
                "width": self.run("return document.documentElement.clientWidth"),
                "height": self.run("return document.documentElement.scrollHeight"),
            }}),
        );
        let bytes = STANDARD
            .decode(picture["data"].as_str().expect("a picture"))
            .expect("base64");
        std::fs::write(&path, bytes).expect("keep the picture");
        path
    }

    /// What the browser complained of since it was asked last: errors of scripts, and what the page's policy forbade; not
    /// that answers had status codes of errors.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.command("POST", "/se/log", &json!({"type": "browser"}));
        let messages = log
            .as_array()
            .expect("a log")
            .iter()
            .filter(|entry| entry["level"] == "SEVERE");
        let messages =
            messages.map(|entry| entry["message"].as_str().unwrap_or_default().to_string());
        messages
            .filter(|message| !message.contains("the server responded with a status of 40"))
            .collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() && !std::thread::panicking() {
            self.command("DELETE", "", &Value::Null);
        }
        let group = rustix::process::Pid::from_child(&self.driver);
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = self.driver.wait();
    }
}
