use super::{
    super::{
        expect::{End, Got},
        steps::{Action, Saved},
    },
    *,
};
use crate::control::Request;

fn loaded(text: &str) -> Loaded {
    Loaded {
        name: "s".into(),
        path: "/suites/s.toml".into(),
        suite: parse(text).unwrap(),
    }
}

fn names(text: &str) -> Vec<String> {
    expand(&loaded(text)).unwrap().iter().map(Ready::name).collect()
}

fn mistake(scenario: &str) -> String {
    let text = format!("about = 'x'\n[[scenario]]\nname = 'a'\n{scenario}");
    let errors = expand(&loaded(&text)).unwrap_err();
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors[0].to_string()
}

#[test]
fn variants_and_parameters_multiply_and_values_keep_their_types() {
    let text = r#"
about = "x"
machine = { memory = { size = "1G" }, cmdline = "quiet" }
[[scenario]]
name = "grow"
machine = { cpus = { count = "${cpus}" } }
parameters = { cpus = [1, 2] }
variant = [
  { name = "small", machine = { memory = { size = "256M" } }, values = { word = "s" } },
  { name = "large", values = { word = "l" } },
]
[[scenario.step]]
run = "echo ${word} ${cpus} ${HOME}"
expect.stdout.equals = "${word} ${cpus}"
"#;
    let ready = expand(&loaded(text)).unwrap();
    let names: Vec<_> = ready.iter().map(Ready::name).collect();
    assert_eq!(
        names,
        [
            "s/grow[small,cpus=1]",
            "s/grow[small,cpus=2]",
            "s/grow[large,cpus=1]",
            "s/grow[large,cpus=2]"
        ]
    );
    assert_eq!(ready[1].machine.cpus.count, 2);
    assert_eq!(ready[1].machine.ram().0, 256 << 20);
    assert_eq!(ready[3].machine.ram().0, 1 << 30);
    // The shell's own variables stay.
    assert!(matches!(&ready[1].steps[0].action, Action::Run(script) if script == "echo s 2 ${HOME}"));
    assert_eq!(ready[1].steps[0].expect.stdout.equals.as_deref(), Some("s 2"));
    assert_eq!(ready[0].machine.cmdline.as_deref(), Some("quiet"));
}

#[test]
fn loops_are_unrolled_with_their_count() {
    let text = "about = 'x'\n[[scenario]]\nname = 'a'\n[[scenario.step]]\ntimes = 3\nsteps = [{ run = 'echo ${time}' }, { file = '/proc/x' }]\n";
    let ready = expand(&loaded(text)).unwrap();
    let steps: Vec<_> = ready[0].steps.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(
        steps,
        [
            "echo 1",
            "read /proc/x",
            "echo 2",
            "read /proc/x",
            "echo 3",
            "read /proc/x"
        ]
    );
    assert_eq!(names(text), ["s/a"]);
}

#[test]
fn what_a_step_saves_is_in_the_steps_behind_it() {
    let text = r#"
about = 'x'
[[scenario]]
name = 'a'
[[scenario.step]]
run = 'echo ${page}'
save = [{ name = 'page', matches = '^page (0x[0-9a-f]+)$' }, { name = 'all' }]
[[scenario.step]]
name = 'inject at ${page}'
host = { fault = { inject = { gpa = '${page}' } } }
[[scenario.step]]
run = 'echo ${page} ${all} ${HOME}'
expect.json = [{ path = '$', equals = '${page}' }]
"#;
    let ready = expand(&loaded(text)).unwrap();
    let [first, inject, last] = ready[0].steps.as_slice() else {
        panic!("{ready:?}")
    };
    let got = |stdout: &str| Got {
        end: End::Done,
        stdout: stdout.to_owned(),
        stderr: String::new(),
    };
    let mut saved = Saved::new();
    // Nothing is saved before it: that is the shell's.
    let first = first.with(&saved).unwrap();
    assert!(matches!(&first.action, Action::Run(script) if script == "echo ${page}"));
    let error = first.save(&got("no page"), &mut saved).unwrap_err();
    assert!(
        error.contains("${page}") && error.contains("does not match 'no page'"),
        "{error}"
    );
    first.save(&got("x\npage 0x1f000\n"), &mut saved).unwrap();
    let inject = inject.with(&saved).unwrap();
    assert_eq!(inject.name, "inject at 0x1f000");
    let Action::Host(request) = &inject.action else {
        panic!("{inject:?}")
    };
    assert!(
        serde_json::to_string(request).unwrap().contains("126976"),
        "{request:?}"
    );
    let last = last.with(&saved).unwrap();
    assert!(
        matches!(&last.action, Action::Run(script) if script == "echo 0x1f000 x\npage 0x1f000 ${HOME}"),
        "{last:?}"
    );
    assert_eq!(last.expect.json[0].equals, Some(toml::Value::Integer(0x1f000)));
}

#[test]
fn a_value_of_json_is_saved_if_it_is_the_only_one() {
    let text =
        "about = 'x'\n[[scenario]]\nname = 'a'\nstep = [{ run = 'x', save = [{ name = 'at', path = '$[*].at' }] }]\n";
    let ready = expand(&loaded(text)).unwrap();
    let save = |stdout: &str| {
        let mut saved = Saved::new();
        let got = Got {
            end: End::Done,
            stdout: stdout.to_owned(),
            stderr: String::new(),
        };
        ready[0].steps[0].save(&got, &mut saved).map(|()| saved["at"].clone())
    };
    assert_eq!(save("[{\"at\": 7}]"), Ok("7".to_owned()));
    assert_eq!(save("[{\"at\": \"/x\"}]"), Ok("/x".to_owned()));
    assert!(save("[]").unwrap_err().contains("0 values, expected one"));
    assert!(save("x").unwrap_err().contains("no JSON"));
}

#[test]
fn requests_to_the_machine_are_those_of_its_api() {
    let text = "about = 'x'\n[[scenario]]\nname = 'a'\nparameters = { mib = ['64M'] }\nstep = [{ host = { nvdimm = { add = { size = '${mib}' } } } }, { host = 'pause' }]\n";
    let ready = expand(&loaded(text)).unwrap();
    assert!(matches!(&ready[0].steps[1].action, Action::Host(r) if **r == Request::Pause));
    let Action::Host(request) = &ready[0].steps[0].action else {
        panic!("{ready:?}")
    };
    assert!(
        serde_json::to_string(request).unwrap().contains("\"64M\""),
        "{request:?}"
    );
}

#[test]
fn mistakes_are_told_with_suite_and_scenario() {
    let step = "step = [{ run = 'true' }]";
    for (scenario, with) in [
        ("", "it has no step"),
        ("step = [{ run = 'true', file = '/x' }]", "exactly one of run, file"),
        ("step = [{ name = 'n' }]", "step 'n': exactly one"),
        ("step = [{ host = 'explode' }]", "host: unknown variant `explode`"),
        ("step = [{ run = 'true', times = 2 }]", "times goes with steps"),
        (
            "step = [{ run = 'true', save = [{ name = 'dir' }] }]",
            "'dir' is a value already",
        ),
        (
            "step = [{ run = 'true', save = [{ name = 'a', matches = 'x' }] }]",
            "0 groups, expected one",
        ),
        (
            "step = [{ run = 'true', save = [{ name = 'a', path = '$[' }] }]",
            "no JSONPath",
        ),
        (
            "step = [{ steps = [{ run = 'true' }], save = [{ name = 'a' }] }]",
            "save goes with each",
        ),
        ("step = [{ console = '(' }]", "'(' is no regular expression"),
        (
            "step = [{ run = 'true', expect.json = [{ path = 'x' }] }]",
            "'x' is no JSONPath",
        ),
        (
            &format!("machine = {{ kernel = 'x' }}\n{step}"),
            "machine.kernel is the runner's",
        ),
        (
            &format!("machine = {{ memory = {{ size = '1X' }} }}\n{step}"),
            "'1X' is not a size",
        ),
        (
            &format!("machine = {{ memory = {{ size = '3M' }} }}\n{step}"),
            "machine: ",
        ),
        (
            &format!("requires = {{ kernel = 'new' }}\n{step}"),
            "'new' is no comparison",
        ),
        (
            &format!("allow = [{{ pattern = 'bug', line = 'x', reason = '' }}]\n{step}"),
            "has no reason",
        ),
        (
            &format!("expected-failure = [{{ kernel = '<6', reason = '' }}]\n{step}"),
            "has no reason",
        ),
        (
            &format!("parameters = {{ n = [] }}\n{step}"),
            "parameter 'n' has no value",
        ),
        (
            &format!("variant = [{{ name = 'x' }}, {{ name = 'x' }}]\n{step}"),
            "no name of its own",
        ),
    ] {
        let told = mistake(scenario);
        assert!(
            told.starts_with("suite /suites/s.toml, scenario 'a': ") && told.contains(with),
            "{scenario}: {told}"
        );
    }
    assert!(
        parse("about = 'x'\n[[scenario]]\nname = 'a'\nsteps = 1\n")
            .unwrap_err()
            .starts_with("line 4, column 1: unknown field `steps`")
    );
}

#[test]
fn folders_are_read_in_order_and_names_are_unique() {
    let dir = tempfile::tempdir().unwrap();
    assert!(
        load(&[dir.path().into()])
            .unwrap_err()
            .to_string()
            .contains("there is no suite in folder")
    );
    for name in ["b.toml", "a.toml", "c.txt"] {
        fs::write(dir.path().join(name), "about = 'x'\n").unwrap();
    }
    let names = |paths: &[PathBuf]| load(paths).map(|all| all.into_iter().map(|l| l.name).collect::<Vec<_>>());
    assert_eq!(names(&[dir.path().into()]).unwrap(), ["a", "b"]);
    assert!(
        names(&[dir.path().into(), dir.path().join("a.toml")])
            .unwrap_err()
            .to_string()
            .contains("two suites are called 'a'")
    );
}

#[test]
fn shipped_suites_are_fine() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/suites");
    for loaded in load(&[folder]).unwrap() {
        let ready = expand(&loaded).unwrap_or_else(|e| panic!("{e:?}"));
        assert!(!ready.is_empty(), "{}", loaded.name);
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../docs/suites/{}.md", loaded.name));
        let page = fs::read_to_string(&page).unwrap_or_else(|e| panic!("{}: {e}", page.display()));
        for scenario in &loaded.suite.scenario {
            assert!(
                page.contains(&format!("`{}", scenario.name)),
                "docs/suites/{}.md says nothing of {}",
                loaded.name,
                scenario.name
            );
            for commit in &scenario.commits {
                assert!(
                    page.contains(commit.as_str()),
                    "docs/suites/{}.md says nothing of '{commit}'",
                    loaded.name
                );
            }
        }
    }
}
