use super::*;
use crate::boottest::{
    console::BadLine,
    ktap::{Status, Subtest},
    oops::Oops,
    verdict::{Attempt, Verdict, tests::result},
};
use std::{collections::BTreeMap, path::Path};

pub fn some() -> Vec<CaseResult> {
    let mut crash = result("mem/nodes[two]@6.12", Verdict::Crash);
    crash.reason = "Oops: 0002 [#1] in f+0x1/0x2".into();
    crash.bad_line = Some(BadLine {
        pattern: "oops".into(),
        line: "Oops: 0002 [#1]".into(),
        index: 7,
    });
    crash.oops = Some(Oops {
        title: "Oops: 0002 [#1]".into(),
        rip: Some("f+0x1/0x2".into()),
        trace: vec!["g+0x1/0x2".into()],
    });
    let mut flaky = result("mem/nodes[two]@6.1", Verdict::Pass);
    flaky.earlier.push(Attempt {
        verdict: Verdict::Timeout,
        reason: "late".into(),
    });
    let mut known = result("dax/kmem@6.1", Verdict::Fail);
    known.expected = Some("fixed later".into());
    let mut tests = result("dax/kmem@6.12", Verdict::Pass);
    tests.subtests = vec![
        Subtest {
            name: "a/b".into(),
            status: Status::Pass,
            detail: String::new(),
        },
        Subtest {
            name: "a/c".into(),
            status: Status::Skip,
            detail: "SKIP x".into(),
        },
    ];
    vec![
        flaky,
        crash,
        known,
        tests,
        result("dax/skip@6.1", Verdict::Skip),
        result("dax/skip@6.12", Verdict::Error),
    ]
}

#[test]
fn table_has_kernels_scenarios_and_the_first_bad_line() {
    insta::assert_snapshot!(summary(&some(), Path::new("/out")));
}

#[test]
fn tap_tells_todo_from_failure() {
    insta::assert_snapshot!(tap(&some()));
}

#[test]
fn junit_has_failures_errors_skips_and_reruns() {
    let xml = junit(&some()).unwrap();
    assert!(
        xml.contains("<testsuite name=\"dax@6.12\" tests=\"4\" skipped=\"1\" errors=\"1\" failures=\"0\""),
        "{xml}"
    );
    assert!(
        xml.contains("<testsuite name=\"mem@6.12\" tests=\"1\" skipped=\"0\" errors=\"0\" failures=\"1\""),
        "{xml}"
    );
    assert!(xml.contains("flakyFailure message=\"late\" type=\"timeout\""), "{xml}");
    assert!(
        xml.contains("<skipped message=\"expected failure (fixed later): because &amp; &lt;why&gt;\""),
        "{xml}"
    );
    assert!(xml.contains("type=\"crash\""), "{xml}");
}

#[test]
fn page_shows_the_matrix_and_escapes_what_guests_say() {
    let mut files = BTreeMap::new();
    let console = format!("{}<script>alert(1)</script>", "é".repeat(80_000));
    files.insert(
        "mem/nodes[two]@6.12".to_owned(),
        Files {
            console,
            map: "<svg></svg>".into(),
            config: String::new(),
        },
    );
    let html = page(&some(), &files);
    assert!(
        html.contains("<td class='crash'><a href='#case1'>crash</a></td>"),
        "{html}"
    );
    assert!(html.contains("<td class='flaky'><a href='#case0'>flaky</a></td>"));
    assert!(html.contains("&lt;script&gt;alert(1)") && !html.contains("<script"));
    assert!(html.contains("because &amp; &lt;why&gt;") && html.contains("<svg></svg>"));
    assert!(!html.contains("http://") && !html.contains("https://"));
}
