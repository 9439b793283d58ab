//! Boot protocols: images and initial CPU state, as pure plans and a thin loader.

pub mod bzimage;
#[cfg(test)]
pub(crate) mod testing;
pub mod unpack;
