use std::os::unix::fs::symlink;

use settings::{Layers, Settings};

use super::*;

fn posts(set: &[&str]) -> Posts {
    let set = set.iter().map(|&one| one.to_owned()).collect();
    let config: Config = Settings::load(Layers { set, ..Layers::default() }).unwrap().section().unwrap();
    Posts::with(&Tls::open(Files::default()).unwrap(), &config).unwrap()
}

#[test]
fn rows_go_where_the_settings_say_and_nowhere_else() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let posts_ = posts(&["task_worker.http_prefixes=https://hooks.example.com/rows, http://10.0.0.7:8080"]);
    for url in [
        "https://hooks.example.com/rows",
        "https://hooks.example.com/rows/a?x=1",
        "https://HOOKS.example.com:443/rows/",
        "http://10.0.0.7:8080/anything",
    ] {
        assert!(posts_.to(url).is_ok(), "{url}");
    }
    for (url, why) in [
        ("http://hooks.example.com/rows", "below task_worker.http_prefixes"),
        ("https://hooks.example.com/rowsandmore", "below task_worker.http_prefixes"),
        ("https://hooks.example.com/rows/../admin", "below task_worker.http_prefixes"),
        ("https://hooks.example.com/rows/%2e%2e/admin", "below task_worker.http_prefixes"),
        ("https://hooks.example.com.evil.org/rows", "below task_worker.http_prefixes"),
        ("https://hooks.example.com:8443/rows", "below task_worker.http_prefixes"),
        ("https://hooks.example.com@evil.org/rows", "credentials"),
        ("https://user:secret@hooks.example.com/rows", "credentials"),
        ("http://10.0.0.7/", "below task_worker.http_prefixes"),
        ("http://127.0.0.1:8080/", "below task_worker.http_prefixes"),
        ("file:///etc/passwd", "below task_worker.http_prefixes"),
        ("nothing", "its URL"),
    ] {
        let found = posts_.to(url).unwrap_err().to_string();
        assert!(found.contains(why), "{url}: {found}");
        assert!(!found.contains("secret"), "{found}");
    }
    let none = Posts::default().to("https://hooks.example.com/rows").unwrap_err().to_string();
    assert!(none.contains("task_worker.http_prefixes"), "{none}");
}

#[test]
fn headers_name_secrets_of_their_directory_only() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(dir.path().join("token"), "Bearer abc\n").unwrap();
    fs::write(other.path().join("key"), "deep").unwrap();
    symlink(other.path().join("key"), dir.path().join("out")).unwrap();
    let posts = posts(&[&format!("task_worker.http_headers_dir={}", dir.path().display())]);
    let headers = |name: &str, value: &str| posts.headers(&BTreeMap::from([(name.to_owned(), value.to_owned())]));
    let found = headers("Authorization", "file:token").unwrap();
    assert!(found["authorization"] == "Bearer abc" && found["authorization"].is_sensitive());
    assert_eq!(headers("X-Team", "blue").unwrap()["x-team"], "blue");
    let outside = format!("file:{}", other.path().join("key").display());
    for (name, value, why) in [
        ("A", outside.as_str(), "without '/'"),
        ("A", "file:../key", "'..'"),
        ("A", "file:out", "does not lie below"),
        ("A", "file:gone", "file:gone"),
        ("A", "env:HOME", "use file:NAME"),
        ("Host", "x", "leave it out"),
        ("a b", "x", "its name"),
        ("A", "x\r\nB: y", "line end"),
    ] {
        let found = headers(name, value).unwrap_err().to_string();
        assert!(found.contains(why), "{name}: {value}: {found}");
    }
    let none = Posts::default().headers(&BTreeMap::from([("A".to_owned(), "file:token".to_owned())]));
    assert!(none.unwrap_err().to_string().contains("task_worker.http_headers_dir"));
}
