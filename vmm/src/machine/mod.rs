//! The machine: owner of everything, and its event loop.
