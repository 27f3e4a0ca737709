//! As much of HTTP/1.1 as the proxy and the browser's driver need: messages read whole, passed on unchanged but for their framing.

use std::io::{self, BufRead, Read};

/// A request or an answer.
#[derive(Debug, Clone)]
pub struct Message {
    /// The request line or the status line.
    pub start: String,
    /// Lines without their end.
    headers: Vec<String>,
    pub body: Vec<u8>,
}

impl Message {
    /// A request with a body, on a connection that ends with its answer.
    pub fn request(start: String, body: Vec<u8>) -> Self {
        let lines = [
            "Host: 127.0.0.1",
            "Content-Type: application/json",
            "Connection: close",
        ]
        .map(str::to_string);
        let headers = lines
            .into_iter()
            .chain([format!("Content-Length: {}", body.len())])
            .collect();
        Self {
            start,
            headers,
            body,
        }
    }

    /// Reads up to the body; `None` when the connection ended before.
    pub fn read_head(reader: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return if lines.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_string()),
            }
        }
        if lines.is_empty() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let start = lines.remove(0);
        Ok(Some(Self {
            start,
            headers: lines,
            body: Vec::new(),
        }))
    }

    /// Reads the answer to a request, past those that only say to go on.
    pub fn read_answer(reader: &mut impl BufRead, request: &Self) -> io::Result<Self> {
        loop {
            let mut answer = Self::read_head(reader)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            match answer.status() {
                100..200 => continue,
                204 | 304 => {}
                _ if request.start.starts_with("HEAD ") => {}
                _ if answer.is_framed() => answer.read_body(reader)?,
                _ => drop(reader.read_to_end(&mut answer.body)?),
            }
            return Ok(answer);
        }
    }

    /// Reads the body by its length or chunk by chunk; a request without either has none.
    pub fn read_body(&mut self, reader: &mut impl BufRead) -> io::Result<()> {
        if !self.is_chunked() {
            return self.read_bytes(reader, self.length());
        }
        // In an answer the framing is replaced by a length; a request goes on as it came.
        let keeps_framing = !self.start.starts_with("HTTP/");
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let size = line
                .trim_end()
                .split(';')
                .next()
                .and_then(|size| u64::from_str_radix(size, 16).ok());
            let size = size.ok_or(io::ErrorKind::InvalidData)?;
            let mut chunk = Vec::new();
            reader.take(size + 2).read_to_end(&mut chunk)?;
            if keeps_framing {
                self.body.extend(line.as_bytes());
                self.body.extend(&chunk);
            } else {
                self.body.extend(&chunk[..size as usize]);
            }
            if size == 0 {
                return Ok(());
            }
        }
    }

    /// Reads half of a body that has a length.
    pub fn read_half(&mut self, reader: &mut impl BufRead) -> io::Result<()> {
        self.read_bytes(reader, self.length() / 2)
    }

    fn read_bytes(&mut self, reader: &mut impl BufRead, length: u64) -> io::Result<()> {
        let read = reader.take(length).read_to_end(&mut self.body)?;
        if (read as u64) < length {
            Err(io::ErrorKind::UnexpectedEof.into())
        } else {
            Ok(())
        }
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find_map(|line| {
                line.split_once(':')
                    .filter(|(found, _)| found.eq_ignore_ascii_case(name))
            })
            .map(|(_, value)| value.trim())
    }

    pub fn remove(&mut self, name: &str) {
        self.headers.retain(|line| {
            !line
                .split_once(':')
                .is_some_and(|(found, _)| found.eq_ignore_ascii_case(name))
        });
    }

    fn length(&self) -> u64 {
        self.header("content-length")
            .and_then(|length| length.parse().ok())
            .unwrap_or(0)
    }

    fn is_chunked(&self) -> bool {
        self.header("transfer-encoding")
            .is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"))
    }

    fn is_framed(&self) -> bool {
        self.is_chunked() || self.header("content-length").is_some()
    }

    /// An answer's status code.
    pub fn status(&self) -> u16 {
        self.start
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .unwrap_or(0)
    }

    /// As it goes over the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes =
            format!("{}\r\n{}\r\n\r\n", self.start, self.headers.join("\r\n")).into_bytes();
        bytes.extend(&self.body);
        bytes
    }

    /// An answer as it goes over the wire, framed by its length on a connection that stays.
    pub fn answer_bytes(&self, request: &Self) -> Vec<u8> {
        let mut framed = self.clone();
        framed.remove("connection");
        let has_no_body = request.start.starts_with("HEAD ") || matches!(self.status(), 204 | 304);
        if has_no_body {
            framed.body.clear();
        } else {
            framed.remove("transfer-encoding");
            framed.remove("content-length");
            framed
                .headers
                .push(format!("Content-Length: {}", self.body.len()));
        }
        framed.bytes()
    }
}

/// What S3 answers when it refuses.
pub fn refusal(status: u16, code: &str) -> Message {
    let xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>The proxy says {code}.</Message>\
         <RequestId>PROXY0000001</RequestId></Error>"
    );
    let headers = vec![
        "Content-Type: application/xml".to_string(),
        "x-amz-request-id: PROXY0000001".to_string(),
    ];
    Message {
        start: format!("HTTP/1.1 {status} {code}"),
        headers,
        body: xml.into_bytes(),
    }
}

/// The S3 operation that a request line asks for, in short.
pub fn kind(start: &str) -> &'static str {
    let mut words = start.split(' ');
    let (method, target) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let has = |name: &str| {
        query
            .split('&')
            .any(|pair| pair.split('=').next() == Some(name))
    };
    // With path style the bucket comes first.
    let has_key = path
        .trim_start_matches('/')
        .split_once('/')
        .is_some_and(|(_, key)| !key.is_empty());
    match method {
        "GET" if has("uploads") => "list-uploads",
        "GET" if has("list-type") => "list",
        "GET" if has_key => "get",
        "HEAD" if has_key => "head",
        "HEAD" => "head-bucket",
        "PUT" if has("partNumber") => "part",
        "PUT" if has_key => "put",
        "POST" if has("uploads") => "multipart",
        "POST" if has("uploadId") => "complete",
        "POST" if has("delete") => "delete-many",
        "DELETE" if has("uploadId") => "abort",
        "DELETE" if has_key => "delete",
        _ => "other",
    }
}
