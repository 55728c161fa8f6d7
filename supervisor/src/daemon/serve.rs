//! The daemon's handling of requests.

use super::table::{App, Instance, Other};
use super::task::{Task, Verb};
use super::{Daemon, Event, state};
use crate::channel::{Key, Order};
use crate::control::{Answer, Environment, Request, Size, View};
use crate::home::replace_durably;
use crate::spec::Spec;
use anyhow::{Result, bail};
use std::path::PathBuf;
use std::time::{Duration, Instant, UNIX_EPOCH};

/// Pause before the daemon retries to bind an address.
const BIND_AGAIN: Duration = Duration::from_millis(200);
/// Most logs that one order empties; each has a path of at most 4 KiB.
const FLUSHED: usize = 8;
/// The target that means all apps.
const ALL: &str = "all";
/// Most instances of one app.
const MOST_INSTANCES: usize = 1000;

impl Daemon {
    /// Accepts new clients.
    pub fn accept(&mut self) -> Result<()> {
        while let Some(Ok((stream, _))) = self.control.as_ref().map(std::os::unix::net::UnixListener::accept) {
            self.clients.accept(stream, &mut self.poller)?;
        }
        Ok(())
    }

    /// Reads a client's request, and begins to handle it.
    pub fn serve_client(&mut self, id: u64) -> Result<()> {
        match self.clients.read(id) {
            Ok(None) => {}
            Ok(Some(request)) => {
                if let Err(error) = self.begin(id, request) {
                    self.clients.answer(id, &Answer::Error(format!("{error:#}")));
                }
            }
            Err(error) if error.to_string() == "gone" => {
                self.clients.drop(id, &mut self.poller);
                self.cancel(|task| task.client == Some(id), "its command was interrupted")?;
            }
            Err(error) => self.clients.answer(id, &Answer::Error(format!("{error:#}"))),
        }
        Ok(())
    }

    fn begin(&mut self, client: u64, request: Request) -> Result<()> {
        match request {
            Request::List => {
                let table = self.view();
                self.clients.answer(client, &Answer::Table(table));
                Ok(())
            }
            _ if self.ending.is_some() => bail!("the supervisor is shutting down: retry once it has stopped"),
            Request::Start { spec, instances } => self.begin_start(client, *spec, instances),
            Request::Resume(target) => {
                let ids = self.free(&target)?;
                self.start(&ids)?;
                self.wait(client, Verb::Start, ids);
                Ok(())
            }
            Request::Stop(target) => {
                self.take_over(&target, "stop")?;
                self.begin_each(client, &target, Verb::Stop, Event::Stop)
            }
            Request::Restart(target, environment) => {
                self.update(&target, environment)?;
                self.begin_each(client, &target, Verb::Restart, Event::Restart)
            }
            Request::Reload(target, environment) => {
                let mut ids = self.free(&target)?;
                // Somebody stopped them on purpose, and `all` does not name them.
                if target == ALL {
                    ids.retain(|id| self.table.instance(*id).is_some_and(|(_, instance)| !instance.is_over()));
                }
                if ids.is_empty() {
                    bail!("every app is stopped: name the one to start");
                }
                self.update(&target, environment)?;
                // Each app has its own task, so that one failure does not stop the others.
                for name in self.names(&ids) {
                    let own: Vec<u32> = ids.iter().copied().filter(|id| self.is_of(*id, &name)).collect();
                    self.wait(client, Verb::Reload { left: own.iter().copied().collect(), now: None }, own);
                }
                Ok(())
            }
            Request::Delete(target) => {
                self.take_over(&target, "delete")?;
                for id in self.free(&target)? {
                    self.table.instance_mut(id).into_iter().for_each(|instance| instance.is_leaving = true);
                }
                self.begin_each(client, &target, Verb::Delete, Event::Stop)
            }
            Request::Scale(target, size) => self.begin_scale(client, &target, size),
            Request::Flush(target) => self.flush_logs(client, &target),
            Request::Save => {
                let count = state::dump(&self.table, &self.home)?;
                let done = format!("saved {count} apps for `supervisor resurrect` in {}", self.home.dump().display());
                self.clients.answer(client, &Answer::Done(done));
                Ok(())
            }
            Request::Resurrect => self.begin_resurrect(client),
            Request::Kill => self.end_all(Some(client)),
        }
    }

    fn begin_start(&mut self, client: u64, spec: Spec, instances: u32) -> Result<()> {
        if self.table.apps.iter().any(|app| app.spec.name == spec.name) {
            bail!("{0} already exists: run `supervisor restart {0}`, or choose another name with --name", spec.name);
        }
        for address in &spec.listeners {
            if let Some(app) = self.table.apps.iter().find(|app| app.spec.listeners.contains(address)) {
                bail!("{} already listens on {address}: choose another address with --listen", app.spec.name);
            }
        }
        replace_durably(&self.home.spec(&spec.name), &serde_json::to_vec(&spec)?)?;
        let numbers = 0..instances;
        let created: Vec<Instance> = numbers.map(|number| Instance::new(self.new_id(), number)).collect();
        let ids: Vec<u32> = created.iter().map(|instance| instance.id).collect();
        let left = spec.listeners.clone();
        let name = spec.name.clone();
        self.table.apps.push(App { spec, instances: created });
        if let Err(error) = self.watch(&name) {
            self.table.apps.pop();
            return Err(error);
        }
        for address in &left {
            self.order(&Order::Bind(address.clone()))?;
        }
        self.tasks.push(Task { client: Some(client), verb: Verb::Bind { left }, apps: vec![name], ids });
        self.clients.waits(client);
        Ok(())
    }

    fn new_id(&mut self) -> u32 {
        self.table.next_id += 1;
        self.table.next_id - 1
    }

    /// Notes that the keeper listens on an address.
    pub fn bound(&mut self, address: &str) {
        for task in &mut self.tasks {
            if let Verb::Bind { left } = &mut task.verb {
                left.retain(|one| one != address);
            }
        }
    }

    /// Notes that the keeper cannot listen on an address: apps that need it are not started.
    pub fn cannot_bind(&mut self, address: &str, why: &str) {
        let wants = |task: &Task| matches!(&task.verb, Verb::Bind { left } if left.iter().any(|one| one == address));
        // A task without a client comes from a recovery and retries: an old process may hold the address until it has drained.
        if self.tasks.iter().any(|task| task.client.is_none() && wants(task)) {
            self.remark(format!("cannot listen on {address} yet, retrying: {why}"));
            self.bind_due = Some(Instant::now() + BIND_AGAIN);
        }
        while let Some(number) = self.tasks.iter().position(|task| task.client.is_some() && wants(task)) {
            let task = self.tasks.remove(number);
            for instance in self.table.apps.iter_mut().flat_map(|app| &mut app.instances) {
                instance.is_leaving |= task.ids.contains(&instance.id);
            }
            let trouble = format!("cannot listen on {address}: {why}; choose another address with --listen");
            self.finish(&task, Some(trouble));
        }
    }

    /// Orders every listener that is still missing.
    pub fn bind_again(&mut self) -> Result<()> {
        self.bind_due = None;
        let missing = self.tasks.iter().filter_map(|task| match &task.verb {
            Verb::Bind { left } => Some(left.clone()),
            _ => None,
        });
        let missing: Vec<String> = missing.flatten().collect();
        missing.into_iter().try_for_each(|address| self.order(&Order::Bind(address)))
    }

    /// Feeds an event to all processes of a target, and lets the client wait for the result.
    fn begin_each(&mut self, client: u64, target: &str, verb: Verb, event: Event) -> Result<()> {
        let ids = self.free(target)?;
        for id in &ids {
            let Some(instance) = self.table.instance_mut(*id) else { continue };
            instance.failures = 0;
            // A restart must not keep a process that is retiring.
            let keys: Vec<Key> = match event {
                Event::Stop => instance.workers().map(|worker| worker.key).collect(),
                _ => vec![instance.worker.key],
            };
            keys.into_iter().try_for_each(|key| self.feed(key, event))?;
        }
        self.wait(client, verb, ids);
        Ok(())
    }

    fn wait(&mut self, client: u64, verb: Verb, ids: Vec<u32>) {
        let apps = self.names(&ids);
        self.tasks.push(Task { client: Some(client), verb, apps, ids });
        self.clients.waits(client);
    }

    fn names(&self, ids: &[u32]) -> Vec<String> {
        let has_one = |app: &&App| app.instances.iter().any(|instance| ids.contains(&instance.id));
        self.table.apps.iter().filter(has_one).map(|app| app.spec.name.clone()).collect()
    }

    fn is_of(&self, id: u32, name: &str) -> bool {
        self.table.instance(id).is_some_and(|(app, _)| app.spec.name == name)
    }

    /// Ends the commands in progress for a target, so that whoever wants to stop it need not wait for them.
    fn take_over(&mut self, target: &str, verb: &str) -> Result<()> {
        let names = self.names(&self.table.select(target)?);
        let is_meant = |task: &Task| task.apps.iter().any(|name| names.contains(name)) && task.verb != Verb::Delete;
        self.cancel(is_meant, &format!("`supervisor {verb} {target}` was run meanwhile"))
    }

    /// Ends commands in progress, and tells whoever waits for them. What they had begun and what cannot stay half done is undone.
    fn cancel(&mut self, is_meant: impl Fn(&Task) -> bool, why: &str) -> Result<()> {
        while let Some(number) = self.tasks.iter().position(&is_meant) {
            let task = self.tasks.remove(number);
            let mut unwanted = Vec::new();
            for id in &task.ids {
                let Some(instance) = self.table.instance_mut(*id) else { continue };
                match (&task.verb, &instance.other) {
                    // It was never started.
                    (Verb::Bind { .. }, _) => instance.is_leaving = true,
                    (Verb::Reload { .. }, Some(Other::Replacement(worker))) => unwanted.push(worker.key),
                    _ => {}
                }
            }
            unwanted.into_iter().try_for_each(|key| self.feed(key, Event::Stop))?;
            self.finish(&task, Some(format!("the {} of {} was cancelled: {why}", task.verb.name(), task.apps.join(", "))));
        }
        Ok(())
    }

    /// Returns the ids of a target, if no other command is at work on its apps.
    fn free(&self, target: &str) -> Result<Vec<u32>> {
        let ids = self.table.select(target)?;
        if ids.is_empty() {
            bail!("no apps yet: run `supervisor start`");
        }
        let names = self.names(&ids);
        if let Some((task, name)) =
            self.tasks.iter().find_map(|task| task.apps.iter().find(|name| names.contains(name)).map(|name| (task, name)))
        {
            bail!("another command ({}) is in progress for {name}: retry when it is done", task.verb.name());
        }
        Ok(ids)
    }

    fn update(&mut self, target: &str, environment: Option<Environment>) -> Result<()> {
        let Some(environment) = environment else { return Ok(()) };
        for name in self.names(&self.table.select(target)?) {
            let path = self.home.spec(&name);
            if let Some(app) = self.table.apps.iter_mut().find(|app| app.spec.name == name) {
                app.spec.environment.clone_from(&environment);
                replace_durably(&path, &serde_json::to_vec(&app.spec)?)?;
            }
        }
        Ok(())
    }

    fn begin_scale(&mut self, client: u64, target: &str, size: Size) -> Result<()> {
        self.free(target)?;
        let Some(app_number) = self.table.apps.iter().position(|app| app.spec.name == target) else {
            bail!("cannot scale '{target}': give the name of an app, not an id or all");
        };
        let have = self.table.apps[app_number].instances.len();
        let want = match size {
            Size::To(count) => i64::from(count),
            Size::By(more) => have as i64 + i64::from(more),
        };
        if want < 1 || want > MOST_INSTANCES as i64 {
            bail!(
                "{target} cannot have {want} instances, only 1 to {MOST_INSTANCES}: to stop it, run `supervisor stop {target}`"
            );
        }
        let want = want as usize;
        if want <= have {
            let ids: Vec<u32> = self.table.apps[app_number].instances[want..].iter().map(|instance| instance.id).collect();
            for id in &ids {
                let Some(instance) = self.table.instance_mut(*id) else { continue };
                instance.is_leaving = true;
                let key = instance.worker.key;
                self.feed(key, Event::Stop)?;
            }
            let verb = Verb::Scale { to: want, is_up: false };
            self.tasks.push(Task { client: Some(client), verb, apps: vec![target.into()], ids });
        } else {
            let taken: Vec<u32> = self.table.apps[app_number].instances.iter().map(|instance| instance.number).collect();
            let numbers: Vec<u32> = (0..).filter(|number| !taken.contains(number)).take(want - have).collect();
            let created: Vec<Instance> = numbers.into_iter().map(|number| Instance::new(self.new_id(), number)).collect();
            let ids: Vec<u32> = created.iter().map(|instance| instance.id).collect();
            self.table.apps[app_number].instances.extend(created);
            self.start(&ids)?;
            let verb = Verb::Scale { to: want, is_up: true };
            self.tasks.push(Task { client: Some(client), verb, apps: vec![target.into()], ids });
        }
        self.clients.waits(client);
        Ok(())
    }

    fn flush_logs(&mut self, client: u64, target: &str) -> Result<()> {
        let ids = self.table.select(target)?;
        let meant = self.table.all().filter(|(_, one)| ids.contains(&one.id));
        let logs = meant.flat_map(|(app, one)| self.logs(app, one).map(|path| (path, app.spec.options.log_keep)));
        let paths: Vec<(PathBuf, u32)> = logs.collect();
        let count = paths.len();
        // The size of a message is limited.
        paths.chunks(FLUSHED).try_for_each(|some| self.order(&Order::Flush(some.to_vec())))?;
        self.clients.answer(client, &Answer::Done(format!("{count} logs are being emptied")));
        Ok(())
    }

    fn begin_resurrect(&mut self, client: u64) -> Result<()> {
        let dump = state::dumped(&self.home)?;
        let is_there = |name: &str| self.table.apps.iter().any(|app| app.spec.name == name);
        let missing: Vec<(Spec, u32)> = dump.apps.into_iter().filter(|(spec, _)| !is_there(&spec.name)).collect();
        if missing.is_empty() {
            self.clients.answer(client, &Answer::Done("all saved apps are already in the list".into()));
            return Ok(());
        }
        // One that cannot be started does not keep the others from it.
        for (spec, instances) in missing {
            let name = spec.name.clone();
            if let Err(error) = self.begin_start(client, spec, instances) {
                self.clients.waits(client);
                self.clients.finish(client, String::new(), Some(format!("cannot start {name}: {error:#}")));
            }
        }
        Ok(())
    }

    /// Stops all apps, even if other commands are in progress.
    pub fn end_all(&mut self, client: Option<u64>) -> Result<()> {
        self.ending = Some(client);
        for task in std::mem::take(&mut self.tasks) {
            self.finish(&task, Some("the supervisor is shutting down".into()));
        }
        let instances = self.table.apps.iter_mut().flat_map(|app| &mut app.instances);
        let mut keys = Vec::new();
        for instance in instances {
            instance.is_leaving = true;
            keys.extend(instance.workers().map(|worker| worker.key));
        }
        keys.into_iter().try_for_each(|key| self.feed(key, Event::Stop))
    }

    fn logs(&self, app: &App, instance: &Instance) -> [PathBuf; 2] {
        ["out", "error"].map(|stream| app.spec.log(&self.home.logs(), instance.number, stream))
    }

    /// Returns an instance as `list` and `show` print it.
    pub fn view_of(&self, app: &App, instance: &Instance) -> View {
        let worker = &instance.worker;
        let logs = self.logs(app, instance);
        let address = |address: &String| self.listeners.get(address).and_then(real_address).unwrap_or_else(|| address.clone());
        View {
            id: instance.id,
            name: app.spec.name.clone(),
            mode: app.spec.mode().into(),
            number: instance.number,
            pid: worker.state.process().map(|process| process.pid),
            uptime_ms: worker.state.process().and(worker.online).map(|online| online.elapsed().as_millis() as u64),
            restarts: instance.restarts,
            status: worker.state.name().into(),
            generation: instance.generation,
            command: app.spec.command.clone(),
            directory: app.spec.directory.clone(),
            listeners: app.spec.listeners.iter().map(address).collect(),
            doubt: app.spec.doubt.clone(),
            says: worker.says.clone(),
            log_trouble: logs.iter().find_map(|path| self.log_troubles.get(path).cloned()),
            logs,
            created_s: instance.created.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            last_end: instance.last_end.clone(),
            options: app.spec.options.clone(),
        }
    }
}

/// Returns a listener's actual address, in case the system chose its port.
fn real_address(listener: &std::os::fd::OwnedFd) -> Option<String> {
    let listener = std::net::TcpListener::from(listener.try_clone().ok()?);
    listener.local_addr().ok().map(|address| address.to_string())
}
