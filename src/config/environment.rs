//! Variables as the configuration sees them: the process's own, changed by `setenv` and friends.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use crate::config::Host;

/// The caller's variables under a layer of our own. Nothing is ever written back to the process.
pub(crate) struct Environment<'h> {
    host: &'h dyn Host,
    layer: HashMap<String, Option<String>>,
    /// `resetenv`: only these of the host's variables are still seen.
    kept: Option<Vec<String>>,
}

impl<'h> Environment<'h> {
    pub(crate) fn new(host: &'h dyn Host, localpeer: &str) -> Self {
        let mut env = Environment { host, layer: HashMap::new(), kept: None };
        env.set("HAPROXY_LOCALPEER", localpeer);
        env
    }

    pub(crate) fn get(&self, name: &str) -> Option<String> {
        if let Some(value) = self.layer.get(name) {
            return value.clone();
        }
        if self.kept.as_ref().is_some_and(|kept| !kept.iter().any(|k| k == name)) {
            return None;
        }
        self.host.env(name)
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.layer.insert(name.to_owned(), Some(value.to_owned()));
    }

    pub(crate) fn unset(&mut self, name: &str) {
        self.layer.insert(name.to_owned(), None);
    }

    pub(crate) fn reset(&mut self, keep: Vec<String>) {
        self.layer.retain(|name, _| keep.contains(name));
        self.kept = Some(keep);
    }
}
