//! The REST API: HTTP/1.1 and JSON on a unix socket, for requests to the machine's loop.
//!
//! The only place with an async runtime. One thread, `api`, serves all clients; there is none without `--api-socket`. It
//! changes nothing itself: a route makes a [`Request`](crate::control::Request) of what came, [`Control`] carries it to the
//! loop, and the answer comes back through a oneshot.
//!
//! ```text
//! client --HTTP--> serve (one task each) --routes: Request--> Control::call --channel, bell--> the machine's loop
//!        <-- JSON, or a problem document --------------------- oneshot <-----------------------
//! ```
//! # How to add a route
//!
//! 1. `control/mod.rs`: the variant of `Request`, its row of `admit`; what it answers in `Response` (with `ToSchema`).
//! 2. `machine/events/serve.rs`: what it does. What needs the guest to come to an end is a `Begun::Operation` with a `Goal`.
//! 3. [`routes`]: one row of `ROUTES`, which is the dispatch and the OpenAPI document, and one arm of `written`, which is
//!    how a client asks for it. A test turns every arm into a row's request and back; another one fails until each row
//!    has been reached.
//! 4. `cli/ctl.rs`: the verb, and in `cli/ctl/show.rs` what people read.
//! 5. `cargo xtask bless` writes docs/openapi.json.

pub mod client;
pub mod openapi;
mod patience;
pub mod routes;
mod serve;
mod stream;

pub use serve::{MAX_CLIENTS, refusal};

use crate::machine::{control::Control, socket::Socket};
use std::{
    io,
    thread::{self, JoinHandle},
};
use tokio::sync::watch;

/// What every route begins with.
pub const BASE: &str = "/api/v1";

/// The API's thread.
#[derive(Debug)]
pub struct Api {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Api {
    /// Serves the clients of `socket`, whose file goes when this does.
    pub fn start(socket: Socket, control: Control) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()?;
        let (stop, stopped) = watch::channel(false);
        let body = move || {
            if let Err(e) = runtime.block_on(serve::serve(&socket, control, stopped)) {
                tracing::error!("the API is not served: {e}");
            }
        };
        let thread = thread::Builder::new().name("api".to_owned()).spawn(body)?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

/// Takes no more clients, and gives those there are a little time to read how it ended.
impl Drop for Api {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
