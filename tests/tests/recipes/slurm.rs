//! docs/recipes/slurm.sh on a cluster of this one machine: Slurm's own daemons, with everything of theirs in one folder.

use crate::{ERROR, SUITE, cases, merged, output, path_with, read, recipe_file, said, text};
use anyhow::{Context, Result, bail, ensure};
use guest_tests::{Scratch, guest};
use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

/// For a daemon to come up, or a job to run.
const SOON: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(200);
/// What is said of the kernel, which is given by its path.
const NO_KERNEL: &str = "cannot read kernel /nonexistent/k";

/// The daemons; they end with this.
struct Cluster<'a> {
    files: &'a Scratch,
    daemons: Vec<Child>,
}

impl Drop for Cluster<'_> {
    fn drop(&mut self) {
        for daemon in self.daemons.iter_mut().rev() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// Two ports that nobody has.
fn ports() -> Result<[u16; 2]> {
    let listeners = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
    Ok([listeners[0].local_addr()?.port(), listeners[1].local_addr()?.port()])
}

fn configuration(folder: &Path) -> Result<String> {
    let name = text(&output(Command::new("hostname").arg("-s"))?);
    let user = text(&output(Command::new("id").arg("-un"))?);
    let [control, node] = ports()?;
    let folder = folder.display();
    Ok(format!(
        "ClusterName=one\nSlurmctldHost={name}(127.0.0.1)\nSlurmUser={user}\nSlurmdUser={user}\n\
         AuthType=auth/munge\nAuthInfo=socket={folder}/munge/socket\nSlurmctldPort={control}\nSlurmdPort={node}\n\
         StateSaveLocation={folder}/state\nSlurmdSpoolDir={folder}/spool\nSlurmctldPidFile={folder}/control.pid\n\
         SlurmdPidFile={folder}/node.pid\nSlurmctldLogFile={folder}/control.log\nSlurmdLogFile={folder}/node.log\n\
         ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nSwitchType=switch/none\nMpiDefault=none\n\
         JobAcctGatherType=jobacct_gather/none\nReturnToService=2\n\
         NodeName={name} NodeAddr=127.0.0.1 CPUs=1\nPartitionName=all Nodes=ALL Default=YES State=UP\n"
    ))
}

impl<'a> Cluster<'a> {
    fn start(files: &'a Scratch) -> Result<Self> {
        for folder in ["munge", "state", "spool", "jobs"] {
            fs::create_dir(files.join(folder))?;
        }
        fs::set_permissions(files.join("munge"), fs::Permissions::from_mode(0o700))?;
        fs::write(files.join("slurm.conf"), configuration(files.path())?)?;
        fs::write(files.join("munge/key"), [0x5a; 1024])?;
        fs::set_permissions(files.join("munge/key"), fs::Permissions::from_mode(0o400))?;
        let mut cluster = Self {
            files,
            daemons: Vec::new(),
        };
        let flag = |name: &str, file: &str| format!("--{name}={}", files.join(file).display());
        cluster.daemon(
            Command::new("/usr/sbin/munged")
                .args(["--force", "--foreground"])
                .args([
                    flag("key-file", "munge/key"),
                    flag("socket", "munge/socket"),
                    flag("pid-file", "munge/pid"),
                    flag("log-file", "munge/log"),
                    flag("seed-file", "munge/seed"),
                ]),
        )?;
        wait("munged's socket", || Ok(files.join("munge/socket").exists()))?;
        cluster.daemon(Command::new("/usr/sbin/slurmctld").arg("-D"))?;
        cluster.daemon(Command::new("/usr/sbin/slurmd").arg("-D"))?;
        wait("an idle node", || {
            let mut info = cluster.command("sinfo");
            Ok(text(&output(info.args(["--noheader", "--format=%t"]))?) == "idle")
        })
        .with_context(|| fs::read_to_string(files.join("control.log")).unwrap_or_default())?;
        Ok(cluster)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("SLURM_CONF", self.files.join("slurm.conf"));
        command
    }

    fn daemon(&mut self, command: &mut Command) -> Result<()> {
        let name = command.get_program().to_string_lossy().into_owned();
        command.env("SLURM_CONF", self.files.join("slurm.conf"));
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {name}; hint: install Slurm and MUNGE"))?;
        self.daemons.push(child);
        Ok(())
    }

    /// Submits from the folder of jobs and waits for the end; what sbatch said, and its number.
    fn submit(&self, arguments: &[String]) -> Result<(Output, String)> {
        let program = guest::program()?;
        let path = path_with(program.parent().context("no folder")?)?;
        let mut command = self.command("sbatch");
        command
            .arg("--wait")
            .args(arguments)
            .current_dir(self.files.join("jobs"));
        let done = output(command.env("PATH", path))?;
        let number = text(&done).split_whitespace().last().unwrap_or_default().to_owned();
        ensure!(number.parse::<u32>().is_ok(), "{}", said(&done));
        Ok((done, number))
    }
}

fn wait(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + SOON;
    while !done()? {
        if Instant::now() >= deadline {
            bail!("{what}: not within {} s", SOON.as_secs());
        }
        thread::sleep(POLL);
    }
    Ok(())
}

#[test]
fn an_array_job_runs_a_shard_in_each_task_and_another_job_merges_them() -> Result<()> {
    let files = Scratch::new("slurm")?;
    fs::write(files.join("suite.toml"), SUITE)?;
    let cluster = Cluster::start(&files)?;
    let recipe = recipe_file("slurm.sh");
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let mut array = words("--array=1-2");
    array.extend([recipe.display().to_string(), files.text("suite.toml")]);
    array.extend(words("--host kvm --kernel /nonexistent/k:gone"));
    let (done, job) = cluster.submit(&array)?;
    let jobs = files.join("jobs");
    let log = |task: u32| fs::read_to_string(jobs.join(format!("boot-tests-{job}-{task}.log"))).unwrap_or_default();
    // An error of the host, as the program itself says it.
    ensure!(
        done.status.code() == Some(ERROR),
        "{}\n{}\n{}",
        said(&done),
        log(1),
        log(2)
    );
    let parts = jobs.join("boot-tests");
    let (first, second) = (cases(&parts.join("1"), NO_KERNEL)?, cases(&parts.join("2"), NO_KERNEL)?);
    ensure!((first.len(), second.len()) == (2, 2), "{first:?} {second:?}");

    let text = read("slurm.sh")?;
    let line = text
        .lines()
        .find(|l| l.contains("--wrap"))
        .context("the recipe merges nothing")?;
    let merge = line.split('\'').nth(1).context("the recipe's --wrap is not quoted")?;
    let after = format!("--dependency=afterany:{job}");
    let (done, _) = cluster.submit(&[after, "--wrap".to_owned(), merge.to_owned()])?;
    ensure!(done.status.code() == Some(ERROR), "{}", said(&done));
    merged(
        &[first, second],
        &parts.join("all"),
        &parts.join("page"),
        None,
        NO_KERNEL,
    )
}
