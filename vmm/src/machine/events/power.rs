//! A guest that is asked to end by itself, in the way that it listens to.

use super::{
    Running,
    serve::{Begun, End, Goal},
};
use crate::{
    control::{ControlError, ErrorKind, GuestPower},
    xen::Xen,
};
use devices::{
    acpi::AcpiEvent,
    xen::{Asked, NotAsked},
};
use std::time::Duration;

/// How long a kernel may take to take what it is asked for.
const LIMIT: Duration = Duration::from_secs(30);

/// As the store has it.
fn asked(what: GuestPower) -> Asked {
    match what {
        GuestPower::PowerOff => Asked::PowerOff,
        GuestPower::Reboot => Asked::Reboot,
    }
}

impl Running {
    /// Asks the guest: through its store, if it has one, else by the power button.
    pub(super) fn ask_guest(&mut self, what: GuestPower) -> Result<Begun, ControlError> {
        let xen = self.parts.platform.xen.as_ref();
        match (xen.filter(|xen| xen.has_store()), what) {
            (Some(xen), _) => {
                self.room_for_pending()?;
                xen.ask(asked(what)).map_err(|why| refused(what, &why))?;
                Ok(Begun::Until(Goal::PowerTaken(what), LIMIT))
            }
            (None, GuestPower::PowerOff) => {
                self.parts.acpi.raise(AcpiEvent::PowerButton);
                Ok(Begun::Done(self.state()))
            }
            (None, GuestPower::Reboot) => {
                let why = "the guest can be asked to turn itself off, not to reboot: only one of --xen can, which is not the first domain";
                Err(ControlError::new(ErrorKind::Conflict, why).hint("`reboot` resets the machine without asking"))
            }
        }
    }

    /// Whether the guest's kernel has taken what it was asked for; what is too late is not asked any more.
    pub(super) fn power_taken(&self, what: GuestPower, late: bool) -> Option<End> {
        let xen: &Xen = self.parts.platform.xen.as_ref()?;
        if xen.has_taken(asked(what)) {
            return Some(End::Answer(self.state()));
        }
        late.then(|| {
            // It may have taken it at the last moment.
            if !xen.take_back(asked(what)) {
                return End::Answer(self.state());
            }
            let why = format!(
                "the guest's kernel has not taken `{}` from control/shutdown within {} s; it is taken back",
                asked(what).word(),
                LIMIT.as_secs()
            );
            let error = ControlError::new(ErrorKind::Deadline, why);
            End::Failed(error.hint("`power-button`, or `quit` and `reboot`, which do not ask"))
        })
    }
}

fn refused(what: GuestPower, why: &NotAsked) -> ControlError {
    let word = asked(what).word();
    match why {
        NotAsked::Unsupported => {
            let why = format!(
                "the guest's kernel does not say that it takes `{word}`: its store has no control/feature-{word}"
            );
            let error = ControlError::new(ErrorKind::Conflict, why);
            error.hint("wait until the kernel has booted; `quit` and `reboot` do not ask")
        }
        NotAsked::Waiting(other) => {
            let why = format!(
                "the guest has not taken `{other}`, which it was asked for before, and is not asked for `{word}`"
            );
            ControlError::new(ErrorKind::Busy, why).hint("wait until it has, or 30 s")
        }
    }
}
