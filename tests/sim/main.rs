//! Sessions, links and sections in virtual time, without sockets: alone against bytes ([`solo`]),
//! and as whole nodes wired back to back over pipes that can be cut anywhere ([`world`]).

mod acks;
mod input;
mod instant;
mod lessons;
mod model;
mod mutate;
mod nodes;
mod reloads;
mod replay;
mod section;
mod seeds;
mod solo;
mod split;
mod store;
mod timers;
mod world;
