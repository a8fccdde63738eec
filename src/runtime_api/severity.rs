//! How severe a message on the stats socket is, and how that is shown.

use crate::config::SeverityOutput;

/// Severity of a message, numbered as syslog's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The command was refused.
    Err = 3,
    /// An answer.
    Info = 6,
}

impl Severity {
    /// What `set severity-output` puts in front of the message.
    pub fn prefix(self, output: SeverityOutput) -> &'static str {
        match (output, self) {
            (SeverityOutput::None, _) => "",
            (SeverityOutput::Number, Severity::Err) => "[3]: ",
            (SeverityOutput::Number, Severity::Info) => "[6]: ",
            (SeverityOutput::String, Severity::Err) => "[err]: ",
            (SeverityOutput::String, Severity::Info) => "[info]: ",
        }
    }
}
