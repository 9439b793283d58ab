//! Tiers whose tests run guests: their programs run one after another here, or in nested hosts side by side.

mod queue;
mod shift;

use super::{Tally, Tier, executables::Executable};
use crate::host::Place;
use anyhow::Result;
use rustix::system::sysinfo;
use shift::Shift;
use std::{num::NonZero, panic, thread};

/// Boots of a tier that may have had a second try. More than that is not bad luck: it is a failure, whatever the tests say.
const MOST_RETRIES: usize = 5;
/// Memory of this machine that a nested host and its QEMU may take.
const MEMORY_OF_A_HOST: u64 = 7 << 30;

/// Runs `executables` there.
pub fn run(tier: Tier, place: Place, executables: &[Executable]) -> Result<Tally> {
    if executables.is_empty() {
        return Ok(Tally::default());
    }
    let shift = Shift::new(tier, place, executables)?;
    let workers = match place {
        Place::Here => 1,
        Place::Nested => hosts_at_once().min(executables.len()),
    };
    if workers > 1 {
        println!("{workers} nested hosts of one CPU each, side by side: the number before a line is the host's");
    }
    thread::scope(|scope| {
        let hosts = (1..=workers).map(|n| if workers > 1 { format!("{n}| ") } else { String::new() });
        let hosts: Vec<_> = hosts.map(|prefix| scope.spawn(|| shift.work(prefix))).collect();
        hosts.into_iter().try_for_each(|host| match host.join() {
            Ok(worked) => worked,
            Err(payload) => panic::resume_unwind(payload),
        })
    })?;
    let mut tally = shift.end();
    if let Some(why) = too_many(&tally) {
        tally.fail("retries", &why);
    }
    Ok(tally)
}

/// One for each processor, as far as memory goes.
fn hosts_at_once() -> usize {
    let cpus = thread::available_parallelism().map_or(1, NonZero::get);
    let info = sysinfo();
    let fit = u64::from(info.mem_unit) * info.totalram / MEMORY_OF_A_HOST;
    usize::try_from(fit).unwrap_or(usize::MAX).clamp(1, cpus)
}

/// Says why the retries of a tier are a failure, if they are.
fn too_many(tally: &Tally) -> Option<String> {
    let retries = tally.retries.len();
    (retries > MOST_RETRIES).then(|| {
        format!("error: {retries} boots were tried a second time, and at most {MOST_RETRIES} of a tier may be; hint: look for what they have in common")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_have_a_limit() {
        let mut tally = Tally {
            retries: vec!["a guest: lost".to_owned(); MOST_RETRIES],
            ..Tally::default()
        };
        assert_eq!(too_many(&tally), None);
        tally.retries.push("one more".to_owned());
        assert!(too_many(&tally).is_some_and(|why| why.contains("at most 5")));
    }
}
