//! Disks: a raw file, and the thread that does to it what the guest wants, at the time and with the outcome that the
//! device's faults say.
//!
//! ```text
//! order --due later--> waiting --due, hangs--> hanging --fault taken away--> done
//!          \--due now, hangs not----------------------------------------------^
//! ```

use super::build::BuildError;
use crate::{
    config::{DiskConfig, VmConfig},
    memory::backing,
};
use devices::{
    Clock,
    virtio::{
        blk::{Act, Blk, BlkOrder, BlkPlan, SECTOR},
        deferred::Reply,
    },
};
use rustix::fs::{FallocateFlags, fallocate};
use std::{
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt,
    sync::{Arc, Mutex, PoisonError, Weak, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

/// Zeros written at once where the file system cannot make them.
const ZEROS: usize = 64 << 10;

/// A disk of a running machine.
pub struct Disk {
    /// The device.
    pub device: Arc<Blk>,
    bell: mpsc::Sender<Message>,
}

enum Message {
    Order(BlkOrder),
    /// Faults have been taken away.
    Look,
}

impl Disk {
    /// Lets go on what hung by a fault that is no more.
    pub fn look(&self) {
        // Without a worker nothing hangs.
        let _ = self.bell.send(Message::Look);
    }
}

/// Opens the file of disk `index` and starts its thread, which ends with the disk.
pub fn open(config: &VmConfig, index: usize, said: &DiskConfig) -> Result<(Disk, JoinHandle<()>), BuildError> {
    let id = config.disk_name(index);
    let failed = |source| BuildError::Virtio { id: id.clone(), source };
    let file = backing::open_file(&said.backing()).map_err(failed)?;
    let len = file
        .metadata()
        .map_err(|e| BuildError::Host("look at a disk", e))?
        .len();
    let plan = BlkPlan {
        sectors: len / SECTOR,
        readonly: said.readonly,
        serial: said.serial.clone().unwrap_or_else(|| id.clone()),
    };
    let (orders, waiting) = mpsc::channel();
    let bell = orders.clone();
    let orders = Mutex::new(orders);
    let submit = move |order| {
        let orders = orders.lock().unwrap_or_else(PoisonError::into_inner);
        drop(orders.send(Message::Order(order)));
    };
    let clock = Clock::default();
    let device = Blk::over(plan, clock.clone(), Box::new(submit));
    let requests = device.requests();
    requests.set_throttle(said.throttle());
    for fault in config.disk_fault.iter().filter(|fault| fault.disk == id) {
        requests.add_fault(fault.fault());
    }
    let worker = Worker {
        device: Arc::downgrade(&device),
        file,
        clock,
        waiting: Vec::new(),
        hanging: Vec::new(),
    };
    let spawned = thread::Builder::new()
        .name(format!("io-{id}"))
        .spawn(move || worker.run(&waiting));
    let worker = spawned.map_err(|e| BuildError::Host("start a thread", e))?;
    Ok((Disk { device, bell }, worker))
}

struct Worker {
    device: Weak<Blk>,
    file: File,
    clock: Clock,
    /// Not due yet, the next one last.
    waiting: Vec<BlkOrder>,
    hanging: Vec<BlkOrder>,
}

impl Worker {
    /// Works until the device is gone.
    fn run(mut self, orders: &mpsc::Receiver<Message>) {
        loop {
            let next = self
                .waiting
                .last()
                .map(|order| order.work.verdict.due.saturating_sub(self.clock.now()));
            let message = match next {
                Some(Duration::ZERO) => None,
                Some(time) => match orders.recv_timeout(time) {
                    Ok(message) => Some(message),
                    Err(mpsc::RecvTimeoutError::Timeout) => None,
                    Err(mpsc::RecvTimeoutError::Disconnected) => return,
                },
                None => match orders.recv() {
                    Ok(message) => Some(message),
                    Err(_) => return,
                },
            };
            match message {
                Some(Message::Order(order)) => self.keep(order),
                Some(Message::Look) => {
                    for order in std::mem::take(&mut self.hanging) {
                        self.settle(order);
                    }
                }
                None => {}
            }
            let now = self.clock.now();
            while let Some(order) = self.waiting.pop_if(|order| order.work.verdict.due <= now) {
                self.settle(order);
            }
        }
    }

    /// Orders of one time keep their order.
    fn keep(&mut self, order: BlkOrder) {
        let due = order.work.verdict.due;
        let at = self.waiting.partition_point(|other| other.work.verdict.due > due);
        self.waiting.insert(at, order);
    }

    fn settle(&mut self, order: BlkOrder) {
        let Some(device) = self.device.upgrade() else { return };
        if device.requests().hangs(&order.work.verdict) {
            return self.hanging.push(order);
        }
        let file = &self.file;
        order.run(|work| -> Reply {
            let done = match work.verdict.error {
                true => Err(io::Error::other("a fault says so")),
                false => act(file, work.act),
            };
            device.requests().answer(done)
        });
    }
}

fn act(file: &File, act: Act) -> io::Result<Vec<u8>> {
    let done = perform(file, act);
    if let Err(error) = &done {
        tracing::warn!(%error, "a request to a disk failed");
    }
    done
}

fn perform(file: &File, act: Act) -> io::Result<Vec<u8>> {
    match act {
        Act::Read(sector, len) => {
            let mut data = vec![0; len];
            file.read_exact_at(&mut data, sector * SECTOR)?;
            return Ok(data);
        }
        Act::Write(sector, data) => file.write_all_at(&data, sector * SECTOR)?,
        Act::Flush => file.sync_data()?,
        Act::Discard(ranges) => {
            for range in ranges {
                match punch(file, &range) {
                    // A hint that the host cannot follow.
                    Err(rustix::io::Errno::OPNOTSUPP) => {}
                    other => other?,
                }
            }
        }
        Act::Zero(ranges) => {
            for (range, unmap) in ranges {
                zero(file, &range, unmap)?;
            }
        }
    }
    Ok(Vec::new())
}

fn bytes(range: &Range<u64>) -> (u64, u64) {
    (range.start * SECTOR, (range.end - range.start) * SECTOR)
}

fn punch(file: &File, range: &Range<u64>) -> rustix::io::Result<()> {
    let (start, len) = bytes(range);
    fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, start, len)
}

fn zero(file: &File, range: &Range<u64>, unmap: bool) -> io::Result<()> {
    let (start, len) = bytes(range);
    if unmap && punch(file, range).is_ok() {
        return Ok(());
    }
    let flags = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
    if fallocate(file, flags, start, len).is_ok() {
        return Ok(());
    }
    let zeros = vec![0; ZEROS];
    let mut done = 0;
    while done < len {
        let piece = len.saturating_sub(done).min(ZEROS as u64);
        let now = zeros.get(..usize::try_from(piece).unwrap_or(ZEROS)).unwrap_or(&zeros);
        file.write_all_at(now, start + done)?;
        done += piece;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_act_does_what_it_says() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[0xaa; 64 * 512], 0).unwrap();
        let sector = |n: u64| perform(&file, Act::Read(n, 512)).unwrap();
        perform(&file, Act::Write(3, vec![1; 1024])).unwrap();
        assert_eq!(
            (sector(2), sector(3), sector(4), sector(5)),
            (vec![0xaa; 512], vec![1; 512], vec![1; 512], vec![0xaa; 512])
        );
        perform(&file, Act::Zero(vec![(4..5, false), (8..16, true)])).unwrap();
        perform(&file, Act::Discard(vec![16..24, 40..41])).unwrap();
        perform(&file, Act::Flush).unwrap();
        assert_eq!(
            (sector(3), sector(4), sector(8), sector(15)),
            (vec![1; 512], vec![0; 512], vec![0; 512], vec![0; 512])
        );
        assert_eq!((sector(7), sector(24)), (vec![0xaa; 512], vec![0xaa; 512]));
        assert_eq!(file.metadata().unwrap().len(), 64 * 512);
        assert!(perform(&file, Act::Read(64, 512)).is_err());
    }
}
