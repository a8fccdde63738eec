//! What reading a configuration has to say, in HAProxy's format (runtime-api.md 4.3).
//!
//! Collected, never printed here: the caller writes [`Diagnostics::render`] to stderr.
#![forbid(unsafe_code)]

use std::fmt::Write as _;

/// How much a diagnostic matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Good to know.
    Notice,
    /// Works, but probably not as meant. `-dW` makes it fatal.
    Warning,
    /// The node does not start.
    Alert,
}

impl Severity {
    /// The tag with its padding: 11 columns, as HAProxy's.
    pub fn tag(self) -> &'static str {
        match self {
            Severity::Notice => "[NOTICE]   ",
            Severity::Warning => "[WARNING]  ",
            Severity::Alert => "[ALERT]    ",
        }
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Its weight.
    pub severity: Severity,
    /// The text behind `[LEVEL]    (pid) : `, with `config : ` where HAProxy 3.x has it.
    pub text: String,
}

/// Everything said, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
    /// Alerts given, kept or not.
    alerts: u64,
    warnings: u64,
    dropped: u64,
}

impl Diagnostics {
    /// Adds a message; behind [`crate::limits::DIAGNOSTICS_MAX`] they are only counted.
    pub fn push(&mut self, severity: Severity, text: impl Into<String>) {
        let full = self.list.len() >= crate::limits::DIAGNOSTICS_MAX;
        if full && severity == Severity::Alert && self.alerts == 0 {
            // The one message that must not be lost: it is why the node does not start.
            self.list.pop();
            self.dropped += 1;
        }
        self.alerts += u64::from(severity == Severity::Alert);
        self.warnings += u64::from(severity == Severity::Warning);
        if self.list.len() >= crate::limits::DIAGNOSTICS_MAX {
            self.dropped += 1;
            return;
        }
        self.list.push(Diagnostic { severity, text: text.into() });
    }

    /// Adds a notice.
    pub fn notice(&mut self, text: impl Into<String>) {
        self.push(Severity::Notice, text);
    }

    /// Adds a warning.
    pub fn warning(&mut self, text: impl Into<String>) {
        self.push(Severity::Warning, text);
    }

    /// Adds an alert.
    pub fn alert(&mut self, text: impl Into<String>) {
        self.push(Severity::Alert, text);
    }

    /// All messages in order.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.list.iter()
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// True when there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Alerts given so far.
    pub(crate) fn alerts(&self) -> u64 {
        self.alerts
    }

    /// True when the node must not start.
    pub fn has_alerts(&self) -> bool {
        self.alerts > 0
    }

    /// True when `-dW` must refuse and `-c` says "Warnings were found.".
    pub fn has_warnings(&self) -> bool {
        self.warnings > 0
    }

    /// The text for stderr. As HAProxy, it opens with the version and the path when there is
    /// anything of weight to say.
    pub fn render(&self, pid: u32, version: &str, executable: &str) -> String {
        let mut out = String::new();
        if self.has_weight() {
            out.push_str(&opening(pid, version, executable));
        }
        out.push_str(&self.lines(pid));
        out
    }

    /// True when there is more to say than notices.
    pub fn has_weight(&self) -> bool {
        self.alerts > 0 || self.warnings > 0
    }

    /// The messages alone, for one who has said the [`opening`] already.
    pub fn lines(&self, pid: u32) -> String {
        let mut out = String::new();
        for d in &self.list {
            line(&mut out, d.severity, pid, &d.text);
        }
        if self.dropped > 0 {
            let text = format!("config : {} more messages are not shown.", self.dropped);
            line(&mut out, Severity::Notice, pid, &text);
        }
        out
    }
}

/// What HAProxy says once, before its first warning or alert.
pub fn opening(pid: u32, version: &str, executable: &str) -> String {
    let mut out = String::new();
    line(&mut out, Severity::Notice, pid, &format!("stickring version is {version}"));
    line(&mut out, Severity::Notice, pid, &format!("path to executable is {executable}"));
    out
}

/// One message in HAProxy's frame.
fn line(out: &mut String, severity: Severity, pid: u32, text: &str) {
    let text = text.trim_end_matches('\n');
    let _ = writeln!(out, "{}({pid}) : {text}", severity.tag());
}
