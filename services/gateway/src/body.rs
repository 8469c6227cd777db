//! Bodies of requests: read within a time, unpacked within a size.

use std::{fmt, io::Read, time::Duration};

use actix_web::HttpRequest;
use bytes::{Bytes, BytesMut};
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use futures::{Stream, StreamExt};
use tokio::time::{Instant, timeout_at};
use wire::Problem;

use crate::error::HttpError;

/// How long a body may take to arrive: it holds one of few places meanwhile.
const BODY_WITHIN: Duration = Duration::from_secs(60);
/// Work on bodies above it is done elsewhere: at 100 MB/s this keeps the other connections of a thread waiting for a millisecond.
const APART_BYTES_MIN: usize = 128 << 10;
/// The largest window of zstd, 8 MiB: that of its level 19. A larger one would be memory beyond the body's bound.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// What a framed snappy stream begins with; without it the body is one block.
const SNAPPY_FRAMED: &[u8] = b"\xff\x06\x00\x00sNaPpY";

/// How a body is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Identity,
    Gzip,
    Deflate,
    Zstd,
    Snappy,
}

/// Why there is no body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyFault {
    #[error("the body did not arrive within {} s: send it in parts", BODY_WITHIN.as_secs())]
    Late,
    #[error("{0}")]
    Broken(String),
    #[error("the body is larger than {0} bytes; send it in parts")]
    TooLarge(usize),
    #[error("the body is not {encoding}: {why}")]
    Packed { encoding: &'static str, why: String },
    #[error("Content-Encoding {0:?} is not supported; use gzip, deflate, zstd, snappy or none")]
    Unsupported(String),
    #[error("decompression ended early: {0}")]
    Ended(String),
}

impl BodyFault {
    /// Whether the same body may well be read another time.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, Self::Late | Self::Broken(_) | Self::Ended(_))
    }
}

impl From<BodyFault> for HttpError {
    fn from(fault: BodyFault) -> Self {
        match fault {
            BodyFault::Late | BodyFault::Broken(_) | BodyFault::Packed { .. } => {
                Problem::bad_request("BodyUnreadable", fault).into()
            }
            BodyFault::TooLarge(_) => Self::too_large(fault),
            BodyFault::Unsupported(_) => Self::unsupported(fault),
            BodyFault::Ended(_) => Problem::internal(fault).into(),
        }
    }
}

impl Encoding {
    /// As the request says it.
    pub(crate) fn of(request: &HttpRequest) -> Result<Self, BodyFault> {
        Self::named(request.headers().get("content-encoding").and_then(|value| value.to_str().ok()).unwrap_or(""))
    }

    /// As it is called.
    pub(crate) fn named(said: &str) -> Result<Self, BodyFault> {
        match said.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(Self::Identity),
            "gzip" | "x-gzip" => Ok(Self::Gzip),
            "deflate" => Ok(Self::Deflate),
            "zstd" => Ok(Self::Zstd),
            "snappy" | "x-snappy" => Ok(Self::Snappy),
            other => Err(BodyFault::Unsupported(other.to_owned())),
        }
    }
}

/// The unpacked body, never more than `max` bytes of it.
pub(crate) async fn read<E: fmt::Display>(
    payload: impl Stream<Item = Result<Bytes, E>> + Unpin,
    encoding: Encoding,
    max: usize,
) -> Result<Bytes, BodyFault> {
    let raw = raw(payload, max).await?;
    if encoding == Encoding::Identity {
        return Ok(raw.freeze());
    }
    // Hundreds of MiB may come out of one MiB, which no thread that serves connections may wait for.
    let unpacked = tokio::task::spawn_blocking(move || unpack(encoding, &raw, max)).await;
    unpacked.map_err(|error| BodyFault::Ended(error.to_string()))?
}

/// A body as it was sent: no more than `max` bytes of it, and not longer than [`BODY_WITHIN`].
async fn raw<E: fmt::Display>(
    mut payload: impl Stream<Item = Result<Bytes, E>> + Unpin,
    max: usize,
) -> Result<BytesMut, BodyFault> {
    let until = Instant::now() + BODY_WITHIN;
    let mut raw = BytesMut::new();
    while let Some(part) = timeout_at(until, payload.next()).await.map_err(|_| BodyFault::Late)? {
        let part = part.map_err(|error| BodyFault::Broken(error.to_string()))?;
        if raw.len() + part.len() > max {
            return Err(BodyFault::TooLarge(max));
        }
        raw.extend_from_slice(&part);
    }
    Ok(raw)
}

fn unpack(encoding: Encoding, packed: &[u8], max: usize) -> Result<Bytes, BodyFault> {
    let (name, unpacked) = match encoding {
        Encoding::Identity => ("", Ok(Bytes::copy_from_slice(packed))),
        Encoding::Gzip => ("gzip", up_to(MultiGzDecoder::new(packed), max)),
        Encoding::Deflate => ("deflate", up_to(ZlibDecoder::new(packed), max)),
        Encoding::Zstd => ("zstd", unzstd(packed, max)),
        Encoding::Snappy if packed.starts_with(SNAPPY_FRAMED) => {
            ("snappy", up_to(snap::read::FrameDecoder::new(packed), max))
        }
        Encoding::Snappy => ("snappy", unsnap(packed, max)),
    };
    match unpacked {
        Ok(bytes) if bytes.len() > max => Err(BodyFault::TooLarge(max)),
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(BodyFault::Packed { encoding: name, why: error.to_string() }),
    }
}

/// All that comes out, and of what is more than `max` one byte.
fn up_to(source: impl Read, max: usize) -> std::io::Result<Bytes> {
    let mut unpacked = Vec::new();
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    source.take(limit).read_to_end(&mut unpacked)?;
    Ok(unpacked.into())
}

fn unzstd(packed: &[u8], max: usize) -> std::io::Result<Bytes> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(packed)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
    up_to(decoder, max)
}

/// One block, which says first how long it will be.
fn unsnap(packed: &[u8], max: usize) -> std::io::Result<Bytes> {
    if snap::raw::decompress_len(packed)? > max {
        return Ok(vec![0; max + 1].into());
    }
    Ok(snap::raw::Decoder::new().decompress_vec(packed)?.into())
}

/// Does at once what is small, and where no connection waits for it what is not.
pub(crate) async fn apart<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    if bytes < APART_BYTES_MIN {
        return Ok(work());
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Problem::internal(format_args!("reading the body ended early: {error}")))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn packed(encoding: Encoding, bytes: &[u8]) -> Vec<u8> {
        let best = flate2::Compression::best();
        match encoding {
            Encoding::Identity => bytes.to_vec(),
            Encoding::Gzip => {
                let mut packer = flate2::write::GzEncoder::new(Vec::new(), best);
                packer.write_all(bytes).unwrap();
                packer.finish().unwrap()
            }
            Encoding::Deflate => {
                let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), best);
                packer.write_all(bytes).unwrap();
                packer.finish().unwrap()
            }
            Encoding::Zstd => zstd::encode_all(bytes, 19).unwrap(),
            Encoding::Snappy => snap::raw::Encoder::new().compress_vec(bytes).unwrap(),
        }
    }

    #[test]
    fn unpacking_stops_at_the_bound() {
        let large = vec![b'x'; 1 << 20];
        for encoding in [Encoding::Gzip, Encoding::Deflate, Encoding::Zstd, Encoding::Snappy] {
            let packed = packed(encoding, &large);
            assert!(packed.len() < 60_000, "{encoding:?}");
            assert_eq!(unpack(encoding, &packed, 1 << 20).unwrap(), large, "{encoding:?}");
            assert_eq!(unpack(encoding, &packed, (1 << 20) - 1), Err(BodyFault::TooLarge((1 << 20) - 1)));
            for damaged in [&packed[..packed.len() / 2], b"neither of them"] {
                let fault = unpack(encoding, damaged, 1 << 20).unwrap_err();
                assert!(matches!(fault, BodyFault::Packed { .. }), "{encoding:?}: {fault}");
            }
        }
        let mut framed = snap::write::FrameEncoder::new(Vec::new());
        framed.write_all(&large).unwrap();
        let framed = framed.into_inner().unwrap();
        assert_eq!(unpack(Encoding::Snappy, &framed, 1 << 20).unwrap(), large);
        assert!(unpack(Encoding::Snappy, &framed, 1_000).is_err());
    }

    #[test]
    fn no_window_is_larger_than_the_bound() {
        let mut packer = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        packer.window_log(27).unwrap();
        packer.include_contentsize(false).unwrap();
        packer.write_all(&vec![b'x'; 100_000]).unwrap();
        let fault = unpack(Encoding::Zstd, &packer.finish().unwrap(), 1 << 20).unwrap_err();
        assert!(matches!(fault, BodyFault::Packed { encoding: "zstd", .. }), "{fault}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_has_a_minute_to_arrive() {
        let part = |text: &'static str| Ok::<_, String>(Bytes::from_static(text.as_bytes()));
        let whole = futures::stream::iter([part("ab"), part("cd")]);
        assert_eq!(raw(whole.boxed(), 4).await.unwrap(), "abcd");
        let begun = Instant::now();
        // A byte now and then keeps no place for ever.
        let slow = futures::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_secs(9)).await;
            Some((Ok::<_, String>(Bytes::from_static(b"x")), ()))
        });
        let fault = raw(slow.boxed(), 1 << 20).await.unwrap_err();
        assert_eq!((fault.clone(), begun.elapsed()), (BodyFault::Late, BODY_WITHIN));
        let refused = HttpError::from(fault).to_string();
        assert!(refused.contains("BodyUnreadable") && refused.contains("within 60 s"), "{refused}");
    }
}
