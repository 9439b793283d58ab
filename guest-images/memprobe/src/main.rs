//! `memprobe`: maps memory in a guest, loads and stores where it is told, and says what came of it.
//!
//! ```text
//! memprobe map FILE LENGTH STEP...       a shared mapping of a file or device
//! memprobe anon LENGTH[@NODE] [early] STEP...   private memory, of one node, every page of it touched
//! memprobe read FILE OFFSET LENGTH       the read system call
//! memprobe vsock connect CID PORT        standard input to a stream socket, and the other way round
//! memprobe vsock echo PORT CLIENTS       listens, and gives each client back what it says
//! ```
//! Steps are done in order: `load:OFFSET`, `store:OFFSET`, `line:OFFSET` (64 bytes stored), `vector:OFFSET` (a 32-byte load),
//! `phys:OFFSET` (prints the page's physical address), `stop` (waits for a line on standard input), `sleep:SECONDS`.
//! `fill:OFFSET,LENGTH,SEED` and `check:OFFSET,LENGTH,SEED` write and compare words made of a number; `dread:OFFSET,LENGTH,FILE`
//! and `dwrite:OFFSET,LENGTH,FILE` move pages, or sectors of 512 bytes, from and to the begin of a file without the page cache; `splice:OFFSET,LENGTH`
//! gives pages to a pipe and compares what comes out; `register:OFFSET,LENGTH` registers memory with the first RDMA device until
//! the program ends, and prints how much is `pinned:` then. Each of these prints `STEP: done`.
//! A load prints `load OFFSET: VALUE`. SIGBUS prints `SIGBUS code CODE offset OFFSET lsb LSB`, the offset in the mapping,
//! and ends the program with 7; with `early` the program asks to be told of errors before it meets them. Other failures end
//! it with 1, a wrong command line with 2.

mod pages;
mod rdma;
mod vsock;

use std::{
    env,
    fmt::Write as _,
    fs::{File, OpenOptions},
    io::{self, BufRead, Write},
    mem,
    os::{fd::AsRawFd, unix::fs::FileExt},
    process, ptr,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

const PAGE: usize = 4096;
/// Where the mapping begins and ends, for the signal handler.
static START: AtomicUsize = AtomicUsize::new(0);

fn wrong() -> ! {
    eprintln!(
        "usage: memprobe map FILE LENGTH STEP... | anon LENGTH[@NODE] [early] STEP... | read FILE OFFSET LENGTH | vsock connect CID PORT | vsock echo PORT CLIENTS"
    );
    process::exit(2);
}

fn fail(what: &str, error: &io::Error) -> ! {
    println!("{what}: {error} (errno {})", error.raw_os_error().unwrap_or(0));
    process::exit(1);
}

fn number(text: &str) -> usize {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => usize::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.unwrap_or_else(|_| wrong())
}

/// A text on the stack: a signal handler allocates nothing.
struct Line {
    bytes: [u8; 128],
    len: usize,
}

impl std::fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for byte in text.bytes() {
            if let Some(free) = self.bytes.get_mut(self.len) {
                *free = byte;
                self.len += 1;
            }
        }
        Ok(())
    }
}

/// Says where, and ends the program.
extern "C" fn sigbus(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel hands a SA_SIGINFO handler a valid structure; behind the address lies its least significant bit.
    let (code, address, lsb) = unsafe {
        let address = (*info).si_addr();
        let lsb = info.cast::<u8>().add(24).cast::<u16>().read();
        ((*info).si_code, address as usize, lsb)
    };
    let offset = address.wrapping_sub(START.load(Ordering::SeqCst));
    let mut line = Line {
        bytes: [0; 128],
        len: 0,
    };
    let _ = writeln!(line, "SIGBUS code {code} offset {offset:#x} lsb {lsb}");
    // SAFETY: both are calls that a signal handler may make; the buffer is `len` bytes long at least.
    unsafe {
        libc::write(1, line.bytes.as_ptr().cast(), line.len);
        libc::_exit(7);
    }
}

fn catch_sigbus() {
    // SAFETY: an all-zero sigaction is one; the handler has the form that SA_SIGINFO asks for.
    let result = unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = sigbus as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut())
    };
    if result != 0 {
        fail("sigaction", &io::Error::last_os_error());
    }
}

/// Maps `len` bytes, of `file` or of nothing.
fn map(file: Option<&File>, len: usize) -> *mut u8 {
    let (flags, fd) = match file {
        Some(file) => (libc::MAP_SHARED, file.as_raw_fd()),
        None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1),
    };
    // SAFETY: a new mapping wherever the kernel finds room takes nothing from anybody.
    let at = unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, fd, 0) };
    if at == libc::MAP_FAILED {
        fail("mmap", &io::Error::last_os_error());
    }
    START.store(at as usize, Ordering::SeqCst);
    at.cast()
}

/// Pages of the mapping come from this node alone, wherever those of the program itself are.
fn bind(start: *mut u8, len: usize, node: usize) {
    let bits = usize::BITS as usize;
    let mask = 1_usize
        .checked_shl(u32::try_from(node).unwrap_or(u32::MAX))
        .unwrap_or_else(|| wrong());
    // SAFETY: changes where pages of a mapping of our own come from; the mask is one word, whose last bit the kernel leaves out.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mbind,
            start,
            len,
            libc::MPOL_BIND,
            &raw const mask,
            bits + 1,
            0,
        )
    };
    if result != 0 {
        fail("mbind", &io::Error::last_os_error());
    }
}

/// A 32-byte load of the kind that compilers make of copies; its first word.
#[target_feature(enable = "avx")]
fn vector(at: *const u8) -> u64 {
    let word: u64;
    // SAFETY: the caller has checked that 32 bytes at `at` are in the mapping, and nothing is written.
    unsafe {
        // Written out: of an intrinsic whose result is not all used the compiler makes a smaller load.
        std::arch::asm!(
            "vmovdqu {all:y}, [{at}]",
            "vmovq {word}, {all:x}",
            at = in(reg) at,
            all = out(ymm_reg) _,
            word = lateout(reg) word,
            options(nostack, readonly),
        );
    }
    word
}

/// Physical address of the page at `at`, from /proc/self/pagemap.
fn physical(at: usize) -> u64 {
    let mut entry = [0; 8];
    let read = File::open("/proc/self/pagemap").and_then(|map| map.read_exact_at(&mut entry, (at / PAGE * 8) as u64));
    if let Err(error) = read {
        fail("pagemap", &error);
    }
    // Bits 54:0 are the frame's number.
    (u64::from_le_bytes(entry) & ((1 << 55) - 1)) * PAGE as u64
}

fn step(start: *mut u8, len: usize, step: &str) {
    let (verb, operand) = step.split_once(':').unwrap_or((step, ""));
    match verb {
        "stop" => {
            let mut line = String::new();
            if let Err(error) = io::stdin().lock().read_line(&mut line) {
                fail("stop", &error);
            }
            return;
        }
        "sleep" => return thread::sleep(Duration::from_secs(number(operand) as u64)),
        _ if pages::step(start, len, verb, operand) => return,
        _ => {}
    }
    let offset = number(operand);
    if offset.checked_add(64).is_none_or(|end| end > len) {
        wrong();
    }
    // SAFETY: `offset` and 64 bytes from there are in the mapping.
    let at = unsafe { start.add(offset) };
    match verb {
        // SAFETY: as above; nobody else in this process looks.
        "load" => println!("load {offset:#x}: {:#x}", unsafe { at.cast::<u64>().read_volatile() }),
        "vector" if is_x86_feature_detected!("avx") => {
            // SAFETY: the processor has AVX.
            println!("vector {offset:#x}: {:#x}", unsafe { vector(at) });
        }
        // SAFETY: as above.
        "store" => unsafe { at.cast::<u64>().write_volatile(0x5eed) },
        "line" => {
            for word in 0..8 {
                // SAFETY: as above.
                unsafe { at.cast::<u64>().add(word).write_volatile(0x11 * word as u64) };
            }
        }
        "phys" => println!("phys {offset:#x}: {:#x}", physical(at as usize)),
        _ => wrong(),
    }
    let _ = io::stdout().flush();
}

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    catch_sigbus();
    match words.as_slice() {
        ["map", file, len, steps @ ..] => {
            let len = number(len);
            let opened = OpenOptions::new().read(true).write(true).open(file);
            let opened = opened.unwrap_or_else(|error| fail("open", &error));
            let start = map(Some(&opened), len);
            steps.iter().for_each(|what| step(start, len, what));
        }
        ["anon", len, steps @ ..] => {
            let (len, node) = match len.split_once('@') {
                Some((len, node)) => (number(len), Some(number(node))),
                None => (number(len), None),
            };
            let early = steps.first() == Some(&"early");
            if early {
                // SAFETY: changes nothing but how this process is told of errors.
                let result =
                    unsafe { libc::prctl(libc::PR_MCE_KILL, libc::PR_MCE_KILL_SET, libc::PR_MCE_KILL_EARLY, 0, 0) };
                if result != 0 {
                    fail("prctl", &io::Error::last_os_error());
                }
            }
            let start = map(None, len);
            if let Some(node) = node {
                bind(start, len, node);
            }
            for page in (0..len / PAGE).map(|page| page * PAGE) {
                // SAFETY: the page is in the mapping.
                unsafe { start.add(page).cast::<u64>().write_volatile(page as u64 + 1) };
            }
            let steps = steps.iter().skip(usize::from(early));
            steps.for_each(|what| step(start, len, what));
        }
        ["read", file, offset, len] => {
            let mut data = vec![0; number(len)];
            let opened = File::open(file).unwrap_or_else(|error| fail("open", &error));
            match opened.read_at(&mut data, number(offset) as u64) {
                Ok(n) => println!("read {n} bytes"),
                Err(error) => fail("read", &error),
            }
        }
        ["vsock", words @ ..] => vsock::run(words),
        _ => wrong(),
    }
}
