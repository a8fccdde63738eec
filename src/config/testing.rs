//! A machine for tests: always the same answers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::Host;

/// Knows `localhost`, the user and group `haproxy`, and the variables `HOME` and `LIST`.
pub(crate) struct FakeHost;

impl Host for FakeHost {
    fn env(&self, name: &str) -> Option<String> {
        match name {
            "HOME" => Some("/h".into()),
            "LIST" => Some("l1 l2 l3".into()),
            _ => None,
        }
    }

    fn resolve(&self, name: &str, v6: Option<bool>) -> Option<IpAddr> {
        (name == "localhost").then_some(match v6 {
            Some(true) => IpAddr::V6(Ipv6Addr::LOCALHOST),
            _ => IpAddr::V4(Ipv4Addr::LOCALHOST),
        })
    }

    fn uid(&self, user: &str) -> Option<u32> {
        (user == "haproxy").then_some(101)
    }

    fn gid(&self, group: &str) -> Option<u32> {
        (group == "haproxy").then_some(102)
    }

    fn hostname(&self) -> String {
        "thishost".into()
    }
}
