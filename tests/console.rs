//! The console in a real browser: what a person does with it, and what it shows.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, says what it skips, and starts processes"
)]

#[path = "console/devtools.rs"]
mod devtools;

use std::{path::PathBuf, time::Duration};

use jiff::{SignedDuration, Timestamp};
use logboom_tests::{Standalone, Webhook, Workdir, event, logboom};
use serde_json::json;

use crate::devtools::{Page, browser};

/// A log line that a page which writes HTML would run.
const HOSTILE: &str = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>";

/// Where the picture is kept: in the target directory, beside the profile that was tested.
fn picture() -> PathBuf {
    logboom().unwrap().ancestors().nth(2).unwrap().join("console.png")
}

/// An index with events of the last minutes, a job on it, and a rule that fires.
async fn shop(up: &Standalone) -> Webhook {
    for index in ["shop", "rates"] {
        up.api.provision(index, 2).await.unwrap();
    }
    let job = "INSERT INTO rates SELECT service, window_start, count(*) AS n FROM tumble(shop, INTERVAL '10 seconds') \
               GROUP BY service, window_start";
    up.api.submit_job("shop-rates", job, "earliest").await.unwrap();
    let webhook = Webhook::start().await.unwrap();
    let query = "SELECT service, count(*) AS n FROM tumble(shop, INTERVAL '10 seconds') WHERE severity = 'error' \
                 GROUP BY service, window_start";
    let rule = json!({ "index": "shop", "query": query, "condition": "n > 5", "webhook": webhook.url, "summary": "checkout fails" });
    up.api.put_rule("shop-errors", &rule).await.unwrap();
    let publisher = up.api.bind("shop", "write").await.unwrap().publisher().await.unwrap();
    let start = Timestamp::now() - SignedDuration::from_secs(240);
    let mut events: Vec<_> = (0..90i64)
        .map(|n| {
            let level = if n % 3 == 0 { "warn" } else { "info" };
            event(
                start + SignedDuration::from_secs(n * 2),
                "cart",
                level,
                &format!("order {n} was paid"),
                json!({ "amount": n }),
            )
        })
        .collect();
    let burst = Timestamp::from_second(Timestamp::now().as_second() / 10 * 10 - 20).unwrap();
    events.extend((0..10).map(|_| event(burst, "checkout", "error", "card was refused", json!({}))));
    let events = events.into_iter().enumerate().map(|(n, payload)| ("logs.shop".to_owned(), format!("e-{n}"), payload));
    publisher.all(32, events.collect::<Vec<_>>()).await.unwrap();
    let latin = event(start, "cart", "debug", HOSTILE, json!({ "place": "caf#" })).into_bytes();
    let latin: Vec<_> = latin.into_iter().map(|byte| if byte == b'#' { 0xe9 } else { byte }).collect();
    publisher.until_acked("logs.shop", "e-latin", latin).await.unwrap();
    webhook.wait_for("firing", "service", "checkout", Duration::from_secs(60)).await.unwrap();
    webhook
}

#[tokio::test]
async fn a_person_searches_charts_tails_and_sees_jobs_and_alerts() {
    let Some(browser) = browser() else { return };
    let up = Standalone::start().await.unwrap();
    let _webhook = shop(&up).await;
    let profile = Workdir::new("browser").unwrap();
    let mut page = Page::open(&browser, profile.path()).await.unwrap();

    page.go(&up.api.gateway).await.unwrap();
    page.until("the page asks for a token", "!document.querySelector('#entry').hidden").await.unwrap();
    page.fill("#token", &up.api.admin_token).await.unwrap();
    page.click("#token-form button").await.unwrap();
    page.shows("#connection", "admin").await.unwrap();

    page.choose("#index", "shop").await.unwrap();
    page.shows("#rows", "order 7 was paid").await.unwrap();
    page.shows("#rows", HOSTILE).await.unwrap();
    page.shows("#rows", "caf\\xe9").await.unwrap();
    assert_eq!(page.eval("document.title").await.unwrap(), "Logboom", "a log line is text, never a program");
    page.until("the chart has bars", "document.querySelectorAll('#chart rect, #chart path').length > 10")
        .await
        .unwrap();
    page.shows("#legend", "warn").await.unwrap();
    page.shows("#jobs", "shop-rates").await.unwrap();
    page.shows("#alerts", "shop-errors").await.unwrap();
    page.shows("#alerts", "service=checkout").await.unwrap();

    let sql = "SELECT severity, count(*) AS n FROM shop GROUP BY severity ORDER BY n DESC, severity";
    page.fill("#sql", sql).await.unwrap();
    page.click("#run").await.unwrap();
    page.shows("#rows-count", "4 rows").await.unwrap();
    let cells = "[...document.querySelectorAll('#rows tbody tr')].map(row => \
                 [...row.children].slice(-2).map(cell => cell.innerText.trim()))";
    let expected = json!([["info", "60"], ["warn", "30"], ["error", "10"], ["debug", "1"]]);
    assert_eq!(page.eval(cells).await.unwrap(), expected);
    page.picture(&picture()).await.unwrap();

    assert_eq!(page.complaints, Vec::<String>::new(), "the page complains");
    page.fill("#sql", "SELECT severty FROM shop").await.unwrap();
    page.click("#run").await.unwrap();
    page.shows("#query-error", "there is no column severty").await.unwrap();
    page.shows("#query-error", "did you mean severity?").await.unwrap();
    let error = page.text("#query-error").await.unwrap();
    assert!(error.contains("1 | SELECT severty FROM shop\n  |        ^"), "a caret shows the place:\n{error}");

    page.choose("#language", "pipe").await.unwrap();
    page.fill("#sql", "index:shop order | stats co").await.unwrap();
    page.shows("#completions", "count").await.unwrap();
    page.press("Tab", 9).await.unwrap();
    assert_eq!(page.eval("document.querySelector('#sql').value").await.unwrap(), "index:shop order | stats count");
    page.fill("#sql", "index:shop order service=c").await.unwrap();
    page.shows("#completions", "cart").await.unwrap();
    page.press("Escape", 27).await.unwrap();
    page.until("the list is closed", "document.querySelector('#completions').hidden").await.unwrap();
    page.fill("#sql", "index:shop order | top 1 service").await.unwrap();
    page.click("#run").await.unwrap();
    page.shows("#rows", "cart").await.unwrap();
    page.shows("#rows-count", "1 rows").await.unwrap();

    page.click("#tail").await.unwrap();
    page.shows("#outcome", "live").await.unwrap();
    let publisher = up.api.bind("shop", "write").await.unwrap().publisher().await.unwrap();
    // The tail begins at the end of the index, as it is when the door opens: what comes from then on is seen.
    let mut number = 0;
    while !page.text("#rows").await.unwrap().contains("while you watch") {
        assert!(number < 100, "the live tail shows nothing");
        let payload = event(Timestamp::now(), "cart", "info", "while you watch", json!({}));
        publisher.until_acked("logs.shop", &format!("live-{number}"), payload).await.unwrap();
        number += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("the picture is {}", picture().display());
}

/// `standalone` prints `<gateway>/#token=<token>`: a fragment is never sent to a server.
#[tokio::test]
async fn the_address_that_up_prints_opens_the_console() {
    let Some(browser) = browser() else { return };
    let up = Standalone::start().await.unwrap();
    up.api.provision("shop", 1).await.unwrap();
    let profile = Workdir::new("browser").unwrap();
    let mut page = Page::open(&browser, profile.path()).await.unwrap();
    page.go(&format!("{}/#token={}", up.api.gateway, up.api.admin_token)).await.unwrap();
    page.shows("#connection", "admin").await.unwrap();
    let address = page.eval("location.href").await.unwrap();
    assert!(!address.to_string().contains(&up.api.admin_token), "the token leaves the address bar: {address}");
}

#[tokio::test]
async fn a_wrong_token_is_told_and_a_right_one_typed_in_opens() {
    let Some(browser) = browser() else { return };
    let up = Standalone::start().await.unwrap();
    up.api.provision("shop", 1).await.unwrap();
    let reader = up.api.bind("shop", "read").await.unwrap();
    let profile = Workdir::new("browser").unwrap();
    let mut page = Page::open(&browser, profile.path()).await.unwrap();
    page.go(&up.api.gateway).await.unwrap();
    page.until("the page asks for a token", "!document.querySelector('#entry').hidden").await.unwrap();
    for (token, selector, words) in
        [("lbt_wrong", "#entry-error", "not known"), (reader.token.as_str(), "#connection", "may read")]
    {
        page.fill("#token", token).await.unwrap();
        page.click("#token-form button").await.unwrap();
        page.shows(selector, words).await.unwrap();
    }
    page.until("the reader sees its index", "document.querySelector('#index').value === 'shop'").await.unwrap();
    // The next look at a token that was revoked brings back its entry.
    up.api.unbind(&reader).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    page.click("#run").await.unwrap();
    page.shows("#entry-error", "was revoked").await.unwrap();
}
