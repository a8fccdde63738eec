//! Expressions of `.if` and `.elif`.
//!
//! `||` of `&&` of terms; a term is a number, a predicate, `!term` or `(expression)`. Predicates
//! are HAProxy 3.2's. Questions about HAProxy itself (`version_…`, `feature`, `enabled`, …) are
//! answered as the HAProxy that the file is for would: the branch it takes is the one that
//! describes its peers.
//! *Called by* [`super::reader`]. *Keeps*: any text gives a truth value or a [`ConditionError`].
#![forbid(unsafe_code)]

use crate::limits::CONFIG_CONDITION_DEPTH_MAX;

/// The HAProxy version that `version_atleast()` and `version_before()` compare with.
pub(crate) const HAPROXY_VERSION: &str = "3.4.7";
/// What an ordinary Linux build of it has.
const FEATURES: &[&str] = &[
    "ACCEPT4",
    "BACKTRACE",
    "CPU_AFFINITY",
    "CRYPT_H",
    "DL",
    "EPOLL",
    "GETADDRINFO",
    "LIBCRYPT",
    "LINUX_CAP",
    "LINUX_SPLICE",
    "LINUX_TPROXY",
    "LUA",
    "MATH",
    "NETFILTER",
    "NS",
    "OPENSSL",
    "PCRE2",
    "PCRE2_JIT",
    "POLL",
    "PRCTL",
    "PROMEX",
    "QUIC",
    "RT",
    "SLZ",
    "SSL",
    "TFO",
    "THREAD",
    "THREAD_DUMP",
    "TPROXY",
];
const ENABLED: &[&str] = &["POLL", "EPOLL", "SPLICE", "GETADDRINFO", "REUSEPORT"];
const OPENSSL_VERSION: &str = "OpenSSL 3.0.0";

/// Why an expression has no value. *Effect:* an alert; the branch is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConditionError {
    /// What is wrong, with `{in}` where HAProxy names the directive.
    pub(crate) text: String,
    /// Byte offset in the expression.
    pub(crate) at: usize,
}

/// The value of `expression`; `env` tells whether a variable is set.
pub(crate) fn evaluate(
    expression: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<bool, ConditionError> {
    let mut parser = Parser { text: expression, at: 0, env };
    let value = parser.or(0)?;
    parser.blanks();
    if let Some(c) = parser.rest().chars().next() {
        let text = format!(
            "unexpected character '{c}' at the end of conditional expression '{expression}'"
        );
        return Err(ConditionError { text, at: parser.at });
    }
    Ok(value)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    env: &'a dyn Fn(&str) -> Option<String>,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t']).len();
    }

    fn accept(&mut self, token: &str) -> bool {
        self.blanks();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn error<T>(&self, at: usize, text: String) -> Result<T, ConditionError> {
        Err(ConditionError { text, at })
    }

    fn unparsable<T>(&self, at: usize) -> Result<T, ConditionError> {
        self.error(at, format!("unparsable conditional expression '{}'", &self.text[at..]))
    }

    fn or(&mut self, depth: usize) -> Result<bool, ConditionError> {
        let mut value = self.and(depth)?;
        while self.accept("||") {
            // Both sides are always read, so that an error behind a decided value is still
            // reported.
            value |= self.and(depth)?;
        }
        Ok(value)
    }

    fn and(&mut self, depth: usize) -> Result<bool, ConditionError> {
        let mut value = self.term(depth)?;
        while self.accept("&&") {
            value &= self.term(depth)?;
        }
        Ok(value)
    }

    fn term(&mut self, depth: usize) -> Result<bool, ConditionError> {
        self.blanks();
        let start = self.at;
        if depth >= CONFIG_CONDITION_DEPTH_MAX {
            return self.error(start, "too many nested conditional expressions".into());
        }
        if self.accept("!") {
            return Ok(!self.term(depth + 1)?);
        }
        if self.accept("(") {
            let value = self.or(depth + 1)?;
            if !self.accept(")") {
                let text =
                    format!("expected ')' after conditional expression '{}'", &self.text[start..]);
                return self.error(start, text);
            }
            return Ok(value);
        }
        let rest = self.rest();
        let signed = rest.strip_prefix('-').unwrap_or(rest);
        let digits = signed.len() - signed.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        if digits > 0 {
            self.at += rest.len() - signed.len() + digits;
            return Ok(signed[..digits].bytes().any(|c| c != b'0'));
        }
        self.predicate(start)
    }

    fn predicate(&mut self, start: usize) -> Result<bool, ConditionError> {
        let rest = self.rest();
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let name = &rest[..rest.len() - rest.trim_start_matches(word).len()];
        let arity = match name {
            "streq" | "strneq" | "strstr" => 2,
            "defined"
            | "feature"
            | "enabled"
            | "version_atleast"
            | "version_before"
            | "openssl_version_atleast"
            | "openssl_version_before"
            | "ssllib_name_startswith"
            | "awslc_api_atleast"
            | "awslc_api_before" => 1,
            _ => return self.unparsable(start),
        };
        self.at += name.len();
        let arguments = self.arguments(name, arity)?;
        let first = arguments[0];
        Ok(match name {
            "streq" => first == arguments[1],
            "strneq" => first != arguments[1],
            "strstr" => first.contains(arguments[1]),
            "defined" => (self.env)(first).is_some(),
            "feature" => FEATURES.contains(&first),
            "enabled" => ENABLED.contains(&first),
            "version_atleast" => version(HAPROXY_VERSION) >= version(first),
            "version_before" => version(HAPROXY_VERSION) < version(first),
            "openssl_version_atleast" => openssl() >= version(first),
            "openssl_version_before" => openssl() < version(first),
            "ssllib_name_startswith" => OPENSSL_VERSION.starts_with(first),
            _ => false,
        })
    }

    /// `(a,b)` behind a predicate: exactly `arity` of them, taken as they stand, blanks included.
    fn arguments(&mut self, name: &str, arity: usize) -> Result<Vec<&'a str>, ConditionError> {
        let within = |k: usize| {
            format!("in argument {k} of predicate '{name}' used in conditional expression")
        };
        let mut found = Vec::with_capacity(arity);
        if !self.rest().starts_with('(') {
            if arity == 1 {
                return Ok(vec![""]);
            }
            return self.missing(name, 0, arity);
        }
        self.at += 1;
        loop {
            let rest = self.rest();
            let Some(length) = rest.find([',', ')']) else {
                return self
                    .error(self.text.len(), format!("expected ')' {}", within(found.len())));
            };
            found.push(&rest[..length]);
            self.at += length;
            if self.rest().starts_with(')') {
                self.at += 1;
                break;
            }
            if found.len() == arity {
                let text =
                    format!("expected ')' before '{}' {}", self.rest(), within((arity - 1).max(1)));
                return self.error(self.at, text);
            }
            self.at += 1;
        }
        if found.len() < arity {
            self.at -= 1;
            return self.missing(name, found.len(), arity);
        }
        Ok(found)
    }

    fn missing<T>(&self, name: &str, got: usize, arity: usize) -> Result<T, ConditionError> {
        let text = format!(
            "missing arguments (got {got}/{arity}), type 'string' expected in argument {got} of \
             predicate '{name}' used in conditional expression"
        );
        self.error(self.at, text)
    }
}

fn openssl() -> [u64; 4] {
    version(OPENSSL_VERSION.rsplit(' ').next().unwrap_or_default())
}

/// `a.b-devC` and `a.b.c` as something to compare: a development version comes before its release.
fn version(text: &str) -> [u64; 4] {
    let text = text.trim().trim_start_matches('v');
    let (number, development) = match text.split_once("-dev") {
        Some((number, rest)) => (number, Some(rest)),
        None => (text, None),
    };
    let leading = |part: &str| -> u64 {
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        part[..end].parse().unwrap_or(0)
    };
    let mut parts = number.split('.').map(leading);
    let mut next = || parts.next().unwrap_or(0);
    let (major, minor, patch) = (next(), next(), next());
    match development {
        Some(rest) => [major, minor, 0, leading(rest)],
        None => [major, minor, 1, patch],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn env(name: &str) -> Option<String> {
        (name == "HOME").then(|| "/h".to_owned())
    }

    #[test]
    fn truth_is_haproxys() {
        // Each seen on HAProxy 3.2.26 (with the blanks and quotes the lexer has already resolved).
        for (text, value) in [
            ("defined(HOME)", true),
            ("!defined(HOME) || streq(a,a) && 1", true),
            ("streq(a,b c)", false),
            ("(defined(HOME) && 0)", false),
            ("feature(OPENSSL)", true),
            ("feature(openssl)", false),
            ("enabled(EPOLL)", true),
            ("enabled(FOO)", false),
            ("version_atleast(2.4)", true),
            ("version_atleast(2.6-dev5)", true),
            ("version_atleast(x)", true),
            ("version_atleast()", true),
            ("version_before(2.4)", false),
            ("version_atleast(99.0)", false),
            ("ssllib_name_startswith(OpenSSL)", true),
            ("strneq(a,b)", true),
            ("strstr(abc,b)", true),
            ("strstr(abc,x)", false),
            ("2", true),
            ("0", false),
            ("00", false),
            ("-1", true),
            ("! 0", true),
            ("!!1", true),
            ("((1))", true),
            ("streq(a, a)", false),
            ("streq(,)", true),
            ("streq((,()", true),
            ("defined()", false),
            ("defined( HOME )", false),
            ("1&&1", true),
            ("1||0", true),
            (" 1", true),
        ] {
            assert_eq!(evaluate(text, &env), Ok(value), "{text}");
        }
    }

    #[test]
    fn errors_are_haproxys() {
        for (text, at, message) in [
            ("foo", 0, "unparsable conditional expression 'foo'"),
            ("nosuch(3)", 0, "unparsable conditional expression 'nosuch(3)'"),
            ("1 1", 2, "unexpected character '1' at the end of conditional expression '1 1'"),
            ("1)", 1, "unexpected character ')' at the end of conditional expression '1)'"),
            ("0 && foo", 5, "unparsable conditional expression 'foo'"),
            ("(1", 0, "expected ')' after conditional expression '(1'"),
            (
                "streq(a)",
                7,
                "missing arguments (got 1/2), type 'string' expected in argument 1 of predicate \
                 'streq' used in conditional expression",
            ),
            (
                "streq(a,b",
                9,
                "expected ')' in argument 1 of predicate 'streq' used in conditional expression",
            ),
            (
                "defined(HOME,FOO)",
                12,
                "expected ')' before ',FOO)' in argument 1 of predicate 'defined' used in \
                 conditional expression",
            ),
        ] {
            let error = evaluate(text, &env).unwrap_err();
            assert_eq!((error.at, error.text.as_str()), (at, message), "{text}");
        }
        let deep = "!".repeat(10_000) + "1";
        assert!(evaluate(&deep, &env).is_err());
    }

    proptest! {
        #[test]
        fn any_text_gives_a_value_or_an_error(text in r"[()!&|,01 a-z\p{L}]{0,40}|\PC{0,40}") {
            if let Err(error) = evaluate(&text, &env) {
                prop_assert!(error.at <= text.len());
            }
        }
    }
}
