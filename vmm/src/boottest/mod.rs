//! Boot tests: scenarios in TOML, run on many kernels, each with a verdict that names what broke.
//!
//! ```text
//! suites --load, expand--> Ready --times kernels--> Case --run--> CaseResult --> summary, JSON, JUnit, TAP, HTML
//!                                                     |
//!                              child `daxvisor run`, console, agent, API socket
//! ```
//! Everything that decides is pure: `expand`, `steps`, `filter`, `expect`, `console`, `oops`, `ktap`, `verdict`, `report`. `guest`, `case`
//! and `schedule` act. The command line (`cli::test`) chooses the host and prints.

pub mod case;
pub mod console;
pub mod expand;
pub mod expect;
pub mod filter;
pub mod guest;
mod host;
pub mod kernel;
pub mod ktap;
pub mod oops;
pub mod report;
pub mod scenario;
pub mod schedule;
pub mod schema;
pub mod steps;
mod svg;
pub mod verdict;
pub mod version;
