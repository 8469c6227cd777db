//! Who is there: both ends prove that they know the secret, without saying it.
//!
//! The acceptor sends a nonce; the dialler answers with its own nonce, its address and a proof over all three; the
//! acceptor answers with its proof. Until then every read has a fixed length and a deadline, so a stranger can make us
//! neither allocate nor wait. The nonces are fresh, and the two proofs have different labels, so neither can be replayed.
//! Inside TLS the proofs are also over what only the two ends of that very TLS connection know.

use std::{io, net::SocketAddr, time::Duration};

use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use crate::{
    Error,
    link::{BOTH_SPEAK, distrust},
};

/// The shortest secret taken, in bytes; anything shorter could be guessed from one recorded handshake.
pub const SECRET_BYTES_MIN: usize = 16;

/// How long a handshake may take.
pub(crate) const HANDSHAKE_MAX: Duration = Duration::from_secs(5);

const MAGIC: [u8; 4] = *b"LBX1";
const NONCE: usize = 32;
const PROOF: usize = 32;
/// The longest text of a socket address is shorter: `[8 x 4 digits]:port` with a scope.
const ADDRESS: usize = 64;
const HELLO: usize = 4 + NONCE + ADDRESS + PROOF;

/// The shared secret, ready for use.
pub(crate) struct Secret(hmac::Key);

impl Secret {
    pub(crate) fn new(secret: &str) -> Result<Self, Error> {
        if secret.len() < SECRET_BYTES_MIN {
            return Err(Error::WeakSecret { found: secret.len() });
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes())))
    }
}

fn words(label: &str, acceptor: &[u8], dialler: &[u8], address: &[u8], binding: &[u8]) -> Vec<u8> {
    [label.as_bytes(), acceptor, dialler, address, binding].concat()
}

fn nonce() -> Result<[u8; NONCE], String> {
    let mut out = [0; NONCE];
    SystemRandom::new().fill(&mut out).map_err(|_| "no randomness".to_owned())?;
    Ok(out)
}

fn cut_off(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return "the peer hung up: is the secret the same on both workers?".to_owned();
    }
    distrust(error).unwrap_or_else(|| error.to_string())
}

async fn read<const N: usize>(stream: &mut (impl AsyncRead + Unpin)) -> Result<[u8; N], String> {
    let mut out = [0; N];
    stream.read_exact(&mut out).await.map_err(|e| cut_off(&e))?;
    Ok(out)
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<(), String> {
    let sent = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    sent.await.map_err(|error| cut_off(&error))
}

/// Proves ourselves to the peer that we dialled, and has it prove itself.
///
/// `binding` is what the two ends of a TLS connection share; it is empty without TLS.
pub(crate) async fn dial(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    secret: &Secret,
    own: SocketAddr,
    peer: SocketAddr,
    binding: &[u8],
) -> Result<(), Error> {
    let talk = async {
        let greeting: [u8; 4 + NONCE] = read(stream).await?;
        if greeting[..4] != MAGIC {
            return Err("the peer is not an exchange of this version".to_owned());
        }
        let mut address = [0; ADDRESS];
        let text = own.to_string();
        address.get_mut(..text.len()).ok_or("own address is too long")?.copy_from_slice(text.as_bytes());
        let own_nonce = nonce()?;
        let proof = hmac::sign(&secret.0, &words("dialler", &greeting[4..], &own_nonce, &address, binding));
        let hello = [MAGIC.as_slice(), &own_nonce, &address, proof.as_ref()].concat();
        send(stream, &hello).await?;
        let welcome: [u8; PROOF] = read(stream).await?;
        hmac::verify(&secret.0, &words("acceptor", &greeting[4..], &own_nonce, &address, binding), &welcome)
            .map_err(|_| "the peer does not know the secret".to_owned())
    };
    let outcome =
        timeout(HANDSHAKE_MAX, talk).await.unwrap_or_else(|_| Err(format!("no answer in time; {BOTH_SPEAK}")));
    outcome.map_err(|problem| Error::Handshake { peer, problem })
}

/// Has the stranger prove itself, then proves ourselves; returns the address at which the peer listens.
pub(crate) async fn accept(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    secret: &Secret,
    from: SocketAddr,
    binding: &[u8],
) -> Result<SocketAddr, Error> {
    let talk = async {
        let own_nonce = nonce()?;
        send(stream, &[MAGIC.as_slice(), &own_nonce].concat()).await?;
        let hello: [u8; HELLO] = read(stream).await?;
        let (body, proof) = hello.split_at(HELLO - PROOF);
        let (nonce, address) = body[4..].split_at(NONCE);
        if body[..4] != MAGIC {
            return Err("the peer is not an exchange of this version".to_owned());
        }
        hmac::verify(&secret.0, &words("dialler", &own_nonce, nonce, address, binding), proof)
            .map_err(|_| "the peer does not know the secret".to_owned())?;
        let text = std::str::from_utf8(address).map_err(|e| e.to_string())?;
        let peer = text.trim_end_matches('\0').parse().map_err(|e| format!("address of the peer: {e}"))?;
        let welcome = hmac::sign(&secret.0, &words("acceptor", &own_nonce, nonce, address, binding));
        send(stream, welcome.as_ref()).await?;
        Ok(peer)
    };
    let outcome =
        timeout(HANDSHAKE_MAX, talk).await.unwrap_or_else(|_| Err(format!("no answer in time; {BOTH_SPEAK}")));
    outcome.map_err(|problem| Error::Handshake { peer: from, problem })
}
