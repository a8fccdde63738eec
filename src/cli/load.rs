//! Configuration files from disk, and what the machine answers about itself.
//!
//! Start-up calls it between [`super::parse`] and [`crate::config::parse`], which touches nothing
//! itself.
//! *Keeps*: bounds on the number of files and bytes; directories are read as HAProxy reads them
//! (files ending in `.cfg`, not hidden, in the C locale's order).
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::net::{IpAddr, ToSocketAddrs as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::config::{Host, Source};
use crate::limits::{CONFIG_BYTES_MAX, CONFIG_FILES_MAX};

/// Why the configuration could not be read. *Effect:* nothing is started.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A name given with `-f` cannot be opened.
    #[error("config : Cannot open configuration file/directory {path} : {}", plain(.error))]
    Open {
        /// As given.
        path: String,
        /// What the system said.
        error: io::Error,
    },
    /// A file of a directory, or what stands in an opened file, cannot be read.
    #[error("config : Could not open configuration file {path} : {}", plain(.error))]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        error: io::Error,
    },
    /// More than [`CONFIG_BYTES_MAX`] bytes in all.
    #[error("config : {path} : more than {CONFIG_BYTES_MAX} bytes of configuration")]
    TooBig {
        /// The file that went over.
        path: String,
    },
    /// More than [`CONFIG_FILES_MAX`] files.
    #[error("config : {path} : more than {CONFIG_FILES_MAX} configuration files")]
    TooMany {
        /// The name that went over.
        path: String,
    },
}

/// The system's words without the number behind them.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// Reads the files and directories given with `-f`, in order.
///
/// # Errors
/// The first thing that cannot be opened or read, or that is over the bounds.
pub fn read_sources<S: AsRef<str>>(paths: &[S]) -> Result<Vec<Source>, LoadError> {
    let mut sources = Vec::new();
    let mut left = CONFIG_BYTES_MAX;
    for path in paths {
        let given = path.as_ref();
        let meta = fs::metadata(given)
            .map_err(|error| LoadError::Open { path: given.to_owned(), error })?;
        let files =
            if meta.is_dir() { directory(Path::new(given))? } else { vec![PathBuf::from(given)] };
        if sources.len() + files.len() > CONFIG_FILES_MAX {
            return Err(LoadError::TooMany { path: given.to_owned() });
        }
        for file in files {
            let name = file.to_string_lossy().into_owned();
            let text = one_file(&file, &name, left)?;
            left -= text.len() as u64;
            sources.push(Source { name, text });
        }
    }
    Ok(sources)
}

/// The `.cfg` files of a directory.
fn directory(path: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let failed = |error| LoadError::Open { path: path.to_string_lossy().into_owned(), error };
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let bytes = OsStr::as_bytes(&name);
        if bytes.starts_with(b".") || !bytes.ends_with(b".cfg") || path.join(&name).is_dir() {
            continue;
        }
        if found.len() >= CONFIG_FILES_MAX {
            return Err(LoadError::TooMany { path: path.to_string_lossy().into_owned() });
        }
        found.push(path.join(name));
    }
    found.sort_by(|a, b| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
    Ok(found)
}

fn one_file(path: &Path, name: &str, left: u64) -> Result<Vec<u8>, LoadError> {
    let failed = |error| LoadError::Read { path: name.to_owned(), error };
    let mut text = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(left + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > left {
        return Err(LoadError::TooBig { path: name.to_owned() });
    }
    Ok(text)
}

/// The machine we run on.
///
/// Users and groups are looked up in `/etc/passwd` and `/etc/group` alone: no directory service is
/// asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemHost;

impl Host for SystemHost {
    fn env(&self, name: &str) -> Option<String> {
        std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
    }

    fn resolve(&self, name: &str, v6: Option<bool>) -> Option<IpAddr> {
        let mut found = (name, 0).to_socket_addrs().ok()?.map(|a| a.ip());
        match v6 {
            Some(v6) => found.find(|ip| ip.is_ipv6() == v6),
            // HAProxy takes IPv4 where a name has both.
            None => {
                let all: Vec<IpAddr> = found.collect();
                all.iter().find(|ip| ip.is_ipv4()).or(all.first()).copied()
            }
        }
    }

    fn uid(&self, user: &str) -> Option<u32> {
        numbered("/etc/passwd", user)
    }

    fn gid(&self, group: &str) -> Option<u32> {
        numbered("/etc/group", group)
    }

    fn hostname(&self) -> String {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    }
}

/// The third field of the line whose first is `name`.
fn numbered(file: &str, name: &str) -> Option<u32> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|l| l.split(':').next() == Some(name))?;
    line.split(':').nth(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_gives_its_cfg_files_in_c_order() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.cfg", "B.cfg", "a.cfg", ".hidden.cfg", "c.conf", "10.cfg", "9.cfg"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        fs::create_dir(dir.path().join("sub.cfg")).unwrap();
        let given = dir.path().to_string_lossy().into_owned();
        let sources = read_sources(&[given.clone(), format!("{given}/a.cfg")]).unwrap();
        let texts: Vec<_> = sources.iter().map(|s| String::from_utf8_lossy(&s.text)).collect();
        assert_eq!(texts, ["10.cfg", "9.cfg", "B.cfg", "a.cfg", "b.cfg", "a.cfg"]);
        assert_eq!(sources[0].name, format!("{given}/10.cfg"));
    }

    #[test]
    fn what_is_missing_is_named_as_haproxy_names_it() {
        let error = read_sources(&["/nonexist"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "config : Cannot open configuration file/directory /nonexist : No such file or \
            directory"
        );
    }

    #[test]
    fn the_system_answers() {
        assert_eq!(SystemHost.uid("root"), Some(0));
        assert_eq!(SystemHost.gid("root"), Some(0));
        assert_eq!(SystemHost.uid("no such user"), None);
        assert!(!SystemHost.hostname().is_empty());
        assert_eq!(SystemHost.resolve("127.0.0.1", Some(true)), None);
    }
}
