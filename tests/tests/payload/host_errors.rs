//! Memory that the host has lost, on a machine in this process: the host's signal is sent by the test itself, as the kernel allows a
//! process to do. Real errors of a host need its kernel's help (the tier `linux` has them).

use devices::units::ByteSize;
use guest_tests::payload::{Program, Script, machine};
use std::{
    fs, mem,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use vmm::{config::VmConfig, machine::Outcome, memory::lost};

/// RAM, of a size that nothing else in this process has.
const RAM: usize = 86 << 20;
/// What the guest says when it runs, what it waits for, and what it loads then.
const READY: usize = 0x40_0000;
const GO: usize = 0x40_1000;
const BAD: usize = 0x40_2000;
/// Codes of SIGBUS.
const ACTION_REQUIRED: libc::c_int = 4;
const ACTION_OPTIONAL: libc::c_int = 5;
const PATIENCE: Duration = Duration::from_secs(30);

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Where the guest's RAM is in this process.
fn ram() -> Option<usize> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().find_map(|line| {
        let (start, end) = line.split_whitespace().next()?.split_once('-')?;
        let (start, end) = (
            usize::from_str_radix(start, 16).ok()?,
            usize::from_str_radix(end, 16).ok()?,
        );
        (end - start == RAM).then_some(start)
    })
}

/// A machine whose guest waits before it loads.
struct Waiting {
    run: JoinHandle<Outcome>,
    ram: usize,
}

impl Waiting {
    fn start() -> Self {
        let script = Script::new().store(READY as u64, 4, 1).wait(GO as u64, 1);
        let program = Program::new(script.load(BAD as u64 + 0x48, 8).exit(0x2a));
        let run = thread::spawn(move || {
            let mut config = VmConfig::default();
            config.memory.size = Some(ByteSize(RAM as u64));
            machine::run(&program, config).outcome
        });
        let ram = until("the guest's RAM", ram);
        let waiting = Self { run, ram };
        until("the guest", || (waiting.word(READY) == 1).then_some(()));
        waiting
    }

    fn at(&self, gpa: usize) -> *mut u32 {
        (self.ram + gpa) as *mut u32
    }

    fn word(&self, gpa: usize) -> u32 {
        // SAFETY: RAM of the machine, which runs; all who use it do so as here.
        unsafe { self.at(gpa).read_volatile() }
    }

    /// Tells this thread of an error, and waits until the loop has taken it.
    fn lose(&self, code: libc::c_int) {
        let address = self.ram + BAD + 0x10;
        // SAFETY: the structure is plain data, large enough for the address and its bits, which lie where the kernel has them.
        unsafe {
            let mut info: libc::siginfo_t = mem::zeroed();
            (info.si_signo, info.si_code) = (libc::SIGBUS, code);
            let bytes = (&raw mut info).cast::<u8>();
            bytes.add(16).cast::<usize>().write_unaligned(address);
            bytes.add(24).cast::<u16>().write_unaligned(12);
            // A thread may tell itself what otherwise the kernel alone tells.
            let thread = libc::syscall(libc::SYS_gettid);
            let sent = libc::syscall(
                libc::SYS_rt_tgsigqueueinfo,
                libc::getpid(),
                thread,
                libc::SIGBUS,
                &raw const info,
            );
            assert_eq!(sent, 0, "{}", std::io::Error::last_os_error());
        }
        until("the loop", || (!lost::is_any(|one| one == address)).then_some(()));
    }

    /// The guest loads; how its machine ends.
    fn go_on(self) -> Outcome {
        // SAFETY: as in `word`.
        unsafe { self.at(GO).write_volatile(1) };
        self.run.join().unwrap()
    }
}

/// The load ends the machine: this guest takes no machine checks.
fn is_met(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::MachineCheck { apic_id: 0, why } if why.contains("CR4.MCE"))
}

#[test]
fn memory_that_the_host_has_lost_is_bad_for_the_guest() {
    // Nobody has lost anything.
    let outcome = Waiting::start().go_on();
    assert!(matches!(outcome, Outcome::TestExit(0x2a)), "{outcome:?}");
    // A thread of the monitor has touched it: the vCPU is kept out until it is bad.
    let waiting = Waiting::start();
    waiting.lose(ACTION_REQUIRED);
    let outcome = waiting.go_on();
    assert!(is_met(&outcome), "{outcome:?}");
    // Nobody has touched it.
    let waiting = Waiting::start();
    waiting.lose(ACTION_OPTIONAL);
    let outcome = waiting.go_on();
    assert!(is_met(&outcome), "{outcome:?}");
}
