//! What needs a nested host of a special kind: a module for each subject, and each module is run by itself.

mod devdax;
mod flush;
mod reset;
