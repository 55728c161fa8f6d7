//! The cgroup (version 2) of a worker: what it starts stays in it, whatever session, parent and environment that has, and limits on memory and processor
//! time hold for all of it. Each worker gets one below the supervisor's, if that is delegated to the supervisor.

use crate::spec::Options;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The cgroup of the supervisor's own processes, since a cgroup that passes controllers on must not hold processes itself. The unit
/// that `startup` prints has this name too.
const OWN: &str = "stallbench-supervisor";
/// Period in which processor time is counted, in µs: the kernel's default.
const PERIOD: u64 = 100_000;
/// What the name of a worker's cgroup begins with; its process id follows.
const WORKER: &str = "worker-";
/// Processes may start others while they are moved, and another supervisor may remove a cgroup that is still empty.
const TRIES: u32 = 10;

/// The folder of the cgroup that is delegated to the supervisor.
pub struct Delegated(PathBuf);

impl Delegated {
    /// Finds it from any process of the supervisor.
    ///
    /// # Errors
    /// Fails if there are no cgroups of version 2, or if that of the supervisor belongs to somebody else.
    pub fn find() -> Result<Self> {
        let read = |path: &str| fs::read_to_string(path).with_context(|| path.to_owned());
        let (own, mounts) = (read("/proc/self/cgroup")?, read("/proc/self/mountinfo")?);
        let (mount, path) = place(&own, &mounts).context("no cgroups of version 2 are mounted here")?;
        // A supervisor that an app has started, which has no limits, stands beside the app.
        let path = match path.rsplit_once('/') {
            Some((parent, name)) if name.starts_with(WORKER) && !is_limited(&mount.join(path.trim_matches('/'))) => {
                format!("{parent}/")
            }
            _ => path,
        };
        let within = match path.strip_suffix(OWN) {
            Some(parent) => parent,
            None if path == "/" => "/",
            // Below a session or a slice, systemd decides.
            None => bail!(
                "the cgroup {path} is not delegated to the supervisor: use the unit that `supervisor startup` prints, with systemd 254 or newer, or a container"
            ),
        };
        Ok(Delegated(mount.join(within.trim_matches('/'))))
    }

    /// The same for a process that asks often.
    pub fn get() -> Option<&'static Self> {
        static FOUND: OnceLock<Option<Delegated>> = OnceLock::new();
        FOUND.get_or_init(|| Delegated::find().ok()).as_ref()
    }

    /// Moves this process into a cgroup of its own, with the limits that the options ask for.
    ///
    /// # Errors
    /// Fails if there can be no cgroup, a controller is missing, or a limit cannot be set.
    pub fn enter(&self, options: &Options) -> Result<()> {
        let folder = self.of(std::process::id() as i32);
        // A leftover of an earlier process with this id would count what the kernel did to that.
        let _ = fs::remove_dir(&folder);
        let mut tries = 1;
        loop {
            match self.try_to_enter(&folder, options) {
                Err(_) if !folder.exists() && tries < TRIES => tries += 1,
                done => return done,
            }
        }
    }

    fn try_to_enter(&self, folder: &Path, options: &Options) -> Result<()> {
        let limits = [
            ("memory", "memory.max", options.memory_max.map(|bytes| bytes.to_string())),
            ("cpu", "cpu.max", options.cpu_max.map(|percent| format!("{} {PERIOD}", u64::from(percent) * PERIOD / 100))),
        ];
        for (controller, _, _) in limits.iter().filter(|(.., value)| value.is_some()) {
            self.pass_on(controller)?;
        }
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        for (_, file, value) in limits {
            value.map_or(Ok(()), |value| write(&folder.join(file), &value))?;
        }
        // Otherwise the kernel would swap what is beyond the limit. It has no such file where it cannot.
        let swap = folder.join("memory.swap.max");
        if options.memory_max.is_some() && swap.exists() {
            write(&swap, "0")?;
        }
        write(&folder.join("cgroup.procs"), "0")
    }

    /// Returns whether the kernel has killed something in the cgroup of a worker because all of the memory was in use that it may use.
    pub fn ran_out_of_memory(&self, pid: i32) -> bool {
        let (limit, events) = (read(&self.of(pid).join("memory.max")), read(&self.of(pid).join("memory.events")));
        let killed = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        limit.trim().parse::<u64>().is_ok() && killed.is_some_and(|count| count != "0")
    }

    /// Returns whether the cgroup of a worker has limits.
    pub fn is_limited(&self, pid: i32) -> bool {
        is_limited(&self.of(pid))
    }

    /// The processes in the cgroup of a worker, also in those that it has made below.
    pub fn members(&self, pid: i32) -> Vec<i32> {
        let (mut found, mut next) = (Vec::new(), vec![self.of(pid)]);
        while let Some(folder) = next.pop() {
            let processes = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            // One of another process namespace is shown as 0.
            found.extend(processes.lines().filter_map(|pid| pid.parse().ok()).filter(|pid: &i32| *pid > 0));
            next.extend(below(&folder));
        }
        found
    }

    /// Removes the cgroup of a worker that has ended; returns whether it is gone. While a process is in it, it stays.
    pub fn remove(&self, pid: i32) -> bool {
        let folder = self.of(pid);
        remove(&folder);
        !folder.exists()
    }

    /// Removes the cgroups of workers whose keeper has died before it could.
    pub fn tidy(&self) {
        let is_worker =
            |folder: &PathBuf| folder.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(WORKER.as_bytes()));
        // A worker that runs may have made others below, and needs them.
        let has_ended = |folder: &PathBuf| read(&folder.join("cgroup.events")).lines().any(|line| line == "populated 0");
        below(&self.0).filter(is_worker).filter(has_ended).for_each(|folder| remove(&folder));
    }

    fn of(&self, pid: i32) -> PathBuf {
        self.0.join(format!("{WORKER}{pid}"))
    }

    /// Lets the cgroups below have a controller.
    fn pass_on(&self, controller: &str) -> Result<()> {
        let has = |file: &str| {
            let words = fs::read_to_string(self.0.join(file)).unwrap_or_default();
            words.split_whitespace().any(|word| word == controller)
        };
        if has("cgroup.subtree_control") {
            return Ok(());
        }
        if !has("cgroup.controllers") {
            bail!(
                "{} has no {controller} controller: the host keeps it for cgroups of version 1, or for itself",
                self.0.display()
            );
        }
        // Only the root of the whole machine, which has no type, may hold processes as well.
        if self.0.join("cgroup.type").exists() {
            self.make_room()?;
        }
        write(&self.0.join("cgroup.subtree_control"), &format!("+{controller}"))
    }

    /// Moves all processes of the cgroup into one below it.
    fn make_room(&self) -> Result<()> {
        let own = self.0.join(OWN);
        fs::create_dir_all(&own).with_context(|| format!("cannot create {}", own.display()))?;
        for _ in 0..TRIES {
            let all = fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
            if all.is_empty() {
                break;
            }
            for pid in all.lines() {
                // One that has ended needs no move; one that cannot be moved fails the next step.
                let _ = write(&own.join("cgroup.procs"), pid);
            }
        }
        Ok(())
    }
}

/// Returns whether a cgroup has limits of its own.
fn is_limited(folder: &Path) -> bool {
    ["memory.max", "cpu.max"].into_iter().any(|file| read(&folder.join(file)).starts_with(|first: char| first.is_ascii_digit()))
}

/// Reads a file of a cgroup, which may have ended.
fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The cgroups that are directly below one.
fn below(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path())
}

/// Removes a cgroup with those below it, as far as no process is in them.
fn remove(folder: &Path) {
    below(folder).for_each(|folder| remove(&folder));
    let _ = fs::remove_dir(folder);
}

/// Writes to a file of a cgroup, which the kernel has made.
fn write(path: &Path, value: &str) -> Result<()> {
    let file = fs::File::options().write(true).open(path);
    let written = file.and_then(|mut file| std::io::Write::write_all(&mut file, value.as_bytes()));
    written.with_context(|| format!("cannot write {value} to {}", path.display()))
}

/// Returns where cgroups of version 2 are mounted, and the path of a process's own below that, from its `cgroup` and `mountinfo` in /proc.
fn place(own: &str, mounts: &str) -> Option<(PathBuf, String)> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(3);
        let (root, mount) = (fields.next()?, fields.next()?);
        let below = path.strip_prefix(root.trim_end_matches('/'))?;
        let is_meant = after.starts_with("cgroup2 ") && (below.is_empty() || below.starts_with('/'));
        is_meant.then(|| (PathBuf::from(mount), format!("/{}", below.trim_start_matches('/'))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "25 1 0:22 / /proc rw - proc proc rw\n\
        33 30 0:28 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n\
        34 30 0:29 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw\n";

    #[test]
    fn the_own_cgroup_is_found_below_the_mount() {
        let at = |path: &str| Some((PathBuf::from("/sys/fs/cgroup/unified"), path.to_owned()));
        assert_eq!(place("4:memory:/x\n0::/system.slice/a.service\n", MOUNTS), at("/system.slice/a.service"));
        assert_eq!(place("0::/\n", MOUNTS), at("/"));
        assert_eq!(place("4:memory:/x\n", MOUNTS), None);
        assert_eq!(place("0::/\n", "33 30 0:28 / /sys/fs/cgroup rw - cgroup cgroup rw,memory\n"), None);
        // A container that sees the names of its host.
        let mounts = "34 30 0:29 /docker/ab /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n";
        assert_eq!(place("0::/docker/ab\n", mounts), Some((PathBuf::from("/sys/fs/cgroup"), "/".to_owned())));
        assert_eq!(place("0::/docker/abc\n", mounts), None);
    }

    /// A folder like a cgroup's: the kernel would make the files.
    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    #[test]
    fn a_controller_is_passed_on_once_the_processes_are_out_of_the_way() {
        let own = format!("{OWN}/cgroup.procs");
        let files = [("cgroup.controllers", "cpu memory"), ("cgroup.subtree_control", ""), ("cgroup.procs", "17\n")];
        let container = folder(&[&files[..], &[("cgroup.type", "domain"), (&own, "")]].concat());
        Delegated(container.path().into()).pass_on("cpu").unwrap();
        let read = |path: &str| fs::read_to_string(container.path().join(path)).unwrap();
        assert_eq!((read("cgroup.subtree_control").as_str(), &read(&own)[..2]), ("+cpu", "17"));
        // The root of the machine may keep them.
        let machine = folder(&files);
        Delegated(machine.path().into()).pass_on("memory").unwrap();
        assert!(!machine.path().join(OWN).exists());
        let error = Delegated(machine.path().into()).pass_on("io").unwrap_err().to_string();
        assert!(error.contains("has no io controller"), "{error}");
    }

    #[test]
    fn the_kernel_counts_what_it_has_killed() {
        let killed = "max 9\noom 2\noom_kill 1\n";
        let folder = folder(&[
            ("worker-7/memory.max", "1048576\n"),
            ("worker-7/memory.events", killed),
            ("worker-8/memory.max", "1048576\n"),
            ("worker-8/memory.events", "oom_kill 0\n"),
            // The limit that was reached is not its own.
            ("worker-10/memory.max", "max\n"),
            ("worker-10/memory.events", killed),
        ]);
        let delegated = Delegated(folder.path().into());
        assert_eq!([7, 8, 9, 10].map(|pid| delegated.ran_out_of_memory(pid)), [true, false, false, false]);
    }
}
