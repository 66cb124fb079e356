//! A client of the text protocol that sends what it is told, right or wrong.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;

use super::PATIENCE;

/// A connection to a text port.
#[derive(Debug)]
pub(crate) struct TextClient {
    stream: BufReader<TcpStream>,
}

/// A reply of the text protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// `OK`, of a delete.
    Ok,
    /// `OK VERSION`.
    Written(u64),
    /// `CONTENTS VERSION NUMBYTES EXPTIME` and the contents.
    Contents { version: u64, expiry_seconds: u64, contents: Vec<u8> },
    /// `ERR_VERSION v`.
    Mismatch(u64),
    /// `ERR_REDIRECT HOST:PORT`.
    Redirect(String),
    /// Any other error: its first word, and the rest.
    Error(String, String),
}

impl Reply {
    pub(crate) fn version(&self) -> u64 {
        match self {
            Self::Written(version) | Self::Contents { version, .. } => *version,
            other => panic!("not a version: {other:?}"),
        }
    }

    /// Whether it is an error with this first word.
    pub(crate) fn is_error(&self, word: &str) -> bool {
        matches!(self, Self::Error(found, _) if found == word)
    }

    /// Whether it is `ERR_INTERNAL` and its reason begins so.
    pub(crate) fn is_internal(&self, reason: &str) -> bool {
        matches!(self, Self::Error(word, rest) if word == "ERR_INTERNAL" && rest.starts_with(reason))
    }
}

impl TextClient {
    pub(crate) fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap_or_else(|e| panic!("{address}: {e}"));
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    /// Sends, although the node may have closed the connection meanwhile.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.get_mut().write_all(bytes.as_ref()).is_ok()
    }

    /// Tells the node that nothing more will come.
    pub(crate) fn finish_sending(&mut self) {
        let _ = self.stream.get_mut().shutdown(std::net::Shutdown::Write);
    }

    /// Sends a whole command and takes its reply.
    pub(crate) fn ask(&mut self, bytes: impl AsRef<[u8]>) -> Reply {
        self.send(bytes);
        self.reply()
    }

    pub(crate) fn write(&mut self, name: &str, contents: impl AsRef<[u8]>) -> Reply {
        self.send(write_command(name, contents));
        self.reply()
    }

    pub(crate) fn cas(&mut self, name: &str, version: u64, contents: impl AsRef<[u8]>) -> Reply {
        let contents = contents.as_ref();
        let mut command = format!("cas {name} {version} {}\r\n", contents.len()).into_bytes();
        command.extend_from_slice(contents);
        command.extend_from_slice(b"\r\n");
        self.ask(command)
    }

    pub(crate) fn read(&mut self, name: &str) -> Reply {
        self.ask(format!("read {name}\r\n"))
    }

    pub(crate) fn delete(&mut self, name: &str) -> Reply {
        self.ask(format!("delete {name}\r\n"))
    }

    /// The next reply; it must come, and keep the protocol's form.
    pub(crate) fn reply(&mut self) -> Reply {
        self.try_reply().expect("a reply comes before the end of the connection")
    }

    /// The next reply, or `None` if the node closed the connection before it.
    pub(crate) fn try_reply(&mut self) -> Option<Reply> {
        let mut line = Vec::new();
        match self.stream.read_until(b'\n', &mut line) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
            Err(error) => panic!("no reply: {error}"),
        }
        if !line.ends_with(b"\n") {
            return None;
        }
        let line = String::from_utf8(line).expect("replies are text");
        let line = line.strip_suffix("\r\n").unwrap_or_else(|| panic!("no line end behind {line:?}"));
        Some(self.parse(line))
    }

    /// Whether the node closed the connection, with nothing more to say.
    pub(crate) fn is_closed(&mut self) -> bool {
        match self.stream.read(&mut [0]) {
            Ok(count) => count == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }

    fn parse(&mut self, line: &str) -> Reply {
        // Split at single blanks: a blank at the end or two in a row show up as an empty word.
        let words: Vec<&str> = line.split(' ').collect();
        let number = |text: &str| text.parse::<u64>().unwrap_or_else(|_| panic!("no number in {line:?}"));
        match words[..] {
            ["OK"] => Reply::Ok,
            ["OK", version] => Reply::Written(number(version)),
            ["ERR_VERSION", version] => Reply::Mismatch(number(version)),
            ["ERR_REDIRECT", address] => Reply::Redirect(address.to_owned()),
            ["CONTENTS", version, size, expiry] => {
                let mut contents = vec![0; usize::try_from(number(size)).unwrap()];
                self.stream.read_exact(&mut contents).unwrap();
                let mut end = [0; 2];
                self.stream.read_exact(&mut end).unwrap();
                assert_eq!(&end, b"\r\n", "behind the contents");
                Reply::Contents { version: number(version), expiry_seconds: number(expiry), contents }
            }
            [word, ref rest @ ..] if word.starts_with("ERR_") => {
                Reply::Error(word.to_owned(), rest.join(" "))
            }
            _ => panic!("not a reply: {line:?}"),
        }
    }
}

/// `write NAME NUMBYTES`, the contents and the line end.
pub(crate) fn write_command(name: &str, contents: impl AsRef<[u8]>) -> Vec<u8> {
    let contents = contents.as_ref();
    let mut command = format!("write {name} {}\r\n", contents.len()).into_bytes();
    command.extend_from_slice(contents);
    command.extend_from_slice(b"\r\n");
    command
}
