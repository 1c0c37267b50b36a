//! HTTP/1.1 on byte buffers: requests out of what arrived, answers into what is sent.

use std::fmt::Write;

/// Longest request head in bytes.
pub const MAX_HEAD: usize = 8 * 1024;
/// Longest request body in bytes.
pub const MAX_BODY: usize = 4 * 1024 * 1024;
const MAX_HEADERS: usize = 64;

#[derive(Debug, PartialEq)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub body: Vec<u8>,
    pub keep_alive: bool,
}

#[derive(Debug, PartialEq)]
pub enum Parsed {
    /// More bytes are needed; `expects` when the client waits for "100 Continue" before it sends them.
    Partial { expects: bool },
    /// A whole request, and how many bytes of the buffer it took.
    Whole(Request, usize),
    /// What was sent is no request that can be answered; the connection ends after this answer.
    Bad(Response),
}

/// Reads one request from the start of a buffer.
pub fn parse(buffer: &[u8]) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    let length = match head.parse(buffer) {
        Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD => length,
        Ok(httparse::Status::Partial) if buffer.len() <= MAX_HEAD => {
            return Parsed::Partial { expects: false };
        }
        Ok(_) | Err(httparse::Error::TooManyHeaders) => {
            return Parsed::Bad(Response::error(431, &format!("the request head is over {MAX_HEAD} bytes")));
        }
        Err(why) => return Parsed::Bad(Response::error(400, &format!("not HTTP/1.1: {why}"))),
    };
    let find = |name: &str| {
        head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
    };
    let is = |name: &str, value: &str| {
        find(name).is_some_and(|found| found.eq_ignore_ascii_case(value.as_bytes()))
    };
    if find("transfer-encoding").is_some() {
        return Parsed::Bad(Response::error(411, "send the body with Content-Length, not in chunks"));
    }
    let body = match body_length(&head) {
        Ok(body) if body <= MAX_BODY => body,
        Ok(_) => return Parsed::Bad(Response::error(413, &format!("the body is over {MAX_BODY} bytes"))),
        Err(answer) => return Parsed::Bad(answer),
    };
    let Some(body) = buffer.get(length..length + body) else {
        return Parsed::Partial { expects: buffer.len() == length && is("expect", "100-continue") };
    };
    let modern = head.version == Some(1);
    let request = Request {
        method: head.method.unwrap_or_default().into(),
        path: head.path.unwrap_or_default().split('?').next().unwrap_or_default().into(),
        body: body.into(),
        keep_alive: if modern { !is("connection", "close") } else { is("connection", "keep-alive") },
    };
    Parsed::Whole(request, length + body.len())
}

/// Two lengths that differ would let one request hide in another.
fn body_length(head: &httparse::Request) -> Result<usize, Response> {
    let mut found = None;
    for header in head.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("content-length")) {
        let text = std::str::from_utf8(header.value).unwrap_or_default();
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits || found.is_some_and(|other| other != text) {
            return Err(Response::error(400, "Content-Length is not one number"));
        }
        found = Some(text);
    }
    // A number of digits too long for usize is a body over any limit.
    Ok(found.map_or(0, |text| text.parse().unwrap_or(usize::MAX)))
}

#[derive(Debug, PartialEq)]
pub struct Response {
    pub status: u16,
    pub content_type: &'static str,
    pub allow: Option<&'static str>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn json(value: &impl serde::Serialize) -> Response {
        let body = serde_json::to_vec(value).unwrap_or_default();
        Response { status: 200, content_type: "application/json", allow: None, body }
    }

    pub fn text(body: String) -> Response {
        let content_type = "text/plain; version=0.0.4; charset=utf-8";
        Response { status: 200, content_type, allow: None, body: body.into_bytes() }
    }

    /// `{"error": …}`, as the inference protocol wants it.
    pub fn error(status: u16, message: &str) -> Response {
        Response { status, ..Response::json(&serde_json::json!({ "error": message })) }
    }

    /// The bytes to send.
    pub fn encode(&self, keep_alive: bool) -> Vec<u8> {
        let mut head = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n",
            self.status,
            reason(self.status),
            self.content_type,
            self.body.len()
        );
        if let Some(methods) = self.allow {
            let _ = write!(head, "Allow: {methods}\r\n");
        }
        head.push_str(if keep_alive { "\r\n" } else { "Connection: close\r\n\r\n" });
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        411 => "Length Required",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        _ => "Internal Server Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(bytes: &[u8]) -> u16 {
        match parse(bytes) {
            Parsed::Bad(response) => response.status,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_request_comes_in_pieces() {
        let whole = b"POST /infer?x=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n{}\nGET";
        for end in 0..whole.len() - 3 {
            assert_eq!(parse(&whole[..end]), Parsed::Partial { expects: false }, "{end} bytes");
        }
        let Parsed::Whole(request, length) = parse(whole) else { panic!() };
        assert_eq!(
            (request.method.as_str(), request.path.as_str(), request.keep_alive),
            ("POST", "/infer", true)
        );
        assert_eq!((request.body.as_slice(), length), (b"{}\n".as_slice(), whole.len() - 3));
    }

    #[test]
    fn a_client_may_wait_for_continue() {
        let head = b"POST /infer HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
        assert_eq!(parse(head), Parsed::Partial { expects: true });
    }

    #[test]
    fn connections_end_when_asked_for() {
        let keeps =
            |text: &str| matches!(parse(text.as_bytes()), Parsed::Whole(request, _) if request.keep_alive);
        assert!(keeps("GET / HTTP/1.1\r\n\r\n"));
        assert!(!keeps("GET / HTTP/1.1\r\nConnection: Close\r\n\r\n"));
        assert!(!keeps("GET / HTTP/1.0\r\n\r\n"));
        assert!(keeps("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        assert_eq!(status(b"\x16\x03\x01 TLS\r\n\r\n"), 400);
        assert_eq!(status(b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n"), 400);
        assert_eq!(status(b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"), 400);
        assert_eq!(status(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"), 411);
        assert_eq!(status(b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n"), 413);
        assert_eq!(status(format!("GET /{} HTTP/1.1\r\n", "a".repeat(MAX_HEAD)).as_bytes()), 431);
        assert_eq!(status(format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(65)).as_bytes()), 431);
    }
}
