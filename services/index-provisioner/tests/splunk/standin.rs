//! A stand-in for Splunk, with faults.
//!
//! It is our reading of Splunk's REST API reference, of its pages on the HTTP Event Collector and of the Admin Config Service manual.
//! It is not Splunk: what it lets pass, Splunk may refuse. It holds what is made in memory and answers on one loopback port: the
//! management interface and the collector below `/services`, the Admin Config Service of a stack below [`ACS`].

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, TcpListener},
    sync::{Arc, Mutex},
    time::Duration,
};

use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer,
    http::StatusCode,
    web::{self, Bytes, Data},
};
use serde_json::{Value, json};
use tls::Tls;

/// Where the Admin Config Service is.
pub(crate) const ACS: &str = "/stack/adminconfig/v2";
/// Who may do everything.
pub(crate) const ADMIN: (&str, &str) = ("admin", "changeme");
/// A token that may do everything.
pub(crate) const TOKEN: &str = "a-token-of-the-stack";

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Index {
    pub(crate) mib: u64,
    /// Seconds on an indexer, days in Splunk Cloud.
    pub(crate) kept: u64,
    pub(crate) events: Vec<Value>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Token {
    pub(crate) value: String,
    pub(crate) indexes: Vec<String>,
    pub(crate) sourcetype: String,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Role {
    pub(crate) indexes: Vec<String>,
    pub(crate) filter: String,
    pub(crate) capabilities: Vec<String>,
    pub(crate) imported: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct User {
    pub(crate) password: String,
    pub(crate) realname: String,
    pub(crate) roles: Vec<String>,
}

/// What happens to one request that changes something.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Break {
    /// Nothing of it is done, and the answer is 503.
    Before,
    /// It is done, and the answer is lost.
    After,
}

#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// So many requests are answered with 503: maintenance.
    pub(crate) maintenance: u32,
    /// So many requests wait so long.
    pub(crate) slow: (u32, Duration),
    /// The request that changes something after so many others breaks.
    pub(crate) breaks: Option<(u32, Break)>,
    /// Requests whose method and path contain these are answered so.
    pub(crate) refuse: Option<(&'static str, &'static str, u16)>,
    /// So many answers are far too long.
    pub(crate) endless: u32,
    /// How many looks the Admin Config Service takes until a change shows.
    pub(crate) polls: u32,
    /// So many events are refused because the collector does not know the token yet.
    pub(crate) late_tokens: u32,
}

/// What the Admin Config Service works on.
#[derive(Debug)]
enum Change {
    Index(Index),
    NoIndex,
    Token(Token),
    NoToken,
}

#[derive(Debug, Default)]
pub(crate) struct Inner {
    pub(crate) indexes: BTreeMap<String, Index>,
    pub(crate) tokens: BTreeMap<String, Token>,
    pub(crate) roles: BTreeMap<String, Role>,
    pub(crate) users: BTreeMap<String, User>,
    pub(crate) sessions: BTreeSet<String>,
    pub(crate) faults: Faults,
    /// Requests that changed something, as method and path.
    pub(crate) changes: Vec<String>,
    pub(crate) logins: u32,
    pending: BTreeMap<String, (u32, Change)>,
}

struct Ask {
    method: String,
    path: Vec<String>,
    form: Vec<(String, String)>,
    json: Value,
    authorization: String,
}

type Answer = (u16, Value);

/// The stand-in; clones share it.
#[derive(Clone)]
pub(crate) struct Splunk {
    pub(crate) url: String,
    inner: Arc<Mutex<Inner>>,
}

impl Splunk {
    /// Serves until the runtime ends; with a certificate it speaks TLS.
    pub(crate) fn serve(tls: Option<&Tls>) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr()?);
        let splunk = Self { url, inner: Arc::default() };
        let data = Data::new(splunk.clone());
        let app = move || App::new().app_data(data.clone()).default_service(web::to(handle));
        let server = HttpServer::new(app).workers(1).disable_signals();
        let server = match tls.and_then(Tls::server) {
            Some(config) => server.listen_rustls_0_23(listener, (*config).clone())?,
            None => server.listen(listener)?,
        };
        drop(actix_rt::spawn(server.run()));
        Ok(splunk)
    }

    /// Looks, or changes something behind everybody's back.
    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut Inner) -> T) -> T {
        f(&mut self.inner.lock().unwrap())
    }
}

async fn handle(splunk: Data<Splunk>, request: HttpRequest, body: Bytes) -> HttpResponse {
    let text = String::from_utf8_lossy(&body).into_owned();
    let ask = Ask {
        method: request.method().to_string(),
        path: request.path().trim_matches('/').split('/').map(str::to_owned).collect(),
        form: text.split('&').filter_map(|pair| pair.split_once('=')).map(|(n, v)| (plain(n), plain(v))).collect(),
        json: serde_json::from_str(&text).unwrap_or(Value::Null),
        authorization: request.headers().get("Authorization").map_or("", |v| v.to_str().unwrap()).to_owned(),
    };
    let pause = splunk.with(|inner| {
        let (left, pause) = inner.faults.slow;
        inner.faults.slow.0 = left.saturating_sub(1);
        (left > 0).then_some(pause)
    });
    if let Some(pause) = pause {
        actix_rt::time::sleep(pause).await;
    }
    let (status, body) = splunk.with(|inner| inner.answer(&ask));
    HttpResponse::build(StatusCode::from_u16(status).unwrap()).json(body)
}

fn plain(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = (*first == b'%').then(|| std::str::from_utf8(&tail[..2]).unwrap());
        bytes.push(escaped.map_or(*first, |hex| u8::from_str_radix(hex, 16).unwrap()));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8(bytes).unwrap()
}

fn said(status: u16, text: &str) -> Answer {
    (status, json!({"messages": [{"type": "ERROR", "text": text}]}))
}

fn entry(name: &str, content: Value) -> Answer {
    (200, json!({"entry": [{"name": name, "acl": {"app": "search"}, "content": content}], "messages": []}))
}

impl Ask {
    fn one(&self, name: &str) -> String {
        self.all(name).into_iter().next().unwrap_or_default()
    }

    fn all(&self, name: &str) -> Vec<String> {
        self.form.iter().filter(|(n, _)| n == name).map(|(_, v)| v.clone()).collect()
    }

    fn number(&self, name: &str) -> u64 {
        self.one(name).parse().unwrap()
    }

    fn is_change(&self) -> bool {
        let looks = ["login", "jobs", "event"];
        self.method != "GET" && !looks.contains(&self.path.last().map_or("", String::as_str))
    }
}

impl Inner {
    /// Whether nothing of a service instance is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.indexes.is_empty() && self.tokens.is_empty() && self.roles.is_empty() && self.users.is_empty()
    }

    /// What the Admin Config Service works on shows at the next look.
    pub(crate) fn hurry(&mut self) {
        self.faults.polls = 0;
        self.pending.values_mut().for_each(|(left, _)| *left = 0);
    }

    fn answer(&mut self, ask: &Ask) -> Answer {
        let place = ask.path.join("/");
        if self.faults.maintenance > 0 {
            self.faults.maintenance -= 1;
            return said(503, "Splunk is down for maintenance");
        }
        if self.faults.endless > 0 {
            self.faults.endless -= 1;
            return said(200, &"x".repeat(2 << 20));
        }
        if let Some((method, part, status)) = self.faults.refuse
            && ask.method == method
            && place.contains(part)
        {
            return said(status, "You are not allowed to do this");
        }
        if !ask.is_change() {
            return self.route(ask);
        }
        let breaks = match &mut self.faults.breaks {
            Some((0, kind)) => Some(*kind),
            Some((left, _)) => {
                *left -= 1;
                None
            }
            None => None,
        };
        if breaks.is_some() {
            self.faults.breaks = None;
        }
        if breaks == Some(Break::Before) {
            return said(503, "Splunk is restarting");
        }
        let answer = self.route(ask);
        if answer.0 < 300 {
            self.changes.push(format!("{} {place}", ask.method));
        }
        if breaks == Some(Break::After) { said(502, "") } else { answer }
    }

    fn route(&mut self, ask: &Ask) -> Answer {
        let path: Vec<&str> = ask.path.iter().map(String::as_str).collect();
        match (ask.method.as_str(), &path[..]) {
            ("POST", ["services", "auth", "login"]) => return self.login(ask),
            ("POST", ["services", "collector", "event"]) => return self.collect(ask),
            _ => {}
        }
        let session = ask.authorization.strip_prefix("Splunk ").is_some_and(|key| self.sessions.contains(key));
        if !session && ask.authorization != format!("Bearer {TOKEN}") {
            return said(401, "call not properly authenticated");
        }
        match (ask.method.as_str(), &path[..]) {
            (_, ["stack", "adminconfig", "v2", rest @ ..]) => self.acs(ask, rest),
            ("POST", ["services", "search", "jobs"]) => self.search(ask),
            (method, ["services", "data", "indexes", name] | ["servicesNS", "nobody", _, "data", "indexes", name]) => {
                self.index(ask, method, name)
            }
            // With the name in the path or in the form, as both are seen.
            ("POST", ["servicesNS", "nobody", _, "data", "indexes"]) => self.create_index(ask),
            ("POST", ["servicesNS", "nobody", "splunk_httpinput", "data", "inputs", "http"]) => self.create_token(ask),
            (method, ["servicesNS", "nobody", "splunk_httpinput", "data", "inputs", "http", name]) => {
                self.token(method, name)
            }
            ("POST", ["services", "authorization", "roles"]) => self.create_role(ask),
            (method, ["services", "authorization", "roles", name]) => self.role(ask, method, name),
            ("POST", ["services", "authentication", "users"]) => self.create_user(ask),
            (method, ["services", "authentication", "users", name]) => self.user(method, name),
            _ => said(404, "Not Found"),
        }
    }

    fn login(&mut self, ask: &Ask) -> Answer {
        let (name, password) = (ask.one("username"), ask.one("password"));
        let known = self.users.get(&name).is_some_and(|user| user.password == password);
        if !known && (name.as_str(), password.as_str()) != ADMIN {
            return said(401, "Login failed");
        }
        self.logins += 1;
        let key = format!("session-{}", self.logins);
        self.sessions.insert(key.clone());
        (200, json!({"sessionKey": key}))
    }

    fn collect(&mut self, ask: &Ask) -> Answer {
        let value = ask.authorization.strip_prefix("Splunk ").unwrap_or_default();
        let invalid = (403, json!({"text": "Invalid token", "code": 4}));
        if self.faults.late_tokens > 0 {
            self.faults.late_tokens -= 1;
            return invalid;
        }
        let Some(token) = self.tokens.values().find(|token| token.value == value) else { return invalid };
        let wanted = ask.json["index"].as_str().unwrap_or(&token.indexes[0]).to_owned();
        match self.indexes.get_mut(&wanted).filter(|_| token.indexes.contains(&wanted)) {
            Some(index) => {
                index.events.push(ask.json.clone());
                (200, json!({"text": "Success", "code": 0}))
            }
            None => (400, json!({"text": "Incorrect index", "code": 7, "invalid-event-number": 0})),
        }
    }

    /// Knows one search: `search index="A" NOT sourcetype="B" | head 1`.
    fn search(&self, ask: &Ask) -> Answer {
        let search = ask.one("search");
        let quoted: Vec<&str> = search.split('"').collect();
        assert!(search.starts_with("search index=\"") && search.ends_with("| head 1"), "{search}");
        let events = self.indexes.get(quoted[1]).map_or(&[][..], |index| &index.events);
        let found: Vec<&Value> = events.iter().filter(|event| event["sourcetype"] != quoted[3]).take(1).collect();
        (200, json!({"preview": false, "results": found, "messages": []}))
    }

    fn create_index(&mut self, ask: &Ask) -> Answer {
        let name = ask.one("name");
        if self.indexes.contains_key(&name) {
            return said(409, &format!("An index with name={name} already exists"));
        }
        let (mib, kept) = (ask.number("maxTotalDataSizeMB"), ask.number("frozenTimePeriodInSecs"));
        assert_eq!(ask.one("datatype"), "event");
        self.indexes.insert(name.clone(), Index { mib, kept, events: Vec::new() });
        (201, entry(&name, json!({})).1)
    }

    fn index(&mut self, ask: &Ask, method: &str, name: &str) -> Answer {
        let Some(index) = self.indexes.get_mut(name) else { return said(404, "Could not find object") };
        match method {
            "GET" => entry(name, json!({"maxTotalDataSizeMB": index.mib, "totalEventCount": index.events.len()})),
            "POST" => {
                (index.mib, index.kept) = (ask.number("maxTotalDataSizeMB"), ask.number("frozenTimePeriodInSecs"));
                entry(name, json!({}))
            }
            _ => {
                self.indexes.remove(name);
                (200, json!({"entry": [], "messages": []}))
            }
        }
    }

    fn create_token(&mut self, ask: &Ask) -> Answer {
        let name = ask.one("name");
        if self.tokens.contains_key(&name) {
            return said(409, &format!("An object with name={name} already exists"));
        }
        let indexes = ask.all("indexes");
        assert_eq!(indexes, [ask.one("index")]);
        self.tokens.insert(name.clone(), Token { value: ask.one("token"), indexes, sourcetype: ask.one("sourcetype") });
        (201, entry(&format!("http://{name}"), json!({"token": ask.one("token")})).1)
    }

    fn token(&mut self, method: &str, name: &str) -> Answer {
        let Some(token) = self.tokens.get(name) else { return said(404, "Could not find object") };
        let answer = entry(&format!("http://{name}"), json!({"token": token.value, "indexes": token.indexes}));
        if method == "DELETE" {
            self.tokens.remove(name);
        }
        answer
    }

    fn create_role(&mut self, ask: &Ask) -> Answer {
        let name = ask.one("name");
        if self.roles.contains_key(&name) {
            return said(409, &format!("role {name} already exists"));
        }
        let role = Role {
            indexes: ask.all("srchIndexesAllowed"),
            filter: ask.one("srchFilter"),
            capabilities: ask.all("capabilities"),
            imported: ask.all("imported_roles"),
        };
        self.roles.insert(name.clone(), role);
        (201, entry(&name, json!({})).1)
    }

    fn role(&mut self, ask: &Ask, method: &str, name: &str) -> Answer {
        let Some(role) = self.roles.get_mut(name) else { return said(404, "Could not find object") };
        // What a change does not name stays.
        if method == "POST" && !ask.one("srchFilter").is_empty() {
            role.filter = ask.one("srchFilter");
        }
        let answer = entry(name, json!({"srchIndexesAllowed": role.indexes, "srchFilter": role.filter}));
        if method == "DELETE" {
            self.roles.remove(name);
        }
        answer
    }

    fn create_user(&mut self, ask: &Ask) -> Answer {
        let name = ask.one("name");
        if self.users.contains_key(&name) {
            return said(409, &format!("user {name} already exists"));
        }
        let roles = ask.all("roles");
        if !roles.iter().all(|role| self.roles.contains_key(role)) {
            return said(400, "role does not exist");
        }
        self.users.insert(name.clone(), User { password: ask.one("password"), realname: ask.one("realname"), roles });
        (201, entry(&name, json!({})).1)
    }

    fn user(&mut self, method: &str, name: &str) -> Answer {
        let Some(user) = self.users.get(name) else { return said(404, "Could not find object") };
        let answer = entry(name, json!({"realname": user.realname, "roles": user.roles}));
        if method == "DELETE" {
            self.users.remove(name);
        }
        answer
    }

    /// Every change is accepted with 202 and shows after some looks.
    fn acs(&mut self, ask: &Ask, rest: &[&str]) -> Answer {
        let key = rest.join("/");
        let later = |inner: &mut Self, key: String, change| {
            let busy = inner.pending.contains_key(&key);
            if !busy {
                inner.pending.insert(key, (inner.faults.polls, change));
            }
            let status = if busy { 424 } else { 202 };
            (status, json!({"code": status.to_string(), "message": "deployment in progress"}))
        };
        let number = |name: &str| ask.json[name].as_u64().unwrap();
        let name = ask.json["name"].as_str().unwrap_or_default();
        match (ask.method.as_str(), rest) {
            ("POST", ["indexes"]) if self.indexes.contains_key(name) => {
                (409, json!({"code": "409-object-already-exists"}))
            }
            ("POST", ["indexes"]) => {
                let index = Index { mib: number("maxDataSizeMB"), kept: number("searchableDays"), events: Vec::new() };
                later(self, format!("indexes/{name}"), Change::Index(index))
            }
            ("PATCH", ["indexes", name]) => {
                let events = self.indexes.get(*name).map(|index| index.events.clone()).unwrap_or_default();
                let index = Index { mib: number("maxDataSizeMB"), kept: number("searchableDays"), events };
                later(self, key, Change::Index(index))
            }
            ("DELETE", ["indexes", _]) => later(self, key, Change::NoIndex),
            ("POST", ["inputs", "http-event-collectors"]) => {
                let texts = |name: &str| serde_json::from_value::<Vec<String>>(ask.json[name].clone()).unwrap();
                let text = |name: &str| ask.json[name].as_str().unwrap().to_owned();
                let (value, sourcetype) = (text("token"), text("defaultSourcetype"));
                let token = Token { value, indexes: texts("allowedIndexes"), sourcetype };
                later(self, format!("{key}/{name}"), Change::Token(token))
            }
            ("DELETE", ["inputs", "http-event-collectors", _]) => later(self, key, Change::NoToken),
            ("GET", [.., name]) => {
                self.progress(&key, name);
                self.look(rest)
            }
            _ => (404, json!({"code": "404", "message": "no such path"})),
        }
    }

    fn progress(&mut self, key: &str, name: &str) {
        match self.pending.remove(key) {
            Some((left, change)) if left > 0 => drop(self.pending.insert(key.to_owned(), (left - 1, change))),
            Some((_, Change::Index(index))) => drop(self.indexes.insert(name.to_owned(), index)),
            Some((_, Change::NoIndex)) => drop(self.indexes.remove(name)),
            Some((_, Change::Token(token))) => drop(self.tokens.insert(name.to_owned(), token)),
            Some((_, Change::NoToken)) => drop(self.tokens.remove(name)),
            None => {}
        }
    }

    fn look(&self, rest: &[&str]) -> Answer {
        let absent = (404, json!({"code": "404-object-not-found", "message": "not found"}));
        match rest {
            ["indexes", name] => self.indexes.get(*name).map_or(absent, |index| {
                (200, json!({"name": name, "datatype": "event", "maxDataSizeMB": index.mib, "searchableDays": index.kept}))
            }),
            ["inputs", "http-event-collectors", name] => self.tokens.get(*name).map_or(absent, |token| {
                let spec = json!({"name": name, "allowedIndexes": token.indexes});
                (200, json!({"http-event-collector": {"spec": spec, "token": token.value}}))
            }),
            _ => absent,
        }
    }
}
