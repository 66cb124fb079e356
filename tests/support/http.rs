//! A reader of a node's pages that sends what it is told, right or wrong.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;

use super::PATIENCE;

/// A connection to a node's pages.
#[derive(Debug)]
pub(crate) struct HttpClient {
    stream: BufReader<TcpStream>,
}

/// A reply to a request for a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HttpReply {
    pub(crate) status: u16,
    /// The head, line by line.
    pub(crate) head: Vec<String>,
    pub(crate) body: String,
}

impl HttpReply {
    pub(crate) fn has_header(&self, line: &str) -> bool {
        self.head.iter().any(|found| found == line)
    }
}

/// Asks for a page on a connection of its own.
pub(crate) fn get(address: &str, path: &str) -> HttpReply {
    let mut client = HttpClient::connect(address);
    client.send(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"));
    let reply = client.reply(true);
    assert!(client.is_closed(), "the connection was to be closed");
    reply
}

impl HttpClient {
    pub(crate) fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap_or_else(|e| panic!("{address}: {e}"));
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    /// Sends, although the node may have closed the connection meanwhile.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.get_mut().write_all(bytes.as_ref()).is_ok()
    }

    /// The next reply; `with_body` is false behind a `HEAD`.
    pub(crate) fn reply(&mut self, with_body: bool) -> HttpReply {
        self.try_reply(with_body).expect("a reply comes before the end of the connection")
    }

    /// The next reply, or `None` if the node closed the connection before it.
    pub(crate) fn try_reply(&mut self, with_body: bool) -> Option<HttpReply> {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            match self.stream.read_line(&mut line) {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no reply: {error}"),
            }
            let line = line.strip_suffix("\r\n").unwrap_or_else(|| panic!("no line end behind {line:?}"));
            if line.is_empty() {
                break;
            }
            head.push(line.to_owned());
        }
        let number = |text: Option<&str>| text.and_then(|text| text.parse::<u16>().ok());
        let status = number(head[0].strip_prefix("HTTP/1.1 ").and_then(|rest| rest.split(' ').next()));
        let length = head.iter().find_map(|line| line.strip_prefix("Content-Length: "));
        let length = length.expect("a reply has its length").parse().expect("the length is a number");
        let mut body = vec![0; if with_body { length } else { 0 }];
        self.stream.read_exact(&mut body).unwrap();
        Some(HttpReply {
            status: status.unwrap_or_else(|| panic!("no status: {head:?}")),
            head,
            body: String::from_utf8(body).expect("pages are text"),
        })
    }

    /// Whether the node closed the connection, with nothing more to say.
    pub(crate) fn is_closed(&mut self) -> bool {
        match self.stream.read(&mut [0]) {
            Ok(count) => count == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }
}
