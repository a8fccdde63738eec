//! `show env [<name>]`.
//!
//! The caller reads the environment (the core may not); this formats it.

use super::error::CliError;

/// Appends `NAME=value` lines: all of them, or the one called `name`. Line breaks inside a value
/// are shown as blanks, so that the reply stays one line a variable.
pub fn write<'a>(
    vars: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    name: Option<&[u8]>,
    out: &mut Vec<u8>,
) -> Result<(), CliError> {
    let mut found = name.is_none();
    for (key, value) in vars.filter(|(key, _)| name.is_none_or(|name| name == *key)) {
        found = true;
        out.extend_from_slice(key);
        out.push(b'=');
        out.extend(value.iter().map(|&b| if b == b'\n' { b' ' } else { b }));
        out.push(b'\n');
    }
    if found { Ok(()) } else { Err(CliError::NoSuchVariable) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_one_and_none() {
        let vars = [(&b"HOME"[..], &b"/root"[..]), (b"A", b"x\n\ny")];
        let run = |name: Option<&[u8]>| {
            let mut out = Vec::new();
            write(vars.into_iter(), name, &mut out).map(|()| String::from_utf8(out).unwrap())
        };
        assert_eq!(run(None), Ok("HOME=/root\nA=x  y\n".to_owned()));
        assert_eq!(run(Some(b"HOME")), Ok("HOME=/root\n".to_owned()));
        assert_eq!(run(Some(b"HOM")), Err(CliError::NoSuchVariable));
    }
}
