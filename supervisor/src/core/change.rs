//! Commands that bring specifications with them: changed ones, saved ones, and what is done about lost ones.

use super::saved::{AtRest, Dumped};
use super::table::Instance;
use super::task::Verb;
use super::worker::State;
use super::{Client, Core, Dump, Output, Version};
use crate::control::Answer;
use crate::spec::Spec;
use anyhow::{Result, bail};

impl Core {
    /// Begins to replace the processes of an app with those of another specification; what was saved as being at rest is not started for it.
    pub(super) fn begin_change(&mut self, client: Option<Client>, spec: Spec, at_rest: &AtRest) -> Result<()> {
        spec.check()?;
        let ids = self.free(&spec.name)?;
        self.refuse_taken(&spec)?;
        let Some(app) = self.table.app_mut(&spec.name) else { bail!("there is no app {}", spec.name) };
        app.next = Some(spec.clone());
        // What was given up is tried again with the change, and so is what could not be started without its specification; what somebody has stopped
        // stays so.
        let is_lost = app.damage.is_some();
        let is_wanted = |(position, one): &(u32, &Instance)| {
            !one.is_over() || one.worker.state == State::Errored || is_lost && !at_rest.has(*position)
        };
        let wanted = (0..).zip(&app.instances).filter(is_wanted).map(|(_, instance)| instance.id);
        let wanted: Vec<u32> = wanted.filter(|id| ids.contains(id)).collect();
        let name = spec.name.clone();
        self.out.push(Output::Prepare(Box::new(spec), Version::Next));
        self.push_reload(client, name, wanted).is_prepared = false;
        Ok(())
    }

    /// Saves the apps.
    pub(super) fn save(&mut self, client: Client, before: Option<Dump>) {
        if self.ending.is_some() {
            return self.refuse_at_end(client);
        }
        let (dump, unknown) = Dump::of(&self.table, &self.about_to_start(), before);
        self.out.push(Output::Save(client, dump, unknown));
    }

    /// Brings the saved apps back: those that are not in the list, those whose specification is lost, and those that the system's last shutdown has ended.
    pub(super) fn resurrect(&mut self, client: Client, dump: Dump, is_boot: bool) {
        if self.ending.is_some() {
            return self.refuse_at_end(client);
        }
        if is_boot && self.is_continued {
            return self.answer(client, Answer::Done("the supervisor continues with the list that it had".into()));
        }
        // At boot, nobody waits, and an address that is not there yet is tried again.
        let waiting = (!is_boot).then_some(client);
        // It waits for this, too, so that it is not answered before the last app is looked at.
        self.wait(client);
        for Dumped { spec, instances, at_rest, .. } in dump.apps {
            let name = spec.name.clone();
            let begun = match self.table.app(&name) {
                Some(app) if app.instances.iter().all(super::saved::is_untouched) && !self.is_busy(&name) => {
                    self.start_in_place(waiting, spec, instances, &at_rest)
                }
                Some(app) if app.damage.is_some() => self.begin_change(waiting, spec, &at_rest),
                Some(app) => {
                    let ended: Vec<u32> = app.instances.iter().filter(|one| one.is_ended_by_boot).map(|one| one.id).collect();
                    if !ended.is_empty() && !self.is_busy(&name) {
                        self.push_one(waiting, Verb::Start { is_new: false, is_begun: false }, name.clone(), ended);
                    }
                    Ok(())
                }
                None => self.begin_start(waiting, spec, instances, &at_rest),
            };
            // One that cannot be started does not keep the others from it.
            if let Err(error) = begun {
                self.wait(client);
                self.told(client, Err(format!("cannot start {name}: {error:#}")));
            }
        }
        let waits = self.waiting.get(&client).is_some_and(super::answers::Waiting::is_for_more);
        self.told(
            client,
            Ok(if waits { "the saved apps are in the list" } else { "all saved apps are already in the list" }.into()),
        );
    }

    /// Starts a saved app in place of what is left of it.
    fn start_in_place(&mut self, client: Option<Client>, spec: Spec, instances: u32, at_rest: &AtRest) -> Result<()> {
        let Some(number) = self.table.apps.iter().position(|app| app.spec.name == spec.name) else { return Ok(()) };
        let left = self.table.apps.remove(number);
        let lost = super::recover::lost(&spec.name);
        // Where only the list was lost, the specification is newer than what was saved.
        let spec = if left.damage.is_none() { left.spec.clone() } else { spec };
        let begun = self.begin_start(client, spec, instances, at_rest);
        if begun.is_ok() {
            self.remarks.retain(|remark| !remark.starts_with(&lost));
        } else {
            self.table.apps.insert(number, left);
        }
        begun
    }

    fn refuse_at_end(&mut self, client: Client) {
        self.answer(client, Answer::Error("the supervisor is shutting down: retry once it has stopped".into()));
    }

    pub(super) fn refuse_damaged(&self, ids: &[u32]) -> Result<()> {
        let damaged = ids.iter().filter_map(|id| self.table.instance(*id)).find_map(|(app, _)| Some((app, app.damage.as_ref()?)));
        match damaged {
            Some((app, why)) => {
                bail!(
                    "{0} cannot be started, since its specification is lost ({why}): run `supervisor resurrect` if it was saved, `supervisor \
                     apply FILE` if it is in a file, or run `supervisor delete {0}`, and start it anew",
                    app.spec.name
                )
            }
            None => Ok(()),
        }
    }
}
