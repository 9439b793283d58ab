//! The agent: first process of a guest (or of the nested host), and server of the commands that the host sends.
//!
//! [`init`] makes the freshly booted kernel usable (mounts, modules, the host's root where asked for) and then keeps
//! [`server`] running on the virtio console port for ever. The server works on any byte stream, so it is tested on an
//! ordinary machine over a socket pair.
//!
//! ```text
//! init::run -> mounts -> modules -> [hostroot] -> "ready" line -> port::serve_for_ever -> server::serve (one per connection)
//!                                                        `-> shell (no port, or asked for)
//! ```
#![forbid(unsafe_code)]

mod button;
pub mod cmdline;
mod command;
mod files;
pub mod hostroot;
pub mod init;
pub mod modules;
mod mounts;
mod outbox;
mod port;
pub mod reaper;
pub mod server;
mod shell;
