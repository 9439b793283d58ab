use super::*;

fn line(pattern: &str, severity: Severity) -> (BadLine, Severity) {
    let bad = BadLine {
        pattern: pattern.into(),
        line: format!("a {pattern} line"),
        index: 3,
    };
    (bad, severity)
}

fn verdict(trouble: Option<Trouble>, bad: Option<(BadLine, Severity)>) -> (Verdict, String) {
    let oops = Oops {
        rip: Some("f+0x1/0x2".into()),
        ..Oops::default()
    };
    decide(trouble.as_ref(), bad.as_ref(), bad.is_some().then_some(&oops)).unwrap()
}

#[test]
fn each_end_of_a_guest_has_its_verdict() {
    use Trouble::{Broken, Failed, Gone, Late, Unmet};
    let crash = || Some(line("oops", Severity::Crash));
    let complaint = || Some(line("warning", Severity::Complaint));
    let why = || "why".to_owned();
    for (trouble, bad, expected) in [
        (None, None, Verdict::Pass),
        (None, complaint(), Verdict::Fail),
        (None, crash(), Verdict::Crash),
        (Some(Failed(why())), None, Verdict::Fail),
        (Some(Failed(why())), crash(), Verdict::Crash),
        (Some(Late(why())), complaint(), Verdict::Timeout),
        (Some(Late(why())), crash(), Verdict::Crash),
        (Some(Broken(why())), crash(), Verdict::Error),
        (Some(Unmet(why())), None, Verdict::Skip),
        (Some(Gone(0)), None, Verdict::Fail),
        (Some(Gone(1)), None, Verdict::Error),
        (Some(Gone(2)), None, Verdict::Error),
        (Some(Gone(3)), None, Verdict::Fail),
        (Some(Gone(4)), None, Verdict::Crash),
        (Some(Gone(5)), None, Verdict::Crash),
        (Some(Gone(124)), None, Verdict::Timeout),
        (Some(Gone(125)), None, Verdict::Error),
        (Some(Late(why())), Some(line("oom", Severity::Complaint)), Verdict::Fail),
    ] {
        assert_eq!(verdict(trouble.clone(), bad.clone()).0, expected, "{trouble:?} {bad:?}");
    }
    assert_eq!(decide(Some(&Trouble::Interrupted), None, None), None);
    assert_eq!(verdict(None, crash()).1, "a oops line in f+0x1/0x2");
    assert_eq!(
        verdict(Some(Failed(why())), complaint()).1,
        "why; console (warning): a warning line"
    );
    assert!(
        verdict(Some(Late(why())), Some(line("oom", Severity::Complaint)))
            .1
            .starts_with("the guest is out of memory")
    );
}

fn known(text: &str) -> Vec<ExpectedFailure> {
    vec![toml::from_str(text).unwrap()]
}

#[test]
fn known_failures_are_expected_only_where_and_as_they_are_known() {
    let entry = known("kernel = '<6.2'\ncase = 'small'\ncontains = 'too big'\nreason = 'fixed in 6.2'");
    let settle =
        |verdict, reason: &str, case: &str, release: &str| settle(verdict, reason.into(), &entry, case, ("k", release));
    let (verdict, _, expected) = settle(Verdict::Fail, "it is too big", "a/b[small]", "6.1.0");
    assert_eq!((verdict, expected.as_deref()), (Verdict::Fail, Some("fixed in 6.2")));
    assert_eq!(settle(Verdict::Fail, "other", "a/b[small]", "6.1.0").2, None);
    assert_eq!(settle(Verdict::Fail, "it is too big", "a/b[large]", "6.1.0").2, None);
    assert_eq!(settle(Verdict::Fail, "it is too big", "a/b[small]", "6.12.0").2, None);
    let (verdict, reason, _) = settle(Verdict::Pass, "", "a/b[small]", "6.1.0");
    assert_eq!(verdict, Verdict::Fail);
    assert!(
        reason.contains("it passed, and was expected to fail on '<6.2': fixed in 6.2"),
        "{reason}"
    );
    assert_eq!(settle(Verdict::Error, "too big", "a/b[small]", "6.1.0").2, None);
    assert_eq!(settle(Verdict::Pass, "", "a/b[small]", "6.12.0").0, Verdict::Pass);
}

pub(crate) fn result(id: &str, verdict: Verdict) -> CaseResult {
    let (scenario, kernel) = id.split_once('@').unwrap();
    let (suite, scenario) = scenario.split_once('/').unwrap();
    CaseResult {
        id: id.into(),
        suite: suite.into(),
        scenario: scenario.into(),
        kernel: kernel.into(),
        release: Some("6.1.0".into()),
        verdict,
        reason: if verdict == Verdict::Pass {
            String::new()
        } else {
            "because & <why>".into()
        },
        expected: None,
        earlier: vec![],
        bad_line: None,
        oops: None,
        steps: vec![],
        subtests: vec![],
        seconds: 2.5,
        boot_seconds: Some(1.5),
        guest_boot_seconds: Some(1.25),
        folder: "a".into(),
    }
}

#[test]
fn exit_codes_tell_failures_from_what_could_not_be_tested() {
    let code = |verdicts: &[Verdict], bisect| {
        let results: Vec<_> = verdicts.iter().map(|v| result("a/b@k", *v)).collect();
        exit_code(&results, bisect)
    };
    use Verdict::{Crash, Error, Fail, Pass, Skip, Timeout};
    assert_eq!(code(&[Pass, Skip], false), 0);
    assert_eq!(code(&[Pass, Fail], false), 1);
    assert_eq!(code(&[Crash], true), 1);
    assert_eq!(code(&[Timeout, Error], false), 1);
    assert_eq!(code(&[Pass, Error], false), 3);
    assert_eq!(code(&[Pass, Error], true), 125);
    assert_eq!(code(&[Skip], false), 3);
    assert_eq!(code(&[], true), 125);
    let mut flaky = result("a/b@k", Pass);
    flaky.earlier.push(Attempt {
        verdict: Fail,
        reason: "x".into(),
    });
    assert_eq!((exit_code([&flaky], false), flaky.word().as_str()), (1, "flaky"));
    let mut known = result("a/b@k", Fail);
    known.expected = Some("x".into());
    assert_eq!((exit_code([&known], false), known.word().as_str()), (0, "xfail"));
}
