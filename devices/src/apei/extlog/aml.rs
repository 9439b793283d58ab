//! The `_DSM` of `\_SB` that says where the directory is.

use super::ExtlogPlan;
use crate::{nvdimm::guid::Guid, units::Gpa};
use acpi_tables::{
    Aml, AmlSink,
    aml::{Arg, BufferData, Equal, If, Method, Return, ZERO},
};
use uuid::uuid;

/// Functions of the extended error log.
const FUNCTIONS: Guid = Guid::new(uuid!("663e35af-cc10-41a4-88ea-5470af055295"));
/// The function that gives the directory's address.
const DIRECTORY: u8 = 1;

/// `_DSM(guid, revision, function, arguments)` as AML for the scope `\_SB`. All revisions have the same functions: 0 tells which
/// there are, 1 the address of the directory.
#[derive(Debug, Clone, Copy)]
pub struct ExtlogDsm {
    directory: Gpa,
}

impl ExtlogDsm {
    /// The method for the log of `plan`.
    pub fn new(plan: &ExtlogPlan) -> Self {
        let directory = plan.directory();
        Self { directory }
    }
}

impl Aml for ExtlogDsm {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        Method::new(
            "_DSM".into(),
            4,
            false,
            vec![
                &If::new(
                    &Equal::new(&Arg(0), &BufferData::new(FUNCTIONS.0.to_vec())),
                    vec![
                        &If::new(
                            &Equal::new(&Arg(2), &ZERO),
                            vec![&Return::new(&BufferData::new(vec![1 | 1 << DIRECTORY]))],
                        ),
                        &If::new(&Equal::new(&Arg(2), &DIRECTORY), vec![&Return::new(&self.directory.0)]),
                    ],
                ),
                &Return::new(&BufferData::new(vec![0])),
            ],
        )
        .to_aml_bytes(sink);
    }
}
