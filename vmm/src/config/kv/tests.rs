use super::*;
use proptest::prelude::*;
use serde::Deserialize;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Sample {
    name: String,
    count: u8,
    wide: Option<i64>,
    on_top: bool,
    words: Vec<String>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    #[default]
    Plain,
    VeryOdd,
}

const SHAPE: Shape = Shape {
    main: Some("name"),
    minus: Some("words"),
};

fn read(text: &str) -> Result<Sample, Error> {
    from_str(text, SHAPE)
}

fn named(name: &str) -> Sample {
    Sample {
        name: name.to_owned(),
        ..Sample::default()
    }
}

#[test]
fn keys_and_values_become_fields() {
    let sample = read("name=a b,count=7,wide=-3,on-top=on,words=[x,y],kind=very-odd").unwrap();
    let words = vec!["x".to_owned(), "y".to_owned()];
    let expected = Sample {
        name: "a b".to_owned(),
        count: 7,
        wide: Some(-3),
        on_top: true,
        words,
        kind: Kind::VeryOdd,
    };
    assert_eq!(sample, expected);
    assert_eq!(read("").unwrap(), Sample::default());
}

#[test]
fn first_bare_word_is_the_main_key_and_later_ones_are_errors() {
    assert_eq!(read("box").unwrap(), named("box"));
    assert_eq!(
        read("a,,b=c").unwrap(),
        named("a,b=c"),
        "a doubled comma keeps what follows in the word"
    );
    assert_eq!(read("count=1,box"), Err(Error::Bare("box".to_owned())));
    assert_eq!(read("box,name=x"), Err(Error::Duplicate("name".to_owned())));
    assert_eq!(
        from_str::<Sample>("box", Shape::default()),
        Err(Error::Bare("box".to_owned()))
    );
}

#[test]
fn minus_words_gather_in_their_list() {
    assert_eq!(read("-a,name=n,-b").unwrap().words, ["a", "b"]);
    assert_eq!(read("words=[a],-b"), Err(Error::Duplicate("words".to_owned())));
}

#[test]
fn commas_are_doubled_or_bracketed() {
    for (text, name) in [
        ("name=a,,b,count=1", "a,b"),
        ("name=a,,,count=1", "a,"),
        ("name=[a,b],count=1", "a,b"),
        ("name=[[a,count=1", "[a"),
        ("name=[a]b],count=1", "a]b"),
        ("count=1,name=x=y", "x=y"),
    ] {
        assert_eq!(
            read(text).unwrap(),
            Sample {
                count: 1,
                ..named(name)
            },
            "{text}"
        );
    }
}

#[test]
fn every_mistake_names_what_is_wrong() {
    for (text, message) in [
        (
            "colour=red",
            "unknown key 'colour': expected one of name, count, wide, on-top, words, kind",
        ),
        ("count=1,count=2", "key 'count' is given twice; hint: give it once"),
        ("count=", "key 'count' has no value; hint: write count=VALUE"),
        ("count=1,", "there is an empty item: expected key=value between commas"),
        (",count=1", "there is an empty item"),
        ("count=300", "count: '300' is not a whole number from 0 to 255"),
        ("count=-1", "count: '-1' is not a whole number from 0 to 255"),
        ("on-top=maybe", "on-top: 'maybe' is not one of on, off, true, false"),
        ("kind=round", "kind: 'round' is not one of plain, very-odd"),
        ("name=[a,count=1", "'[a,count=1' has no closing bracket"),
        ("name=a,=3", "'=3' has no value: expected key=value"),
    ] {
        let error = read(text).unwrap_err().to_string();
        assert!(error.starts_with(message), "{text}: {error}");
    }
    assert_eq!(
        read("count=1,,on-top=on").unwrap_err().to_string(),
        "count: '1,on-top=on' is not a whole number from 0 to 255"
    );
}

#[test]
fn merge_changes_only_the_named_keys() {
    let base = Sample {
        count: 4,
        on_top: true,
        ..named("base")
    };
    assert_eq!(
        merge(&base, "count=5", SHAPE).unwrap(),
        Sample {
            count: 5,
            ..base.clone()
        }
    );
    assert_eq!(
        merge(&base, "new,on-top=off", SHAPE).unwrap(),
        Sample {
            count: 4,
            ..named("new")
        }
    );
}

#[test]
fn defaults_are_left_out_and_the_main_key_comes_first() {
    let sample = Sample {
        count: 4,
        on_top: true,
        ..named("a,b")
    };
    let text = to_string(&sample, Some(&Sample::default()), SHAPE).unwrap();
    assert_eq!(text, "name=[a,b],count=4,on-top=on");
}

proptest! {
    #[test]
    fn written_structures_read_back(
        name in "[a,=\\[\\] é]{0,8}",
        count: u8,
        wide: Option<i64>,
        on_top: bool,
        words in proptest::collection::vec("[a-z0-9_=-]{1,4}", 0..4),
        odd: bool,
    ) {
        let kind = if odd { Kind::VeryOdd } else { Kind::Plain };
        let sample = Sample { name, count, wide, on_top, words, kind };
        let text = to_string(&sample, None, SHAPE).unwrap();
        prop_assert_eq!(read(&text).unwrap(), sample.clone(), "{}", text);
        let brief = to_string(&sample, Some(&Sample::default()), SHAPE).unwrap();
        prop_assert_eq!(read(&brief).unwrap(), sample, "{}", brief);
    }

    #[test]
    fn any_text_is_a_structure_or_an_error(text in "(name|count|words|[a,=\\[\\]\\-]){0,12}") {
        let _ = read(&text);
    }

    #[test]
    fn any_unicode_is_a_structure_or_an_error(text in "\\PC{0,40}") {
        let _ = read(&text);
    }
}
