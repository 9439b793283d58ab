//! Event channels by the 2-level ABI: which port is bound to what. Which of them are pending is in the shared information page.

use super::abi::{DOMID_SELF, Errno};

/// Ports of a 64-bit domain (`EVTCHN_2L_NR_CHANNELS`); port 0 is none.
pub const PORTS: u32 = 4096;
/// Virtual interrupts (`NR_VIRQS`).
const VIRQS: u32 = 24;
/// Those that every vCPU has for itself: timer, debugging, profiling, performance counters. The others are on vCPU 0.
const PER_VCPU: [u32; 4] = [0, 1, 7, 13];

/// What a port is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// Nothing.
    Free,
    /// To be bound by this domain.
    Unbound {
        /// Who may.
        remote: u16,
    },
    /// Another port of the same domain.
    Loop {
        /// Which.
        port: u32,
    },
    /// A virtual interrupt.
    Virq(u32),
    /// Interrupts between vCPUs.
    Ipi,
    /// The toolstack's end of the store's rings.
    Store,
    /// The toolstack's end of the console's rings.
    Console,
}

/// What a notification comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// Nothing.
    Nowhere,
    /// A port of the domain is raised.
    Raise {
        /// Which.
        port: u32,
        /// For whom.
        vcpu: u32,
    },
    /// The store has to look.
    Store,
    /// The console has to look.
    Console,
}

#[derive(Debug, Clone, Copy)]
struct Port {
    bound: Bound,
    vcpu: u32,
}

/// Event channels of the domain.
#[derive(Debug)]
pub struct EventChannels {
    domid: u16,
    vcpus: u32,
    /// By number; what is beyond the end is free.
    ports: Vec<Port>,
}

const FREE: Port = Port {
    bound: Bound::Free,
    vcpu: 0,
};

impl EventChannels {
    /// Of the domain called `domid`; none is bound.
    pub fn new(domid: u16, vcpus: u32) -> Self {
        let ports = vec![];
        Self { domid, vcpus, ports }
    }

    /// Whether `domid` is the domain's own.
    pub fn is_self(&self, domid: u16) -> bool {
        domid == DOMID_SELF || domid == self.domid
    }

    fn port(&self, port: u32) -> Port {
        self.ports.get(port as usize).copied().unwrap_or(FREE)
    }

    fn set(&mut self, port: u32, to: Port) {
        if let Some(port) = self.ports.get_mut(port as usize) {
            *port = to;
        }
    }

    fn bind(&mut self, bound: Bound, vcpu: u32) -> Result<u32, Errno> {
        let free = (1..PORTS).find(|port| self.port(*port).bound == Bound::Free);
        let port = free.ok_or(Errno::NoSpace)?;
        let len = self.ports.len().max(port as usize + 1);
        self.ports.resize(len, FREE);
        self.set(port, Port { bound, vcpu });
        Ok(port)
    }

    fn known_vcpu(&self, vcpu: u32) -> Result<u32, Errno> {
        if vcpu < self.vcpus {
            Ok(vcpu)
        } else {
            Err(Errno::NoEntry)
        }
    }

    /// A new port for a virtual interrupt.
    pub fn bind_virq(&mut self, virq: u32, vcpu: u32) -> Result<u32, Errno> {
        let vcpu = self.known_vcpu(vcpu)?;
        let own = PER_VCPU.contains(&virq);
        if virq >= VIRQS || !own && vcpu != 0 {
            return Err(Errno::Invalid);
        }
        let taken = |port: &Port| port.bound == Bound::Virq(virq) && port.vcpu == vcpu;
        if self.ports.iter().any(taken) {
            return Err(Errno::Exists);
        }
        self.bind(Bound::Virq(virq), vcpu)
    }

    /// A new port for interrupts to a vCPU.
    pub fn bind_ipi(&mut self, vcpu: u32) -> Result<u32, Errno> {
        let vcpu = self.known_vcpu(vcpu)?;
        self.bind(Bound::Ipi, vcpu)
    }

    /// A new port that `remote` may bind to.
    pub fn alloc_unbound(&mut self, domid: u16, remote: u16) -> Result<u32, Errno> {
        if !self.is_self(domid) {
            return Err(Errno::Perm);
        }
        self.bind(Bound::Unbound { remote }, 0)
    }

    /// A new port at the other end of another domain's: there is no other domain.
    pub fn bind_interdomain(&mut self, remote: u16, remote_port: u32) -> Result<u32, Errno> {
        if !self.is_self(remote) {
            return Err(Errno::NoDomain);
        }
        let other = self.port(remote_port);
        match other.bound {
            Bound::Unbound { remote } if self.is_self(remote) => {}
            _ => return Err(Errno::Invalid),
        }
        let port = self.bind(Bound::Loop { port: remote_port }, 0)?;
        let bound = Bound::Loop { port };
        self.set(remote_port, Port { bound, ..other });
        Ok(port)
    }

    /// Lets `port` notify another vCPU.
    pub fn bind_vcpu(&mut self, port: u32, vcpu: u32) -> Result<(), Errno> {
        let vcpu = self.known_vcpu(vcpu)?;
        let now = self.port(port);
        match now.bound {
            Bound::Unbound { .. } | Bound::Loop { .. } | Bound::Store | Bound::Console => {}
            Bound::Virq(virq) if !PER_VCPU.contains(&virq) => {}
            Bound::Free | Bound::Virq(_) | Bound::Ipi => return Err(Errno::Invalid),
        }
        self.set(port, Port { vcpu, ..now });
        Ok(())
    }

    /// Frees a port.
    pub fn close(&mut self, port: u32) -> Result<(), Errno> {
        match self.port(port).bound {
            Bound::Free => return Err(Errno::Invalid),
            Bound::Loop { port: other } => {
                let left = self.port(other);
                let bound = Bound::Unbound { remote: self.domid };
                self.set(other, Port { bound, ..left });
            }
            Bound::Unbound { .. } | Bound::Virq(_) | Bound::Ipi | Bound::Store | Bound::Console => {}
        }
        self.set(port, FREE);
        Ok(())
    }

    /// Ports of interrupts between vCPUs.
    pub fn between_vcpus(&self) -> Vec<u32> {
        let all = (0..).zip(&self.ports);
        let all = all.filter(|(_, port)| port.bound == Bound::Ipi);
        all.map(|(number, _)| number).collect()
    }

    /// Whether any port is bound to that vCPU.
    pub fn tells(&self, vcpu: u32) -> bool {
        let mut ports = self.ports.iter().skip(1);
        ports.any(|port| port.bound != Bound::Free && port.vcpu == vcpu)
    }

    /// Frees every port; which were bound.
    pub fn reset(&mut self) -> Vec<u32> {
        let bound = (1..).zip(self.ports.iter().skip(1));
        let bound = bound.filter(|(_, port)| port.bound != Bound::Free);
        let bound = bound.map(|(number, _)| number).collect();
        self.ports.clear();
        bound
    }

    /// What the guest's notification through `port` comes to.
    pub fn send(&self, port: u32) -> Result<Sent, Errno> {
        let from = self.port(port);
        match from.bound {
            Bound::Free | Bound::Virq(_) => Err(Errno::Invalid),
            Bound::Unbound { .. } => Ok(Sent::Nowhere),
            Bound::Loop { port } => {
                let vcpu = self.port(port).vcpu;
                Ok(Sent::Raise { port, vcpu })
            }
            Bound::Ipi => Ok(Sent::Raise { port, vcpu: from.vcpu }),
            Bound::Store => Ok(Sent::Store),
            Bound::Console => Ok(Sent::Console),
        }
    }

    /// A new port whose other end is the store's.
    pub fn bind_store(&mut self) -> Result<u32, Errno> {
        self.bind(Bound::Store, 0)
    }

    /// A new port whose other end is the console's.
    pub fn bind_console(&mut self) -> Result<u32, Errno> {
        self.bind(Bound::Console, 0)
    }

    /// What `port` is bound to and the vCPU that it notifies; none: there is no such port.
    pub fn look(&self, port: u32) -> Option<(Bound, u32)> {
        let found = self.port(port);
        (1..PORTS).contains(&port).then_some((found.bound, found.vcpu))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::abi::DOMID, *};

    #[test]
    fn ports_are_bound_once_and_the_lowest_free_one_comes_first() {
        let mut events = EventChannels::new(DOMID, 2);
        assert_eq!(events.bind_virq(0, 1), Ok(1));
        assert_eq!(events.bind_virq(0, 1), Err(Errno::Exists));
        assert_eq!(events.bind_virq(0, 0), Ok(2));
        assert_eq!(events.bind_ipi(1), Ok(3));
        assert_eq!((events.close(2), events.close(2)), (Ok(()), Err(Errno::Invalid)));
        assert_eq!(events.bind_ipi(0), Ok(2));
        assert_eq!(events.send(3), Ok(Sent::Raise { port: 3, vcpu: 1 }));
        assert_eq!(events.send(1), Err(Errno::Invalid));
        assert_eq!(
            (events.bind_virq(2, 1), events.bind_virq(24, 0)),
            (Err(Errno::Invalid), Err(Errno::Invalid))
        );
        assert_eq!(
            (events.bind_ipi(2), events.bind_virq(1, 2)),
            (Err(Errno::NoEntry), Err(Errno::NoEntry))
        );
        assert_eq!(events.reset(), [1, 2, 3]);
        assert_eq!(
            (events.look(0), events.look(PORTS), events.look(1)),
            (None, None, Some((Bound::Free, 0)))
        );
    }

    #[test]
    fn two_ports_of_one_domain_notify_each_other_until_one_is_closed() {
        let mut events = EventChannels::new(DOMID, 2);
        assert_eq!(events.alloc_unbound(7, DOMID_SELF), Err(Errno::Perm));
        let first = events.alloc_unbound(DOMID_SELF, DOMID).unwrap();
        assert_eq!(events.send(first), Ok(Sent::Nowhere));
        assert_eq!(events.bind_interdomain(0, first), Err(Errno::NoDomain));
        let second = events.bind_interdomain(DOMID_SELF, first).unwrap();
        assert_eq!(
            events.bind_interdomain(DOMID_SELF, first),
            Err(Errno::Invalid),
            "it is bound"
        );
        events.bind_vcpu(second, 1).unwrap();
        let raise = |port, vcpu| Ok(Sent::Raise { port, vcpu });
        assert_eq!(
            (events.send(first), events.send(second)),
            (raise(second, 1), raise(first, 0))
        );
        events.close(second).unwrap();
        assert_eq!(
            (events.send(first), events.look(first)),
            (Ok(Sent::Nowhere), Some((Bound::Unbound { remote: DOMID }, 0)))
        );
    }

    #[test]
    fn there_are_no_more_ports_than_the_abi_has() {
        let mut events = EventChannels::new(DOMID, 1);
        for port in 1..PORTS {
            assert_eq!(events.bind_ipi(0), Ok(port));
        }
        assert_eq!(events.bind_ipi(0), Err(Errno::NoSpace));
        assert_eq!(events.reset().len(), 4095);
    }
}
