//! A payload inside this process, where the exits can be counted.

use super::Program;
use std::{fs, sync::atomic::Ordering, time::Duration};
use vmm::{
    cli::MachinePlan,
    config::{ConsoleConfig, VmConfig, probe::Purpose},
    machine::{Machine, Outcome, Plans, RunLimits},
};

/// No payload needs this long.
const LIMIT: Duration = Duration::from_secs(60);

/// A run that is over.
#[derive(Debug)]
pub struct Counted {
    /// Why it ended.
    pub outcome: Outcome,
    /// What the guest sent.
    pub console: Vec<u8>,
    /// Exits for port accesses and for MMIO accesses.
    pub exits: (u64, u64),
}

/// Runs `program` on the machine of `config`, whose kernel and console are set here.
pub fn run(program: &Program, mut config: VmConfig) -> Counted {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (kernel, console) = (dir.path().join("payload.elf"), dir.path().join("console"));
    fs::write(&kernel, program.elf()).expect("room for the payload");
    config.kernel = Some(kernel);
    config.console = ConsoleConfig::File(console.clone());
    let plan = MachinePlan::prepare(config, Purpose::Boot).expect("a valid configuration");
    let plans = Plans {
        topology: &plan.topology,
        layout: &plan.layout,
        phys_bits: plan.phys_bits,
        backings: &plan.backings,
        memory_devices: &plan.memory_devices,
    };
    let machine = Machine::build(&plan.config, &plans, None).expect("a machine");
    let platform = machine.platform().clone();
    let limits = RunLimits {
        limit: Some(LIMIT),
        ..RunLimits::default()
    };
    let (outcome, _) = machine.run(limits).expect("a working event loop");
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    Counted {
        outcome,
        console: fs::read(&console).expect("the console's file"),
        exits: (count(&platform.exits.port), count(&platform.exits.mmio)),
    }
}
