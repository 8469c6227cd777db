//! A real browser over the Chrome DevTools Protocol, spoken through its pipe.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use data_encoding::BASE64;
use logboom_tests::{eventually, root, search_path};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout},
    time::timeout,
};

const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
/// How long one command may take.
const COMMAND_WITHIN: Duration = Duration::from_secs(30);
/// How long something may take to show on the page.
const SHOWN_WITHIN: Duration = Duration::from_secs(20);
/// The browser reads file descriptor 3 and writes 4; a shell lays its own pipes there.
const LAY_PIPES: &str = r#"exec "$0" "$@" 3<&0 4>&1 </dev/null 1>&2"#;

/// The browser, installed where that is possible; without one the test says that it is skipped.
pub(crate) fn browser() -> Option<PathBuf> {
    let find = || NAMES.iter().find_map(|name| search_path(name));
    if let Some(there) = find() {
        return Some(there);
    }
    let installed = Command::new(root().join("tools/install-chromium")).status();
    if installed.is_ok_and(|status| status.success())
        && let Some(there) = find()
    {
        return Some(there);
    }
    assert!(env::var_os("CI").is_none(), "there is no Chromium, and tools/install-chromium could not bring it");
    println!("SKIPPED the console: there is no Chromium; tools/install-chromium brings it (as root)");
    None
}

/// A browser with one page.
pub(crate) struct Page {
    commands: ChildStdin,
    events: BufReader<ChildStdout>,
    session: Option<String>,
    number: u64,
    /// Exceptions and errors that the page has reported.
    pub(crate) complaints: Vec<String>,
    // Killed when the page goes.
    _browser: Child,
}

impl Page {
    /// Starts the browser with a profile of its own and an empty page.
    pub(crate) async fn open(browser: &Path, profile: &Path) -> Result<Self> {
        let mut child = tokio::process::Command::new("sh")
            .args(["-c", LAY_PIPES])
            .arg(browser)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
            .args(["--no-proxy-server", "--remote-debugging-pipe", "--window-size=1280,1000"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(profile.join("browser.log"))?)
            .kill_on_drop(true)
            .spawn()?;
        let commands = child.stdin.take().context("no pipe to the browser")?;
        let events = BufReader::new(child.stdout.take().context("no pipe from the browser")?);
        let mut page = Self { commands, events, session: None, number: 0, complaints: Vec::new(), _browser: child };
        let target = page.call("Target.createTarget", json!({ "url": "about:blank" })).await?;
        let attached =
            page.call("Target.attachToTarget", json!({ "targetId": target["targetId"], "flatten": true })).await?;
        page.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log"] {
            page.call(&format!("{domain}.enable"), json!({})).await?;
        }
        Ok(page)
    }

    /// Sends one command and waits for its answer; complaints that come meanwhile are kept.
    pub(crate) async fn call(&mut self, method: &str, params: Value) -> Result<Value> {
        self.number += 1;
        let mut message = json!({ "id": self.number, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.commands.write_all(message.to_string().as_bytes()).await?;
        self.commands.write_all(&[0]).await?;
        self.commands.flush().await?;
        let number = self.number;
        timeout(COMMAND_WITHIN, self.answer(number)).await.with_context(|| format!("{method} has no answer"))?
    }

    async fn answer(&mut self, number: u64) -> Result<Value> {
        loop {
            let mut text = Vec::new();
            ensure!(self.events.read_until(0, &mut text).await? > 0, "the browser has ended");
            text.pop();
            let mut message: Value = serde_json::from_slice(&text)?;
            match message["method"].as_str() {
                Some("Runtime.exceptionThrown") => {
                    self.complaints.push(message["params"]["exceptionDetails"].to_string());
                }
                Some("Log.entryAdded") if message["params"]["entry"]["level"] == "error" => {
                    self.complaints.push(message["params"]["entry"].to_string());
                }
                _ => {}
            }
            if message["id"] == number {
                ensure!(message["error"].is_null(), "{}", message["error"]);
                return Ok(message["result"].take());
            }
        }
    }

    /// Goes to an address, in a page without anything that was stored before.
    pub(crate) async fn go(&mut self, url: &str) -> Result<()> {
        // The address of the same page with another fragment would load nothing.
        self.call("Page.navigate", json!({ "url": "about:blank" })).await?;
        let gone = self.call("Page.navigate", json!({ "url": url })).await?;
        ensure!(gone["errorText"].is_null(), "{url}: {}", gone["errorText"]);
        self.until("the page is loaded", "document.readyState === 'complete' && location.href !== 'about:blank'").await
    }

    /// The value of an expression.
    pub(crate) async fn eval(&mut self, expression: &str) -> Result<Value> {
        let params = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let mut answer = self.call("Runtime.evaluate", params).await?;
        if !answer["exceptionDetails"].is_null() {
            bail!("{expression}: {}", answer["exceptionDetails"]);
        }
        Ok(answer["result"]["value"].take())
    }

    /// Waits until an expression is true; what the page shows is in the error.
    pub(crate) async fn until(&mut self, what: &str, expression: &str) -> Result<()> {
        let expression = format!("Boolean({expression})");
        let waited = eventually(what, SHOWN_WITHIN, async || {
            ensure!(self.eval(&expression).await? == true, "{expression} is false");
            Ok(())
        })
        .await;
        match waited {
            Ok(()) => Ok(()),
            Err(error) => {
                let shows = self.eval("document.body.innerText").await.unwrap_or_default();
                Err(error.context(format!("the page shows {shows}")))
            }
        }
    }

    /// What an element shows.
    pub(crate) async fn text(&mut self, selector: &str) -> Result<String> {
        let shown = self.eval(&format!("document.querySelector({})?.innerText ?? ''", json!(selector))).await?;
        Ok(shown.as_str().unwrap_or_default().to_owned())
    }

    /// Waits until an element shows a text.
    pub(crate) async fn shows(&mut self, selector: &str, text: &str) -> Result<()> {
        let expression = format!("document.querySelector({})?.innerText.includes({})", json!(selector), json!(text));
        self.until(&format!("{selector} shows {text:?}"), &expression).await
    }

    /// Clicks an element with the mouse, which misses what is hidden or covered.
    pub(crate) async fn click(&mut self, selector: &str) -> Result<()> {
        let place = format!(
            "(() => {{ const e = document.querySelector({}); e.scrollIntoView({{block: 'center'}}); \
             const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; }})()",
            json!(selector)
        );
        let place = self.eval(&place).await.with_context(|| format!("there is no {selector}"))?;
        for kind in ["mousePressed", "mouseReleased"] {
            let params = json!({ "type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", params).await?;
        }
        Ok(())
    }

    /// Replaces the text of a field by typing.
    pub(crate) async fn fill(&mut self, selector: &str, text: &str) -> Result<()> {
        self.click(selector).await?;
        self.eval(&format!("document.querySelector({}).select()", json!(selector))).await?;
        self.call("Input.insertText", json!({ "text": text })).await.map(drop)
    }

    /// Presses a key in the element that has the focus.
    pub(crate) async fn press(&mut self, key: &str, code: u32) -> Result<()> {
        for kind in ["rawKeyDown", "keyUp"] {
            let params = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            self.call("Input.dispatchKeyEvent", params).await?;
        }
        Ok(())
    }

    /// Chooses an option.
    pub(crate) async fn choose(&mut self, selector: &str, value: &str) -> Result<()> {
        let expression = format!(
            "(() => {{ const e = document.querySelector({}); e.value = {}; \
             e.dispatchEvent(new Event('change', {{bubbles: true}})); return e.value; }})()",
            json!(selector),
            json!(value)
        );
        let chosen = self.eval(&expression).await?;
        ensure!(chosen == value, "{selector} has no option {value}");
        Ok(())
    }

    /// Keeps a picture of the page.
    pub(crate) async fn picture(&mut self, path: &Path) -> Result<()> {
        let taken = self.call("Page.captureScreenshot", json!({ "format": "png" })).await?;
        let picture = BASE64.decode(taken["data"].as_str().unwrap_or_default().as_bytes())?;
        std::fs::write(path, picture).with_context(|| format!("cannot write {}", path.display()))
    }
}
