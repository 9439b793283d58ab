//! Requests about the limits of the machine's memory.

use super::Running;
use crate::{
    control::{Answer, ControlError, ErrorKind, LimitsRequest, Response},
    xen::Xen,
};

impl Running {
    /// The limits, changed or looked at; a Xen domain is told of its target.
    pub(super) fn limits(&mut self, request: &LimitsRequest) -> Answer {
        let growth = &mut self.parts.growth;
        if let LimitsRequest::Set(asked) = request {
            let deaf = self.parts.platform.xen.as_ref().filter(|xen| !xen.has_store());
            if let (Some(target), Some(_)) = (asked.target, deaf) {
                let why = format!(
                    "the guest does not hear of the target {target}: a first domain listens to a xenstored of its own alone"
                );
                let hint = "in the guest, write KiB to /sys/devices/system/xen_memory/xen_memory0/target_kb";
                return Err(ControlError::new(ErrorKind::Conflict, why).field("target").hint(hint));
            }
            growth.set_limits(asked)?;
            if let Some(xen) = &self.parts.platform.xen {
                xen.set_target(growth.limits.target);
            }
        }
        let mut info = growth.limits_info();
        info.domain = self.parts.platform.xen.as_ref().map(Xen::memory);
        Ok(Response::Limits(info))
    }
}
