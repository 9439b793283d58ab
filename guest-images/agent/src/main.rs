//! `/init`, and `poweroff`, `halt` and `reboot` under those names.
#![forbid(unsafe_code)]

use daxvisor_agent::{init, server::Power};
use std::{env, path::Path, process};

fn main() {
    let name = env::args_os().next().unwrap_or_default();
    match Path::new(&name).file_name().and_then(|n| n.to_str()) {
        Some("poweroff" | "halt") => init::end(Power::Off),
        Some("reboot") => init::end(Power::Reboot),
        _ => {}
    }
    if process::id() != 1 {
        eprintln!("daxvisor-agent is the first process of a guest; hint: it runs as /init of the guest images");
        process::exit(2);
    }
    init::run()
}
