//! The hello and the status line, both ways (protocol.md 2.2 to 2.4, 6.3).
//!
//! Own nothing but how far they have looked; the caller keeps the bytes. Called by the coordinator
//! until they say how it ended, then dropped. Rule: a handshake ends within 5 s, however slowly the
//! bytes come.

use crate::limits::HANDSHAKE_MS;
use crate::time::Millis;
use crate::wire::hello::{self, Hello, HelloError, Status};
use bytes::Bytes;

/// The server's side: we accepted.
#[derive(Debug)]
pub struct Accepting {
    local_name: Vec<u8>,
    line_max: usize,
    deadline: Millis,
    /// Bytes searched for line ends so far.
    scanned: usize,
    /// Where the line that is not complete starts.
    line: usize,
}

/// How far an accepted connection is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// Read on.
    NeedMore,
    /// Send the status, if any, and close.
    Refuse {
        /// `None`: close without a word, as HAProxy does on an endless line.
        status: Option<Status>,
        /// What was wrong.
        error: HelloError,
    },
    /// The hello is well-formed and for us; whether we know the peer is the caller's matter (504,
    /// 300).
    Hello {
        /// Who it is.
        hello: Hello,
        /// Bytes the hello took; what follows belongs to the session.
        used: usize,
    },
}

impl Accepting {
    /// A connection accepted now by the peer called `local_name`; lines are at most `line_max`
    /// bytes.
    pub fn new(local_name: &[u8], line_max: usize, now: Millis) -> Accepting {
        Accepting {
            local_name: local_name.to_vec(),
            line_max,
            deadline: now.plus(HANDSHAKE_MS),
            scanned: 0,
            line: 0,
        }
    }

    /// Looks at everything received so far, from the first byte on.
    pub fn handle_bytes(&mut self, bytes: &[u8]) -> Accepted {
        let news = bytes.get(self.scanned..).unwrap_or(&[]);
        let end = news.iter().rposition(|&b| b == b'\n').map(|n| self.scanned + n + 1);
        self.scanned = bytes.len();
        let start = self.line;
        self.line = end.unwrap_or(start);
        // Without a new line end nothing new can be said, unless the line is too long already: so
        // bytes that come one by one cost no more than those that come at once.
        if end.is_none() && bytes.len() - start < self.line_max {
            return Accepted::NeedMore;
        }
        match hello::parse_hello(bytes, &self.local_name, self.line_max) {
            Ok(None) => Accepted::NeedMore,
            Ok(Some((hello, used))) => Accepted::Hello { hello, used },
            Err(error) => Accepted::Refuse { status: error.status(), error },
        }
    }

    /// Close without a word when the hello is not complete by then.
    pub fn deadline(&self) -> Millis {
        self.deadline
    }
}

/// The client's side: we dialled, and TCP is up.
#[derive(Debug)]
pub struct Dialling {
    hello: Bytes,
    deadline: Millis,
}

/// How far a dialled connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialled {
    /// Read on.
    NeedMore,
    /// The status line came. Anything but 200 closes; 0 stands for a line that is no number.
    Status {
        /// Decimal number the line starts with.
        code: u32,
        /// Bytes the line took; what follows belongs to the session.
        used: usize,
    },
}

impl Dialling {
    /// Says hello as `from` (process `pid`) to the peer called `to`, in protocol 2.`minor`.
    pub fn new(minor: u8, to: &str, from: &str, pid: u32, now: Millis) -> Dialling {
        Dialling {
            hello: hello::encode_hello(minor, to, from, pid).into(),
            deadline: now.plus(HANDSHAKE_MS),
        }
    }

    /// The whole hello, to be sent in one write: HAProxy forgets the version of a hello that comes
    /// in parts (protocol.md 2.3).
    pub fn hello(&self) -> Bytes {
        self.hello.clone()
    }

    /// Looks at everything received so far, from the first byte on.
    pub fn handle_bytes(&mut self, bytes: &[u8]) -> Dialled {
        match hello::parse_status(bytes) {
            Ok(None) => Dialled::NeedMore,
            Ok(Some((code, used))) => Dialled::Status { code, used },
            Err(hello::StatusTooLong) => Dialled::Status { code: 0, used: bytes.len() },
        }
    }

    /// Close when the status is not there by then.
    pub fn deadline(&self) -> Millis {
        self.deadline
    }
}
