//! Kernels that are compiled here, with and without a patch.

mod patches;
