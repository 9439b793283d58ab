//! A step that registers memory with the first RDMA device, as `ibv_reg_mr` of libibverbs does, by the commands that the
//! kernel's `ib_user_verbs.h` describes.

use crate::{fail, wrong};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    sync::Mutex,
};

const DEVICE: &str = "/dev/infiniband/uverbs0";
/// `IB_USER_VERBS_CMD_*`.
const GET_CONTEXT: u32 = 0;
const ALLOC_PD: u32 = 3;
const REG_MR: u32 = 9;
/// `IB_ACCESS_LOCAL_WRITE | REMOTE_WRITE | REMOTE_READ`: the pages are pinned for writing.
const ACCESS: u32 = 0b111;
/// Bytes of the header: command, words of the command, words of the answer.
const HEADER: usize = 8;

/// The device, and a protection domain of it, for as long as the program runs.
struct Context {
    device: File,
    domain: u32,
}

static CONTEXT: Mutex<Option<Context>> = Mutex::new(None);

/// Gives a command to the device, which answers in so many words; the first of them.
fn command(device: &mut File, number: u32, body: &[u8], answer: usize) -> io::Result<u32> {
    let mut words = vec![0_u32; answer];
    let whole = HEADER + 8 + body.len();
    let sizes = [whole / 4, answer].map(|n| u16::try_from(n).unwrap_or(u16::MAX).to_ne_bytes());
    let response = (words.as_mut_ptr() as u64).to_ne_bytes();
    let request = [&number.to_ne_bytes()[..], sizes.as_flattened(), &response, body].concat();
    let written = device.write(&request)?;
    if written != whole {
        return Err(io::ErrorKind::WriteZero.into());
    }
    // The kernel has written behind the compiler's back.
    Ok(std::hint::black_box(&words).first().copied().unwrap_or(0))
}

fn open() -> io::Result<Context> {
    let mut device = OpenOptions::new().read(true).write(true).open(DEVICE)?;
    command(&mut device, GET_CONTEXT, &[], 2)?;
    let domain = command(&mut device, ALLOC_PD, &[], 1)?;
    Ok(Context { device, domain })
}

/// Kilobytes that the kernel says are pinned for this process.
fn pinned() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_else(|error| fail("status", &error));
    let line = status.lines().find_map(|line| line.strip_prefix("VmPin:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
    number.unwrap_or_else(|| wrong()).to_owned()
}

/// Registers `len` bytes at `at`, and says how much is pinned then.
pub fn register(at: *mut u8, len: usize) {
    let mut context = CONTEXT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let opened = context.get_or_insert_with(|| open().unwrap_or_else(|error| fail(DEVICE, &error)));
    let start = (at as u64).to_ne_bytes();
    let body = [
        &start[..],
        &(len as u64).to_ne_bytes(),
        &start,
        &opened.domain.to_ne_bytes(),
        &ACCESS.to_ne_bytes(),
    ];
    match command(&mut opened.device, REG_MR, &body.concat(), 3) {
        Ok(_) => println!("pinned: {} kB", pinned()),
        Err(error) => fail("register", &error),
    }
}
