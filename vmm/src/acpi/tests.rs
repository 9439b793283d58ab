use super::*;
use devices::nvdimm::{NfitPlan, NvdimmPlan, RootPlan};

fn input() -> AcpiInput {
    AcpiInput {
        cpus: vec![AcpiCpu { apic_id: 0, node: 0 }],
        ram: vec![RamRegion {
            range: GpaRange::new(Gpa(0), 1 << 30),
            node: 0,
        }],
        ..AcpiInput::default()
    }
}

fn nvdimm(slot: u8, node: u32) -> NvdimmBusPlan {
    let plan = NvdimmPlan::plain(slot, format!("nvdimm{slot}"), 1 << 29, 0x2_0000, false);
    NvdimmBusPlan {
        number: 0,
        mailbox: layout::dsm_mailbox(0),
        slots: vec![(slot, plan.handle)],
        nfit: NfitPlan::plain([(plan, Gpa((4 + u64::from(slot)) << 30), node)]),
        root: RootPlan::default(),
    }
}

fn signatures(tables: &Tables) -> Vec<&'static str> {
    tables.tables.iter().map(|t| t.signature).collect()
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

#[test]
fn plain_machine_has_no_numa_tables() {
    assert_eq!(
        signatures(&assemble(&input()).unwrap()),
        ["RSDP", "DSDT", "FACP", "APIC", "XSDT"]
    );
}

#[test]
fn nvdimm_brings_affinity_tables_even_on_a_single_node() {
    let tables = assemble(&AcpiInput {
        nvdimm: vec![nvdimm(0, 0)],
        ..input()
    })
    .unwrap();
    assert_eq!(
        signatures(&tables),
        ["RSDP", "DSDT", "FACP", "APIC", "SRAT", "SLIT", "NFIT", "XSDT"]
    );
}

#[test]
fn pointers_lead_from_the_rsdp_to_every_table() {
    let tables = assemble(&AcpiInput {
        nvdimm: vec![nvdimm(0, 0)],
        ..input()
    })
    .unwrap();
    let rsdp = tables.get("RSDP").unwrap();
    assert_eq!(
        (rsdp.gpa, tables.rsdp),
        (layout::ACPI_TABLES.start, layout::ACPI_TABLES.start)
    );
    assert_eq!(&rsdp.bytes[..8], b"RSD PTR ");
    let xsdt = tables.get("XSDT").unwrap();
    assert_eq!(u64_at(&rsdp.bytes, 24), xsdt.gpa.0);
    let listed: Vec<_> = xsdt.bytes[36..].chunks(8).map(|c| u64_at(c, 0)).collect();
    let expected: Vec<_> = ["FACP", "APIC", "SRAT", "SLIT", "NFIT"]
        .map(|s| tables.get(s).unwrap().gpa.0)
        .to_vec();
    assert_eq!(listed, expected);
    assert_eq!(
        u64_at(&tables.get("FACP").unwrap().bytes, 140),
        tables.get("DSDT").unwrap().gpa.0
    );
}

#[test]
fn tables_are_aligned_apart_and_sum_to_zero() {
    let tables = assemble(&AcpiInput {
        nvdimm: vec![nvdimm(0, 0)],
        ..input()
    })
    .unwrap();
    let mut free = layout::ACPI_TABLES.start.0;
    for table in &tables.tables {
        assert!(
            table.gpa.0 >= free && table.gpa.0.is_multiple_of(TABLE_ALIGN),
            "{}",
            table.signature
        );
        free = table.gpa.0 + table.bytes.len() as u64;
        assert_eq!(
            table.bytes.iter().fold(0u8, |sum, b| sum.wrapping_add(*b)),
            0,
            "{}",
            table.signature
        );
    }
    assert!(free <= layout::ACPI_TABLES.end().0);
}

#[test]
fn fadt_is_hardware_reduced_with_sleep_and_reset_registers() {
    let tables = assemble(&input()).unwrap();
    let fadt = &tables.get("FACP").unwrap().bytes;
    // ACPI 6.5 table 5.9: offsets in the FADT.
    let register = |port: u16| [&[1, 8, 0, 1][..], &u64::from(port).to_le_bytes()].concat();
    assert_eq!((fadt[8], fadt[131], fadt.len()), (6, 5, 276));
    assert_eq!(fadt[109..111], [0x24, 0]);
    assert_eq!(
        fadt[112..116],
        ((1u32 << 0) | (1 << 4) | (1 << 5) | (1 << 10) | (1 << 20)).to_le_bytes()
    );
    assert_eq!(fadt[116..128], register(0x606));
    assert_eq!(fadt[128], 1);
    assert_eq!(fadt[244..256], register(0x604));
    assert_eq!(fadt[256..268], register(0x605));
    assert_eq!(fadt[36..44], [0; 8], "no FACS, no 32-bit DSDT pointer");
}

#[test]
fn large_apic_ids_take_the_x2apic_forms() {
    let cpus = [0, 254, 255, 0x1_0000]
        .map(|apic_id| AcpiCpu { apic_id, node: 0 })
        .to_vec();
    let tables = assemble(&AcpiInput {
        cpus,
        numa: Some(AcpiNuma::single()),
        ..input()
    })
    .unwrap();
    let kinds = |mut entries: &[u8]| {
        let mut kinds = vec![];
        while let [kind, len, ..] = entries {
            kinds.push((*kind, *len));
            entries = &entries[usize::from(*len)..];
        }
        kinds
    };
    assert_eq!(
        kinds(&tables.get("APIC").unwrap().bytes[44..]),
        [(0, 8), (0, 8), (9, 16), (9, 16), (1, 12)]
    );
    assert_eq!(
        kinds(&tables.get("SRAT").unwrap().bytes[48..]),
        [(0, 16), (0, 16), (2, 24), (2, 24), (1, 40)]
    );
}

#[test]
fn nvdimm_range_is_hot_pluggable_non_volatile_memory_of_its_node() {
    let numa = AcpiNuma {
        nodes: vec![0, 2],
        distances: vec![vec![10, 17], vec![28, 10]],
    };
    let plan = nvdimm(0, 2);
    let tables = assemble(&AcpiInput {
        nvdimm: vec![plan.clone()],
        numa: Some(numa),
        ..input()
    })
    .unwrap();
    let srat = &tables.get("SRAT").unwrap().bytes;
    let entry = &srat[srat.len() - 40..];
    assert_eq!(entry[..6], [1, 40, 2, 0, 0, 0]);
    let range = plan.nfit.spas[0].range;
    assert_eq!((u64_at(entry, 8), u64_at(entry, 16)), (range.start.0, range.len));
    assert_eq!(entry[28..32], [7, 0, 0, 0]);
    let slit = &tables.get("SLIT").unwrap().bytes;
    assert_eq!(u64_at(slit, 36), 3);
    assert_eq!(slit[44..], [10, 255, 17, 255, 10, 255, 28, 255, 10]);
}

#[test]
fn things_on_unknown_nodes_are_refused() {
    let numa = || Some(AcpiNuma::single());
    let error = assemble(&AcpiInput {
        nvdimm: vec![nvdimm(0, 3)],
        numa: numa(),
        ..input()
    })
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "SPA range 0x100000000-0x11fffffff is on node 3, which is not among the nodes [0]"
    );
    let cpus = vec![AcpiCpu { apic_id: 0, node: 1 }];
    assert!(matches!(
        assemble(&AcpiInput {
            cpus,
            numa: numa(),
            ..input()
        }),
        Err(AcpiError::UnknownNode { .. })
    ));
    let nodes = AcpiNuma {
        nodes: vec![0, 256],
        distances: vec![vec![10, 20], vec![20, 10]],
    };
    assert_eq!(
        assemble(&AcpiInput {
            numa: Some(nodes),
            ..input()
        }),
        Err(AcpiError::NodeNumber(256))
    );
}

#[test]
fn distances_that_linux_would_drop_are_refused() {
    for distances in [
        vec![],
        vec![vec![10, 20], vec![20]],
        vec![vec![10, 10], vec![20, 10]],
        vec![vec![11, 20], vec![20, 10]],
    ] {
        let numa = AcpiNuma {
            nodes: vec![0, 1],
            distances,
        };
        assert!(matches!(
            assemble(&AcpiInput {
                numa: Some(numa),
                ..input()
            }),
            Err(AcpiError::Distance { .. })
        ));
    }
}

#[test]
fn tables_that_do_not_fit_are_an_error() {
    let ram = vec![input().ram[0]; 15_000];
    let error = assemble(&AcpiInput {
        ram,
        numa: Some(AcpiNuma::single()),
        ..input()
    })
    .unwrap_err();
    assert!(matches!(error, AcpiError::TooLarge { have: 0x8_0000, .. }), "{error}");
}

#[test]
fn devices_beyond_the_names_or_beyond_32_bits_are_an_error() {
    let page = |gpa| (GpaRange::new(Gpa(gpa), 0x1000), 16);
    let many = AcpiInput {
        virtio: vec![page(0xd000_0000); 257],
        ..input()
    };
    assert_eq!(
        assemble(&many),
        Err(AcpiError::TooMany {
            what: "virtio devices",
            count: 257,
            max: 256
        })
    );
    let high = AcpiInput {
        virtio: vec![page(1 << 32)],
        ..input()
    };
    assert_eq!(assemble(&high), Err(AcpiError::VirtioRange(page(1 << 32).0)));
}
