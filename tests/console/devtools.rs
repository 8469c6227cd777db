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
        page.tab().await?;
        Ok(page)
    }

    /// Goes on in a new tab, which knows nothing of what the others keep for themselves.
    pub(crate) async fn tab(&mut self) -> Result<()> {
        self.session = None;
        let target = self.call("Target.createTarget", json!({ "url": "about:blank" })).await?;
        let attached =
            self.call("Target.attachToTarget", json!({ "targetId": target["targetId"], "flatten": true })).await?;
        self.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log"] {
            self.call(&format!("{domain}.enable"), json!({})).await?;
        }
        Ok(())
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

    /// Presses the mouse at one place of an element and releases it at another, both as shares of its width.
    pub(crate) async fn drag(&mut self, selector: &str, from: f64, to: f64) -> Result<()> {
        let place = format!(
            "(() => {{ const e = document.querySelector({}); e.scrollIntoView({{block: 'center'}}); \
             const r = e.getBoundingClientRect(); return [r.x, r.width, r.y + r.height / 2]; }})()",
            json!(selector)
        );
        let place = self.eval(&place).await.with_context(|| format!("there is no {selector}"))?;
        let (left, width) = (place[0].as_f64().unwrap_or_default(), place[1].as_f64().unwrap_or_default());
        let stations = [
            ("mousePressed", from),
            ("mouseMoved", f64::midpoint(from, to)),
            ("mouseMoved", to),
            ("mouseReleased", to),
        ];
        for (kind, share) in stations {
            let x = left + width * share;
            let params =
                json!({ "type": kind, "x": x, "y": place[2], "button": "left", "buttons": 1, "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", params).await?;
        }
        Ok(())
    }

    /// Presses a key in the element that has the focus: its name, or the character that it writes.
    pub(crate) async fn press(&mut self, key: &str) -> Result<()> {
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            "Escape" => 27,
            "ArrowLeft" => 37,
            "ArrowRight" => 39,
            _ => 0,
        };
        let mut params = json!({ "type": "rawKeyDown", "key": key, "windowsVirtualKeyCode": code });
        if key == "Enter" || key.chars().count() == 1 {
            params["type"] = json!("keyDown");
            params["text"] = json!(if key == "Enter" { "\r" } else { key });
        }
        self.call("Input.dispatchKeyEvent", params).await?;
        let params = json!({ "type": "keyUp", "key": key, "windowsVirtualKeyCode": code });
        self.call("Input.dispatchKeyEvent", params).await.map(drop)
    }

    /// Types into the element that has the focus.
    pub(crate) async fn types(&mut self, text: &str) -> Result<()> {
        self.call("Input.insertText", json!({ "text": text })).await.map(drop)
    }

    /// Shows the page on a screen of that size, in the dark or in the light.
    pub(crate) async fn screen(&mut self, width: u32, height: u32, scheme: &str) -> Result<()> {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", size).await?;
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", features).await.map(drop)
    }

    /// What can be used, and has no name for who cannot see the screen.
    pub(crate) async fn nameless(&mut self) -> Result<Vec<String>> {
        const USED: [&str; 10] =
            ["button", "textbox", "combobox", "checkbox", "tab", "slider", "link", "searchbox", "region", "dialog"];
        let tree = self.call("Accessibility.getFullAXTree", json!({})).await?;
        let nodes = tree["nodes"].as_array().context("no tree")?;
        let used = nodes.iter().filter(|node| {
            node["ignored"] == false && node["role"]["value"].as_str().is_some_and(|role| USED.contains(&role))
        });
        let used: Vec<_> = used.collect();
        ensure!(used.len() > 20, "only {} things to use are seen", used.len());
        let nameless = used.iter().filter(|node| node["name"]["value"].as_str().unwrap_or_default().trim().is_empty());
        Ok(nameless.map(|node| node.to_string()).collect())
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
