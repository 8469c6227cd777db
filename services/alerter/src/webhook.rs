//! Posts transitions to webhooks; an error says whether another attempt makes sense.

use std::{error::Error, time::Duration};

use host::{Host, StartError};
use tls::{Files, Tls};
use types::RuleId;
use wire::Problem;

/// Who is believed at receivers: whom the system vouches for, or an authority in the file `ca`, if one is named.
///
/// Tenants say where webhooks go, so nothing of the installation counts here: its authorities vouch for our own listeners, and its
/// certificate would open what only we may call.
pub(crate) fn trust(host: &Host, ca: &str) -> Result<Tls, StartError> {
    match ca {
        "" => Ok(Tls::open(Files::default())?),
        ca => host.trusting("alerter.webhook_ca", ca),
    }
}

/// The connections to receivers.
#[derive(Debug, Clone)]
pub(crate) struct Webhooks(reqwest::Client);

impl Webhooks {
    /// Believes receivers that the system or a named authority vouches for, as the files say at each connection.
    pub(crate) fn new(tls: &Tls, timeout: Duration) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .timeout(timeout)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .tls_backend_preconfigured((*tls.outward()).clone());
        Ok(Self(client.build()?))
    }

    /// One attempt for a rule; the id is the same for each.
    pub(crate) async fn post(&self, rule: &RuleId, url: &str, id: &str, body: Vec<u8>) -> Result<(), Problem> {
        let request = self.0.post(url).header("Idempotency-Key", id).header("Content-Type", "application/json");
        match request.body(body).send().await {
            Ok(response) if response.status().is_success() => Ok(()),
            Ok(response) => {
                let status = response.status();
                // A receiver that is there and refuses this request will refuse it again.
                let final_refusal = status.is_client_error() && !matches!(status.as_u16(), 408 | 425 | 429);
                let message = format!("webhook of rule {rule} answered {status}");
                Err(match final_refusal {
                    true => Problem::bad_request("WebhookRefused", message),
                    false => Problem::unavailable("WebhookFailed", message),
                })
            }
            Err(error) => Err(Problem::unavailable(
                "WebhookUnreachable",
                format_args!("webhook of rule {rule}: {}", reason(&error.without_url())),
            )),
        }
    }
}

/// The innermost reason: the outer ones only say that something could not be sent.
fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it does not answer in time".to_owned();
    }
    let mut innermost: &dyn Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use std::{fs, net::SocketAddr};

    use testkit::{Certificates, World};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };
    use tokio_rustls::TlsAcceptor;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(5);

    /// Takes every post inside TLS, one a connection.
    async fn receiver(address: &str, certificates: &Certificates) -> SocketAddr {
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let (bound, tls) = (listener.local_addr().unwrap(), certificates.tls().unwrap());
        let acceptor = TlsAcceptor::from(tls.server().unwrap());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut text = Vec::new();
                while !text.ends_with(b"\r\n\r\n{}") {
                    assert!(stream.read_buf(&mut text).await.unwrap() > 0, "{}", String::from_utf8_lossy(&text));
                }
                let answer = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
                stream.write_all(answer).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        });
        bound
    }

    #[tokio::test]
    async fn receivers_are_believed_that_an_authority_of_the_moment_vouches_for() {
        rustls::crypto::ring::default_provider().install_default().ok();
        let (ours, foreign) = (Certificates::make().unwrap(), Certificates::make().unwrap());
        let files = Files { ca: Some(ours.path("ca.pem")), ..Files::default() };
        let tls = Tls::open(files).unwrap();
        let webhooks = Webhooks::new(&tls, TIMEOUT).unwrap();
        let rule = "errors".parse().unwrap();
        let post =
            async |at: SocketAddr| webhooks.post(&rule, &format!("https://{at}/hook"), "1", b"{}".to_vec()).await;
        let (here, there) = (receiver("127.0.0.1", &ours).await, receiver("127.0.0.1", &foreign).await);
        post(here).await.unwrap();
        let refused = post(there).await.unwrap_err();
        assert!(refused.is_transient(), "it may be trusted later");
        assert!(refused.message.contains("neither one of the system's nor in"), "{refused}");
        let misnamed = post(receiver("127.0.0.2", &ours).await).await.unwrap_err();
        assert!(misnamed.message.contains("it is not for 127.0.0.2"), "{misnamed}");
        // The file names the other authority from now on; the client stays the same.
        fs::copy(foreign.path("ca.pem"), ours.path("ca.pem")).unwrap();
        assert!(tls.reload().unwrap());
        post(there).await.unwrap();
        assert!(post(here).await.is_err());
    }

    #[tokio::test]
    async fn without_named_authorities_those_of_the_system_count() {
        rustls::crypto::ring::default_provider().install_default().ok();
        let certificates = Certificates::make().unwrap();
        let webhooks = Webhooks::new(&Tls::open(Files::default()).unwrap(), TIMEOUT).unwrap();
        let url = format!("https://{}/hook", receiver("127.0.0.1", &certificates).await);
        let refused = webhooks.post(&"errors".parse().unwrap(), &url, "1", b"{}".to_vec()).await.unwrap_err();
        assert!(
            refused.message.contains("none of the system's") && refused.message.contains("alerter.webhook_ca"),
            "{refused}"
        );
    }

    #[tokio::test]
    async fn receivers_are_not_shown_who_we_are_nor_believed_for_being_ours() {
        let world = World::start_tls().await.unwrap();
        let common = world.common("a0", &[]).unwrap();
        let host = Host::connect(wire::Service::Alerter, common).await.unwrap();
        assert!(host.tls.outward().client_auth_cert_resolver.has_certs(), "the process has a certificate");
        let ours = world.certificates.as_ref().unwrap();
        let url = format!("https://{}/hook", receiver("127.0.0.1", ours).await);
        for (ca, is_believed) in [(String::new(), false), (ours.path("ca.pem").display().to_string(), true)] {
            let tls = trust(&host, &ca).unwrap();
            assert!(!tls.outward().client_auth_cert_resolver.has_certs(), "{ca}");
            let webhooks = Webhooks::new(&tls, TIMEOUT).unwrap();
            let posted = webhooks.post(&"errors".parse().unwrap(), &url, "1", b"{}".to_vec()).await;
            assert_eq!(posted.is_ok(), is_believed, "{ca}: {posted:?}");
        }
    }
}
