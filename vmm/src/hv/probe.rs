//! What /dev/kvm can do, found by running a guest of 244 bytes on it.
//!
//! Feature flags do not tell whether a KVM can run a kernel: a paravirtual one answers every capability query and then
//! emulates ring 0 instruction by instruction, some of them not at all. So [`probe`] enters long mode, counts a loop, takes
//! two exceptions through an IDT and runs `lock cmpxchg16b`, each a step in a slot of its own (probe/payload.S), and judges by what
//! happened. A step that KVM gives up on is noted and skipped, so that the report names all of them. The whole takes some
//! 20 ms; [`cached`] remembers the result until the next boot.

mod payload;

use self::payload::{BASE, COUNT_PORT, REPORT_PORT, STEPS, load_payload, protected_mode};
use kvm_bindings::{KVM_API_VERSION, KVM_MAX_CPUID_ENTRIES, kvm_regs, kvm_userspace_memory_region};
use kvm_ioctls::{Cap, Kvm, VcpuExit, VcpuFd, VmFd};
use serde::{Deserialize, Serialize};
use std::{
    env, fmt, fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use vm_memory::{GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

/// Below this a kernel takes minutes to boot. Emulation manages 2 to 4 million a second; virtualisation of any kind,
/// nested in an emulated machine too, hundreds of millions: a busy machine does not blur the line.
pub const MIN_RATE: f64 = 20e6;
/// A loop that ran this long is measured well enough.
const LONG_ENOUGH: Duration = Duration::from_millis(4);
/// No KVM needs this long for the payload; one that does has hung.
const DEADLINE: Duration = Duration::from_secs(5);

/// What kind of KVM this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KvmKind {
    /// Runs kernels, on a machine that shows no hypervisor above it.
    Hardware,
    /// Runs kernels, inside a virtual machine.
    Nested,
    /// Answers like KVM but emulates ring 0: it runs payloads, not kernels.
    Paravirtual,
    /// There is no KVM.
    Absent,
    /// There is one, but not for this user.
    NoPermission,
    /// There is one, but it makes no virtual machine (another monitor may hold the CPU's virtualisation).
    Broken,
}

impl KvmKind {
    /// Whether an unmodified kernel boots here in reasonable time.
    pub fn runs_kernels(self) -> bool {
        matches!(self, Self::Hardware | Self::Nested)
    }
}

impl fmt::Display for KvmKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hardware => "hardware",
            Self::Nested => "nested",
            Self::Paravirtual => "paravirtual",
            Self::Absent => "absent",
            Self::NoPermission => "no-permission",
            Self::Broken => "broken",
        })
    }
}

/// What [`probe`] found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// The verdict.
    pub kind: KvmKind,
    /// Loop iterations a second, when the payload got that far.
    pub rate: Option<f64>,
    /// The evidence, in one sentence without a full stop.
    pub detail: String,
}

/// What the payload did.
#[derive(Debug, Default, PartialEq)]
struct Findings {
    rate: Option<f64>,
    /// Step and what happened instead.
    failures: Vec<(&'static str, String)>,
}

/// Runs the payload on /dev/kvm.
pub fn probe() -> Probe {
    probe_device(Path::new("/dev/kvm"))
}

/// The result of an earlier [`probe`] since the machine booted, else a new one.
pub fn cached() -> Probe {
    let file = cache_file();
    let known = file
        .as_deref()
        .and_then(|f| serde_json::from_slice(&fs::read(f).ok()?).ok());
    known.unwrap_or_else(probe_and_remember)
}

/// A new [`probe`], which [`cached`] returns from then on.
pub fn probe_and_remember() -> Probe {
    let probe = probe();
    // A missing or forbidden device costs nothing to ask again, and may come.
    if let Some(file) = cache_file().filter(|_| probe.rate.is_some()) {
        remember(&file, &probe);
    }
    probe
}

/// The cache is a convenience: a file system that does not take it only costs the next probe.
fn remember(file: &Path, probe: &Probe) {
    let write = || {
        let dir = file.parent()?;
        fs::create_dir_all(dir).ok()?;
        let temporary = tempfile::NamedTempFile::new_in(dir).ok()?;
        serde_json::to_writer(&temporary, probe).ok()?;
        temporary.persist(file).ok()
    };
    if write().is_none() {
        tracing::debug!(file = %file.display(), "the result of the KVM probe is not remembered");
    }
}

/// A file of this user's, named after the boot.
fn cache_file() -> Option<PathBuf> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let dir = absolute("XDG_RUNTIME_DIR")
        .or_else(|| absolute("XDG_CACHE_HOME"))
        .or_else(|| absolute("HOME").map(|h| h.join(".cache")))?;
    Some(dir.join("daxvisor").join(format!("kvm-probe-{}.json", boot.trim())))
}

fn probe_device(device: &Path) -> Probe {
    let without_payload = |kind, detail: String| Probe {
        kind,
        rate: None,
        detail,
    };
    // Kvm::new hides the path in its error, and a file that is no device would answer ioctls with ENOTTY.
    if let Err(error) = fs::OpenOptions::new().read(true).write(true).open(device) {
        let detail = format!("cannot open {}: {error}", device.display());
        return match error.kind() {
            io::ErrorKind::PermissionDenied => without_payload(KvmKind::NoPermission, detail),
            _ => without_payload(KvmKind::Absent, detail),
        };
    }
    match run_on_thread(device.to_owned()) {
        Ok(findings) => judge(&findings, hypervisor_above()),
        Err(error) => without_payload(KvmKind::Broken, format!("{}: {error}", device.display())),
    }
}

/// CPUID.1:ECX.31, which tells a guest that it is one. Says nothing about what KVM can do.
fn hypervisor_above() -> bool {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = cpuinfo.lines().find(|l| l.starts_with("flags")).unwrap_or_default();
    flags.split_ascii_whitespace().any(|f| f == "hypervisor")
}

fn judge(findings: &Findings, hypervisor: bool) -> Probe {
    let rate = findings.rate;
    let speed = rate.map(|r| format!("{:.1} million loop iterations/s", r / 1e6));
    let failed: Vec<_> = findings
        .failures
        .iter()
        .map(|(step, what)| format!("{step} failed ({what})"))
        .collect();
    let slow = rate.is_none_or(|r| r < MIN_RATE);
    let kind = match (slow || !failed.is_empty(), hypervisor) {
        (true, _) => KvmKind::Paravirtual,
        (false, true) => KvmKind::Nested,
        (false, false) => KvmKind::Hardware,
    };
    let detail = speed.into_iter().chain(failed).collect::<Vec<_>>().join("; ");
    Probe { kind, rate, detail }
}

extern "C" fn interrupt(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

/// A KVM that never comes back from KVM_RUN must not hang us: the payload has a thread that a signal can interrupt.
fn run_on_thread(device: PathBuf) -> io::Result<Findings> {
    let kick = SIGRTMIN() + 5;
    register_signal_handler(kick, interrupt).map_err(|e| io::Error::from_raw_os_error(e.errno()))?;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let thread = thread::Builder::new()
        .name("kvm-probe".into())
        .spawn(move || run_payload(&device, &stopped))?;
    let deadline = Instant::now() + DEADLINE;
    while !thread.is_finished() {
        thread::sleep(Duration::from_millis(1));
        if Instant::now() > deadline {
            stop.store(true, Ordering::Relaxed);
            // Again and again: a signal that comes just before KVM_RUN interrupts nothing.
            thread.kill(kick).map_err(|e| io::Error::from_raw_os_error(e.errno()))?;
        }
    }
    thread
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the probe panicked")))
}

fn run_payload(device: &Path, stop: &AtomicBool) -> io::Result<Findings> {
    let device = std::ffi::CString::new(device.as_os_str().as_encoded_bytes())?;
    let kvm = Kvm::new_with_path(device).map_err(os("open"))?;
    let version = kvm.get_api_version();
    if u32::try_from(version) != Ok(KVM_API_VERSION) {
        return Err(io::Error::other(format!(
            "KVM API version {version}, expected {KVM_API_VERSION}"
        )));
    }
    let vm = kvm.create_vm().map_err(os("KVM_CREATE_VM"))?;
    let memory = load_payload()?;
    map(&vm, &memory)?;
    if kvm.check_extension(Cap::SetTssAddr) {
        // Three pages that Intel CPUs without unrestricted guest need, just below the BIOS as everyone puts them.
        vm.set_tss_address(0xfffb_d000).map_err(os("KVM_SET_TSS_ADDR"))?;
    }
    let mut vcpu = vm.create_vcpu(0).map_err(os("KVM_CREATE_VCPU"))?;
    let cpuid = kvm
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .map_err(os("KVM_GET_SUPPORTED_CPUID"))?;
    vcpu.set_cpuid2(&cpuid).map_err(os("KVM_SET_CPUID2"))?;
    let mut sregs = vcpu.get_sregs().map_err(os("KVM_GET_SREGS"))?;
    protected_mode(&mut sregs);
    vcpu.set_sregs(&sregs).map_err(os("KVM_SET_SREGS"))?;
    vcpu.set_regs(&kvm_regs {
        rip: BASE,
        rflags: 2,
        rsp: 0x8000,
        ..Default::default()
    })
    .map_err(os("KVM_SET_REGS"))?;
    drive(&mut vcpu, stop)
}

fn os(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> io::Error {
    move |e| io::Error::other(format!("{what}: {}", io::Error::from_raw_os_error(e.errno())))
}

fn map(vm: &VmFd, memory: &GuestMemoryMmap) -> io::Result<()> {
    for (slot, region) in (0..).zip(memory.iter()) {
        let host = region
            .get_host_address(vm_memory::MemoryRegionAddress(0))
            .map_err(io::Error::other)?;
        let slot = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: region.start_addr().0,
            memory_size: region.len(),
            userspace_addr: host as u64,
        };
        // SAFETY: the range is `memory`'s own mapping of exactly that length; the caller keeps `memory` until the VM and
        // its vCPU are gone (locals of `run_payload`, dropped in reverse order), and only the guest uses its bytes.
        unsafe { vm.set_user_memory_region(slot) }.map_err(os("KVM_SET_USER_MEMORY_REGION"))?;
    }
    Ok(())
}

/// How one KVM_RUN ended, as far as the payload is concerned.
enum Event {
    Report(u8),
    WantsCount,
    End,
    GaveUp(String),
    Interrupted,
}

fn drive(vcpu: &mut VcpuFd, stop: &AtomicBool) -> io::Result<Findings> {
    let mut findings = Findings::default();
    let mut step = 0;
    let mut pace = Pace::default();
    while let Some(now) = STEPS.get(step) {
        match run_once(vcpu, &mut pace)? {
            Event::WantsCount => {}
            Event::Report(value) => {
                if value != now.expect {
                    findings
                        .failures
                        .push((now.name, format!("reported {value}, expected {}", now.expect)));
                }
                step += 1;
            }
            Event::Interrupted if !stop.load(Ordering::Relaxed) => {}
            Event::Interrupted => {
                findings
                    .failures
                    .push((now.name, format!("no result after {} s", DEADLINE.as_secs())));
                break;
            }
            Event::End => {
                findings.failures.push((now.name, "the guest halted".into()));
                break;
            }
            Event::GaveUp(what) => {
                findings.failures.push((now.name, what));
                step += 1;
                // Nothing after the first step runs outside long mode.
                let Some(next) = STEPS.get(step).filter(|_| step > 1) else {
                    break;
                };
                let mut regs = vcpu.get_regs().map_err(os("KVM_GET_REGS"))?;
                regs.rip = BASE + next.at;
                vcpu.set_regs(&regs).map_err(os("KVM_SET_REGS"))?;
            }
        }
    }
    findings.rate = pace.best;
    Ok(findings)
}

fn run_once(vcpu: &mut VcpuFd, pace: &mut Pace) -> io::Result<Event> {
    let what = match vcpu.run() {
        Ok(VcpuExit::IoOut(REPORT_PORT, &[value, ..])) => return Ok(Event::Report(value)),
        Ok(VcpuExit::IoIn(COUNT_PORT, data)) => {
            let count = pace.next(Instant::now()).to_le_bytes();
            data.iter_mut().zip(count).for_each(|(to, from)| *to = from);
            return Ok(Event::WantsCount);
        }
        Ok(VcpuExit::Hlt) => return Ok(Event::End),
        Ok(VcpuExit::Intr) => return Ok(Event::Interrupted),
        Ok(VcpuExit::InternalError) => "KVM_EXIT_INTERNAL_ERROR".to_owned(),
        Ok(VcpuExit::Shutdown) => "triple fault".to_owned(),
        Ok(other) => format!("{other:?}"),
        Err(e) if e.errno() == libc::EINTR || e.errno() == libc::EAGAIN => return Ok(Event::Interrupted),
        Err(e) => return Err(os("KVM_RUN")(e)),
    };
    let at = vcpu.get_regs().map(|r| format!(" at {:#x}", r.rip)).unwrap_or_default();
    Ok(Event::GaveUp(what + &at))
}

/// Hands out loop counts, doubling until one takes long enough, and keeps the best rate: noise only slows things down. A rate
/// below [`MIN_RATE`] has to show itself a few times before it is believed: cold code or a busy machine looks the same once.
#[derive(Debug, Default)]
struct Pace {
    running: Option<(u32, Instant)>,
    best: Option<f64>,
    /// Loops that took long enough and were too slow.
    slow: u32,
}

impl Pace {
    const FIRST: u32 = 1 << 12;
    /// So many slow loops are believed.
    const PATIENCE: u32 = 4;

    /// The guest asks at `now`; 0 ends the loop.
    fn next(&mut self, now: Instant) -> u32 {
        let count = match self.running {
            None => Self::FIRST,
            Some((count, since)) => {
                let took = now.saturating_duration_since(since);
                let rate = f64::from(count) / took.as_secs_f64().max(1e-9);
                let best = self.best.map_or(rate, |b| b.max(rate));
                self.best = Some(best);
                let long = took >= LONG_ENOUGH;
                self.slow += u32::from(long && best < MIN_RATE);
                match (long, best < MIN_RATE) {
                    (true, false) => 0,
                    (true, true) if self.slow >= Self::PATIENCE => 0,
                    (true, true) => count,
                    (false, _) => count.checked_mul(2).unwrap_or(0),
                }
            }
        };
        self.running = Some((count, Instant::now()));
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_and_complete_kvm_runs_kernels() {
        let fast = Findings {
            rate: Some(900e6),
            failures: vec![],
        };
        assert_eq!(judge(&fast, false).kind, KvmKind::Hardware);
        let nested = judge(
            &Findings {
                rate: Some(320e6),
                failures: vec![],
            },
            true,
        );
        assert_eq!(
            (nested.kind, nested.detail.as_str()),
            (KvmKind::Nested, "320.0 million loop iterations/s")
        );
        assert!(KvmKind::Hardware.runs_kernels() && KvmKind::Nested.runs_kernels());
    }

    #[test]
    fn a_slow_or_incomplete_kvm_is_paravirtual() {
        let slow = Findings {
            rate: Some(3e6),
            failures: vec![],
        };
        assert_eq!(judge(&slow, true).kind, KvmKind::Paravirtual);
        let failures = vec![("int3 with an IDT", "KVM_EXIT_INTERNAL_ERROR at 0x10087".to_owned())];
        let broken = judge(
            &Findings {
                rate: Some(900e6),
                failures,
            },
            false,
        );
        assert_eq!(broken.kind, KvmKind::Paravirtual);
        assert!(
            broken
                .detail
                .contains("int3 with an IDT failed (KVM_EXIT_INTERNAL_ERROR at 0x10087)"),
            "{broken:?}"
        );
        assert!(!KvmKind::Paravirtual.runs_kernels());
    }

    #[test]
    fn missing_and_wrong_devices_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(probe_device(&dir.path().join("kvm")).kind, KvmKind::Absent);
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let probe = probe_device(&file);
        assert_eq!(probe.kind, KvmKind::Broken);
        assert!(probe.detail.contains("KVM API version -1"), "{probe:?}");
    }

    #[test]
    fn loop_counts_double_until_they_take_long_enough() {
        let mut pace = Pace::default();
        assert_eq!(pace.next(Instant::now()), Pace::FIRST);
        assert_eq!(pace.next(Instant::now()), 2 * Pace::FIRST);
        assert_eq!(pace.next(Instant::now() + LONG_ENOUGH), 0);
        assert!(pace.best.unwrap() > 0.0);
    }

    #[test]
    fn one_slow_loop_is_not_believed() {
        let mut pace = Pace::default();
        let first = pace.next(Instant::now());
        for _ in 1..Pace::PATIENCE {
            assert_eq!(pace.next(Instant::now() + LONG_ENOUGH), first, "the same again");
        }
        assert_eq!(pace.next(Instant::now() + LONG_ENOUGH), 0, "it is slow");
        assert!(pace.best.unwrap() < MIN_RATE);

        let mut pace = Pace::default();
        let first = pace.next(Instant::now());
        assert_eq!(pace.next(Instant::now() + LONG_ENOUGH), first);
        assert_eq!(pace.next(Instant::now()), 2 * first, "it was cold");
        assert_eq!(pace.next(Instant::now() + LONG_ENOUGH), 0);
    }

    /// Whatever this machine has, the verdict agrees with the evidence, and takes no longer than promised.
    #[test]
    fn probe_of_this_machine_is_consistent() {
        let start = Instant::now();
        let probe = probe();
        assert!(start.elapsed() < DEADLINE, "{probe:?}");
        match probe.kind {
            KvmKind::Hardware | KvmKind::Nested => {
                assert!(
                    probe.rate.unwrap() >= MIN_RATE && !probe.detail.contains("failed"),
                    "{probe:?}"
                );
            }
            KvmKind::Paravirtual => {
                assert!(
                    probe.rate.unwrap() < MIN_RATE || probe.detail.contains("failed"),
                    "{probe:?}"
                );
            }
            KvmKind::Absent | KvmKind::NoPermission => {
                assert!(probe.detail.starts_with("cannot open /dev/kvm"), "{probe:?}")
            }
            KvmKind::Broken => panic!("a KVM without a payload result: {probe:?}"),
        }
    }

    #[test]
    fn result_is_remembered_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("daxvisor/kvm-probe-x.json");
        let probe = Probe {
            kind: KvmKind::Nested,
            rate: Some(1.5e8),
            detail: "fine".into(),
        };
        remember(&file, &probe);
        assert_eq!(
            serde_json::from_slice::<Probe>(&fs::read(&file).unwrap()).unwrap(),
            probe
        );
    }
}
