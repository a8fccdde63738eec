//! The configuration of a node that was given none.
#![forbid(unsafe_code)]

use crate::config::{Source, lexer};

/// What runs without `-f`: listen on 127.0.0.1:10000, accept any peer from this machine, create
/// tables from the first definition seen, and a stats socket in `runtime_dir`.
///
/// `localpeer` is `-L`, if given; the peer is called `stickring` otherwise.
pub fn embedded_default(runtime_dir: &str, localpeer: Option<&str>) -> Source {
    let name = lexer::quote(localpeer.unwrap_or("stickring"));
    let socket = lexer::quote(&format!("{}/stickring.sock", runtime_dir.trim_end_matches('/')));
    // With -L the line would only be warned about.
    let localpeer = localpeer.map_or(format!("    localpeer {name}\n"), |_| String::new());
    let text = format!(
        "global\n\
         {localpeer}\
         \x20   stats socket {socket} level admin mode 600\n\
         \n\
         peers stickring\n\
         \x20   peer {name} 127.0.0.1:10000\n\
         \n\
         stickring\n\
         \x20   accept-peers 127.0.0.0/8 ::1\n\
         \x20   auto-tables\n"
    );
    Source { name: "(default configuration)".into(), text: text.into_bytes() }
}
