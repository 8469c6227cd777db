//! The network around the servers of a cluster, as links that a test may cut, silence or slow down.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use bus::keys::{ClusterSpec, cluster_config};

use crate::{
    port::free_port,
    proxy::{Proxy, Way},
};

/// What one client of the servers connects through: a proxy before each of them.
#[derive(Debug)]
pub struct Link(Vec<Proxy>);

impl Link {
    pub(crate) async fn open(servers: impl IntoIterator<Item = u16>) -> Result<Self> {
        let mut proxies = Vec::new();
        for port in servers {
            proxies.push(Proxy::open(port).await?);
        }
        Ok(Self(proxies))
    }

    /// Where the client connects: every server, separated by commas.
    pub fn url(&self) -> String {
        self.0.iter().map(|proxy| format!("nats://127.0.0.1:{}", proxy.port())).collect::<Vec<_>>().join(",")
    }

    /// Ends its connections and refuses new ones; what was held back is lost.
    pub fn cut(&self) {
        self.0.iter().for_each(Proxy::cut);
    }

    /// Holds back what it sends, or what it is answered; nobody is told.
    pub fn hold(&self, way: Way) {
        self.0.iter().for_each(|proxy| proxy.hold(way));
    }

    /// Lets everything that is sent on it wait so long.
    pub fn slow(&self, delay: Duration) {
        self.0.iter().for_each(|proxy| proxy.slow(delay));
    }

    /// Works again.
    pub fn mend(&self) {
        self.0.iter().for_each(Proxy::mend);
    }
}

/// The routes between the servers of a cluster; plain, or each through a proxy of its own.
pub(crate) struct Routes {
    ports: Vec<u16>,
    /// From whom to whom a route is opened; a pair of servers may use either of its two.
    proxies: BTreeMap<(usize, usize), Proxy>,
}

impl Routes {
    pub(crate) async fn open(count: usize, proxied: bool) -> Result<Self> {
        let ports = (0..count).map(|_| free_port()).collect::<Result<Vec<_>>>()?;
        let mut proxies = BTreeMap::new();
        let pairs = (0..count).flat_map(|from| (0..count).map(move |to| (from, to)));
        for (from, to) in pairs.filter(|(from, to)| proxied && from != to) {
            proxies.insert((from, to), Proxy::open(ports[to]).await?);
        }
        Ok(Self { ports, proxies })
    }

    /// What makes a server one of the cluster, to be added to its configuration; nothing for a server that is alone.
    pub(crate) fn config(&self, n: usize) -> Result<String> {
        if self.ports.len() < 2 {
            return Ok(String::new());
        }
        let address = |port: u16| format!("127.0.0.1:{port}");
        let proxied = self.proxies.iter().filter(|((from, _), _)| *from == n).map(|(_, proxy)| proxy.port());
        let routes = match self.proxies.is_empty() {
            true => self.ports.clone(),
            false => proxied.collect(),
        };
        let text = cluster_config(&ClusterSpec {
            name: "test".to_owned(),
            listen: address(self.ports[n]),
            routes: routes.into_iter().map(address).collect(),
            password: "between-servers-of-one-test".to_owned(),
        });
        if self.proxies.is_empty() {
            return Ok(text);
        }
        // Who learns an address from a server instead of from us would go around the proxies: clients are told none, and servers
        // one where nobody listens.
        let nowhere = address(free_port()?);
        let quiet = format!("cluster {{\n  no_advertise: true\n  advertise: \"{nowhere}\"\n");
        Ok(text.replacen("cluster {\n", &quiet, 1))
    }

    /// Holds back what a server sends to the others, or what they send to it.
    pub(crate) fn hold(&self, n: usize, way: Way) {
        for ((from, to), proxy) in &self.proxies {
            match way {
                // The server may have opened the route, or the other one.
                _ if *from == n => proxy.hold(way),
                Way::Out if *to == n => proxy.hold(Way::Back),
                Way::Back if *to == n => proxy.hold(Way::Out),
                _ => {}
            }
        }
    }

    pub(crate) fn mend(&self) {
        self.proxies.values().for_each(Proxy::mend);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn routes_lead_through_proxies_and_nowhere_else() {
        let plain = Routes::open(3, false).await.unwrap();
        let text = plain.config(0).unwrap();
        assert!(plain.ports.iter().all(|port| text.contains(&format!("127.0.0.1:{port}"))), "{text}");
        assert!(!text.contains("advertise"), "{text}");
        let proxied = Routes::open(3, true).await.unwrap();
        let text = proxied.config(1).unwrap();
        assert!(text.contains("no_advertise: true") && text.contains("  advertise: \"127.0.0.1:"), "{text}");
        for ((from, _), proxy) in &proxied.proxies {
            assert_eq!(text.contains(&format!("@127.0.0.1:{}\"", proxy.port())), *from == 1, "{text}");
        }
        for n in [0, 2] {
            assert!(!text.contains(&format!(":{}\"", proxied.ports[n])), "a way around: {text}");
        }
        assert_eq!(Routes::open(1, true).await.unwrap().config(0).unwrap(), "");
    }
}
