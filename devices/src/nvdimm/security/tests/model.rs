//! Any sequence of commands, against the rules written once more.

use super::*;
use proptest::prelude::*;

#[derive(Debug, Clone, Copy)]
enum Step {
    Set(u8, u8),
    Disable(u8),
    Unlock(u8),
    Freeze,
    Erase(u8),
    Overwrite(u8),
    Query,
    SetMaster(u8, u8),
    MasterErase(u8),
    PowerCycle,
    Lock,
    Restart,
    Wait(u8),
}

/// The rules again, over plain passphrases and with nothing in between.
#[derive(Debug, Default)]
struct Model {
    user: u8,
    enabled: bool,
    master: u8,
    locked: bool,
    frozen: bool,
    wrong: [u8; 2],
    left: u8,
    ended: bool,
    destroyed: u32,
}

impl Model {
    fn check(&mut self, master: bool, given: u8) -> std::result::Result<(), &'static str> {
        let (right, is_set) = if master {
            (self.master, self.master != 0)
        } else {
            (self.user, self.enabled)
        };
        let wrong = &mut self.wrong[usize::from(master)];
        if is_set && *wrong >= 3 {
            return Err("state");
        }
        if given == right {
            *wrong = 0;
            return Ok(());
        }
        *wrong += u8::from(is_set && given != 0);
        Err("passphrase")
    }

    fn erase(&mut self) {
        (self.user, self.enabled, self.locked, self.wrong) = (0, false, false, [0; 2]);
        self.destroyed += 1;
    }

    fn step(&mut self, step: Step) -> std::result::Result<(), &'static str> {
        let when = |allowed: bool| if allowed { Ok(()) } else { Err("state") };
        let taken = when(!self.frozen && self.left == 0);
        match step {
            Step::Set(old, new) => {
                taken.and_then(|()| self.check(false, old))?;
                (self.user, self.enabled) = (new, true);
            }
            Step::Disable(old) => {
                taken.and(when(self.enabled)).and_then(|()| self.check(false, old))?;
                (self.user, self.enabled, self.locked) = (0, false, false);
            }
            Step::Unlock(old) => {
                taken.and(when(self.locked)).and_then(|()| self.check(false, old))?;
                self.locked = false;
            }
            Step::Freeze => {
                when(self.enabled && self.left == 0)?;
                self.frozen = true;
            }
            Step::Erase(old) => {
                taken.and_then(|()| self.check(false, old))?;
                self.erase();
                self.master = 0;
            }
            Step::MasterErase(old) => {
                taken.and_then(|()| self.check(true, old))?;
                self.erase();
            }
            Step::SetMaster(old, new) => {
                taken.and_then(|()| self.check(true, old))?;
                self.master = new;
            }
            Step::Overwrite(old) => {
                taken?;
                if self.enabled {
                    self.check(false, old)?;
                }
                (self.left, self.ended) = (5, false);
                self.destroyed += 1;
            }
            Step::Query => {
                if self.left > 0 {
                    return Err("overwriting");
                }
                if !std::mem::take(&mut self.ended) {
                    return Err("sequence");
                }
            }
            Step::PowerCycle | Step::Restart => {
                (self.frozen, self.wrong, self.ended, self.locked) = (false, [0; 2], false, self.enabled);
                if matches!(step, Step::Restart) && self.left > 0 {
                    self.left = 5;
                    self.destroyed += 1;
                }
            }
            Step::Lock => {
                when(self.enabled && self.left == 0)?;
                self.locked = true;
            }
            Step::Wait(seconds) => {
                self.ended |= self.left > 0 && seconds >= self.left;
                self.left = self.left.saturating_sub(seconds);
            }
        }
        Ok(())
    }

    fn bits(&self) -> u8 {
        if self.left > 0 {
            return 0x40;
        }
        let bit = |on: bool, bit: u8| if on { bit } else { 0 };
        bit(self.enabled, 2) | bit(self.locked, 4) | bit(self.frozen, 8) | bit(self.wrong[0] >= 3, 0x10)
    }
}

impl Bench {
    fn step(&mut self, step: Step) -> Result {
        let security = &mut self.security;
        match step {
            Step::Set(old, new) => security.set_passphrase(&pass(old), &pass(new)),
            Step::Disable(old) => security.disable(&pass(old)),
            Step::Unlock(old) => security.unlock(&pass(old)),
            Step::Freeze => security.freeze(),
            Step::Erase(old) => security.erase(&pass(old)),
            Step::Overwrite(old) => security.overwrite(&pass(old)),
            Step::Query => security.query_overwrite(),
            Step::SetMaster(old, new) => security.set_master(&pass(old), &pass(new)),
            Step::MasterErase(old) => security.master_erase(&pass(old)),
            Step::PowerCycle => security.power_cycle(),
            Step::Lock => security.lock_now(),
            Step::Restart => {
                security.state();
                self.restart();
                Ok(())
            }
            Step::Wait(seconds) => {
                self.clock.advance(Duration::from_secs(seconds.into()));
                Ok(())
            }
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let word = || 0u8..3;
    // A new master passphrase of zeros would be one that is set and still needs no guessing: not interesting.
    prop_oneof![
        4 => (word(), 1u8..3).prop_map(|(a, b)| Step::Set(a, b)),
        1 => word().prop_map(Step::Disable),
        3 => word().prop_map(Step::Unlock),
        1 => Just(Step::Freeze),
        1 => word().prop_map(Step::Erase),
        1 => word().prop_map(Step::Overwrite),
        1 => Just(Step::Query),
        1 => (word(), 1u8..3).prop_map(|(a, b)| Step::SetMaster(a, b)),
        1 => word().prop_map(Step::MasterErase),
        2 => Just(Step::PowerCycle),
        1 => Just(Step::Lock),
        1 => Just(Step::Restart),
        2 => (1u8..7).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn any_sequence_goes_as_in_the_model(steps in proptest::collection::vec(step(), 1..40)) {
        let (mut bench, mut model) = (Bench::new(), Model::default());
        for (n, step) in steps.into_iter().enumerate() {
            let expected = model.step(step);
            let found = bench.step(step);
            prop_assert_eq!(outcome(&found), expected.err().unwrap_or("ok"), "step {}: {:?}", n, step);
            prop_assert_eq!(bench.bits(), model.bits(), "step {}: {:?}", n, step);
            let open = !model.locked && model.left == 0;
            prop_assert_eq!((bench.security.is_open(), bench.shown()), (open, open), "step {}: {:?}", n, step);
            let bytes = bench.media.get();
            prop_assert_eq!(bytes.generation, model.destroyed, "step {}: {:?}", n, step);
            prop_assert_eq!(bytes.key.is_some(), model.enabled, "step {}: {:?}", n, step);
            prop_assert_eq!(&bytes.stored, bench.security.stored(), "step {}: {:?}", n, step);
        }
    }
}
