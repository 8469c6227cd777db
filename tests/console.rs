//! The console in a real browser: what a person does with it, and what it shows.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, says what it skips, and starts processes"
)]

#[path = "console/devtools.rs"]
mod devtools;
#[path = "console/shop.rs"]
mod shop;

use std::{path::PathBuf, time::Duration};

use jiff::Timestamp;
use logboom_tests::{Publisher, Standalone, Workdir, event, logboom};
use serde_json::{Value, json};

use crate::{
    devtools::{Page, browser},
    shop::{HOSTILE, shop},
};

/// Where the pictures are kept: in the target directory, beside the profile that was tested.
fn picture(name: &str) -> PathBuf {
    logboom().unwrap().ancestors().nth(2).unwrap().join(format!("console-{name}.png"))
}

/// Puts a text into the query and runs it by Enter.
async fn ask(page: &mut Page, text: &str) {
    page.fill("#text", text).await.unwrap();
    page.press("Enter").await.unwrap();
}

/// Waits until no query runs.
async fn through(page: &mut Page) {
    page.until("the query is through", "document.querySelector('#run').innerText === 'Run'").await.unwrap();
}

async fn value(page: &mut Page, selector: &str) -> String {
    let value = page.eval(&format!("document.querySelector({}).value", json!(selector))).await.unwrap();
    value.as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_person_searches_narrows_explains_and_follows() {
    let Some(browser) = browser() else { return };
    let up = Standalone::start().await.unwrap();
    let _webhook = shop(&up).await;
    let profile = Workdir::new("browser").unwrap();
    let mut page = Page::open(&browser, profile.path()).await.unwrap();
    enters(&mut page, &up).await;
    looks(&mut page).await;
    narrows(&mut page).await;
    looks_around(&mut page).await;
    draws_and_explains(&mut page).await;
    shares(&mut page, &up).await;
    types_only(&mut page).await;
    assert_eq!(page.complaints, Vec::<String>::new(), "the page complains");
    is_told_what_is_wrong(&mut page).await;
    follows(&mut page, &up).await;
}

/// The newest events stand there at once, as text.
async fn enters(page: &mut Page, up: &Standalone) {
    page.go(&up.api.gateway).await.unwrap();
    page.until("the page asks for a token", "!document.querySelector('#entry').hidden").await.unwrap();
    page.fill("#token", &up.api.admin_token).await.unwrap();
    page.click("#token-form button").await.unwrap();
    page.shows("#connection", "admin").await.unwrap();
    page.choose("#index", "shop").await.unwrap();
    for text in ["order 7 was paid", HOSTILE, "caf\\xe9", "amount=7"] {
        page.shows("#rows", text).await.unwrap();
    }
    assert_eq!(page.eval("document.title").await.unwrap(), "Logboom", "a log line is text, never a program");
    page.shows("#rows-count", "101").await.unwrap();
    page.until("the histogram has bars", "document.querySelectorAll('#histogram rect.bar').length > 10").await.unwrap();
    page.shows("#legend", "warn 30").await.unwrap();
    page.shows("#firing", "1").await.unwrap();
    page.click("#tab-watch").await.unwrap();
    page.shows("#jobs", "shop-rates").await.unwrap();
    page.shows("#alerts", "shop-errors").await.unwrap();
    page.shows("#alerts", "service=checkout").await.unwrap();
    page.click("#tab-rows").await.unwrap();
    let wrong = page.eval(include_str!("console/words.js")).await.unwrap();
    assert_eq!(wrong, json!([]), "what the page makes of texts");
}

/// In the dark and in the light, on a wide and on a narrow screen: everything can be read, reached and named.
async fn looks(page: &mut Page) {
    page.click("#rows tbody tr .open").await.unwrap();
    for (name, width, height, scheme) in [
        ("light", 1400, 1000, "light"),
        ("dark", 1400, 1000, "dark"),
        ("narrow", 390, 800, "dark"),
        ("", 1280, 1000, "light"),
    ] {
        page.screen(width, height, scheme).await.unwrap();
        for tab in ["patterns", "compare", "explain", "rows"] {
            page.click(&format!("#tab-{tab}")).await.unwrap();
            page.until("the view is there", &format!("document.querySelector('#view-{tab}').checkVisibility()"))
                .await
                .unwrap();
            let faint = page.eval(include_str!("console/contrast.js")).await.unwrap();
            assert_eq!(faint, json!([]), "texts of {tab}, {scheme}");
        }
        let over =
            page.eval("document.documentElement.scrollWidth - document.documentElement.clientWidth").await.unwrap();
        assert_eq!(over, 0, "the page is wider than a screen of {width}");
        if !name.is_empty() {
            page.picture(&picture(name)).await.unwrap();
        }
    }
    assert_eq!(page.nameless().await.unwrap(), Vec::<String>::new(), "things without a name");
    page.click("#rows tbody tr .open").await.unwrap();
}

/// Fields, patterns and the histogram are clicked, and the query says what was clicked.
async fn narrows(page: &mut Page) {
    page.shows("#facets", "checkout").await.unwrap();
    page.click("#facets button.value[title='Only rows with severity = error']").await.unwrap();
    page.shows("#rows-count", "10").await.unwrap();
    assert_eq!(value(page, "#text").await, "severity=\"error\"");
    page.shows("#legend", "error 10").await.unwrap();
    page.until("the histogram is of the query", "!document.querySelector('#legend').innerText.includes('warn')")
        .await
        .unwrap();

    page.click("#reset").await.unwrap();
    page.shows("#rows-count", "101").await.unwrap();
    page.click("#tab-patterns").await.unwrap();
    page.shows("#patterns", "card was refused").await.unwrap();
    page.shows("#patterns", "new").await.unwrap();
    page.click("#patterns button.template[title='Search for “card was refused”']").await.unwrap();
    page.shows("#rows-count", "10").await.unwrap();
    assert_eq!(value(page, "#text").await, "\"card was refused\"");
    page.click("#tab-rows").await.unwrap();

    page.click("#reset").await.unwrap();
    page.shows("#rows-count", "101").await.unwrap();
    page.drag("#histogram", 0.5, 0.98).await.unwrap();
    page.until("a range is chosen", "!location.hash.includes('from=now')").await.unwrap();
    let share = "(async () => { const said = new URLSearchParams(location.hash.slice(1)); \
                 return (Date.parse(said.get('to')) - Date.parse(said.get('from'))) / 900e3; })()";
    let share = page.eval(share).await.unwrap().as_f64().unwrap();
    assert!((0.4..0.6).contains(&share), "half of the histogram is half of the time, not {share}");
    let inside = "(() => { const said = new URLSearchParams(location.hash.slice(1)); \
                  const times = [...document.querySelectorAll('#rows td.time')].map(cell => cell.innerText.replace(' ', 'T') + 'Z'); \
                  return times.length > 0 && times.every(time => time >= said.get('from') && time < said.get('to')); })()";
    page.until("the rows are of that time", inside).await.unwrap();
    page.eval("history.back()").await.unwrap();
    page.until("back is the time before", "location.hash.includes('from=now-15m')").await.unwrap();
    page.shows("#range", "Last 15 minutes").await.unwrap();
}

/// A row shows its fields, and those around it.
async fn looks_around(page: &mut Page) {
    ask(page, "\"order 40\"").await;
    page.shows("#rows-count", "1").await.unwrap();
    page.click("#rows tbody tr .open").await.unwrap();
    page.shows("#rows tr.detail", "_segment").await.unwrap();
    page.click("#rows .context").await.unwrap();
    for text in ["order 39 was paid", "order 40 was paid", "order 41 was paid"] {
        page.shows("#context-rows", text).await.unwrap();
    }
    let hit = page.text("#context-rows tr.hit").await.unwrap();
    assert!(hit.contains("order 40 was paid"), "the hit is marked: {hit}");
    page.click("#context-after").await.unwrap();
    page.shows("#context-rows", "order 75 was paid").await.unwrap();
    page.click("#context button[type=submit]").await.unwrap();
    page.click("#rows tr.detail button[aria-label='No rows with service = cart']").await.unwrap();
    page.shows("#rows-empty", "No rows").await.unwrap();
    assert_eq!(value(page, "#text").await, "\"order 40\" -service=\"cart\"");
}

/// Groups become a chart, and every answer says what it took.
async fn draws_and_explains(page: &mut Page) {
    ask(page, "* | chart count by severity every 1m").await;
    page.click("#tab-chart").await.unwrap();
    page.until("there are lines", "document.querySelectorAll('#chart path.stroke').length === 4").await.unwrap();
    page.choose("#language", "sql").await.unwrap();
    ask(page, "SELECT severity, count(*) AS n FROM shop GROUP BY severity ORDER BY n DESC, severity").await;
    page.shows("#chart", "n by severity").await.unwrap();
    page.click("#tab-rows").await.unwrap();
    let cells = "[...document.querySelectorAll('#rows tbody tr')].map(row => \
                 [...row.children].slice(-2).map(cell => cell.innerText.trim()))";
    let expected = json!([["info", "60"], ["warn", "30"], ["error", "10"], ["debug", "1"]]);
    assert_eq!(page.eval(cells).await.unwrap(), expected);
    page.click("#tab-explain").await.unwrap();
    page.shows("#explain", "Rows found\n4").await.unwrap();
    page.click("#tab-rows").await.unwrap();
    let csv = "(async () => { const kept = []; URL.createObjectURL = (blob) => { kept.push(blob); return '#'; }; \
               document.querySelector('#export').click(); document.querySelector('[data-format=csv]').click(); \
               document.querySelector('#export-menu').hidePopover(); return kept[0].text(); })()";
    assert_eq!(page.eval(csv).await.unwrap(), "severity,n\r\ninfo,60\r\nwarn,30\r\nerror,10\r\ndebug,1\r\n");
}

/// A link opened by somebody else shows the same.
async fn shares(page: &mut Page, up: &Standalone) {
    page.choose("#language", "pipe").await.unwrap();
    ask(page, "severity=warn").await;
    page.shows("#rows-count", "30").await.unwrap();
    page.click("#tab-patterns").await.unwrap();
    page.click("#share").await.unwrap();
    page.until("there is a link", "document.querySelector('#share-exact').value.includes('severity')").await.unwrap();
    let link = value(page, "#share-exact").await;
    assert!(!link.contains(&up.api.admin_token), "a link holds no token");
    page.press("Escape").await.unwrap();
    page.tab().await.unwrap();
    page.go(&link).await.unwrap();
    page.until("without a token nothing is shown", "!document.querySelector('#entry').hidden").await.unwrap();
    page.fill("#token", &up.api.admin_token).await.unwrap();
    page.press("Enter").await.unwrap();
    page.shows("#rows-count", "30").await.unwrap();
    let seen = "({ text: document.querySelector('#text').value, tab: document.querySelector('[role=tab][aria-selected=true]').id, \
                index: document.querySelector('#index').value, address: location.href })";
    let expected = json!({ "text": "severity=warn", "tab": "tab-patterns", "index": "shop", "address": link });
    assert_eq!(page.eval(seen).await.unwrap(), expected);
}

/// The same without a mouse.
async fn types_only(page: &mut Page) {
    page.press("Escape").await.unwrap();
    page.press("/").await.unwrap();
    page.eval("document.activeElement.select()").await.unwrap();
    page.types("\"was paid\"").await.unwrap();
    page.press("Enter").await.unwrap();
    page.shows("#rows-count", "90").await.unwrap();
    // While it runs, Escape would stop it.
    through(page).await;
    for key in ["Escape", "1", "j", "j", "Enter"] {
        page.press(key).await.unwrap();
    }
    page.shows("#rows tr.detail", "order 88 was paid").await.unwrap();
    page.press("c").await.unwrap();
    page.shows("#context-rows tr.hit", "order 88 was paid").await.unwrap();
    page.press("Escape").await.unwrap();
    page.until("the dialog is closed", "!document.querySelector('#context').open").await.unwrap();
    page.press("h").await.unwrap();
    for key in ["ArrowRight", "ArrowRight", "ArrowRight", "Enter"] {
        page.press(key).await.unwrap();
    }
    page.until("a bar is chosen", "!document.querySelector('#range').innerText.includes('Last')").await.unwrap();
    page.press("?").await.unwrap();
    page.shows("#help", "next row").await.unwrap();
    page.press("Escape").await.unwrap();
    page.press("5").await.unwrap();
    page.until("the fifth view is chosen", "document.querySelector('#tab-explain').ariaSelected === 'true'")
        .await
        .unwrap();
}

/// Errors have a caret and a way out, and what could come next is offered.
async fn is_told_what_is_wrong(page: &mut Page) {
    page.choose("#language", "sql").await.unwrap();
    ask(page, "SELECT severty FROM shop").await;
    page.shows("#query-error", "there is no column severty").await.unwrap();
    let error = page.text("#query-error").await.unwrap();
    assert!(error.contains("1 | SELECT severty FROM shop\n  |        ^"), "a caret shows the place:\n{error}");
    page.click("#query-error .fix").await.unwrap();
    page.shows("#rows-count", "101").await.unwrap();
    assert_eq!(value(page, "#text").await, "SELECT severity FROM shop");

    page.choose("#language", "pipe").await.unwrap();
    page.fill("#text", "order | stats co").await.unwrap();
    page.shows("#completions", "count").await.unwrap();
    page.press("Tab").await.unwrap();
    assert_eq!(value(page, "#text").await, "order | stats count");
    page.fill("#text", "order service=c").await.unwrap();
    page.shows("#completions", "cart").await.unwrap();
    page.press("Escape").await.unwrap();
    page.until("the list is closed", "document.querySelector('#completions').hidden").await.unwrap();
    page.eval("document.querySelector('#text').blur()").await.unwrap();
    page.choose("#language", "logql").await.unwrap();
    ask(page, "{service=cart}").await;
    page.shows("#query-error", "^").await.unwrap();
    page.choose("#language", "pipe").await.unwrap();
}

/// Publishes lines until the page shows those that are asked for.
async fn until_shown(page: &mut Page, publisher: &Publisher, line: &str) {
    let mut number = 0;
    // The tail begins at the end of the index, as it is when the door opens: what comes from then on is seen.
    while !page.text("#rows").await.unwrap().contains(line) {
        assert!(number < 100, "the live tail never shows {line}");
        for (service, line) in [("cart", line), ("search", "not asked for")] {
            let payload = event(Timestamp::now(), service, "info", line, json!({}));
            publisher.until_acked("logs.shop", &format!("{line}-{number}"), payload).await.unwrap();
        }
        number += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The live tail shows what the query finds, and holds it back while it is paused.
async fn follows(page: &mut Page, up: &Standalone) {
    let publisher = up.api.bind("shop", "write").await.unwrap().publisher().await.unwrap();
    ask(page, "service=cart").await;
    through(page).await;
    page.click("#tail").await.unwrap();
    page.until("the tail is open", "!document.querySelector('#live').hidden").await.unwrap();
    until_shown(page, &publisher, "while you watch").await;
    page.shows("#rate", "/s of").await.unwrap();
    page.shows("#dropped", "0 dropped").await.unwrap();
    assert!(!page.text("#rows").await.unwrap().contains("not asked for"), "only what the query finds is shown");
    page.picture(&picture("tail")).await.unwrap();
    page.click("#pause").await.unwrap();
    let payload = event(Timestamp::now(), "cart", "info", "while you wait", json!({}));
    publisher.until_acked("logs.shop", "held-back", payload).await.unwrap();
    page.until("something is held back", "/[1-9]\\d* held back/.test(document.querySelector('#dropped').innerText)")
        .await
        .unwrap();
    assert!(!page.text("#rows").await.unwrap().contains("while you wait"), "a paused tail stands still");
    page.click("#pause").await.unwrap();
    page.shows("#rows", "while you wait").await.unwrap();
    page.click("#tail-stop").await.unwrap();
    page.shows("#outcome", "stopped").await.unwrap();
    println!("the pictures are beside {}", picture("light").display());
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
    let address: Value = page.eval("location.href").await.unwrap();
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
    page.shows("#rows-empty", "No rows").await.unwrap();
    // The next look at a token that was revoked brings back its entry.
    up.api.unbind(&reader).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    page.click("#run").await.unwrap();
    page.shows("#entry-error", "was revoked").await.unwrap();
}
