mod model;

use super::*;
use std::sync::{Arc, Mutex};

const CHEAP: KdfCost = KdfCost {
    memory_kib: 8,
    passes: 1,
};
const OVERWRITE: Duration = Duration::from_secs(5);

/// What the state machine did to the bytes.
#[derive(Debug, Default)]
struct Bytes {
    stored: SecurityState,
    shown: bool,
    /// Key that opens the contents; none: they need none.
    key: Option<Vec<u8>>,
    /// Bumped by each destruction.
    generation: u32,
    overwriting: bool,
    finished: bool,
    salt: u8,
    failing: bool,
}

#[derive(Clone, Default)]
struct FakeMedia(Arc<Mutex<Bytes>>);

fn bytes_of(key: Option<&WrappingKey>) -> Option<Vec<u8>> {
    key.map(|k| k.bytes().to_vec())
}

impl FakeMedia {
    fn get(&self) -> std::sync::MutexGuard<'_, Bytes> {
        self.0.lock().unwrap()
    }

    fn change(&self) -> io::Result<std::sync::MutexGuard<'_, Bytes>> {
        let bytes = self.get();
        if bytes.failing {
            Err(io::Error::other("the disk is full"))
        } else {
            Ok(bytes)
        }
    }
}

impl MediaControl for FakeMedia {
    fn random(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        let mut state = self.change()?;
        state.salt = state.salt.wrapping_add(1);
        bytes.fill(state.salt);
        Ok(())
    }
    fn store(&mut self, state: &SecurityState) -> io::Result<()> {
        self.change()?.stored = state.clone();
        Ok(())
    }
    fn protect(
        &mut self,
        state: &SecurityState,
        old: Option<&WrappingKey>,
        new: Option<&WrappingKey>,
    ) -> io::Result<()> {
        let mut bytes = self.change()?;
        assert_eq!(
            bytes.key,
            bytes_of(old),
            "the machine must pass the key that opens the contents"
        );
        bytes.key = bytes_of(new);
        bytes.stored = state.clone();
        Ok(())
    }
    fn lock(&mut self) -> io::Result<()> {
        self.change()?.shown = false;
        Ok(())
    }
    fn unlock(&mut self, key: Option<&WrappingKey>) -> io::Result<()> {
        let mut bytes = self.change()?;
        assert_eq!(bytes.key, bytes_of(key));
        assert!(!bytes.overwriting);
        bytes.shown = true;
        Ok(())
    }
    fn erase(&mut self, state: &SecurityState, key: Option<&WrappingKey>) -> io::Result<()> {
        let mut bytes = self.change()?;
        if key.is_some() {
            assert_eq!(bytes.key, bytes_of(key));
        }
        (bytes.key, bytes.shown, bytes.stored) = (None, false, state.clone());
        bytes.generation += 1;
        Ok(())
    }
    fn start_overwrite(&mut self, state: &SecurityState) -> io::Result<()> {
        let mut bytes = self.change()?;
        (bytes.overwriting, bytes.shown, bytes.stored) = (true, false, state.clone());
        bytes.generation += 1;
        Ok(())
    }
    fn overwritten(&mut self) -> Option<io::Result<()>> {
        let mut bytes = self.get();
        assert!(bytes.overwriting);
        bytes.overwriting = !bytes.finished;
        bytes.finished.then_some(Ok(()))
    }
    fn resume(&mut self) -> io::Result<()> {
        self.change()?.shown = true;
        Ok(())
    }
}

struct Bench {
    security: Security,
    media: FakeMedia,
    clock: Clock,
}

fn settings() -> Settings {
    Settings {
        cost: CHEAP,
        overwrite: OVERWRITE,
    }
}

impl Bench {
    fn new() -> Self {
        let (media, clock) = (FakeMedia::default(), Clock::manual());
        media.get().finished = true;
        let security = Security::new(SecurityState::default(), Box::new(media.clone()), &clock, settings());
        Self {
            security: security.unwrap(),
            media,
            clock,
        }
    }

    /// A DIMM with the passphrase 1.
    fn enabled() -> Self {
        let mut bench = Self::new();
        bench.security.set_passphrase(&pass(0), &pass(1)).unwrap();
        bench
    }

    fn shown(&self) -> bool {
        self.media.get().shown
    }

    fn generation(&self) -> u32 {
        self.media.get().generation
    }

    fn on_disk(&self) -> SecurityState {
        self.media.get().stored.clone()
    }

    fn bits(&mut self) -> u8 {
        self.security.state().0.bits()
    }

    /// The monitor ends and starts again.
    fn restart(&mut self) {
        let stored = self.media.get().stored.clone();
        self.media.get().shown = false;
        self.media.get().overwriting = false;
        self.security = Security::new(stored, Box::new(self.media.clone()), &self.clock, settings()).unwrap();
    }
}

fn pass(byte: u8) -> Passphrase {
    Passphrase::new([byte; PASSPHRASE])
}

/// 0 or the kind of refusal.
fn outcome(result: &Result) -> &'static str {
    match result {
        Ok(()) => "ok",
        Err(SecurityError::State) => "state",
        Err(SecurityError::Passphrase) => "passphrase",
        Err(SecurityError::Overwriting) => "overwriting",
        Err(SecurityError::Sequence) => "sequence",
        Err(SecurityError::Media(_)) => "media",
    }
}

type Command = fn(&mut Security, &Passphrase) -> Result;

const SET: Command = |s, p| s.set_passphrase(p, &pass(9));
const SET_MASTER: Command = |s, p| s.set_master(p, &pass(9));
const FREEZE: Command = |s, _| s.freeze();

#[test]
fn commands_are_taken_in_their_states_only() {
    let mut disabled = Bench::new();
    let mut unlocked = Bench::enabled();
    let mut locked = Bench::enabled();
    locked.security.power_cycle().unwrap();
    let mut frozen = Bench::enabled();
    frozen.security.freeze().unwrap();
    let mut overwriting = Bench::enabled();
    overwriting.security.overwrite(&pass(1)).unwrap();
    assert_eq!(
        [&mut disabled, &mut unlocked, &mut locked, &mut frozen, &mut overwriting].map(Bench::bits),
        [0, 0x02, 0x06, 0x0a, 0x40]
    );
    // Each with a wrong passphrase, so that what is refused for its state is told from what is not.
    for (name, command, outcomes) in [
        ("set", SET, ["passphrase", "passphrase", "passphrase", "state", "state"]),
        (
            "disable",
            Security::disable,
            ["state", "passphrase", "passphrase", "state", "state"],
        ),
        (
            "unlock",
            Security::unlock,
            ["state", "state", "passphrase", "state", "state"],
        ),
        (
            "erase",
            Security::erase,
            ["passphrase", "passphrase", "passphrase", "state", "state"],
        ),
        (
            "overwrite",
            Security::overwrite,
            ["ok", "passphrase", "passphrase", "state", "state"],
        ),
        (
            "master set",
            SET_MASTER,
            ["state", "passphrase", "passphrase", "state", "state"],
        ),
        (
            "master erase",
            Security::master_erase,
            ["state", "passphrase", "passphrase", "state", "state"],
        ),
        ("freeze", FREEZE, ["state", "ok", "ok", "ok", "state"]),
    ] {
        let benches = [&mut disabled, &mut unlocked, &mut locked, &mut frozen, &mut overwriting];
        let found = benches.map(|bench| {
            // Attempts are counted elsewhere.
            (bench.security.wrong_user, bench.security.wrong_master) = (0, 0);
            outcome(&command(&mut bench.security, &pass(8)))
        });
        assert_eq!(found, outcomes, "{name}");
    }
}

#[test]
fn passphrase_is_set_changed_and_removed() {
    let mut bench = Bench::enabled();
    assert_eq!(
        outcome(&bench.security.set_passphrase(&pass(0), &pass(2))),
        "passphrase"
    );
    bench.security.set_passphrase(&pass(1), &pass(2)).unwrap();
    assert_eq!((bench.bits(), bench.shown()), (0x02, true));
    assert_eq!(outcome(&bench.security.disable(&pass(1))), "passphrase");
    bench.security.disable(&pass(2)).unwrap();
    assert_eq!((bench.bits(), bench.media.get().key.clone()), (0, None));
    assert_eq!(bench.generation(), 0, "the contents must have stayed");
}

#[test]
fn locked_dimm_opens_with_its_passphrase_after_a_restart_as_well() {
    let mut bench = Bench::enabled();
    for power_cycle in [true, false] {
        if power_cycle {
            bench.security.power_cycle().unwrap();
        } else {
            bench.restart();
        }
        assert_eq!(
            (bench.bits(), bench.security.is_open(), bench.shown()),
            (0x06, false, false)
        );
        assert_eq!(outcome(&bench.security.unlock(&pass(2))), "passphrase");
        bench.security.unlock(&pass(1)).unwrap();
        assert_eq!(
            (bench.bits(), bench.security.is_open(), bench.shown()),
            (0x02, true, true)
        );
    }
}

#[test]
fn locked_dimm_is_opened_by_disabling_security_and_keeps_its_new_passphrase() {
    let mut bench = Bench::enabled();
    bench.security.lock_now().unwrap();
    bench.security.set_passphrase(&pass(1), &pass(2)).unwrap();
    assert_eq!((bench.bits(), bench.shown()), (0x06, false));
    bench.security.disable(&pass(2)).unwrap();
    assert_eq!((bench.bits(), bench.shown()), (0, true));
}

#[test]
fn dimm_without_a_passphrase_is_never_locked() {
    let mut bench = Bench::new();
    assert_eq!(outcome(&bench.security.lock_now()), "state");
    bench.security.power_cycle().unwrap();
    assert_eq!((bench.bits(), bench.shown()), (0, true));
}

#[test]
fn freeze_lasts_until_the_next_power_cycle() {
    let mut bench = Bench::enabled();
    bench.security.freeze().unwrap();
    assert_eq!(outcome(&bench.security.disable(&pass(1))), "state");
    bench.security.power_cycle().unwrap();
    assert_eq!(bench.bits(), 0x06);
    bench.security.disable(&pass(1)).unwrap();
}

#[test]
fn three_wrong_passphrases_are_too_many_until_the_next_power_cycle() {
    let mut bench = Bench::enabled();
    bench.security.lock_now().unwrap();
    for _ in 0..ATTEMPTS {
        assert_eq!(bench.bits(), 0x06);
        assert_eq!(outcome(&bench.security.unlock(&pass(7))), "passphrase");
    }
    assert_eq!(bench.bits(), 0x16);
    assert_eq!(
        outcome(&bench.security.unlock(&pass(1))),
        "state",
        "not even the right one"
    );
    assert_eq!(
        outcome(&bench.security.set_master(&pass(0), &pass(5))),
        "ok",
        "the other kind goes on"
    );
    bench.security.power_cycle().unwrap();
    bench.security.unlock(&pass(1)).unwrap();
    for _ in 0..ATTEMPTS {
        assert_eq!(outcome(&bench.security.master_erase(&pass(7))), "passphrase");
    }
    assert_eq!(bench.security.state().1.bits(), 0x03);
    assert_eq!(outcome(&bench.security.master_erase(&pass(5))), "state");
}

#[test]
fn right_passphrase_forgets_wrong_ones_and_no_passphrase_is_no_attempt() {
    let mut bench = Bench::enabled();
    for _ in 0..3 {
        for wrong in [7, 7, 0, 0, 0, 0] {
            assert_eq!(
                outcome(&bench.security.set_passphrase(&pass(wrong), &pass(2))),
                "passphrase"
            );
        }
        bench.security.set_passphrase(&pass(1), &pass(1)).unwrap();
    }
}

#[test]
fn erase_destroys_data_and_forgets_both_passphrases() {
    for lock in [false, true] {
        let mut bench = Bench::enabled();
        bench.security.set_master(&pass(0), &pass(5)).unwrap();
        if lock {
            bench.security.lock_now().unwrap();
        }
        bench.security.erase(&pass(1)).unwrap();
        assert_eq!((bench.bits(), bench.security.state().1.bits()), (0, 1));
        assert_eq!(bench.generation(), 1);
        assert!(bench.shown() && bench.on_disk() == SecurityState::default());
        bench.security.set_master(&pass(0), &pass(6)).unwrap();
    }
}

#[test]
fn master_erase_needs_no_user_passphrase_and_keeps_the_master_one() {
    let mut bench = Bench::enabled();
    bench.security.set_master(&pass(0), &pass(5)).unwrap();
    bench.security.lock_now().unwrap();
    assert_eq!(outcome(&bench.security.master_erase(&pass(1))), "passphrase");
    bench.security.master_erase(&pass(5)).unwrap();
    assert_eq!((bench.bits(), bench.generation(), bench.shown()), (0, 1, true));
    assert_eq!(outcome(&bench.security.set_master(&pass(0), &pass(6))), "passphrase");
}

#[test]
fn overwrite_takes_its_time_and_its_end_is_told_once() {
    let mut bench = Bench::enabled();
    assert_eq!(outcome(&bench.security.query_overwrite()), "sequence");
    bench.media.get().finished = false;
    bench.security.overwrite(&pass(1)).unwrap();
    assert!(!bench.shown() && bench.on_disk().overwriting);
    bench.clock.advance(OVERWRITE - Duration::from_millis(1));
    assert_eq!(outcome(&bench.security.query_overwrite()), "overwriting");
    bench.clock.advance(Duration::from_secs(60));
    assert_eq!(
        outcome(&bench.security.query_overwrite()),
        "overwriting",
        "the host is slower"
    );
    assert_eq!(bench.bits(), 0x40);
    bench.media.get().finished = true;
    // The state is the old one; looking at it is not asking for the end.
    assert_eq!(
        (bench.bits(), bench.security.is_open(), bench.shown()),
        (0x02, true, true)
    );
    assert!(!bench.on_disk().overwriting);
    assert_eq!(outcome(&bench.security.query_overwrite()), "ok");
    assert_eq!(outcome(&bench.security.query_overwrite()), "sequence");
}

#[test]
fn overwrite_of_a_locked_dimm_leaves_it_locked_and_goes_on_after_a_restart() {
    let mut bench = Bench::enabled();
    bench.security.lock_now().unwrap();
    bench.security.overwrite(&pass(1)).unwrap();
    bench.restart();
    assert_eq!((bench.bits(), bench.generation()), (0x40, 2));
    bench.clock.advance(OVERWRITE);
    assert_eq!((bench.bits(), bench.shown()), (0x06, false));
}

#[test]
fn what_the_host_cannot_do_changes_nothing() {
    let mut bench = Bench::enabled();
    let before = bench.on_disk();
    bench.media.get().failing = true;
    for command in [SET, Security::disable, Security::erase, Security::overwrite] {
        assert_eq!(outcome(&command(&mut bench.security, &pass(1))), "media");
    }
    assert_eq!(outcome(&bench.security.set_master(&pass(0), &pass(4))), "media");
    assert_eq!(outcome(&bench.security.lock_now()), "media");
    bench.media.get().failing = false;
    assert_eq!((bench.bits(), bench.security.stored()), (0x02, &before));
    bench.security.set_passphrase(&pass(1), &pass(2)).unwrap();
}
