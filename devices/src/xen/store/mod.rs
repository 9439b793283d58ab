//! The store of one domain (xenstore): what the toolstack and the guest tell each other.
//!
//! ```text
//! guest: message into the ring, event --> Store::attend --> replies and watch events into the other ring --> event
//! host:  Store::set ------------------------^
//! ```
//! Requests are answered on the vCPU that tells of them, as many as the ring holds. A guest that does not take its replies is not
//! served until it does.

pub mod tree;
pub mod wire;

use super::{Host, abi::DOMID};
use std::collections::{BTreeMap, VecDeque};
use tree::{Access, MAX_PATH, Permissions, TOOLSTACK, Tree, is_below};
use wire::{MAX_PAYLOAD, Message, NoMessage, Rings, kind};

/// Where the guest's nodes are.
const HOME: &str = "/local/domain/1";
/// Most bytes that wait for room in the guest's ring before events are lost.
const MAX_WAITING: usize = 64 << 10;
/// Most watches.
const MAX_WATCHES: usize = 128;
/// Most transactions at a time.
const MAX_TRANSACTIONS: usize = 10;
/// Most bytes of a watch's token.
const MAX_TOKEN: usize = 256;

/// Why a request fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// No such node, watch or transaction.
    NoEntry,
    /// Not for this domain.
    Access,
    /// It makes no sense.
    Invalid,
    /// Too large.
    NoSpace,
    /// Too many.
    Quota,
    /// It is there.
    Exists,
    /// Something changed meanwhile.
    Again,
    /// An unknown request.
    NoCall,
}

impl Problem {
    fn name(self) -> &'static str {
        match self {
            Self::NoEntry => "ENOENT",
            Self::Access => "EACCES",
            Self::Invalid => "EINVAL",
            Self::NoSpace => "ENOSPC",
            Self::Quota => "EDQUOT",
            Self::Exists => "EEXIST",
            Self::Again => "EAGAIN",
            Self::NoCall => "ENOSYS",
        }
    }
}

/// A change, for those who watch.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Change {
    path: String,
    /// All below went with it.
    whole: bool,
}

#[derive(Debug)]
struct Watch {
    /// As the guest wrote it.
    said: String,
    path: String,
    token: Vec<u8>,
}

#[derive(Debug)]
struct Transaction {
    tree: Tree,
    /// The store's own count of changes when it began.
    began: u64,
    changes: Vec<Change>,
}

/// The store.
#[derive(Debug)]
pub struct Store {
    rings: Rings,
    tree: Tree,
    /// Changes so far.
    changed: u64,
    watches: Vec<Watch>,
    transactions: BTreeMap<u32, Transaction>,
    last_transaction: u32,
    /// Bytes of a message that is not all there.
    partial: Vec<u8>,
    waiting: VecDeque<u8>,
}

/// Nodes below which the guest may write.
const FREE: [&str; 4] = ["control", "device", "data", "error"];

impl Store {
    /// The store behind the rings in `page`, with what every guest finds.
    pub fn new(page: u64, name: &str, vcpus: u32, static_max_kib: u64, target_kib: u64) -> Self {
        let mut store = Self {
            rings: Rings { page },
            tree: Tree::default(),
            changed: 0,
            watches: vec![],
            transactions: BTreeMap::new(),
            last_transaction: 0,
            partial: vec![],
            waiting: VecDeque::new(),
        };
        let kept = Access::Read;
        for (path, value) in [
            ("name", name),
            ("domid", &DOMID.to_string()),
            ("memory/static-max", &static_max_kib.to_string()),
            ("memory/target", &target_kib.to_string()),
        ] {
            store.plant(path, value, kept);
        }
        store.plant_free();
        for vcpu in 0..vcpus {
            store.plant(&format!("cpu/{vcpu}/availability"), "online", Access::Read);
        }
        for path in ["", "memory", "cpu"] {
            store.plant(path, "", Access::Read);
        }
        store
    }

    /// Where the guest writes.
    fn plant_free(&mut self) {
        self.plant("control/shutdown", "", Access::Both);
        self.plant("control/platform-feature-xs_reset_watches", "1", Access::Read);
        for path in FREE {
            self.plant(path, "", Access::Both);
        }
    }

    /// Where the domain's console is.
    pub fn plant_console(&mut self, page: u64, port: u32) {
        let (page, port) = (page.to_string(), port.to_string());
        for (name, value) in [
            ("ring-ref", page.as_str()),
            ("port", &port),
            ("type", "xenconsoled"),
            ("output", "pty"),
        ] {
            self.plant(&format!("console/{name}"), value, Access::Read);
        }
        self.plant("console", "", Access::Read);
    }

    /// A node of the toolstack's.
    fn plant(&mut self, path: &str, value: &str, guest: Access) {
        let path = if path.is_empty() {
            HOME.to_owned()
        } else {
            format!("{HOME}/{path}")
        };
        let permissions = Permissions::of_toolstack(DOMID, guest);
        let done = self.tree.write(&path, TOOLSTACK, value.as_bytes());
        let done = done.and_then(|()| self.tree.set_permissions(&path, TOOLSTACK, permissions));
        assert_eq!(done, Ok(()), "{path} must be a node");
    }

    /// What is at `path` below the guest's own node.
    pub fn value(&self, path: &str) -> Option<&[u8]> {
        self.tree.read(&format!("{HOME}/{path}"), TOOLSTACK).ok()
    }

    /// The host writes a node; whether the guest has to be told that its ring has something.
    pub fn set(&mut self, path: &str, value: &str, host: &mut dyn Host) -> bool {
        let path = format!("{HOME}/{path}");
        if self.tree.write(&path, TOOLSTACK, value.as_bytes()).is_err() {
            return false;
        }
        self.tell(&[Change { path, whole: false }]);
        self.deliver(host)
    }

    /// Answers what the guest has asked; whether it has to be told that its ring has something, or room.
    pub fn attend(&mut self, host: &mut dyn Host) -> bool {
        let mut tell = self.deliver(host);
        if !self.waiting.is_empty() {
            return tell;
        }
        let taken = self.rings.take(host);
        tell |= !taken.is_empty();
        self.partial.extend(taken);
        loop {
            match Message::parse(&self.partial) {
                Ok(None) => break,
                Ok(Some((message, len))) => {
                    self.partial.drain(..len);
                    self.serve(&message);
                }
                Err(NoMessage) => {
                    tracing::warn!("the guest writes no messages into the ring of its store");
                    self.partial.clear();
                }
            }
        }
        self.deliver(host) || tell
    }

    /// As at the start, for another kernel: but for what the host has written, outside of `control`.
    pub fn reset(&mut self) {
        for path in FREE {
            // One that the guest has removed is not missed.
            let _ = self.tree.remove(&format!("{HOME}/{path}"), TOOLSTACK);
        }
        self.plant_free();
        self.watches.clear();
        self.transactions.clear();
        self.partial.clear();
        self.waiting.clear();
    }

    fn deliver(&mut self, host: &mut dyn Host) -> bool {
        let done = self.rings.put(self.waiting.make_contiguous(), host);
        self.waiting.drain(..done);
        done != 0
    }

    fn serve(&mut self, message: &Message) {
        let (kind, payload, events) = match self.answer(message) {
            Ok((payload, _)) if payload.len() > MAX_PAYLOAD => (kind::ERROR, b"E2BIG\0".to_vec(), vec![]),
            Ok((payload, events)) => (message.kind, payload, events),
            Err(problem) => (kind::ERROR, format!("{}\0", problem.name()).into_bytes(), vec![]),
        };
        let reply = Message {
            kind,
            payload,
            ..*message
        };
        self.waiting.extend(reply.bytes());
        self.tell(&events);
        if message.kind == kind::WATCH
            && kind == kind::WATCH
            && let Some(watch) = self.watches.last()
        {
            // Every watch is told of once at first.
            let event = event(&watch.said, &watch.token);
            self.waiting.extend(event.bytes());
        }
    }

    /// What a request is answered with, and what it changes.
    fn answer(&mut self, message: &Message) -> Result<(Vec<u8>, Vec<Change>), Problem> {
        let plain = |payload: &[u8]| Ok((payload.to_vec(), vec![]));
        let payload = &message.payload;
        match message.kind {
            kind::WATCH => {
                self.watch(payload)?;
                plain(b"OK\0")
            }
            kind::UNWATCH => {
                let (said, token) = two(payload)?;
                let before = self.watches.len();
                self.watches
                    .retain(|watch| (watch.said.as_bytes(), &watch.token[..]) != (said, token));
                if self.watches.len() == before {
                    Err(Problem::NoEntry)
                } else {
                    plain(b"OK\0")
                }
            }
            kind::TRANSACTION_START => {
                let id = self.begin(message.transaction)?;
                plain(format!("{id}\0").as_bytes())
            }
            kind::TRANSACTION_END => {
                let changes = self.end(message.transaction, payload)?;
                Ok((b"OK\0".to_vec(), changes))
            }
            kind::GET_DOMAIN_PATH => {
                let number = str::from_utf8(text(payload)?).map_err(|_| Problem::Invalid)?;
                let number: u16 = number.parse().map_err(|_| Problem::Invalid)?;
                plain(format!("/local/domain/{number}\0").as_bytes())
            }
            kind::RESET_WATCHES => {
                self.watches.clear();
                self.transactions.clear();
                plain(b"OK\0")
            }
            _ => self.about_nodes(message),
        }
    }

    /// A request about nodes, on the store or in a transaction.
    fn about_nodes(&mut self, message: &Message) -> Result<(Vec<u8>, Vec<Change>), Problem> {
        if message.transaction == 0 {
            let done = nodes(&mut self.tree, message)?;
            self.changed += u64::from(done.1.is_some());
            return Ok((done.0, done.1.into_iter().collect()));
        }
        let transaction = self
            .transactions
            .get_mut(&message.transaction)
            .ok_or(Problem::NoEntry)?;
        let (payload, change) = nodes(&mut transaction.tree, message)?;
        transaction.changes.extend(change);
        Ok((payload, vec![]))
    }

    fn watch(&mut self, payload: &[u8]) -> Result<(), Problem> {
        let (said, token) = two(payload)?;
        let text = str::from_utf8(said).map_err(|_| Problem::Invalid)?;
        // Names such as @releaseDomain are of domains, and there is no other one.
        let path = if text.starts_with('@') {
            text.to_owned()
        } else {
            absolute(said)?
        };
        if token.len() > MAX_TOKEN {
            return Err(Problem::NoSpace);
        }
        if self
            .watches
            .iter()
            .any(|watch| (watch.said.as_str(), &watch.token[..]) == (text, token))
        {
            return Err(Problem::Exists);
        }
        if self.watches.len() >= MAX_WATCHES {
            return Err(Problem::Quota);
        }
        self.watches.push(Watch {
            said: text.to_owned(),
            path,
            token: token.to_vec(),
        });
        Ok(())
    }

    fn begin(&mut self, within: u32) -> Result<u32, Problem> {
        if within != 0 {
            return Err(Problem::Invalid);
        }
        if self.transactions.len() >= MAX_TRANSACTIONS {
            return Err(Problem::Quota);
        }
        let mut id = self.last_transaction;
        while id == 0 || self.transactions.contains_key(&id) {
            id = id.wrapping_add(1);
        }
        self.last_transaction = id.wrapping_add(1);
        let transaction = Transaction {
            tree: self.tree.clone(),
            began: self.changed,
            changes: vec![],
        };
        self.transactions.insert(id, transaction);
        Ok(id)
    }

    fn end(&mut self, id: u32, payload: &[u8]) -> Result<Vec<Change>, Problem> {
        let commit = match text(payload)? {
            b"T" => true,
            b"F" => false,
            _ => return Err(Problem::Invalid),
        };
        let done = self.transactions.remove(&id).ok_or(Problem::NoEntry)?;
        if !commit || done.changes.is_empty() {
            return Ok(vec![]);
        }
        if done.began != self.changed {
            return Err(Problem::Again);
        }
        self.tree = done.tree;
        self.changed += 1;
        Ok(done.changes)
    }

    /// Tells the guest of changes that it watches for and may know of.
    fn tell(&mut self, changes: &[Change]) {
        for change in changes {
            for watch in &self.watches {
                let path = if is_below(&change.path, &watch.path) {
                    &change.path
                } else if change.whole && is_below(&watch.path, &change.path) {
                    &watch.path
                } else {
                    continue;
                };
                let room = self.waiting.len() < MAX_WAITING;
                if room && self.tree.may_know(path, DOMID) {
                    // As the guest wrote the path it watches.
                    let rest = path.strip_prefix(&watch.path).unwrap_or_default();
                    let event = event(&format!("{}{rest}", watch.said), &watch.token);
                    self.waiting.extend(event.bytes());
                }
            }
        }
    }
}

fn event(path: &str, token: &[u8]) -> Message {
    Message {
        kind: kind::EVENT,
        request: 0,
        transaction: 0,
        payload: [path.as_bytes(), b"\0", token, b"\0"].concat(),
    }
}

/// One text with its end.
fn text(payload: &[u8]) -> Result<&[u8], Problem> {
    match payload.split_last() {
        Some((0, text)) if !text.contains(&0) => Ok(text),
        _ => Err(Problem::Invalid),
    }
}

/// Two texts with their ends.
fn two(payload: &[u8]) -> Result<(&[u8], &[u8]), Problem> {
    let mut texts = payload.splitn(2, |byte| *byte == 0);
    match (texts.next(), texts.next()) {
        (Some(first), Some(rest)) => Ok((first, text(rest)?)),
        _ => Err(Problem::Invalid),
    }
}

/// A path as the guest writes it, from the root.
fn absolute(path: &[u8]) -> Result<String, Problem> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-/_@".contains(byte);
    let path = str::from_utf8(path).map_err(|_| Problem::Invalid)?;
    let odd = path.is_empty() || !path.bytes().all(|byte| plain(&byte)) || path.contains("//");
    if odd || path.len() > 1 && path.ends_with('/') {
        return Err(Problem::Invalid);
    }
    let path = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("{HOME}/{path}")
    };
    if path.len() > MAX_PATH {
        Err(Problem::Invalid)
    } else {
        Ok(path)
    }
}

/// A request about nodes of `tree`: its answer, and what it changes.
fn nodes(tree: &mut Tree, message: &Message) -> Result<(Vec<u8>, Option<Change>), Problem> {
    let payload = &message.payload[..];
    let done = |path: String, whole| Ok((b"OK\0".to_vec(), Some(Change { path, whole })));
    match message.kind {
        kind::READ => Ok((tree.read(&absolute(text(payload)?)?, DOMID)?.to_vec(), None)),
        kind::DIRECTORY => {
            let path = absolute(text(payload)?)?;
            let names = tree.directory(&path, DOMID)?;
            let bytes = names.iter().flat_map(|name| name.bytes().chain([0]));
            Ok((bytes.collect(), None))
        }
        kind::GET_PERMISSIONS => Ok((tree.permissions(&absolute(text(payload)?)?, DOMID)?.bytes(), None)),
        kind::WRITE => {
            let end = payload.iter().position(|byte| *byte == 0).ok_or(Problem::Invalid)?;
            let (path, value) = payload.split_at(end);
            let path = absolute(path)?;
            tree.write(&path, DOMID, value.get(1..).unwrap_or_default())?;
            done(path, false)
        }
        kind::MAKE => {
            let path = absolute(text(payload)?)?;
            tree.make(&path, DOMID)?;
            done(path, false)
        }
        kind::REMOVE => {
            let path = absolute(text(payload)?)?;
            tree.remove(&path, DOMID)?;
            done(path, true)
        }
        kind::SET_PERMISSIONS => {
            let mut texts: Vec<_> = payload.split(|byte| *byte == 0).collect();
            if texts.pop().is_none_or(|rest| !rest.is_empty()) {
                return Err(Problem::Invalid);
            }
            let (path, permissions) = texts.split_first().ok_or(Problem::Invalid)?;
            let path = absolute(path)?;
            tree.set_permissions(&path, DOMID, Permissions::parse(permissions)?)?;
            done(path, false)
        }
        _ => Err(Problem::NoCall),
    }
}

#[cfg(test)]
mod tests;
