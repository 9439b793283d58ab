//! The table of flags.

use super::*;

const BOOT: Shape = Shape {
    main: Some("protocol"),
    minus: None,
};
const CPUS: Shape = Shape {
    main: Some("count"),
    minus: None,
};
const CPU: Shape = Shape {
    main: None,
    minus: Some("remove"),
};
pub(super) const MEMORY: Shape = Shape {
    main: Some("size"),
    minus: None,
};
pub(super) const NVDIMM: Shape = Shape {
    main: Some("file"),
    minus: None,
};
const NVDIMM_BUS: Shape = Shape {
    main: Some("number"),
    minus: None,
};
const XEN: Shape = Shape {
    main: Some("version"),
    minus: None,
};
const SHARE: Shape = Shape {
    main: Some("path"),
    minus: None,
};
const INTERLEAVE_SET: Shape = NUMA;
const NUMA: Shape = Shape {
    main: None,
    minus: None,
};
const DISTANCE: Shape = NUMA;
const APEI: Shape = Shape {
    main: Some("enabled"),
    minus: None,
};
/// Entries without a main key.
pub(super) const KEYS: Shape = NUMA;

/// Every flag that changes the configuration.
pub const FLAGS: &[Flag] = &[
    Flag {
        name: "kernel",
        value: "PATH|@NAME",
        help: "Kernel to boot: a bzImage or ELF vmlinux, or @NAME for a guest image's kernel",
        repeatable: false,
        read: |c, texts| set(&mut c.kernel, texts),
        write: |c| show(&c.kernel),
    },
    Flag {
        name: "initrd",
        value: "PATH|@NAME",
        help: "Initial RAM file system; a @NAME kernel brings its own",
        repeatable: false,
        read: |c, texts| set(&mut c.initrd, texts),
        write: |c| show(&c.initrd),
    },
    Flag {
        name: "cmdline",
        value: "TEXT",
        help: "Kernel parameters, appended to the default ones",
        repeatable: false,
        read: |c, texts| set(&mut c.cmdline, texts),
        write: |c| show(&c.cmdline),
    },
    Flag {
        name: "module",
        value: "PATH|@NAME [CMDLINE]",
        help: "A module for a multiboot kernel with its command line: for Xen first the kernel of dom0, then its initrd",
        repeatable: true,
        read: |c, texts| {
            for text in texts {
                c.module.push(ModuleConfig::parse(text).map_err(|e| (text.clone(), e))?);
            }
            Ok(())
        },
        write: |c| c.module.iter().map(ModuleConfig::text).collect(),
    },
    Flag {
        name: "boot",
        value: "auto|linux64|pvh|multiboot",
        help: "Boot protocol; auto is multiboot with modules, else linux64",
        repeatable: false,
        read: |c, texts| merge(&mut c.boot, texts, BOOT),
        write: |c| {
            pairs(
                &BootConfig {
                    protocol: c.boot.protocol,
                    ..BootConfig::default()
                },
                BOOT,
            )
        },
    },
    Flag {
        name: "unpack",
        value: "auto|on|off",
        help: "Whether daxvisor unpacks a compressed bzImage itself; auto does when it knows the compression",
        repeatable: false,
        read: |c, texts| set(&mut c.boot.unpack, texts),
        write: |c| {
            Ok(if c.boot.unpack == BootConfig::default().unpack {
                Vec::new()
            } else {
                show(&c.boot.unpack)?
            })
        },
    },
    Flag {
        name: "cpus",
        value: "COUNT[,sockets=N][,cores=N][,threads=N]",
        help: "vCPUs, 1 to 64, and their shape",
        repeatable: false,
        read: |c, texts| merge(&mut c.cpus, texts, CPUS),
        write: |c| pairs(&c.cpus, CPUS),
    },
    Flag {
        name: "cpu",
        value: "vendor=ID|-FEATURE|add=FEATURES[,..]",
        help: "What CPUID says, as changes to the host's: a vendor id, features taken away, and added (erms)",
        repeatable: false,
        read: |c, texts| merge(&mut c.cpu, texts, CPU),
        write: |c| pairs(&c.cpu, CPU),
    },
    Flag {
        name: "memory",
        value: "SIZE[,hugepages=2M|1G][,shared=on]",
        help: "Boot RAM in bytes, or with K, M, G or T (powers of 1024), at least 64M [default: 1G, or what the nodes have]",
        repeatable: false,
        read: |c, texts| merge(&mut c.memory, texts, MEMORY),
        write: |c| pairs(&c.memory, MEMORY),
    },
    Flag {
        name: "memory-limit",
        value: "SIZE[,by=parameter|map]",
        help: "The guest's kernel uses no RAM at and above this address at boot: it is told by mem=, or by a memory map that ends there",
        repeatable: false,
        read: |c, texts| {
            for text in texts {
                c.memory_limit = Some(kv::from_str(text, MEMORY).map_err(|e| (text.clone(), e))?);
            }
            Ok(())
        },
        write: |c| {
            c.memory_limit
                .iter()
                .map(|limit| kv::to_string(limit, None, MEMORY))
                .collect()
        },
    },
    Flag {
        name: "xen",
        value: "[version=]MAJOR.MINOR[,dom0=on|off][,console=stdio|file:PATH|pty|none]",
        help: "The guest finds Xen instead of KVM, and its balloon driver lives within the limits: see docs/xen.md",
        repeatable: false,
        read: |c, texts| {
            for text in texts {
                c.xen = Some(kv::from_str(text, XEN).map_err(|e| (text.clone(), e))?);
            }
            Ok(())
        },
        write: |c| c.xen.iter().map(|xen| kv::to_string(xen, None, XEN)).collect(),
    },
    Flag {
        name: "limits",
        value: "[static-max=SIZE][,dynamic-max=SIZE][,target=SIZE][,dynamic-min=SIZE][,static-min=SIZE]",
        help: "What the machine's RAM may become while it runs: see docs/xen.md",
        repeatable: false,
        read: |c, texts| merge(&mut c.limits, texts, KEYS),
        write: |c| pairs(&c.limits, KEYS),
    },
    Flag {
        name: "numa",
        value: "node=N[,cpus=LIST][,memory=SIZE][,distance=N:D][,hotplug=SIZE][,mirror=SIZE][,initiator=N]",
        help: "A NUMA node; lists with commas stand in brackets: cpus=[0-1,4]. What no node claims belongs to node 0. hotplug: \
               addresses for memory added later; mirror: its first RAM is mirrored; initiator: node that its memory is \
               attached to",
        repeatable: true,
        read: |c, texts| entries(&mut c.numa, texts, NUMA, |_, old, new| old.node == new.node),
        write: |c| {
            // node= is required, so it must differ from the default that is left out.
            let default = NumaConfig {
                node: u32::MAX,
                ..NumaConfig::default()
            };
            c.numa.iter().map(|n| kv::to_string(n, Some(&default), NUMA)).collect()
        },
    },
    Flag {
        name: "distance",
        value: "from=N,to=N,value=D",
        help: "Distance between two nodes in both directions, 11 to 254, or 255 for unreachable [default: 20]",
        repeatable: true,
        read: |c, texts| entries(&mut c.distance, texts, DISTANCE, |_, old, new| ends(old) == ends(new)),
        write: |c| c.distance.iter().map(|d| kv::to_string(d, None, DISTANCE)).collect(),
    },
    Flag {
        name: "hmat",
        value: "[initiator=N,][target=N,][[read-|write-]latency=TIME,][[read-|write-]bandwidth=RATE]",
        help: "Latency and bandwidth from a node to the memory of a node, such as latency=300ns,read-bandwidth=2GB/s; without \
               initiator or target for every pair that no closer entry names",
        repeatable: true,
        read: |c, texts| {
            entries(&mut c.hmat, texts, KEYS, |_, old, new| {
                (old.initiator, old.target) == (new.initiator, new.target)
            })
        },
        write: |c| c.hmat.iter().map(|h| kv::to_string(h, None, KEYS)).collect(),
    },
    Flag {
        name: "memory-cache",
        value: "node=N,size=SIZE[,level=1-3][,associativity=KIND][,write-policy=KIND][,line=BYTES]",
        help: "A cache in front of a node's memory. associativity: none, direct, complex; write-policy: none, back, through",
        repeatable: true,
        read: |c, texts| {
            entries(&mut c.memory_cache, texts, KEYS, |_, old, new| {
                (old.node, old.level) == (new.node, new.level)
            })
        },
        write: |c| c.memory_cache.iter().map(|m| kv::to_string(m, None, KEYS)).collect(),
    },
    Flag {
        name: "generic-initiator",
        value: "node=N[,hid=ID][,uid=N]",
        help: "A device that reads memory and is no processor, for the SRAT and HMAT [default: hid=DAXV0001, uid by position]",
        repeatable: true,
        read: |c, texts| {
            entries(&mut c.generic_initiator, texts, KEYS, |_, old, new| {
                new.uid.is_some() && (&old.hid, old.uid) == (&new.hid, new.uid)
            })
        },
        write: |c| {
            c.generic_initiator
                .iter()
                .map(|g| kv::to_string(g, None, KEYS))
                .collect()
        },
    },
    Flag {
        name: "memory-range",
        value: "size=SIZE,type=KIND[,start=ADDRESS][,node=N][,id=ID][,mirror=on][,file=PATH][,offset=SIZE]",
        help: "A range of the guest physical map. KIND: ram, reserved, unusable, soft-reserved, pmem, pram, hole; without \
               start above RAM",
        repeatable: true,
        read: |c, texts| entries(&mut c.memory_range, texts, KEYS, same_range),
        write: |c| c.memory_range.iter().map(|r| kv::to_string(r, None, KEYS)).collect(),
    },
    Flag {
        name: "memory-slots",
        value: "N",
        help: "Slots for memory devices that are added while the guest runs, up to 256 [default: one for each --memory-device]",
        repeatable: false,
        read: |c, texts| set(&mut c.memory_slots, texts),
        write: |c| {
            Ok(match c.memory_slots {
                0 => Vec::new(),
                n => vec![n.to_string()],
            })
        },
    },
    Flag {
        name: "memory-device",
        value: "[size=]SIZE[,node=N][,id=ID][,slot=N][,cold=on][,backing=KIND][,file=PATH][,offset=SIZE][,shared=on|off][,hugepages=2M|1G]",
        help: "A memory device that is there at boot and can be unplugged; in the hotplug window of its node. KIND: auto, \
               anonymous, memfd, hugetlb, file, devdax; see docs/hotplug.md",
        repeatable: true,
        read: |c, texts| entries(&mut c.memory_device, texts, MEMORY, same_memory_device),
        write: |c| {
            let default = MemoryDeviceConfig::default();
            let write = |device| kv::to_string(device, Some(&default), MEMORY);
            c.memory_device.iter().map(write).collect()
        },
    },
    Flag {
        name: "nvdimm",
        value: "[file=]PATH,size=SIZE[,node=N][,label=SIZE][,readonly=on][,id=ID][,backing=KIND][,state=PATH]\
                [,family=FAMILY][,encrypt=on][,flush=msync|none|count]",
        help: "An NVDIMM. offset=: where in the file it begins. size counts its label area (128K unless label= says otherwise, 0 for none); a missing file is \
               created; without a file the data dies with the machine. KIND: auto, file, memfd, hugetlbfs, devdax. state= keeps \
               shutdown counts, thresholds and firmware from one run to the next. family= is that of its _DSM functions: intel, \
               hpe1, msft, hyperv. flush=msync: when the guest flushes, its data is on the host's storage. Also bus=, handle=, \
               mapped=, flags=, functions=, physical-id=, vendor=, device=, revision=, subsystem-vendor=, subsystem-device=, \
               subsystem-revision=, serial=, location=, date=, format=, health-condition= and other health- keys: see docs/nvdimm.md; encrypt and overwrite-time=SECONDS: see docs/security.md",
        repeatable: true,
        read: |c, texts| entries(&mut c.nvdimm, texts, NVDIMM, same_nvdimm),
        write: |c| {
            let default: NvdimmConfig = kv::from_str("", NVDIMM)?;
            c.nvdimm
                .iter()
                .map(|n| kv::to_string(n, Some(&default), NVDIMM))
                .collect()
        },
    },
    Flag {
        name: "nvdimm-bus",
        value: "[number=]N[,persistence=cpu-cache|memory-controller|none][,functions=MASK]",
        help: "An NVDIMM root device, 0 to 3: where its persistence domain begins, which _DSM functions it has. Number 0 \
               without NVDIMMs can be given some later",
        repeatable: true,
        read: |c, texts| {
            entries(&mut c.nvdimm_bus, texts, NVDIMM_BUS, |_, old, new| {
                old.number == new.number
            })
        },
        write: |c| {
            let default = NvdimmBusConfig {
                number: u8::MAX,
                ..NvdimmBusConfig::default()
            };
            let write = |bus| kv::to_string(bus, Some(&default), NVDIMM_BUS);
            c.nvdimm_bus.iter().map(write).collect()
        },
    },
    Flag {
        name: "interleave-set",
        value: "dimms=[ID,..],size=SIZE[,line=SIZE][,node=N][,id=ID][,type=persistent|volatile][,range-index=N]",
        help: "A range over equal parts of several NVDIMMs that take turns line by line, or over a part of one",
        repeatable: true,
        read: |c, texts| {
            entries(&mut c.interleave_set, texts, INTERLEAVE_SET, |_, old, new| {
                old.id.is_some() && old.id == new.id
            })
        },
        write: |c| {
            let default = InterleaveSetConfig::default();
            let write = |set| kv::to_string(set, Some(&default), INTERLEAVE_SET);
            c.interleave_set.iter().map(write).collect()
        },
    },
    Flag {
        name: "virtual-disk",
        value: "type=KIND,size=SIZE[,file=PATH][,node=N][,bus=N]",
        help: "A disk or CD image in memory that the NFIT describes. KIND: volatile-disk, volatile-cd, persistent-disk, \
               persistent-cd",
        repeatable: true,
        read: |c, texts| entries(&mut c.virtual_disk, texts, NUMA, |_, _, _| false),
        write: |c| c.virtual_disk.iter().map(|d| kv::to_string(d, None, NUMA)).collect(),
    },
    Flag {
        name: "virtio-pmem",
        value: "[file=]PATH,size=SIZE[,node=N][,id=ID][,readonly=on][,backing=KIND]",
        help: "Persistent memory behind a virtio device. A missing file is created; without a file the data dies with the \
               machine. KIND: auto, file, memfd, hugetlbfs, devdax",
        repeatable: true,
        read: |c, texts| {
            entries(&mut c.virtio_pmem, texts, NVDIMM, |at, old, new| {
                same_name(at, "virtio-pmem", old.id.as_deref(), new.id.as_deref())
            })
        },
        write: |c| {
            let default = VirtioPmemConfig::default();
            let write = |device| kv::to_string(device, Some(&default), NVDIMM);
            c.virtio_pmem.iter().map(write).collect()
        },
    },
    Flag {
        name: "virtio-mem",
        value: "size=SIZE[,requested=SIZE][,block=SIZE][,node=N][,id=ID]",
        help: "Memory that the guest plugs and unplugs in blocks, up to size; requested: how much it is asked to plug at the \
               start [default: 0, block=2M]",
        repeatable: true,
        read: |c, texts| {
            entries(&mut c.virtio_mem, texts, KEYS, |at, old, new| {
                same_name(at, "virtio-mem", old.id.as_deref(), new.id.as_deref())
            })
        },
        write: |c| {
            // size= is required, so it must differ from the default that is left out.
            let default = VirtioMemConfig {
                id: None,
                size: ByteSize(u64::MAX),
                block: VirtioMemConfig::default_block(),
                node: 0,
                requested: ByteSize(0),
            };
            let write = |device| kv::to_string(device, Some(&default), KEYS);
            c.virtio_mem.iter().map(write).collect()
        },
    },
    Flag {
        name: "disk",
        value: "[file=]PATH[,size=SIZE][,readonly=on][,id=ID][,serial=TEXT][,bandwidth=SIZE][,iops=N][,burst=TIME]",
        help: "A disk: a raw file behind a virtio device; with size a missing file is created. bandwidth: bytes in a second; \
               iops: requests in a second; burst: for how long an idle disk may exceed them [default: 100ms]",
        repeatable: true,
        read: |c, texts| {
            entries(&mut c.disk, texts, NVDIMM, |at, old, new| {
                same_name(at, "disk", old.id.as_deref(), new.id.as_deref())
            })
        },
        write: |c| {
            // file= is required, so it must differ from the default that is left out.
            let default = DiskConfig {
                file: PathBuf::new(),
                ..kv::from_str("x", NVDIMM)?
            };
            let write = |disk| kv::to_string(disk, Some(&default), NVDIMM);
            c.disk.iter().map(write).collect()
        },
    },
    Flag {
        name: "disk-fault",
        value: "disk=ID[,op=any|read|write|flush][,sectors=FIRST-LAST][,latency=TIME][,jitter=TIME][,distribution=KIND]\
                [,error=on][,hang=on][,count=N]",
        help: "What is wrong with a disk: requests of a kind or to some sectors take longer, fail, or hang until the fault is \
               taken away. KIND of the jitter: uniform, exponential, normal",
        repeatable: true,
        read: |c, texts| entries(&mut c.disk_fault, texts, KEYS, |_, _, _| false),
        write: |c| {
            let default = DiskFaultConfig::default();
            let write = |fault| kv::to_string(fault, Some(&default), KEYS);
            c.disk_fault.iter().map(write).collect()
        },
    },
    Flag {
        name: "net",
        value: "tap=NAME|link=NAME|link=PATH[,mac=ADDRESS][,mtu=N][,id=ID]",
        help: "A network device. tap: an interface of this host; link=NAME: the other device of this machine that says so; \
               link=PATH, with a slash in it: the device of another machine that says so, over a unix socket that the first of \
               them makes [default: mtu=1500]",
        repeatable: true,
        read: |c, texts| {
            entries(&mut c.net, texts, KEYS, |at, old, new| {
                same_name(at, "net", old.id.as_deref(), new.id.as_deref())
            })
        },
        write: |c| {
            let default = NetConfig::default();
            let write = |device| kv::to_string(device, Some(&default), KEYS);
            c.net.iter().map(write).collect()
        },
    },
    Flag {
        name: "share",
        value: "[path=]DIR[,tag=NAME]",
        help: "A folder of this host that the guest reads, over 9p: mount -t 9p -o trans=virtio,version=9p2000.L,ro NAME /mnt \
               [default: tag=shareN by position]",
        repeatable: true,
        read: |c, texts| {
            entries(&mut c.share, texts, SHARE, |at, old, new| {
                same_name(at, "share", old.tag.as_deref(), new.tag.as_deref())
            })
        },
        write: |c| {
            // path= is required, so it must differ from the default that is left out.
            let default = ShareConfig {
                path: PathBuf::new(),
                tag: None,
            };
            let write = |share| kv::to_string(share, Some(&default), SHARE);
            c.share.iter().map(write).collect()
        },
    },
    Flag {
        name: "vsock",
        value: "cid=N,socket=PATH",
        help: "Streams between programs of the guest, whose address is N (3 or more), and of the host: a program that connects to the \
               unix socket PATH and writes `CONNECT PORT` is connected with that port of the guest; port P of the host, for guests, \
               is the socket PATH_P",
        repeatable: false,
        read: |c, texts| {
            for text in texts {
                c.vsock = Some(kv::from_str(text, KEYS).map_err(|e| (text.clone(), e))?);
            }
            Ok(())
        },
        write: |c| {
            // Both are required, so they must differ from the default that is left out.
            let default = VsockConfig {
                cid: 0,
                socket: PathBuf::new(),
            };
            let write = |vsock| kv::to_string(vsock, Some(&default), KEYS);
            c.vsock.iter().map(write).collect()
        },
    },
    Flag {
        name: "ars",
        value: "[scan-time=TIME][,records=N]",
        help: "Address range scrubs: how long a full one takes, and how many errors one result has room for, 1 to 2048 \
               [default: 500ms, 170]",
        repeatable: false,
        read: |c, texts| merge(&mut c.ars, texts, NUMA),
        write: |c| pairs(&c.ars, NUMA),
    },
    Flag {
        name: "apei",
        value: "on|off[,poll=TIME][,records=FILE][,extlog=on|off]",
        help: "ACPI platform error interfaces (HEST, BERT, EINJ, ERST): the guest hears of errors that the platform knows, injects \
               some itself and keeps records, beyond the run in FILE; poll is the time between two looks at the polled source; \
               extlog has machine checks of memory errors in the extended error log as well [default: off, 5s, off]",
        repeatable: false,
        read: |c, texts| merge(&mut c.apei, texts, APEI),
        write: |c| pairs(&c.apei, APEI),
    },
    Flag {
        name: "poison",
        value: "clear-on-write=on|off,userfaultfd=on|off",
        help: "Whether a bad line that the guest's processors have stored to from end to end is good again; whether pages with bad \
               lines beyond 1024 runs are caught by the host's userfaultfd [default: off, on]",
        repeatable: false,
        read: |c, texts| merge(&mut c.poison, texts, KEYS),
        write: |c| pairs(&c.poison, KEYS),
    },
    Flag {
        name: "console",
        value: "stdio|file:PATH|pty|none",
        help: "Where the first serial port goes; Ctrl-A x leaves an interactive one",
        repeatable: false,
        read: |c, texts| set(&mut c.console, texts),
        write: |c| {
            Ok(if c.console == Default::default() {
                Vec::new()
            } else {
                show(&c.console)?
            })
        },
    },
    Flag {
        name: "agent-socket",
        value: "PATH",
        help: "Offer the guest agent's channel on this unix socket",
        repeatable: false,
        read: |c, texts| set(&mut c.agent_socket, texts),
        write: |c| show(&c.agent_socket),
    },
    Flag {
        name: "api-socket",
        value: "PATH",
        help: "Serve the REST API on this unix socket",
        repeatable: false,
        read: |c, texts| set(&mut c.api_socket, texts),
        write: |c| show(&c.api_socket),
    },
];
