//! The JSON in a request's body, out of gzip, form and base64.

use std::borrow::Cow;
use std::io::Read;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use flate2::read::MultiGzDecoder;
use percent_encoding::percent_decode;
use ureq_proto::http::{HeaderMap, StatusCode, header};

use crate::reply::{Reply, ReplyFormat};

/// Base64 with or without padding at the end.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Returns the JSON of a body: the body itself or, in a form, its field `data`, plain or in base64.
/// A content type that is not documented is read as JSON. gzip is documented for events alone, and a form
/// for updates alone; each is accepted for both.
///
/// A form may hold parameters beside `data`; those that choose the reply's format go into `format`.
pub(crate) fn decode<'a>(
    headers: &HeaderMap,
    body: &'a [u8],
    max: usize,
    format: &mut ReplyFormat,
) -> Result<Cow<'a, [u8]>, Reply> {
    let body = decompress(headers, body, max)?;
    if body.trim_ascii().is_empty() {
        return Err(bad_request("the body is empty"));
    }
    let is = |name: &str| media_type(headers).eq_ignore_ascii_case(name);
    // `sendBeacon` in mixpanel-js calls its form a text.
    let is_form =
        is("application/x-www-form-urlencoded") || (is("text/plain") && body.starts_with(b"data="));
    if !is_form {
        return Ok(body);
    }
    format.read(&body);
    decode_form(&body)
}

/// Returns the JSON in the field `data` of a form, or of a query: some official SDKs send updates in
/// the query.
pub(crate) fn decode_form<'a>(form: &[u8]) -> Result<Cow<'a, [u8]>, Reply> {
    let mut fields = form.split(|byte| *byte == b'&');
    let Some(data) = fields.find_map(|field| field.strip_prefix(b"data=")) else {
        return Err(bad_request("the form has no field named data"));
    };
    // As bytes: what is not UTF-8 must not be replaced, but refused by the reader of JSON.
    let data: Vec<_> = percent_decode(&replace(data, b'+', b' ')).collect();
    if let [b'[' | b'{', ..] = data.trim_ascii_start() {
        return Ok(data.into());
    }
    // Some official SDKs do not escape the `+` of base64, which a form reads as a space.
    let base64 = replace(data.trim_ascii(), b' ', b'+');
    BASE64
        .decode(base64)
        .map(Cow::Owned)
        .map_err(|_| bad_request("data is neither JSON nor base64"))
}

fn replace(bytes: &[u8], old: u8, new: u8) -> Vec<u8> {
    let bytes = bytes.iter();
    bytes.map(|&b| if b == old { new } else { b }).collect()
}

fn decompress<'a>(headers: &HeaderMap, body: &'a [u8], max: usize) -> Result<Cow<'a, [u8]>, Reply> {
    let encoding = header_text(headers, header::CONTENT_ENCODING);
    if encoding.is_empty() || encoding.eq_ignore_ascii_case("identity") {
        return Ok(body.into());
    }
    if !encoding.eq_ignore_ascii_case("gzip") {
        return Err(bad_request("unknown content encoding: expected gzip"));
    }
    let mut plain = Vec::new();
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    match MultiGzDecoder::new(body)
        .take(limit)
        .read_to_end(&mut plain)
    {
        Ok(len) if len > max => Err(Reply::too_large(max, "bytes")),
        Ok(_) => Ok(plain.into()),
        Err(_) => Err(bad_request("the body is not gzip")),
    }
}

/// Returns whether the body has one record a line.
pub(crate) fn is_ndjson(headers: &HeaderMap) -> bool {
    media_type(headers).eq_ignore_ascii_case("application/x-ndjson")
}

fn media_type(headers: &HeaderMap) -> &str {
    let content_type = header_text(headers, header::CONTENT_TYPE);
    content_type.split(';').next().unwrap_or_default().trim()
}

fn bad_request(message: &str) -> Reply {
    Reply::error(StatusCode::BAD_REQUEST, message)
}

fn header_text(headers: &HeaderMap, name: header::HeaderName) -> &str {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default()
}
