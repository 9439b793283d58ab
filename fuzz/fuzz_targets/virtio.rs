//! Any bytes are a virtqueue and its buffers: a disk, persistent memory, memory that grows, a network device, a shared folder and
//! the socket device take requests from it without a panic, never have more under way than they may, memory never gives the
//! guest more than was asked for, no frame is longer or shorter than a frame is, and no path leads out of the folder.
#![no_main]

use devices::{
    BusDevice, Clock, GuestMemory,
    units::{Gpa, GpaRange},
    virtio::{
        VirtioDevice, VirtioMmio,
        blk::{Blk, BlkPlan, config::DiskFault},
        deferred::Reply,
        mem::{Media, Mem, MemPlan},
        net::{MIN_FRAME, Net, NetPlan, Wire, config::Mac},
        p9::{Entry, Errno, P9, P9Order, Server, Space, Stat, Tree},
        pmem::Pmem,
        vsock::{Key, Peers, Stream, Vsock},
    },
};
use libfuzzer_sys::fuzz_target;
use std::{
    io,
    ops::Range,
    sync::{Arc, Mutex},
};
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace, GuestMemoryMmap};

const MEMORY: usize = 0x2_0000;
const DESC: u64 = 0x1000;
const AVAIL: u64 = 0x2000;
const USED: u64 = 0x3000;
/// Where the input goes, behind what makes it likely to be a queue.
const INPUT: u64 = 0x4000;
const ENTRIES: u16 = 64;
const BLOCK: u64 = 2 << 20;

/// Counts what the guest has.
struct Counted(u64);

impl Media for Counted {
    fn plug(&mut self, bytes: Range<u64>) -> io::Result<()> {
        self.0 += bytes.end - bytes.start;
        assert!(self.0 <= 20 * BLOCK, "more is plugged than was asked for");
        Ok(())
    }
    fn unplug(&mut self, bytes: Range<u64>) {
        self.0 = self
            .0
            .checked_sub(bytes.end - bytes.start)
            .expect("more goes than there is");
    }
}

fn disk(readonly: bool) -> Arc<Blk> {
    let plan = BlkPlan {
        sectors: 1 << 16,
        readonly,
        serial: "fuzz".to_owned(),
    };
    let disk = Blk::over(
        plan,
        Clock::manual(),
        Box::new(|order| {
            order.run(|work| match work.act {
                devices::virtio::blk::Act::Read(sector, len) => {
                    assert!(sector * 512 + len as u64 <= 512 << 16);
                    Reply {
                        data: vec![7; len],
                        last: Some(0),
                    }
                }
                _ => Reply::default(),
            });
        }),
    );
    disk.requests().add_fault(DiskFault {
        error: true,
        sectors: "3-9".parse().ok(),
        ..DiskFault::default()
    });
    disk
}

/// Takes every frame, and has some of any length.
struct Cable(u16);

const FRAMES: NetPlan = NetPlan {
    mac: Mac([2, 0, 0, 0, 0, 1]),
    mtu: 68,
};

impl Wire for Cable {
    fn send(&mut self, frame: &[u8]) -> bool {
        assert!((MIN_FRAME..=FRAMES.max_frame()).contains(&frame.len()));
        frame.len() % 2 == 0
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Option<usize> {
        self.0 = self.0.checked_sub(1)?;
        buffer.fill(0x5a);
        Some(usize::from(self.0))
    }
}

/// Folders in folders without end, with a file called `f` in each.
struct Deep;

impl Deep {
    fn is_file(path: &[u8]) -> bool {
        let names = path.split(|byte| *byte == b'/');
        let outward = |name: &[u8]| matches!(name, b"" | b"." | b"..") || name.contains(&0);
        assert!(path.is_empty() || !names.clone().any(outward), "{path:?} is no path");
        path.ends_with(b"f")
    }
}

impl Tree for Deep {
    type Open = bool;

    fn stat(&self, path: &[u8]) -> Result<Stat, Errno> {
        self.stat_open(&Self::is_file(path))
    }
    fn open(&self, path: &[u8]) -> Result<bool, Errno> {
        Ok(Self::is_file(path))
    }
    fn stat_open(&self, file: &bool) -> Result<Stat, Errno> {
        let mode = if *file { 0o100_644 } else { 0o040_755 };
        Ok(Stat {
            mode,
            ..Stat::default()
        })
    }
    fn read(&self, _: &bool, offset: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
        Ok(buffer.len().min((offset % 1000) as usize))
    }
    fn entries(&self, _: &mut bool, offset: u64, take: &mut dyn FnMut(&Entry) -> bool) -> Result<(), Errno> {
        let entry = |next| Entry {
            name: vec![b'd'; 1 + (next % 255) as usize],
            next,
            ..Entry::default()
        };
        let _ = (offset..offset.saturating_add(99)).all(|at| take(&entry(at)));
        Ok(())
    }
    fn link(&self, path: &[u8]) -> Result<Vec<u8>, Errno> {
        Self::is_file(path);
        Ok(vec![b'x'; 70_000])
    }
    fn space(&self, path: &[u8]) -> Result<Space, Errno> {
        Self::is_file(path);
        Ok(Space::default())
    }
}

/// With a session and fid 0, so that requests are not only refused.
fn share() -> Arc<P9> {
    let mut server = Server::new(Deep, 4, Arc::default());
    let begin: [(u8, &[u8]); 2] = [
        (100, b"\0\x20\0\0\x08\x009P2000.L"),
        (104, b"\0\0\0\0\xff\xff\xff\xff\0\0\0\0\0\0\0\0"),
    ];
    for (kind, body) in begin {
        server.answer(&devices::virtio::p9::Request {
            kind,
            tag: 0,
            body: body.to_vec(),
            room: 8192,
        });
    }
    let server = Mutex::new(server);
    let submit = move |order: P9Order| {
        let mut server = server.lock().expect("the server");
        order.run(|request| {
            let data = server.answer(&request);
            assert!(data.len() <= request.room, "an answer is longer than its room");
            Reply { data, last: None }
        });
    };
    P9::tagged("fuzz", Box::new(submit))
}

/// A program that listens at even ports, says a little and takes a little.
struct Program(u8);

impl Stream for Program {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0 = self.0.wrapping_add(1);
        match self.0 % 4 {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            n => Ok(buffer.len().min(n.into())),
        }
    }
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.wrapping_add(3);
        match self.0 % 8 {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            1 => Err(io::ErrorKind::BrokenPipe.into()),
            n => Ok(bytes.len().min(n.into())),
        }
    }
    fn finish(&mut self) {}
}

struct Programs;

impl Peers for Programs {
    fn connect(&mut self, key: Key) -> Option<Box<dyn Stream>> {
        let [low, ..] = key.guest.to_le_bytes();
        (key.host % 2 == 0).then(|| Box::new(Program(low)) as Box<dyn Stream>)
    }
}

fn device(choice: u8) -> Arc<dyn VirtioDevice> {
    let region = GpaRange {
        start: Gpa(0x1_0000_0000),
        len: 64 * BLOCK,
    };
    match choice % 7 {
        6 => Arc::new(Vsock::new(3, Box::new(Programs))),
        5 => share(),
        4 => Arc::new(Net::new(FRAMES, choice % 2 == 0, Box::new(Cable(choice.into())))),
        0 => disk(false),
        1 => disk(true),
        2 => Pmem::at(region, Box::new(|order| order.run(|()| Reply::default()))),
        _ => {
            let plan = MemPlan {
                region,
                block: BLOCK,
                node: 0,
            };
            Arc::new(Mem::new(plan, 20 * BLOCK, Box::new(Counted(0))))
        }
    }
}

fn write(mmio: &VirtioMmio, register: u64, value: u32) {
    let _ = mmio.write(register, &value.to_le_bytes());
}

/// A driver's way to a device that is up (virtio 1.2 3.1.1), by the registers of 4.2.2.
fn bring_up(mmio: &VirtioMmio) {
    for status in [0, 1, 3] {
        write(mmio, 0x70, status);
    }
    write(mmio, 0x24, 1);
    write(mmio, 0x20, 1);
    write(mmio, 0x70, 11);
    // A second queue, where there is one, has the same chains: what is written into one is read out of the other.
    for queue in [0, 1] {
        write(mmio, 0x30, queue);
        write(mmio, 0x38, ENTRIES.into());
        for (register, address) in [(0x80, DESC), (0x90, AVAIL), (0xa0, USED)] {
            write(mmio, register, address as u32);
        }
        write(mmio, 0x44, 1);
    }
    write(mmio, 0x70, 15);
}

fuzz_target!(|input: &[u8]| {
    let Some((choice, rest)) = input.split_first() else {
        return;
    };
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]).expect("memory");
    let memory = GuestMemory::new(memory);
    let device = device(*choice);
    let mmio = VirtioMmio::new(device.clone(), memory.clone(), Arc::new(()));
    bring_up(&mmio);
    let guest = memory.memory();
    // Chains of a readable buffer in the input and a writable one behind it, of the lengths that the input says.
    let (lengths, content) = rest.split_at(rest.len().min(usize::from(ENTRIES)));
    for (n, length) in (0_u16..).zip(lengths) {
        let flags: u16 = if n % 2 == 0 { 1 } else { 2 | u16::from(*length & 1) };
        let address = INPUT + u64::from(n / 2) * 64;
        let mut descriptor = address.to_le_bytes().to_vec();
        descriptor.extend(u32::from(*length).to_le_bytes());
        descriptor.extend(flags.to_le_bytes());
        descriptor.extend((n + 1).to_le_bytes());
        guest
            .write_slice(&descriptor, GuestAddress(DESC + 16 * u64::from(n)))
            .expect("a descriptor");
        guest
            .write_obj(n & !1, GuestAddress(AVAIL + 4 + u64::from(n)))
            .expect("an entry");
    }
    let _ = guest.write_slice(&content[..content.len().min(MEMORY / 4)], GuestAddress(INPUT));
    guest
        .write_obj(lengths.len() as u16 / 2, GuestAddress(AVAIL + 2))
        .expect("the index");
    write(&mmio, 0x50, 0);
    write(&mmio, 0x50, 1);
    // Whatever else the input is: raw descriptors, and an index that jumps.
    let _ = guest.write_slice(&content[..content.len().min(0x400)], GuestAddress(DESC));
    guest
        .write_obj(u16::from(*choice), GuestAddress(AVAIL + 2))
        .expect("the index");
    write(&mmio, 0x50, 1);
    write(&mmio, 0x50, 0);
    mmio.reset();
});
