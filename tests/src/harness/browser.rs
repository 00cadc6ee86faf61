//! A headless Chromium as a person uses it: it is told labels and keys, and says what is to be seen.
//!
//! One chromedriver serves all tests of a run; each test has a browser session of its own. What the page complained of and
//! what it asked for is kept by Chromium itself and read at the end.

use std::{process::Command, sync::OnceLock};

use serde_json::{Value, json};
use tempfile::TempDir;
use thirtyfour::{ChromiumLikeCapabilities, LoggingPrefsLogLevel, prelude::*};

use super::{
    pair::DEADLINE,
    process::{Plan, Server, free_port},
    wait_until,
};

const INSTALL: &str = "Chromium is missing: apt-get install --no-install-recommends chromium chromium-driver";
/// The last ones keep it from asking for updates and the like.
const FLAGS: [&str; 9] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

struct Driver {
    _server: Server,
    _directory: TempDir,
    url: String,
}

fn driver() -> &'static Driver {
    static DRIVER: OnceLock<Driver> = OnceLock::new();
    DRIVER.get_or_init(|| {
        let version = Command::new("chromedriver").arg("--version").output();
        assert!(version.is_ok_and(|version| version.status.success()), "{INSTALL}");
        let directory = TempDir::with_prefix("wxpay-chromium-").expect("the temporary directory can be written");
        let here = directory.path().to_str().expect("temporary paths are text").to_owned();
        let port = free_port();
        let server = Server::start(&Plan {
            program: "chromedriver".as_ref(),
            arguments: &[&format!("--port={port}")],
            environment: &[("HOME".to_owned(), here.clone()), ("TMPDIR".to_owned(), here)],
            directory: directory.path(),
            log: &directory.path().join("chromedriver.log"),
            goodbye: "TERM",
            after: "",
        });
        Driver { _directory: directory, _server: server, url: format!("http://127.0.0.1:{port}") }
    })
}

/// A browser with one page.
pub(crate) struct Browser {
    driver: WebDriver,
    /// Everything that the page may ask for begins with this.
    origin: String,
}

impl Browser {
    /// A browser that speaks `language` and is so wide, at the page of this origin.
    pub(crate) async fn open(origin: &str, language: &str, width: u32) -> Self {
        let chromedriver = tokio::task::spawn_blocking(driver).await.expect("chromedriver starts");
        let status = format!("{}/status", chromedriver.url);
        wait_until("chromedriver is ready", DEADLINE, async || reqwest::get(&status).await.is_ok()).await;

        let mut wanted = DesiredCapabilities::chrome();
        for flag in FLAGS {
            wanted.add_arg(flag).expect("a flag is text");
        }
        wanted.add_arg(&format!("--accept-lang={language}")).expect("a flag is text");
        for log in ["browser", "performance"] {
            wanted.set_logging_prefs(log, LoggingPrefsLogLevel::All).expect("a level is text");
        }
        let driver = WebDriver::new(&chromedriver.url, wanted).await.expect("Chromium starts");
        let screen = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        driver.cdp().send_raw("Emulation.setDeviceMetricsOverride", screen).await.expect("Chromium has this command");
        let browser = Self { driver, origin: origin.to_owned() };
        browser.goto("/").await;
        browser
    }

    pub(crate) async fn goto(&self, path: &str) {
        self.driver.goto(format!("{}{path}", self.origin)).await.expect("the page loads");
    }

    /// The text that is to be seen now, an open dialog's if there is one.
    pub(crate) async fn text(&self) -> String {
        let script = "return (document.querySelector('dialog[open]') ?? document.body).innerText";
        self.run(script).await.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until every one of these texts is to be seen.
    pub(crate) async fn sees(&self, wanted: &[&str]) {
        wait_until(&format!("the page shows {wanted:?}"), DEADLINE, async || {
            let text = self.text().await;
            wanted.iter().all(|wanted| text.contains(wanted))
        })
        .await;
    }

    /// Clicks the button or link with this label, in an open dialog if there is one.
    pub(crate) async fn click(&self, label: &str) {
        let path = format!("//*[self::button or self::a or self::summary][normalize-space()='{label}']");
        self.found(&path).await.click().await.expect("it can be clicked");
    }

    /// Ticks the box with this label.
    pub(crate) async fn tick(&self, label: &str) {
        self.found(&format!("//input[@aria-label='{label}']")).await.click().await.expect("it can be clicked");
    }

    /// Types into the field with this label.
    pub(crate) async fn fill(&self, label: &str, text: &str) {
        let field = self.found(&format!("//label[normalize-space()='{label}']/following-sibling::*[1]")).await;
        field.send_keys(text).await.expect("it takes text");
    }

    async fn found(&self, path: &str) -> WebElement {
        let within = format!("//dialog[@open]{path} | //body[not(.//dialog[@open])]{path}");
        let find = async || self.driver.find(By::XPath(&within)).await.ok();
        wait_until(&format!("the page has {path}"), DEADLINE, async || find().await.is_some()).await;
        find().await.expect("it was there a moment ago")
    }

    /// Presses a key where the focus is.
    pub(crate) async fn press(&self, keys: impl Into<String>) {
        self.driver.action_chain().send_keys(keys.into()).perform().await.expect("the browser has a keyboard");
    }

    /// Presses Tab until the focus is on the control with this label or name.
    pub(crate) async fn tab_to(&self, label: &str) {
        let script = "const it = document.activeElement; \
                      return it.getAttribute('aria-label') ?? it.labels?.[0]?.textContent ?? it.textContent";
        for _ in 0..60 {
            self.press(Key::Tab.value()).await;
            if self.run(script).await == label {
                return;
            }
        }
        panic!("no Tab leads to {label}: {}", self.text().await);
    }

    /// What a script of the test's own returns.
    pub(crate) async fn run(&self, script: &str) -> Value {
        let returned = self.driver.execute(script, Vec::new()).await.expect("the script runs");
        returned.json().clone()
    }

    /// The end: nothing failed on the page, the policy refused nothing, and nothing was asked of anybody else.
    pub(crate) async fn close(self) {
        let complaints: Vec<_> = self.driver.browser_log().await.expect("Chromium keeps a log");
        // The page answers for a refused request itself, in words.
        let complaints: Vec<_> = complaints.iter().filter(|entry| entry.source.as_deref() != Some("network")).collect();
        assert!(complaints.is_empty(), "{complaints:?}");

        let events = self.driver.get_log("performance").await.expect("Chromium keeps a log");
        let events = events.iter().filter_map(|entry| serde_json::from_str::<Value>(&entry.message).ok());
        let requests = events.filter(|event| event["message"]["method"] == "Network.requestWillBeSent");
        let url = |event: Value| event["message"]["params"]["request"]["url"].as_str().unwrap_or_default().to_owned();
        let urls: Vec<String> = requests.map(url).collect();
        assert!(urls.iter().any(|url| url.starts_with(&format!("{}/console/", self.origin))), "{urls:?}");
        for url in urls {
            assert!(url.starts_with(&self.origin) || url.starts_with("data:,"), "{url}");
        }
        self.driver.quit().await.expect("Chromium ends");
    }
}
