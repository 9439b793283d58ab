//! What the tests of whole machines share.

pub mod payload;
