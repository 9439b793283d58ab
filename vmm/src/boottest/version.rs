//! Kernel releases, and what a scenario asks of them.

use std::cmp::Ordering;

/// Whether the numbers at the front of `release` (`6.1.0-56-amd64`) satisfy every comparison of `wanted` (`>=5.10, <7`).
/// A comparison looks at as many numbers as it has: `=6.1` is any 6.1.
pub fn satisfies(release: &str, wanted: &str) -> Result<bool, String> {
    let have = numbers(release);
    let mut all = true;
    for comparison in wanted.split(',').map(str::trim) {
        all &= compare(&have, comparison)?;
    }
    Ok(all)
}

fn compare(have: &[u32], comparison: &str) -> Result<bool, String> {
    const OPERATORS: [&str; 5] = [">=", "<=", ">", "<", "="];
    let bad = || {
        format!("'{comparison}' is no comparison of versions: expected >=, <=, >, < or = and numbers, such as >=5.10")
    };
    let (operator, version) = OPERATORS
        .iter()
        .find_map(|o| Some((*o, comparison.strip_prefix(o)?.trim())))
        .ok_or_else(bad)?;
    let number = |n: &str| n.parse::<u32>().map_err(|_| bad());
    let wanted: Vec<u32> = version.split('.').map(number).collect::<Result<_, _>>()?;
    let zero = std::iter::repeat(0);
    let order = have
        .iter()
        .copied()
        .chain(zero)
        .take(wanted.len())
        .cmp(wanted.iter().copied());
    Ok(match operator {
        ">=" => order != Ordering::Less,
        "<=" => order != Ordering::Greater,
        ">" => order == Ordering::Greater,
        "<" => order == Ordering::Less,
        _ => order == Ordering::Equal,
    })
}

/// `6.12.95+deb12-amd64` -> 6, 12, 95.
fn numbers(release: &str) -> Vec<u32> {
    let end = release
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(release.len());
    release[..end].split('.').map_while(|n| n.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_number_by_number() {
        let yes = |release, wanted| assert!(satisfies(release, wanted).unwrap(), "{release} {wanted}");
        let no = |release, wanted| assert!(!satisfies(release, wanted).unwrap(), "{release} {wanted}");
        yes("6.1.0-56-amd64", ">=5.10, <6.12");
        yes("6.12.95+deb12-amd64", "=6.12");
        yes("5.10.0-40-amd64", "<=5.10");
        yes("7.0-rc3", ">6.12");
        no("6.1.0-56-amd64", ">=6.2");
        yes("6.1.0", "=6");
        no("6.12.1", "<6.12");
        assert!(satisfies("6.1", "6.1").unwrap_err().contains("'6.1' is no comparison"));
        assert!(satisfies("6.1", ">=six").is_err());
        assert!(satisfies("6.1", "").is_err());
    }
}
