//! The three hello lines and the status line (protocol.md 2.2 to 2.4).

use std::fmt;
use thiserror::Error;

const MAGIC: &[u8] = b"HAProxyS ";

/// A hello as the server reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Minor version, 0 or 1; the major is always 2.
    pub minor: u8,
    /// Line 3 up to its first space: the client's own name.
    pub from: Vec<u8>,
    /// The rest of line 3: pid, relative pid, and whatever else. HAProxy never looks at it.
    pub rest: Vec<u8>,
}

/// Status codes a server answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Session established.
    Ok = 200,
    /// The local peer already has a session.
    TryAgain = 300,
    /// Bad magic, or line 3 has no space.
    Protocol = 501,
    /// Version other than 2.0 and 2.1.
    Version = 502,
    /// Line 2 is not our name.
    Host = 503,
    /// Line 3 names nobody we know.
    UnknownPeer = 504,
}

impl Status {
    /// The line to send.
    pub fn line(self) -> String {
        format!("{}\n", self as u16)
    }

    /// As `show peers` names it in `last_status`.
    pub fn name_of(code: u32) -> &'static str {
        match code {
            0 => "NONE",
            100 => "CONN",
            110 => "HSHK",
            200 => "ESTA",
            300 => "RETR",
            501 => "PROT",
            502 => "VERS",
            503 => "NAME",
            504 => "UNKN",
            _ => "UNKN",
        }
    }
}

/// Why a hello was refused.
///
/// *Effect:* the status is sent and the connection closed. A HAProxy client then stops dialling for
/// good (protocol.md 2.6), so each is sent only when it is true.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HelloError {
    /// Line 1 does not start with `HAProxyS `. Status 501.
    #[error("hello does not start with \"HAProxyS \"")]
    Magic,
    /// Line 1 names another version. Status 502.
    #[error("protocol version {0:?} is not 2.0 or 2.1")]
    Version(Printable),
    /// Line 2 is not our name. Status 503.
    #[error("hello is for {0:?}, which is not our name")]
    Host(Printable),
    /// Line 3 has no space. Status 501.
    #[error("third hello line has no space")]
    NoSpace,
    /// A line is longer than the limit. Closed without a status, as HAProxy 3.5 does.
    #[error("hello line longer than {0} bytes")]
    LineTooLong(usize),
}

impl HelloError {
    /// The status to answer with; `None`: close without one.
    pub fn status(&self) -> Option<Status> {
        match self {
            HelloError::Magic | HelloError::NoSpace => Some(Status::Protocol),
            HelloError::Version(_) => Some(Status::Version),
            HelloError::Host(_) => Some(Status::Host),
            HelloError::LineTooLong(_) => None,
        }
    }
}

/// Up to 64 bytes of input made safe for a log line.
#[derive(Clone, PartialEq, Eq)]
pub struct Printable(String);

impl Printable {
    /// Copies the start of `bytes`, control bytes escaped.
    pub fn new(bytes: &[u8]) -> Self {
        Printable(
            bytes
                .iter()
                .take(64)
                .flat_map(|b| std::ascii::escape_default(*b))
                .map(char::from)
                .collect(),
        )
    }
}

impl fmt::Debug for Printable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}'", self.0)
    }
}

impl fmt::Display for Printable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads a hello from the start of `bytes`, checking line by line as HAProxy does, so that the
/// first error is answered as soon as its line is complete.
///
/// `Ok(None)`: more bytes are needed. `Ok(Some((hello, n)))`: `n` bytes were the hello; the client
/// may have sent messages right behind it.
pub fn parse_hello(
    bytes: &[u8],
    local_name: &[u8],
    line_max: usize,
) -> Result<Option<(Hello, usize)>, HelloError> {
    let mut at = 0;
    let Some(line) = take_line(bytes, &mut at, line_max)? else { return Ok(None) };
    let version = line.strip_prefix(MAGIC).ok_or(HelloError::Magic)?;
    let minor =
        parse_version(version).ok_or_else(|| HelloError::Version(Printable::new(version)))?;
    let Some(line) = take_line(bytes, &mut at, line_max)? else { return Ok(None) };
    if line != local_name {
        return Err(HelloError::Host(Printable::new(line)));
    }
    let Some(line) = take_line(bytes, &mut at, line_max)? else { return Ok(None) };
    let space = line.iter().position(|&b| b == b' ').ok_or(HelloError::NoSpace)?;
    let (from, rest) = (line[..space].to_vec(), line[space + 1..].to_vec());
    Ok(Some((Hello { minor, from, rest }, at)))
}

/// The line at `*at` without LF or CR LF, moving `*at` behind it.
fn take_line<'a>(
    bytes: &'a [u8],
    at: &mut usize,
    line_max: usize,
) -> Result<Option<&'a [u8]>, HelloError> {
    let rest = &bytes[*at..];
    match rest.iter().take(line_max).position(|&b| b == b'\n') {
        Some(n) => {
            *at += n + 1;
            Ok(Some(rest[..n].strip_suffix(b"\r").unwrap_or(&rest[..n])))
        }
        None if rest.len() >= line_max => Err(HelloError::LineTooLong(line_max)),
        None => Ok(None),
    }
}

/// `<digits>.<digits>` with major 2 and minor 0 or 1; leading zeros are fine (`02.01`).
fn parse_version(text: &[u8]) -> Option<u8> {
    let dot = text.iter().position(|&b| b == b'.')?;
    let number = |digits: &[u8]| -> Option<u32> {
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        std::str::from_utf8(digits).ok()?.parse().ok()
    };
    let (major, minor) = (number(&text[..dot])?, number(&text[dot + 1..])?);
    (major == 2 && minor <= 1).then_some(minor as u8)
}

/// Our hello as a client, in one piece: HAProxy forgets the version of a hello that comes in parts
/// (protocol.md 2.3).
pub fn encode_hello(minor: u8, to: &str, from: &str, pid: u32) -> Vec<u8> {
    format!("HAProxyS 2.{minor}\n{to}\n{from} {pid} 1\n").into_bytes()
}

/// A status line longer than this is not one; HAProxy sends four bytes.
pub const STATUS_LINE_MAX: usize = 256;

/// No line end within [`STATUS_LINE_MAX`] bytes.
///
/// *Effect:* the dialled connection is closed; the link tries again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("status line longer than {STATUS_LINE_MAX} bytes")]
pub struct StatusTooLong;

/// Reads a status line. `Ok(None)`: more bytes are needed; `Some((code, n))`: the decimal number
/// the line starts with (0 when there is none) and the line's length. Blanks before the number are
/// skipped, as `atoi` does in HAProxy.
pub fn parse_status(bytes: &[u8]) -> Result<Option<(u32, usize)>, StatusTooLong> {
    let Some(n) = bytes.iter().take(STATUS_LINE_MAX).position(|&b| b == b'\n') else {
        return if bytes.len() >= STATUS_LINE_MAX { Err(StatusTooLong) } else { Ok(None) };
    };
    let digits = bytes[..n].trim_ascii_start().iter().take_while(|b| b.is_ascii_digit());
    let code = digits.fold(0u32, |v, b| v.saturating_mul(10).saturating_add(u32::from(b - b'0')));
    Ok(Some((code, n + 1)))
}
