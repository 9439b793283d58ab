//! Which cases are run: `--filter` and `--shard`. Pure.
//!
//! ```text
//! expression = term {("or" | "|") term};  term = factor {("and" | "&") factor}
//! factor = ("not" | "!") factor | "(" expression ")" | FIELD=GLOB | TEXT
//! ```

use std::str::FromStr;

/// What an expression can ask of a case.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// `suite/scenario[shape]@kernel`.
    pub name: &'a str,
    /// Suite's name.
    pub suite: &'a str,
    /// Scenario's name.
    pub scenario: &'a str,
    /// Kernel's label.
    pub kernel: &'a str,
    /// Scenario's tags.
    pub tags: &'a [String],
}

/// A parsed expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// Either holds.
    Or(Box<Filter>, Box<Filter>),
    /// Both hold.
    And(Box<Filter>, Box<Filter>),
    /// It does not hold.
    Not(Box<Filter>),
    /// The name contains the text.
    Text(String),
    /// A field matches the pattern, in which `*` stands for anything.
    Field(Field, String),
}

/// What can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// `suite=`
    Suite,
    /// `scenario=`
    Scenario,
    /// `kernel=`
    Kernel,
    /// `tag=`
    Tag,
    /// `name=`
    Name,
}

/// Deepest nesting of an expression.
const DEPTH: u32 = 50;

impl FromStr for Filter {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let words = words(text);
        let mut parser = Parser { words: &words, at: 0 };
        let filter = parser.or(0)?;
        match parser.peek() {
            None => Ok(filter),
            Some(word) => Err(format!("'{word}' is not expected there; hint: join terms with and, or")),
        }
    }
}

fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut open = false;
    let mut bracket = 0_usize;
    for c in text.chars() {
        bracket = match c {
            '[' => bracket + 1,
            ']' => bracket.saturating_sub(1),
            _ => bracket,
        };
        if bracket == 0 && "()&|!".contains(c) {
            words.push(c.to_string());
            open = false;
        } else if c.is_whitespace() {
            open = false;
        } else if let (true, Some(word)) = (open, words.last_mut()) {
            word.push(c);
        } else {
            words.push(c.to_string());
            open = true;
        }
    }
    words
}

struct Parser<'a> {
    words: &'a [String],
    at: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&str> {
        self.words.get(self.at).map(String::as_str)
    }

    fn take(&mut self, any: &[&str]) -> bool {
        let found = self.peek().is_some_and(|word| any.contains(&word));
        self.at += usize::from(found);
        found
    }

    fn or(&mut self, depth: u32) -> Result<Filter, String> {
        let mut left = self.and(depth)?;
        while self.take(&["or", "|"]) {
            left = Filter::Or(Box::new(left), Box::new(self.and(depth)?));
        }
        Ok(left)
    }

    fn and(&mut self, depth: u32) -> Result<Filter, String> {
        let mut left = self.factor(depth)?;
        while self.take(&["and", "&"]) {
            left = Filter::And(Box::new(left), Box::new(self.factor(depth)?));
        }
        Ok(left)
    }

    fn factor(&mut self, depth: u32) -> Result<Filter, String> {
        if depth > DEPTH {
            return Err("it is nested too deeply".to_owned());
        }
        if self.take(&["not", "!"]) {
            return Ok(Filter::Not(Box::new(self.factor(depth + 1)?)));
        }
        if self.take(&["("]) {
            let inner = self.or(depth + 1)?;
            return if self.take(&[")"]) {
                Ok(inner)
            } else {
                Err("a ) is missing".to_owned())
            };
        }
        match self.peek().map(str::to_owned) {
            None => Err("a term is missing at the end".to_owned()),
            Some(word) if [")", "&", "|", "and", "or"].contains(&word.as_str()) => {
                Err(format!("a term is missing before '{word}'"))
            }
            Some(word) => {
                self.at += 1;
                term(&word)
            }
        }
    }
}

fn term(word: &str) -> Result<Filter, String> {
    // A parameter in a name has an equals sign as well.
    let Some((field, pattern)) = word.split_once('=').filter(|(f, _)| !f.contains(['[', '/', '@'])) else {
        return Ok(Filter::Text(word.to_owned()));
    };
    let field = match field {
        "suite" => Field::Suite,
        "scenario" => Field::Scenario,
        "kernel" => Field::Kernel,
        "tag" => Field::Tag,
        "name" => Field::Name,
        other => {
            return Err(format!(
                "there is no field '{other}'; expected suite, scenario, kernel, tag or name"
            ));
        }
    };
    Ok(Filter::Field(field, pattern.to_owned()))
}

impl Filter {
    /// Whether a case is meant.
    pub fn matches(&self, case: &Subject<'_>) -> bool {
        match self {
            Self::Or(a, b) => a.matches(case) || b.matches(case),
            Self::And(a, b) => a.matches(case) && b.matches(case),
            Self::Not(a) => !a.matches(case),
            Self::Text(text) => case.name.contains(text.as_str()),
            Self::Field(Field::Suite, pattern) => glob(pattern, case.suite),
            Self::Field(Field::Scenario, pattern) => glob(pattern, case.scenario),
            Self::Field(Field::Kernel, pattern) => glob(pattern, case.kernel),
            Self::Field(Field::Name, pattern) => glob(pattern, case.name),
            Self::Field(Field::Tag, pattern) => case.tags.iter().any(|tag| glob(pattern, tag)),
        }
    }
}

/// Whether all of `text` matches `pattern`, in which `*` stands for anything.
fn glob(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut last = None;
    for piece in pieces {
        if let Some(before) = last.replace(piece) {
            match rest.split_once(before) {
                Some((_, after)) => rest = after,
                None => return false,
            }
        }
    }
    last.map_or(rest.is_empty(), |last| rest.ends_with(last))
}

/// One part of the cases: `2/3` is the second of three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    index: usize,
    of: usize,
}

impl FromStr for Shard {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text
            .split_once('/')
            .and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match parts {
            Some((index, of)) if (1..=of).contains(&index) => Ok(Self { index, of }),
            _ => Err(format!(
                "'{text}' is no shard: expected i/n with i from 1 to n, such as 2/3"
            )),
        }
    }
}

impl Shard {
    /// Whether the case at this place in the order of all is in this part.
    pub fn has(&self, place: usize) -> bool {
        place % self.of == self.index - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn holds(text: &str) -> bool {
        let tags = ["quick".to_owned(), "dax".to_owned()];
        let case = Subject {
            name: "kmem/online[size=64M]@6.1",
            suite: "kmem",
            scenario: "online",
            kernel: "6.1",
            tags: &tags,
        };
        text.parse::<Filter>().unwrap().matches(&case)
    }

    #[test]
    fn terms_are_joined_and_fields_compared() {
        for yes in [
            "online",
            "suite=kmem",
            "kernel=6.* and tag=dax",
            "!(x|y)",
            "not x & kmem/online",
            "name=kmem/*@6.1",
            "online[size=64M]",
        ] {
            assert!(holds(yes), "{yes}");
        }
        for no in [
            "offline",
            "suite=km",
            "kernel=6.1 and tag=slow",
            "not online",
            "scenario=on*x",
        ] {
            assert!(!holds(no), "{no}");
        }
    }

    #[test]
    fn mistakes_are_told() {
        for (text, with) in [
            ("", "missing at the end"),
            ("a and", "missing at the end"),
            ("(a", ") is missing"),
            ("a b", "'b' is not expected"),
            ("or a", "before 'or'"),
            ("sweet=a", "no field 'sweet'"),
        ] {
            let error = text.parse::<Filter>().unwrap_err();
            assert!(error.contains(with), "{text}: {error}");
        }
    }

    #[test]
    fn shards_are_a_partition() {
        let shards: Vec<Shard> = ["1/3", "2/3", "3/3"].iter().map(|s| s.parse().unwrap()).collect();
        for place in 0..20 {
            assert_eq!(shards.iter().filter(|s| s.has(place)).count(), 1);
        }
        for bad in ["0/3", "4/3", "1", "a/b", "1/0"] {
            assert!(bad.parse::<Shard>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_filter_or_an_error(text in "[a()!|& =*]{0,40}") {
            let _ = text.parse::<Filter>();
        }
    }
}
