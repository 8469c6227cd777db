//! Real handshakes, without a socket between the two ends.

use std::{fs, path::Path, sync::Arc};

use rustls::{
    ClientConfig, ClientConnection, Error, RootCertStore, ServerConfig, ServerConnection,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tempfile::TempDir;
use types::Timestamp;

use crate::{Authority, Files, Tls};

const DAY: std::time::Duration = std::time::Duration::from_secs(24 * 3_600);

#[allow(clippy::disallowed_methods, reason = "the library compares certificates with the system's clock")]
fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap())
}

fn names() -> Vec<String> {
    vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "*.logs.example".to_owned()]
}

fn files(dir: &Path) -> Files {
    let at = |name: &str| Some(dir.join(name));
    Files { certificate: at("certificate.pem"), key: at("key.pem"), ca: at("ca.pem") }
}

/// A certificate of that authority, issued at that time, in the files.
fn write(dir: &Path, authority: &Authority, at: Timestamp) {
    let issued = authority.issue(&names(), at, 30).unwrap();
    fs::write(dir.join("ca.pem"), authority.certificate()).unwrap();
    fs::write(dir.join("certificate.pem"), issued.certificate).unwrap();
    fs::write(dir.join("key.pem"), issued.key).unwrap();
}

fn side(authority: &Authority) -> (TempDir, Tls) {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), authority, now());
    let tls = Tls::open(files(dir.path())).unwrap();
    (dir, tls)
}

/// Shakes hands; the answer is the certificate that the client saw, or the first side's refusal.
fn shake(client: Option<Arc<ClientConfig>>, server: Option<Arc<ServerConfig>>, name: &str) -> Result<Vec<u8>, Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(client.unwrap(), name)?;
    let mut server = ServerConnection::new(server.unwrap())?;
    while client.is_handshaking() || server.is_handshaking() || client.wants_write() || server.wants_write() {
        let (mut there, mut back) = (Vec::new(), Vec::new());
        while client.wants_write() {
            client.write_tls(&mut there).unwrap();
        }
        let mut there = there.as_slice();
        while !there.is_empty() {
            server.read_tls(&mut there).unwrap();
            server.process_new_packets()?;
        }
        while server.wants_write() {
            server.write_tls(&mut back).unwrap();
        }
        let mut back = back.as_slice();
        while !back.is_empty() {
            client.read_tls(&mut back).unwrap();
            client.process_new_packets()?;
        }
    }
    Ok(client.peer_certificates().unwrap()[0].to_vec())
}

#[test]
fn those_of_one_authority_understand_each_other() {
    let authority = Authority::generate(now()).unwrap();
    let ((_a, here), (_b, there)) = (side(&authority), side(&authority));
    for name in ["localhost", "127.0.0.1", "shop.logs.example"] {
        shake(here.client(), there.server(), name).unwrap();
    }
    let peers = |tls: &Tls| tls.peers().unwrap();
    shake(Some(peers(&here).client), Some(peers(&there).server), "10.0.0.7").expect("peers are known by address only");
}

#[test]
fn what_is_not_trusted_is_refused_in_words() {
    let (ours, theirs) = (Authority::generate(now()).unwrap(), Authority::generate(now()).unwrap());
    let ((_a, here), (_b, there)) = (side(&ours), side(&theirs));
    let refused = |client, server, name, words: &[&str]| {
        let text = shake(client, server, name).unwrap_err().to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{words:?}: {text}");
    };
    refused(here.client(), there.server(), "localhost", &["not in", "ca.pem", "common.tls_ca"]);
    refused(here.client(), here.server(), "elsewhere", &["not for elsewhere", "localhost", "--host elsewhere"]);
    let (mine, other) = (here.peers().unwrap(), there.peers().unwrap());
    refused(Some(other.client), Some(Arc::clone(&mine.server)), "localhost", &["common.tls_ca"]);
    // Somebody who trusts us, but shows nothing.
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("ca.pem"), ours.certificate()).unwrap();
    let nobody = Tls::open(Files { ca: Some(dir.path().join("ca.pem")), ..Files::default() }).unwrap();
    assert!(nobody.server().is_none() && nobody.peers().is_none());
    refused(nobody.client(), Some(mine.server), "localhost", &["no certificates"]);
    let (old, past) = (tempfile::tempdir().unwrap(), now() - 60 * DAY);
    write(old.path(), &ours, past);
    let expired = Tls::open(files(old.path())).unwrap();
    assert!(expired.expires().unwrap() < now());
    refused(here.client(), expired.server(), "localhost", &["has expired", "renew"]);
}

#[test]
fn new_files_are_used_by_the_next_handshake() {
    let authority = Authority::generate(now()).unwrap();
    let ((dir, here), (_b, there)) = (side(&authority), side(&authority));
    let (client, server) = (there.client(), here.server());
    let first = shake(client.clone(), server.clone(), "localhost").unwrap();
    assert!(!here.reload().unwrap());
    write(dir.path(), &authority, now());
    assert_eq!(shake(client.clone(), server.clone(), "localhost").unwrap(), first, "nobody has looked yet");
    assert!(here.reload().unwrap());
    assert_ne!(shake(client, server, "localhost").unwrap(), first);
    assert!(!here.reload().unwrap());
}

#[test]
fn an_authority_is_taken_in_and_let_go_without_a_restart() {
    let (old, new) = (Authority::generate(now()).unwrap(), Authority::generate(now()).unwrap());
    let ((dir, here), (_b, there)) = (side(&old), side(&new));
    let (client, server) = (here.client(), there.server());
    shake(client.clone(), server.clone(), "localhost").unwrap_err();
    fs::write(dir.path().join("ca.pem"), format!("{}{}", old.certificate(), new.certificate())).unwrap();
    assert!(here.reload().unwrap());
    shake(client.clone(), server.clone(), "localhost").unwrap();
    fs::write(dir.path().join("ca.pem"), old.certificate()).unwrap();
    assert!(here.reload().unwrap());
    shake(client, server, "localhost").unwrap_err();
}

/// Leaves the first half of a file.
fn cut(path: &Path) {
    let text = fs::read(path).unwrap();
    fs::write(path, &text[..text.len() / 2]).unwrap();
}

#[test]
fn broken_files_leave_what_was_good_in_use() {
    let authority = Authority::generate(now()).unwrap();
    let other = authority.issue(&names(), now(), 30).unwrap();
    type Break = fn(&Path, &str);
    let cases: [(&str, Break); 9] = [
        ("cannot be read", |dir, _| fs::remove_file(dir.join("key.pem")).unwrap()),
        ("does not belong to the first certificate", |dir, key| fs::write(dir.join("key.pem"), key).unwrap()),
        ("holds no private key", |dir, _| fs::write(dir.join("key.pem"), "").unwrap()),
        ("holds no certificate chain", |dir, _| fs::write(dir.join("certificate.pem"), "nothing").unwrap()),
        ("certificate.pem is not valid", |dir, _| {
            let text = fs::read_to_string(dir.join("certificate.pem")).unwrap();
            fs::write(dir.join("certificate.pem"), text.replacen("-----\n", "-----\nAAAA", 1)).unwrap();
        }),
        // Whoever writes them is at work.
        ("certificate.pem is not valid", |dir, _| cut(&dir.join("certificate.pem"))),
        ("key.pem is not valid", |dir, _| cut(&dir.join("key.pem"))),
        ("holds no certificates of authorities", |dir, key| fs::write(dir.join("ca.pem"), key).unwrap()),
        ("larger than", |dir, _| fs::write(dir.join("ca.pem"), vec![b' '; 2 << 20]).unwrap()),
    ];
    for (words, damage) in cases {
        let (dir, tls) = side(&authority);
        let before = shake(tls.client(), tls.server(), "localhost").unwrap();
        damage(dir.path(), &other.key);
        for _ in 0..2 {
            let text = tls.reload().unwrap_err().to_string();
            assert!(text.contains(words), "{words}: {text}");
            assert!(!text.contains("BEGIN"), "{text}");
        }
        assert_eq!(shake(tls.client(), tls.server(), "localhost").unwrap(), before, "{words}");
        let opened = Tls::open(files(dir.path())).unwrap_err();
        assert!(opened.to_string().contains(words), "a start tells the same: {opened}");
        write(dir.path(), &authority, now());
        assert!(tls.reload().unwrap(), "{words}: repaired");
        assert_ne!(shake(tls.client(), tls.server(), "localhost").unwrap(), before);
    }
}

#[test]
fn a_link_that_is_swapped_is_a_change() {
    let authority = Authority::generate(now()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    // What the kubelet does: the files are links through `..data`, which is replaced by a rename.
    for version in ["v1", "v2"] {
        fs::create_dir(dir.path().join(version)).unwrap();
        write(&dir.path().join(version), &authority, now());
    }
    std::os::unix::fs::symlink("v1", dir.path().join("..data")).unwrap();
    for name in ["ca.pem", "certificate.pem", "key.pem"] {
        std::os::unix::fs::symlink(format!("..data/{name}"), dir.path().join(name)).unwrap();
    }
    let tls = Tls::open(files(dir.path())).unwrap();
    let first = shake(tls.client(), tls.server(), "localhost").unwrap();
    std::os::unix::fs::symlink("v2", dir.path().join("..new")).unwrap();
    fs::rename(dir.path().join("..new"), dir.path().join("..data")).unwrap();
    assert!(tls.reload().unwrap());
    assert_ne!(shake(tls.client(), tls.server(), "localhost").unwrap(), first);
}

#[test]
fn an_authority_is_kept_as_two_texts() {
    let authority = Authority::generate(now()).unwrap();
    let (certificate, key) = (authority.certificate().to_owned(), authority.key().unwrap());
    let again = Authority::from_pem(&certificate, &key).unwrap();
    let issued = again.issue(&names(), now(), 30).unwrap();
    let vouches = |names: &[&str], at| {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        authority.vouches(&issued.certificate, &names, at)
    };
    assert!(vouches(&["localhost", "*.logs.example", "127.0.0.1"], now()));
    assert!(vouches(&["localhost"], now() + 29 * DAY) && !vouches(&["localhost"], now() + 32 * DAY));
    assert!(!vouches(&["localhost", "elsewhere"], now()));
    let other = Authority::generate(now()).unwrap();
    assert!(!other.vouches(&issued.certificate, &["localhost".to_owned()], now()));
    assert!(Authority::from_pem(other.certificate(), &key).is_err(), "not a pair");
    assert!(Authority::from_pem("", &key).is_err() && Authority::from_pem(&certificate, "").is_err());
    assert!(authority.issue(&[], now(), 1).is_err() && authority.issue(&["ä b".to_owned()], now(), 1).is_err());
    assert!(!format!("{authority:?} {issued:?}").contains("PRIVATE"), "keys do not print");
}

#[test]
fn outside_both_the_system_and_the_named_authorities_are_believed() {
    let (ours, new) = (Authority::generate(now()).unwrap(), Authority::generate(now()).unwrap());
    let ((dir, here), (_b, there)) = (side(&ours), side(&new));
    let text = shake(Some(here.outward()), there.server(), "localhost").unwrap_err().to_string();
    assert!(text.contains("neither one of the system's nor in") && text.contains("add that authority"), "{text}");
    shake(Some(here.outward()), here.server(), "localhost").unwrap();
    let text = shake(Some(here.outward()), here.server(), "elsewhere").unwrap_err().to_string();
    assert!(text.contains("not for elsewhere"), "{text}");
    let outward = here.outward();
    fs::write(dir.path().join("ca.pem"), format!("{}{}", ours.certificate(), new.certificate())).unwrap();
    assert!(here.reload().unwrap());
    shake(Some(Arc::clone(&outward)), there.server(), "localhost").expect("taken up without a new configuration");
    fs::write(dir.path().join("ca.pem"), ours.certificate()).unwrap();
    assert!(here.reload().unwrap());
    shake(Some(outward), there.server(), "localhost").unwrap_err();
    let nobody = Tls::open(Files::default()).unwrap();
    let text = shake(Some(nobody.outward()), there.server(), "localhost").unwrap_err().to_string();
    assert!(text.contains("none of the system's") && text.contains("common.tls_ca"), "{text}");
}

#[test]
fn a_certificate_is_shown_to_those_who_know_its_authority_and_to_those_who_ask_for_any() {
    let authority = Authority::generate(now()).unwrap();
    let (dir, here) = side(&authority);
    // Without an authority of our own, as a service that believes the system's and has a certificate.
    let own = Files { ca: None, ..files(dir.path()) };
    let own = Tls::open(own).unwrap();
    let shown = |hints: &[&[u8]]| own.outward().client_auth_cert_resolver.resolve(hints, &[]).is_some();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.certificate().as_bytes()).unwrap()).unwrap();
    let known = roots.subjects().remove(0);
    assert!(shown(&[]) && shown(&[known.as_ref()]) && shown(&[b"0\x00", known.as_ref()]));
    assert!(!shown(&[b"0\x00"]), "it asks for certificates of somebody else");
    // A peer that demands one.
    let demanding = here.peers().unwrap().server;
    let trusting = own.outward();
    let refused = shake(Some(trusting), Some(Arc::clone(&demanding)), "localhost").unwrap_err().to_string();
    assert!(refused.contains("none of the system's"), "{refused}");
    shake(Some(here.outward()), Some(demanding), "localhost").expect("it was shown");
}
