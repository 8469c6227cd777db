//! The console page: files compiled into the program.

use std::{collections::BTreeMap, io::Write, sync::LazyLock};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        StatusCode,
        header::{
            ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderName, IF_NONE_MATCH, VARY,
        },
    },
    web::{Bytes, Path},
};
use data_encoding::HEXLOWER;
use flate2::{Compression, write::GzEncoder};
use rust_embed::RustEmbed;
use wire::Problem;

use crate::error::HttpError;

/// Everything comes from here and nothing may be run or loaded from elsewhere, whatever a log line holds.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

#[derive(RustEmbed)]
#[folder = "$CARGO_MANIFEST_DIR/console/dist/"]
struct Files;

/// A file as it is sent.
struct File {
    kind: &'static str,
    /// Of the content: a browser that has it is told that nothing changed.
    tag: String,
    plain: Bytes,
    /// `None` where packing it fails.
    packed: Option<Bytes>,
}

/// Every file by its name, packed once.
static FILES: LazyLock<BTreeMap<String, File>> = LazyLock::new(|| {
    let named = |name: std::borrow::Cow<'static, str>| {
        let found = Files::get(&name)?;
        let plain = Bytes::from(found.data.into_owned());
        let tag = format!("\"{}\"", HEXLOWER.encode(&found.metadata.sha256_hash()[..8]));
        Some((name.to_string(), File { kind: kind(&name), tag, packed: packed(&plain).ok(), plain }))
    };
    Files::iter().filter_map(named).collect()
});

fn packed(plain: &[u8]) -> std::io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(plain)?;
    encoder.finish().map(Bytes::from)
}

fn kind(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, end)| end) {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

/// `GET /`.
pub(crate) async fn page(request: HttpRequest) -> Result<HttpResponse, HttpError> {
    answer(&request, "index.html")
}

/// `GET /console/{file}`.
pub(crate) async fn asset(request: HttpRequest, name: Path<String>) -> Result<HttpResponse, HttpError> {
    answer(&request, &name)
}

fn answer(request: &HttpRequest, name: &str) -> Result<HttpResponse, HttpError> {
    let found = FILES.get(name);
    let file =
        found.ok_or_else(|| Problem::not_found("UnknownPath", format_args!("the console has no file {name}")))?;
    let says = |header: HeaderName, word: &str| {
        request.headers().get(header).and_then(|value| value.to_str().ok()).is_some_and(|value| value.contains(word))
    };
    let known = says(IF_NONE_MATCH, &file.tag);
    let mut answer = HttpResponse::build(if known { StatusCode::NOT_MODIFIED } else { StatusCode::OK });
    answer
        .insert_header((ETAG, file.tag.clone()))
        .insert_header((CACHE_CONTROL, "no-cache"))
        .insert_header((VARY, "accept-encoding"))
        .insert_header(("content-security-policy", POLICY))
        .insert_header(("referrer-policy", "no-referrer"))
        .insert_header(("x-frame-options", "DENY"));
    if known {
        return Ok(answer.finish());
    }
    answer.insert_header((CONTENT_TYPE, file.kind));
    Ok(match &file.packed {
        Some(packed) if says(ACCEPT_ENCODING, "gzip") => {
            answer.insert_header((CONTENT_ENCODING, "gzip")).body(packed.clone())
        }
        _ => answer.body(file.plain.clone()),
    })
}

#[cfg(test)]
mod tests {
    use actix_web::{body::to_bytes, test::TestRequest};

    use super::*;

    /// What the whole page may weigh on its way.
    const PACKED_BYTES_MAX: usize = 150_000;

    #[test]
    fn the_page_is_small_and_names_only_files_that_there_are() {
        let packed: usize = FILES.values().map(|file| file.packed.as_ref().unwrap().len()).sum();
        assert!(packed > 10_000 && packed < PACKED_BYTES_MAX, "all files take {packed} bytes");
        for (name, file) in FILES.iter() {
            let text = std::str::from_utf8(&file.plain).unwrap();
            let imports = text.split("from \"./").skip(1);
            let links = text.split("=\"/console/").skip(1);
            for named in imports.chain(links).filter_map(|rest| rest.split('"').next()) {
                assert!(FILES.contains_key(named), "{name} names {named}");
            }
        }
    }

    #[actix_web::test]
    async fn files_are_packed_for_who_can_unpack_and_sent_once() {
        let ask = |headers: &[(&'static str, &str)]| {
            let request = headers.iter().fold(TestRequest::get(), |request, header| request.insert_header(*header));
            answer(&request.to_http_request(), "index.html").unwrap()
        };
        let whole = ask(&[]);
        assert!(whole.headers().get(CONTENT_ENCODING).is_none());
        let tag = whole.headers().get(ETAG).unwrap().to_str().unwrap().to_owned();
        let whole = to_bytes(whole.into_body()).await.unwrap();
        let packed = ask(&[("accept-encoding", "br, gzip")]);
        assert_eq!(packed.headers().get(CONTENT_ENCODING).unwrap(), "gzip");
        let packed = to_bytes(packed.into_body()).await.unwrap();
        let mut unpacked = String::new();
        std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&packed[..]), &mut unpacked).unwrap();
        assert_eq!(unpacked.as_bytes(), whole);
        assert_eq!(ask(&[("if-none-match", &tag)]).status(), StatusCode::NOT_MODIFIED);
        assert_eq!(ask(&[("if-none-match", "\"other\"")]).status(), StatusCode::OK);
        assert!(answer(&TestRequest::get().to_http_request(), "../lib.rs").is_err());
    }
}
