//! A headless Chromium, driven over a pipe by the DevTools protocol.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use common::say_missing;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Long enough for anything; reached only where a test fails.
const PATIENCE: Duration = Duration::from_secs(60);

const PROGRAMS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// Chromium's end of the pipe is file 3 for its input and file 4 for its output.
const RUN: &str = r#"exec "$@" 3<&0 4>&1 </dev/null >/dev/null"#;

pub(crate) struct Browser {
    child: Child,
    input: ChildStdin,
    messages: Receiver<Value>,
    /// Of the one page.
    session: Option<String>,
    sent: u64,
    /// What the page did wrong.
    pub(crate) errors: Vec<Value>,
    /// Its profile, and what else it leaves.
    folder: TempDir,
}

impl Browser {
    /// A browser with an empty page; nothing if there is none on this machine, unless `CI` is set.
    pub(crate) fn start() -> Option<Self> {
        let exists = |program: &&str| {
            let found = Command::new(program).arg("--version").output();
            found.is_ok_and(|output| output.status.success())
        };
        let Some(program) = PROGRAMS.into_iter().find(exists) else {
            say_missing("the page in a browser: there is no Chromium (apt-get install chromium)");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new("sh")
            .args(["-c", RUN, "sh", program, "--remote-debugging-pipe"])
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
            ])
            .args(["--no-first-run", "--disable-background-networking"])
            .args(["--disable-component-update", "--disable-sync"])
            .arg("--host-resolver-rules=MAP evil.example 127.0.0.1")
            .args(["--hide-scrollbars", "--window-size=1280,960"])
            .arg(format!("--user-data-dir={}", folder.path().display()))
            .env("TMPDIR", folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let (sender, messages) = channel();
        thread::spawn(move || {
            let mut message = Vec::new();
            while output.read_until(0, &mut message).is_ok_and(|len| len > 0) {
                message.pop();
                let message = std::mem::take(&mut message);
                let _ = sender.send(serde_json::from_slice(&message).unwrap());
            }
        });
        let mut browser = Self {
            child,
            input,
            messages,
            session: None,
            sent: 0,
            errors: Vec::new(),
            folder,
        };
        let page = browser.call("Target.createTarget", &json!({"url": "about:blank"}));
        let target = json!({"targetId": page["targetId"], "flatten": true});
        let session = browser.call("Target.attachToTarget", &target);
        browser.session = Some(session["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), &json!({}));
        }
        Some(browser)
    }

    pub(crate) fn open(&mut self, url: &str) {
        self.call("Page.navigate", &json!({"url": url}));
    }

    /// What the JavaScript says.
    pub(crate) fn eval(&mut self, script: &str) -> Value {
        let parameters = json!({"expression": script, "returnByValue": true});
        let result = self.call("Runtime.evaluate", &parameters);
        assert_eq!(result.get("exceptionDetails"), None, "{script}");
        result["result"]["value"].clone()
    }

    /// Waits until the JavaScript says something true.
    pub(crate) fn wait(&mut self, script: &str) {
        let started = Instant::now();
        while self.eval(script) != true {
            assert!(
                started.elapsed() < PATIENCE,
                "never: {script}\n{}\n{:?}",
                self.eval("document.body.innerText"),
                self.errors.first()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Clicks in the middle of an element, as a person would.
    pub(crate) fn click(&mut self, element: &str) {
        let place = self.eval(&format!(
            "(() => {{ const element = {element}; element.scrollIntoView({{block: 'nearest'}}); \
             const at = element.getBoundingClientRect(); \
             return {{x: at.x + at.width / 2, y: at.y + at.height / 2}}; }})()"
        ));
        for event in ["mousePressed", "mouseReleased"] {
            let parameters = json!({
                "type": event, "x": place["x"], "y": place["y"], "button": "left", "clickCount": 1,
            });
            self.call("Input.dispatchMouseEvent", &parameters);
        }
    }

    /// Types into what has the focus.
    pub(crate) fn write(&mut self, text: &str) {
        self.call("Input.insertText", &json!({"text": text}));
    }

    /// Presses a key: `Tab`, `Delete` or `Enter`.
    pub(crate) fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Delete" => (46, ""),
            _ => (13, "\r"),
        };
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { text } else { "" };
            let parameters = json!({
                "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text,
            });
            self.call("Input.dispatchKeyEvent", &parameters);
        }
    }

    /// What a screen reader is given, a line an element: its role and name, and some of its states.
    pub(crate) fn accessibility(&mut self) -> Vec<String> {
        let tree = self.call("Accessibility.getFullAXTree", &json!({}));
        let nodes = tree["nodes"].as_array().unwrap().iter();
        let texts = ["StaticText", "InlineTextBox", "generic", "none"];
        let is_text = |node: &Value| texts.iter().any(|role| node["role"]["value"] == *role);
        let nodes = nodes.filter(|node| node["ignored"] == false && !is_text(node));
        nodes
            .map(|node| {
                let mut line = format!(
                    "{} {}",
                    node["role"]["value"].as_str().unwrap_or_default(),
                    json!(node["name"]["value"].as_str().unwrap_or_default())
                );
                for property in node["properties"].as_array().into_iter().flatten() {
                    let name = property["name"].as_str().unwrap_or_default();
                    if ["level", "pressed", "live"].contains(&name) {
                        let value = &property["value"]["value"];
                        let value = value.as_str().map_or(value.to_string(), str::to_owned);
                        line += &format!(" {name} {value}");
                    }
                }
                line
            })
            .collect()
    }

    /// Looks with another preference: `light` or `dark`.
    pub(crate) fn prefer(&mut self, scheme: &str) {
        let feature = json!({"name": "prefers-color-scheme", "value": scheme});
        self.call(
            "Emulation.setEmulatedMedia",
            &json!({"features": [feature]}),
        );
    }

    /// Looks on a screen of 380 pixels, as of a telephone.
    pub(crate) fn narrow(&mut self) {
        let size = json!({"width": 380, "height": 800, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", &size);
    }

    pub(crate) fn widen(&mut self) {
        self.call("Emulation.clearDeviceMetricsOverride", &json!({}));
    }

    /// What the page looks like, as PNG.
    pub(crate) fn screenshot(&mut self) -> Vec<u8> {
        let picture = self.call("Page.captureScreenshot", &json!({"format": "png"}));
        let data = picture["data"].as_str().unwrap();
        BASE64_STANDARD.decode(data).unwrap()
    }

    fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.send(method, parameters);
        loop {
            let mut message = self.messages.recv_timeout(PATIENCE).unwrap();
            if message["id"] == self.sent {
                assert_eq!(message.get("error"), None, "{method} {parameters}");
                return message["result"].take();
            }
            let method = message["method"].as_str();
            if matches!(method, Some("Runtime.exceptionThrown" | "Log.entryAdded")) {
                self.errors.push(message);
            }
        }
    }

    fn send(&mut self, method: &str, parameters: &Value) {
        self.sent += 1;
        let mut message = json!({"id": self.sent, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        write!(self.input, "{message}\0").unwrap();
    }
}

/// Closes the browser, and waits until its last process has ended: each still writes into the folder.
impl Drop for Browser {
    fn drop(&mut self) {
        let _ = write!(
            self.input,
            "{}\0",
            json!({"id": 0, "method": "Browser.close"})
        );
        while self.messages.recv_timeout(Duration::from_secs(5)).is_ok() {}
        let _ = self.child.kill();
        let _ = self.child.wait();
        for _ in 0..100 {
            if std::fs::remove_dir_all(&self.folder).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}
