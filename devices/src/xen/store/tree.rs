//! Nodes of the store: values, permissions, and what the guest may do.

use super::Problem;
use std::collections::BTreeMap;

/// The domain that owns what is not the guest's.
pub const TOOLSTACK: u16 = 0;
/// Most bytes of a path.
pub const MAX_PATH: usize = 3072;
/// Most bytes of a value.
pub const MAX_VALUE: usize = 2048;
/// Nodes that the guest may make.
pub const MAX_NODES: usize = 1000;
/// Entries of a list of permissions.
pub const MAX_PERMISSIONS: usize = 8;

/// What a domain may do with a node, by the letters of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing.
    None,
    /// Read it.
    Read,
    /// Write it.
    Write,
    /// Both.
    Both,
}

impl Access {
    fn reads(self) -> bool {
        matches!(self, Self::Read | Self::Both)
    }

    fn writes(self) -> bool {
        matches!(self, Self::Write | Self::Both)
    }
}

/// Who may do what: the first entry names the owner, and what all others may that have no entry of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permissions(Vec<(Access, u16)>);

impl Permissions {
    /// The toolstack's, for the guest to use like that.
    pub fn of_toolstack(guest: u16, access: Access) -> Self {
        Self(vec![(Access::None, TOOLSTACK), (access, guest)])
    }

    /// From the texts of the protocol, such as `n0` and `r1`.
    pub fn parse(texts: &[&[u8]]) -> Result<Self, Problem> {
        if texts.is_empty() || texts.len() > MAX_PERMISSIONS {
            return Err(Problem::Invalid);
        }
        let one = |text: &&[u8]| {
            let (letter, number) = text.split_first()?;
            let access = match letter {
                b'n' => Access::None,
                b'r' => Access::Read,
                b'w' => Access::Write,
                b'b' => Access::Both,
                _ => return None,
            };
            Some((access, str::from_utf8(number).ok()?.parse().ok()?))
        };
        let all: Option<_> = texts.iter().map(one).collect();
        all.map(Self).ok_or(Problem::Invalid)
    }

    /// As the protocol has them, each with its end.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![];
        for (access, domain) in &self.0 {
            let letter = match access {
                Access::None => 'n',
                Access::Read => 'r',
                Access::Write => 'w',
                Access::Both => 'b',
            };
            bytes.extend(format!("{letter}{domain}\0").bytes());
        }
        bytes
    }

    fn owner(&self) -> u16 {
        self.0.first().map_or(TOOLSTACK, |(_, owner)| *owner)
    }

    fn access(&self, domain: u16) -> Access {
        if domain == TOOLSTACK || self.owner() == domain {
            return Access::Both;
        }
        let own = self.0.iter().skip(1).find(|(_, other)| *other == domain);
        own.or_else(|| self.0.first())
            .map_or(Access::None, |(access, _)| *access)
    }

    /// Those of a node that `domain` makes below one with these.
    fn inherited(&self, domain: u16) -> Self {
        let mut all = self.0.clone();
        if let Some((_, owner)) = all.first_mut()
            && domain != TOOLSTACK
        {
            *owner = domain;
        }
        Self(all)
    }
}

#[derive(Debug, Clone)]
struct Node {
    value: Vec<u8>,
    permissions: Permissions,
}

/// All nodes, by their absolute paths.
#[derive(Debug, Clone)]
pub struct Tree {
    nodes: BTreeMap<String, Node>,
    /// Nodes of others than the toolstack.
    guests: usize,
}

fn parent(path: &str) -> Option<&str> {
    let (before, _) = path.rsplit_once('/').filter(|_| path != "/")?;
    Some(if before.is_empty() { "/" } else { before })
}

/// Whether `path` is `above` or below it.
pub fn is_below(path: &str, above: &str) -> bool {
    let rest = path.strip_prefix(above);
    above == "/" || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Default for Tree {
    fn default() -> Self {
        let root = Node {
            value: vec![],
            permissions: Permissions(vec![(Access::None, TOOLSTACK)]),
        };
        Self {
            nodes: BTreeMap::from([("/".to_owned(), root)]),
            guests: 0,
        }
    }
}

impl Tree {
    fn node(&self, path: &str, domain: u16, may: fn(Access) -> bool) -> Result<&Node, Problem> {
        let node = self.nodes.get(path).ok_or(Problem::NoEntry)?;
        let allowed = may(node.permissions.access(domain));
        if allowed { Ok(node) } else { Err(Problem::Access) }
    }

    /// The value at `path`.
    pub fn read(&self, path: &str, domain: u16) -> Result<&[u8], Problem> {
        self.node(path, domain, Access::reads).map(|node| &node.value[..])
    }

    /// Names of the children.
    pub fn directory(&self, path: &str, domain: u16) -> Result<Vec<&str>, Problem> {
        self.node(path, domain, Access::reads)?;
        let below = self
            .nodes
            .range(path.to_owned()..)
            .take_while(|(other, _)| other.starts_with(path));
        let own = below.filter(|(other, _)| parent(other) == Some(path));
        Ok(own.filter_map(|(other, _)| other.rsplit('/').next()).collect())
    }

    /// Permissions of a node.
    pub fn permissions(&self, path: &str, domain: u16) -> Result<&Permissions, Problem> {
        self.node(path, domain, Access::reads).map(|node| &node.permissions)
    }

    /// Gives a node other permissions; its owner may.
    pub fn set_permissions(&mut self, path: &str, domain: u16, to: Permissions) -> Result<(), Problem> {
        let node = self.nodes.get_mut(path).ok_or(Problem::NoEntry)?;
        let owner = node.permissions.owner();
        if domain != TOOLSTACK && (owner != domain || to.owner() != domain) {
            return Err(Problem::Access);
        }
        node.permissions = to;
        self.guests =
            self.guests + usize::from(node.permissions.owner() != TOOLSTACK) - usize::from(owner != TOOLSTACK);
        Ok(())
    }

    /// Sets a value; makes the node and those above it where they are missing.
    pub fn write(&mut self, path: &str, domain: u16, value: &[u8]) -> Result<(), Problem> {
        if value.len() > MAX_VALUE {
            return Err(Problem::NoSpace);
        }
        self.make(path, domain)?;
        self.node(path, domain, Access::writes)?;
        if let Some(node) = self.nodes.get_mut(path) {
            node.value = value.to_vec();
        }
        Ok(())
    }

    /// Makes a node without a value; one that is there stays as it is.
    pub fn make(&mut self, path: &str, domain: u16) -> Result<(), Problem> {
        let mut missing = vec![];
        let mut above = path;
        while !self.nodes.contains_key(above) {
            missing.push(above.to_owned());
            above = parent(above).ok_or(Problem::Invalid)?;
        }
        if missing.is_empty() {
            return Ok(());
        }
        let permissions = self.node(above, domain, Access::writes)?.permissions.inherited(domain);
        let counts = permissions.owner() != TOOLSTACK;
        if counts && self.guests + missing.len() > MAX_NODES {
            return Err(Problem::Quota);
        }
        self.guests += if counts { missing.len() } else { 0 };
        for path in missing {
            let node = Node {
                value: vec![],
                permissions: permissions.clone(),
            };
            self.nodes.insert(path, node);
        }
        Ok(())
    }

    /// Removes a node with all below it. One that is not there, below one that is, has been removed already.
    pub fn remove(&mut self, path: &str, domain: u16) -> Result<(), Problem> {
        let above = parent(path).ok_or(Problem::Invalid)?;
        match self.node(path, domain, Access::writes) {
            Err(Problem::NoEntry) => return self.node(above, domain, Access::writes).map(drop),
            found => found.map(drop)?,
        }
        // `a-b` stands between `a` and `a/b`.
        let near = self.nodes.range(path.to_owned()..).map(|(other, _)| other);
        let near = near.take_while(|other| other.starts_with(path));
        let gone: Vec<_> = near.filter(|other| is_below(other, path)).cloned().collect();
        for path in gone {
            let node = self.nodes.remove(&path);
            self.guests -= usize::from(node.is_some_and(|node| node.permissions.owner() != TOOLSTACK));
        }
        Ok(())
    }

    /// Whether `domain` may know that something happened to `path`.
    pub fn may_know(&self, path: &str, domain: u16) -> bool {
        let node = self.nodes.get(path);
        node.is_none_or(|node| node.permissions.access(domain).reads())
    }
}
