//! Reading what guests and plans say.

use anyhow::{Context, Result};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File},
    io::Read,
    path::Path,
};

/// A line of `/proc/iomem` that is memory: first and last address, name.
pub type MemoryLine = (u64, u64, String);

/// Top-level lines of `/proc/iomem` of one of `names`.
pub fn iomem(text: &str, names: &[&str]) -> Result<Vec<MemoryLine>> {
    let mut lines = vec![];
    for line in text.lines().filter(|l| !l.starts_with(' ')) {
        let (range, name) = line.split_once(" : ").with_context(|| format!("odd line: {line}"))?;
        let (start, last) = range.split_once('-').with_context(|| format!("odd range: {line}"))?;
        if names.contains(&name) {
            let number = |n| u64::from_str_radix(n, 16).with_context(|| format!("odd number: {line}"));
            lines.push((number(start)?, number(last)?, name.to_owned()));
        }
    }
    Ok(lines)
}

/// The same lines as a plan predicts them.
pub fn planned_iomem(plan: &Value) -> Result<Vec<MemoryLine>> {
    let line = |l: &Value| {
        Some((
            l["start"].as_u64()?,
            l["last"].as_u64()?,
            l["name"].as_str()?.to_owned(),
        ))
    };
    list(plan, "iomem")?
        .iter()
        .map(|l| line(l).with_context(|| format!("odd line of the plan: {l}")))
        .collect()
}

/// Bytes of a process that lie in memory, by a line of its status: `VmRSS`, `RssAnon`.
pub fn resident(pid: u64, line: &str) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let mut values = status
        .lines()
        .filter_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
    let kib = values.next().and_then(|value| value.trim().strip_suffix(" kB"));
    let kib: u64 = kib.with_context(|| format!("{path} has no {line}"))?.trim().parse()?;
    Ok(kib << 10)
}

/// Nanoseconds that the threads of a monitor have run, but for its vCPUs.
pub fn processor_time(pid: u64) -> Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?.path();
        // What a vCPU does meanwhile is the guest's.
        if fs::read_to_string(task.join("comm"))?.starts_with("vcpu") {
            continue;
        }
        let text = fs::read_to_string(task.join("schedstat"))?;
        sum += text.split(' ').next().unwrap_or_default().parse::<u64>()?;
    }
    Ok(sum)
}

/// A list in an object.
pub fn list<'a>(of: &'a Value, key: &str) -> Result<&'a Vec<Value>> {
    of[key]
        .as_array()
        .with_context(|| format!("there is no list '{key}' in {of}"))
}

/// A number in an object.
pub fn number(of: &Value, key: &str) -> Result<u64> {
    of[key]
        .as_u64()
        .with_context(|| format!("there is no number '{key}' in {of}"))
}

/// A text in an object.
pub fn text<'a>(of: &'a Value, key: &str) -> Result<&'a str> {
    of[key]
        .as_str()
        .with_context(|| format!("there is no text '{key}' in {of}"))
}

/// The object of a list whose `key` is `value`.
pub fn find<'a>(list: &'a Value, key: &str, value: &str) -> Result<&'a Value> {
    let all = list.as_array().into_iter().flatten();
    all.into_iter()
        .find(|v| v[key] == value)
        .with_context(|| format!("there is no {key} '{value}' in {list}"))
}

/// SHA-256 of a file of the host, in hex.
pub fn sha256(path: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut chunk = vec![0; 1 << 20];
    loop {
        match file.read(&mut chunk)? {
            0 => break,
            n => hash.update(&chunk[..n]),
        }
    }
    Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
}
