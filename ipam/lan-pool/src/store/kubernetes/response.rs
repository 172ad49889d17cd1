//! Reads a response of HTTP/1.1. It needs `Content-Length` or chunks, so that a response that is cut off is noticed.

use std::io::{self, ErrorKind, Read};
use std::time::SystemTime;

/// Bytes of the status line with all headers.
const LARGEST_HEAD: usize = 64 << 10;
/// Headers of a response.
const MOST_HEADERS: usize = 100;
/// Bytes of one read.
const READ: usize = 16 << 10;
/// Bytes of the size line of a chunk, and of a trailer.
const LARGEST_LINE: usize = 1 << 10;

/// A complete response.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    /// Seconds.
    pub(super) retry_after: Option<u64>,
    pub(super) date: Option<SystemTime>,
    pub(super) is_json: bool,
    pub(super) body: Vec<u8>,
}

/// A response that cannot be read.
pub(super) enum Broken {
    Io(io::Error),
    Wrong(&'static str),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The bytes that were received and not used yet.
pub(super) struct Incoming<'a, S> {
    pub(super) stream: &'a mut S,
    pub(super) bytes: Vec<u8>,
}

/// The parts of a head that matter.
#[derive(Default)]
struct Head {
    status: u16,
    length: Option<usize>,
    is_chunked: bool,
    is_last: bool,
    is_json: bool,
    retry_after: Option<u64>,
    date: Option<SystemTime>,
}

impl<S: Read> Incoming<'_, S> {
    /// Reads a response, and tells if it is the last one of the connection.
    pub(super) fn response(&mut self, most: usize) -> Result<(Response, bool), Broken> {
        let mut head = self.head()?;
        // 100 Continue, 103 Early Hints. A server that sends them for ever meets the deadline.
        while matches!(head.status, 100 | 102..=199) {
            head = self.head()?;
        }
        let body = match head {
            Head { status: 101, .. } => return Err(Broken::Wrong("another protocol")),
            Head { status: 204 | 304, .. } => Vec::new(),
            Head { is_chunked: true, length: None, .. } => self.chunks(most)?,
            Head { is_chunked: false, length: Some(length), .. } if length <= most => self.take(length)?,
            Head { length: Some(_), is_chunked: false, .. } => return Err(Broken::Wrong("too large")),
            _ => return Err(Broken::Wrong("the length of its body is not known")),
        };
        let Head { status, retry_after, date, is_json, is_last, .. } = head;
        Ok((Response { status, retry_after, date, is_json, body }, is_last))
    }

    /// Receives more bytes.
    fn more(&mut self) -> io::Result<()> {
        let mut buffer = [0; READ];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.bytes.extend_from_slice(&buffer[..count]);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.bytes.len() < count {
            self.more()?;
        }
        let rest = self.bytes.split_off(count);
        Ok(std::mem::replace(&mut self.bytes, rest))
    }

    fn head(&mut self) -> Result<Head, Broken> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
            let mut response = httparse::Response::new(&mut headers);
            match response.parse(&self.bytes) {
                Ok(httparse::Status::Complete(length)) => {
                    let head = Head::of(&response).map_err(Broken::Wrong)?;
                    self.bytes.drain(..length);
                    return Ok(head);
                }
                Ok(httparse::Status::Partial) if self.bytes.len() < LARGEST_HEAD => self.more()?,
                Ok(httparse::Status::Partial) => return Err(Broken::Wrong("its head is too large")),
                Err(_) => return Err(Broken::Wrong("not HTTP")),
            }
        }
    }

    /// A body in chunks. (RFC 9112, section 7.1)
    fn chunks(&mut self, most: usize) -> Result<Vec<u8>, Broken> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let size = match httparse::parse_chunk_size(&line) {
                Ok(httparse::Status::Complete((_, size))) => usize::try_from(size).unwrap_or(usize::MAX),
                _ => return Err(Broken::Wrong("the size of a chunk is wrong")),
            };
            if size == 0 {
                break;
            }
            if size > most - body.len() {
                return Err(Broken::Wrong("too large"));
            }
            body.append(&mut self.take(size)?);
            if self.take(2)? != b"\r\n" {
                return Err(Broken::Wrong("a chunk does not end"));
            }
        }
        // Trailers, up to an empty line.
        for _ in 0..MOST_HEADERS {
            if self.line()? == b"\r\n" {
                return Ok(body);
            }
        }
        Err(Broken::Wrong("too many trailers"))
    }

    /// A line with its end.
    fn line(&mut self) -> Result<Vec<u8>, Broken> {
        loop {
            match self.bytes.windows(2).position(|end| end == b"\r\n") {
                Some(at) => return Ok(self.take(at + 2)?),
                None if self.bytes.len() > LARGEST_LINE => {
                    return Err(Broken::Wrong("a line of its chunks is too long"));
                }
                None => self.more()?,
            }
        }
    }
}

impl Head {
    fn of(response: &httparse::Response<'_, '_>) -> Result<Self, &'static str> {
        let mut head = Self { status: response.code.unwrap_or_default(), ..Self::default() };
        head.is_last = response.version != Some(1);
        for header in response.headers.iter() {
            // A value that is not text is none of these.
            let value = std::str::from_utf8(header.value).unwrap_or_default().trim();
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            if is("content-length") {
                let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
                let length = value.parse().ok().filter(|_| digits).ok_or("its length is wrong")?;
                if head.length.replace(length).is_some_and(|other| other != length) {
                    return Err("it has two lengths");
                }
            } else if is("transfer-encoding") {
                if head.is_chunked || !value.eq_ignore_ascii_case("chunked") {
                    return Err("its transfer encoding is not chunked");
                }
                head.is_chunked = true;
            } else if is("content-encoding") && !value.eq_ignore_ascii_case("identity") {
                return Err("it is compressed");
            } else if is("connection") {
                head.is_last |= value.split(',').any(|word| word.trim().eq_ignore_ascii_case("close"));
            } else if is("content-type") {
                let kind = value.split(';').next().unwrap_or_default().trim();
                head.is_json = kind.eq_ignore_ascii_case("application/json");
            } else if is("retry-after") {
                head.retry_after = value.parse().ok();
            } else if is("date") {
                head.date = httpdate::parse_http_date(value).ok();
            }
        }
        Ok(head)
    }
}
