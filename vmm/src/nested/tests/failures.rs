//! A host that does not come up, ends, hangs or is not the one that was expected.

use super::*;

#[test]
fn host_that_does_not_come_up_is_tried_twice_and_said_so() {
    let fake = Fake::new("echo booting; exec sleep 600");
    let mut options = options();
    options.host.start_timeout = Duration::from_millis(700);
    let (outcome, _, err) = run(&fake, &options);
    let error = outcome.unwrap_err();
    assert!(matches!(error, HostError::NotUp { .. }), "{error:?}");
    assert_eq!(error.exit_code(), 125);
    assert!(error.to_string().ends_with("ends:\n  | booting"), "{error}");
    assert!(
        err.starts_with("retry: the nested host did not come up within 700ms"),
        "{err}"
    );
    assert_eq!((err.matches("retry:").count(), fake.pids().len()), (1, 2));
}

#[test]
fn qemu_that_ends_is_named_with_its_last_words() {
    let fake = Fake::new("echo 'qemu: no such machine' >&2; exit 3");
    let (outcome, _, err) = run(&fake, &options());
    let error = outcome.unwrap_err().to_string();
    assert!(
        error.starts_with("the nested host's QEMU ended unexpectedly (exit code 3)"),
        "{error}"
    );
    assert!(
        error.ends_with("| qemu: no such machine") && err.contains("retry: "),
        "{error} {err}"
    );
}

#[test]
fn missing_qemu_is_an_error_with_a_hint_and_no_retry() {
    let fake = Fake::staying();
    fs::remove_file(fake.program()).unwrap();
    let (outcome, _, err) = run(&fake, &options());
    assert!(outcome.unwrap_err().to_string().contains("hint: install the package"));
    assert_eq!(err, "");
}

#[test]
fn silence_is_the_hosts_failure() {
    let fake = Fake::staying();
    let peer = fake.peer(|peer| {
        peer.hello();
        peer.exec();
        while let Ok(Some(_)) = receive::<ToAgent>(&peer.stream) {}
    });
    let mut options = options();
    options.host.silence = Duration::from_millis(600);
    let (outcome, _, _) = run(&fake, &options);
    assert!(matches!(outcome, Err(HostError::Hung { .. })), "{outcome:?}");
    peer.join().unwrap();
}

#[test]
fn quiet_command_and_slow_consumer_are_no_silence() {
    let fake = Fake::staying();
    let peer = fake.peer(|peer| {
        peer.hello();
        let id = peer.exec().id;
        // Only pings are answered for a while: the command says nothing.
        peer.stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(2) {
            assert_eq!(peer.request(), None);
        }
        peer.stream.set_read_timeout(None).unwrap();
        for n in 0..200_u8 {
            peer.say(&FromAgent::Stdout { id, data: vec![n] });
        }
        peer.exits(id, ExitStatus::Code(0));
        peer.drain();
    });
    let silence = Duration::from_millis(800);
    let host = Host::launch(
        &fake.image(),
        &HostOptions {
            silence,
            ..options().host
        },
    )
    .unwrap();
    host.wait_up().unwrap();
    let running = host
        .exec(Exec {
            argv: vec!["x".into()],
            ..Exec::default()
        })
        .unwrap();
    let mut bytes = Vec::new();
    let status = loop {
        match running.next(None).unwrap().unwrap() {
            Event::Stdout(data) => {
                if bytes.is_empty() {
                    thread::sleep(3 * silence);
                }
                bytes.extend(data);
            }
            Event::Exited(status) => break status,
            other => panic!("unexpected {other:?}"),
        }
    };
    assert_eq!((bytes, status), ((0..200).collect(), ExitStatus::Code(0)));
    drop((running, host));
    peer.join().unwrap();
}

#[test]
fn lasting_lockup_in_the_log_is_the_hosts_failure() {
    let fake = Fake::staying();
    let peer = fake.peer(|peer| {
        peer.hello();
        peer.exec();
        let mut log = OpenOptions::new().append(true).open(&peer.log).unwrap();
        writeln!(log, "[   61.0] watchdog: BUG: soft lockup - CPU#1 stuck for 45s! [x:1]").unwrap();
        peer.drain();
    });
    let (outcome, _, _) = run(&fake, &options());
    match outcome {
        Err(HostError::LockedUp { report, .. }) => assert!(report.contains("stuck for 45s"), "{report}"),
        other => panic!("{other:?}"),
    }
    peer.join().unwrap();
}

/// What L1 said when its vCPU thread overran its stack, and what it would have said two minutes later.
const OOPS: &str = "\
[    7.868060] BUG: TASK stack guard page was hit at 000000008b6e0b38 (stack is 000000007de74116..0000000029b43566)
[    7.870408] Oops: stack guard page: 0000 [#1] PREEMPT SMP NOPTI
[    7.870957] CPU: 0 UID: 0 PID: 369 Comm: vcpu0 Not tainted 6.12.95+deb12-amd64 #1  Debian 6.12.95-1~bpo12+1
[    7.871381] RIP: 0010:error_entry+0x17/0x140
";

#[test]
fn an_oops_ends_the_host_at_once_and_with_its_own_name() {
    let fake = Fake::staying();
    let peer = fake.peer(|peer| {
        peer.hello();
        peer.exec();
        let mut log = OpenOptions::new().append(true).open(&peer.log).unwrap();
        write!(log, "daxvisor-agent: ready\r\n{}", OOPS.replace('\n', "\r\n")).unwrap();
        let since = Instant::now();
        // The agent still answers: nothing else is wrong yet.
        peer.drain();
        since.elapsed()
    });
    let (outcome, _, _) = run(&fake, &options());
    let error = outcome.unwrap_err();
    assert_eq!(error.exit_code(), 125);
    let text = error.to_string();
    assert!(
        text.starts_with(
            "the nested host is broken: its kernel reports \"[    7.868060] BUG: TASK stack guard page was hit"
        ),
        "{text}"
    );
    assert!(
        text.ends_with("| [    7.871381] RIP: 0010:error_entry+0x17/0x140"),
        "{text}"
    );
    assert!(error.start_may_be_retried());
    let took = peer.join().unwrap();
    assert!(took < Duration::from_secs(20), "noticed after {took:?}");
}

#[test]
fn a_panic_that_ends_qemu_is_named_instead_of_its_exit_code() {
    let fake = Fake::new("echo '[    1.2] Kernel panic - not syncing: VFS: Unable to mount root fs'; exit 0");
    let (outcome, _, err) = run(&fake, &options());
    match outcome {
        Err(HostError::Broken { report, .. }) => assert!(report.contains("Unable to mount root fs"), "{report}"),
        other => panic!("{other:?}"),
    }
    assert!(
        err.starts_with("retry: the nested host is broken: its kernel reports"),
        "{err}"
    );
}

#[test]
fn agent_of_another_version_is_refused_without_retry() {
    let fake = Fake::staying();
    let peer = fake.peer(|peer| {
        peer.hello_as(VERSION + 1, &[]);
        peer.drain();
    });
    let (outcome, _, err) = run(&fake, &options());
    assert!(
        matches!(outcome, Err(HostError::Version { theirs }) if theirs == VERSION + 1),
        "{outcome:?}"
    );
    assert_eq!(err, "");
    peer.join().unwrap();
}
