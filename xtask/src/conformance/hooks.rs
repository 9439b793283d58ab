//! What tests do to the mock through its sysfs files, done to the machine from outside.

use std::path::Path;

/// The way to one machine.
pub struct Hooks;

impl Hooks {
    /// For a machine whose sockets lie in `private`.
    pub fn new(_private: &Path) -> Self {
        Self
    }

    /// Flags of `daxvisor run` that open the way.
    pub fn args(&self) -> Vec<String> {
        vec![]
    }

    /// Does what a line of the guest asks for.
    pub fn serve(&self, request: &str) -> Result<(), String> {
        Err(format!("there is no way to do '{request}' from outside"))
    }
}
