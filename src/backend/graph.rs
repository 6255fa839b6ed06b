//! From the steps of a plan to the tasks that carry it out, and their order. Pure.
//!
//! ```text
//!  networks, volumes ─▶ containers ─▶ all made ─▶ what goes stops ─▶ all cleared ─┐
//!        each beside what it replaces                                             ▼
//!  stop first:                           the old one stops ─▶ the new one starts ─▶ it is well
//!  start first:   the new one starts ─▶ it is well ─▶ the old one stops
//! ```
//!
//! Without a container from before, nothing waits for `all made`. A container starts when what its service depends on has
//! reached the condition, and until then the one that it replaces goes on. With `update_config` a service is replaced in
//! groups, each after the one before. A network can be made anew only when nothing runs on it: what is on it
//! stops first of all.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::converge;
use super::plan::{After, Slot, Task, Until, Work};
use super::rolling::Rolling;
use super::{Action, BackendError, PlannedObject, Step};
use crate::compose::{Condition, MountSource, Project};
use crate::domain::{ContainerId, ServiceName};

/// What decides about the order besides the steps themselves.
#[derive(Default)]
pub(super) struct Circumstances {
    /// How services are replaced; those that are not in it are all at once, old containers first.
    pub(super) rolling: BTreeMap<ServiceName, Rolling>,
    /// Containers on a network that is made anew.
    pub(super) on_old_networks: BTreeSet<ContainerId>,
    /// Nothing is started: the tenant is stopped.
    pub(super) asleep: bool,
}

/// The tasks of these steps, each after all that it comes after.
pub(super) fn tasks(steps: &[Step], project: &Project, around: &Circumstances) -> Result<Vec<Task>, BackendError> {
    let mut graph = Graph { steps, project, around, tasks: Vec::new(), of: vec![Places::default(); steps.len()] };
    graph.make();
    graph.clear();
    graph.bring_up();
    for at in 0..steps.len() {
        if graph.of[at] == Places::default() {
            graph.of[at].start = Some(graph.add(Work::Keep(at), Vec::new()));
        }
    }
    graph.replace_in_groups();
    graph.follow_dependencies();
    graph.stop_dependents_first();
    sorted(graph.tasks)
}

/// Where a step's tasks are.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Places {
    make: Option<usize>,
    stop: Option<usize>,
    /// Also the one that only keeps.
    start: Option<usize>,
    ready: Option<usize>,
    /// The container stops before anything is made.
    early: bool,
    /// The old container stops when the new one is well.
    start_first: bool,
}

struct Graph<'a> {
    steps: &'a [Step],
    project: &'a Project,
    around: &'a Circumstances,
    tasks: Vec<Task>,
    of: Vec<Places>,
}

/// That a task is done.
fn done(task: usize) -> After {
    After { task, until: Until::Done, required: true }
}

impl<'a> Graph<'a> {
    fn add(&mut self, work: Work, after: Vec<After>) -> usize {
        self.tasks.push(Task { work, after, pause: Duration::ZERO });
        self.tasks.len() - 1
    }

    fn containers(&self) -> impl Iterator<Item = (usize, Slot<'a>)> + use<'a> {
        self.steps.iter().enumerate().filter_map(|(at, step)| Some((at, step.slot()?)))
    }

    fn slots_of(&self, service: &ServiceName) -> Vec<usize> {
        let mine = self.containers().filter(|(_, slot)| slot.service == service && slot.action != Action::Remove);
        mine.map(|(at, _)| at).collect()
    }

    /// Networks, volumes and containers, and the gate behind them.
    fn make(&mut self) {
        let mut freed = Vec::new();
        for (at, slot) in self.containers() {
            let goes = matches!(slot.action, Action::Recreate | Action::Remove);
            if goes && slot.existing.is_some_and(|id| self.around.on_old_networks.contains(id)) {
                let stop = self.add(Work::Stop(at), Vec::new());
                (self.of[at].stop, self.of[at].early) = (Some(stop), true);
                freed.push(done(stop));
            }
        }
        let (mut networks, mut volumes) = (BTreeMap::new(), BTreeMap::new());
        for (at, step) in self.steps.iter().enumerate() {
            if !matches!(step.action, Action::Create | Action::Recreate) {
                continue;
            }
            match &step.object {
                PlannedObject::Network { key: Some(key), .. } => {
                    let after = if step.action == Action::Recreate { freed.clone() } else { Vec::new() };
                    networks.insert(key, self.add(Work::Make(at), after));
                    self.of[at].make = networks.get(key).copied();
                }
                PlannedObject::Volume { key, .. } => {
                    volumes.insert(key, self.add(Work::Make(at), Vec::new()));
                    self.of[at].make = volumes.get(key).copied();
                }
                _ => {}
            }
        }
        for (at, slot) in self.containers() {
            let Some(service) = self.project.services.get(slot.service) else { continue };
            if matches!(slot.action, Action::Create | Action::Recreate) {
                let on = service.networks.keys().filter_map(|key| networks.get(key));
                let with = service.mounts.iter().filter_map(|mount| match &mount.source {
                    MountSource::Volume { key, .. } => volumes.get(key),
                    _ => None,
                });
                let after: BTreeSet<After> = on.chain(with).map(|task| done(*task)).collect();
                self.of[at].make = Some(self.add(Work::Make(at), after.into_iter().collect()));
            }
        }
        for (at, slot) in self.containers() {
            let Some(service) = self.project.services.get(slot.service) else { continue };
            let Some(make) = self.of[at].make else { continue };
            let parents = converge::parents(service).into_iter().flat_map(|parent| self.slots_of(parent));
            let parents: Vec<After> = parents.filter_map(|at| self.of[at].make).map(done).collect();
            self.tasks[make].after.extend(parents);
        }
        // Only what nothing else is made after has to be waited for.
        let inner: BTreeSet<usize> = self.tasks.iter().flat_map(|task| &task.after).map(|after| after.task).collect();
        let last: Vec<After> = (0..self.tasks.len()).filter(|task| !inner.contains(task)).map(done).collect();
        if !last.is_empty() {
            self.add(Work::AllMade, last);
        }
    }

    /// What goes stops first: it may hold a port that another service takes over.
    fn clear(&mut self) {
        let gate = self.gate();
        let mut stopped = Vec::new();
        for (at, slot) in self.containers().filter(|(_, slot)| slot.action == Action::Remove) {
            if slot.existing.is_some() && self.of[at].stop.is_none() {
                let stop = self.add(Work::Stop(at), gate.clone());
                self.of[at].stop = Some(stop);
                stopped.push(done(stop));
            }
        }
        if !stopped.is_empty() {
            self.add(Work::AllCleared, stopped);
        }
    }

    /// The last gate so far.
    fn gate(&self) -> Vec<After> {
        let gate = self.tasks.iter().rposition(|task| matches!(task.work, Work::AllMade | Work::AllCleared));
        gate.map(done).into_iter().collect()
    }

    /// Old containers stop, new ones start. Where there is nothing yet that could be disturbed, a container starts as soon as
    /// it is made, whatever else is still being made.
    fn bring_up(&mut self) {
        let gate = self.gate();
        let disturbs = self.containers().any(|(_, slot)| slot.existing.is_some());
        for (at, slot) in self.containers() {
            let rolling = self.around.rolling.get(slot.service);
            let replaces = slot.action == Action::Recreate;
            let stops = replaces || slot.action == Action::Restart;
            let starts = matches!(slot.action, Action::Create | Action::Start) || stops;
            let start_first = replaces && !self.around.asleep && rolling.is_some_and(|rolling| rolling.start_first);
            let mut before = match self.of[at].make {
                Some(make) if !disturbs => vec![done(make)],
                _ => gate.clone(),
            };
            if stops && !start_first && !self.of[at].early {
                let stop = self.add(Work::Stop(at), gate.clone());
                self.of[at].stop = Some(stop);
                before = vec![done(stop)];
            }
            if !starts || self.around.asleep {
                continue;
            }
            let start = self.add(Work::Start(at), before);
            let monitor = rolling.filter(|_| replaces).map_or(Duration::ZERO, |rolling| rolling.monitor);
            let waits = if monitor.is_zero() { Work::Await(at) } else { Work::Monitor(at, monitor) };
            let ready = self.add(waits, vec![done(start)]);
            (self.of[at].start, self.of[at].ready) = (Some(start), Some(ready));
            if start_first && !self.of[at].early {
                let stop = self.add(Work::Stop(at), vec![done(ready)]);
                (self.of[at].stop, self.of[at].start_first) = (Some(stop), true);
            }
        }
    }

    /// `update_config.parallelism` and `delay`.
    fn replace_in_groups(&mut self) {
        for (service, rolling) in &self.around.rolling {
            let replaced: Vec<Places> = self
                .containers()
                .filter(|(_, slot)| slot.service == service && slot.action == Action::Recreate)
                .map(|(at, _)| self.of[at])
                .collect();
            let groups: Vec<&[Places]> = replaced.chunks(rolling.parallelism.max(1)).collect();
            for pair in groups.windows(2) {
                let ends = |places: &Places| if places.start_first { places.stop } else { places.ready };
                let before: Vec<After> = pair[0].iter().filter_map(ends).map(done).collect();
                for places in pair[1] {
                    let begins = if places.start_first || places.early { places.start } else { places.stop };
                    if let (Some(begins), false) = (begins, before.is_empty()) {
                        self.tasks[begins].after.extend(&before);
                        self.tasks[begins].pause = rolling.delay;
                    }
                }
            }
        }
    }

    /// `depends_on`: what starts waits for the condition, and until then what it replaces goes on; what is kept hands the
    /// order on.
    fn follow_dependencies(&mut self) {
        for (at, slot) in self.containers().filter(|(_, slot)| slot.action != Action::Remove) {
            let (Some(service), Some(start)) = (self.project.services.get(slot.service), self.of[at].start) else {
                continue;
            };
            let keeps = matches!(self.tasks[start].work, Work::Keep(_));
            let Places { stop, early, start_first, .. } = self.of[at];
            let waits_before = slot.action == Action::Recreate && !early && !start_first;
            let waiting = stop.filter(|_| waits_before && self.stops_before(at, slot).is_empty()).unwrap_or(start);
            for (dependency, how) in &service.depends_on {
                for other in self.slots_of(dependency) {
                    let Some(task) = self.of[other].start else { continue };
                    let until = match how.condition {
                        _ if keeps && matches!(self.tasks[task].work, Work::Keep(_)) => Until::Done,
                        Condition::ServiceStarted => Until::Started,
                        Condition::ServiceHealthy => Until::Healthy,
                        Condition::ServiceCompletedSuccessfully => Until::Completed,
                    };
                    let required = (how.required && !keeps) || until == Until::Done;
                    self.tasks[waiting].after.push(After { task, until, required });
                }
            }
        }
    }

    /// `depends_on.restart`: a dependent stops before what it depends on does, and starts after that was replaced.
    fn stop_dependents_first(&mut self) {
        for (at, slot) in self.containers() {
            let Some(stop) = self.of[at].stop else { continue };
            for other in self.stops_before(at, slot) {
                let Places { stop: Some(old), start_first, .. } = self.of[other] else { continue };
                self.tasks[old].after.push(done(stop));
                if let (true, Some(start)) = (start_first, self.of[at].start) {
                    self.tasks[start].after.push(done(old));
                }
            }
        }
    }

    /// The replaced containers that must not stop before this one has. Such a container waits for nothing but others of
    /// its kind before it stops, or there would be a circle.
    fn stops_before(&self, at: usize, slot: Slot<'_>) -> Vec<usize> {
        let at_once = slot.action == Action::Recreate && !self.around.rolling.contains_key(slot.service);
        let Some(service) = self.project.services.get(slot.service) else { return Vec::new() };
        if self.of[at].early || !(at_once || slot.action == Action::Restart) {
            return Vec::new();
        }
        let restart = service.depends_on.iter().filter(|(_, how)| how.restart);
        let others = restart.flat_map(|(dependency, _)| self.slots_of(dependency));
        others.filter(|&other| self.of[other].stop.is_some() && !self.of[other].early).collect()
    }
}

/// The same tasks, each behind all that it comes after, otherwise in the order given.
///
/// # Errors
/// Tasks that wait for each other. Services do not, so this is a mistake in here; it must not take the agent along.
fn sorted(tasks: Vec<Task>) -> Result<Vec<Task>, BackendError> {
    let mut waits: Vec<usize> = tasks.iter().map(|task| task.after.len()).collect();
    let mut dependents: Vec<Vec<usize>> = vec![Vec::new(); tasks.len()];
    for (at, task) in tasks.iter().enumerate() {
        for after in &task.after {
            dependents[after.task].push(at);
        }
    }
    let mut free: BTreeSet<usize> = (0..tasks.len()).filter(|&at| waits[at] == 0).collect();
    let mut order = Vec::with_capacity(tasks.len());
    while let Some(at) = free.pop_first() {
        order.push(at);
        for &dependent in &dependents[at] {
            waits[dependent] -= 1;
            if waits[dependent] == 0 {
                free.insert(dependent);
            }
        }
    }
    if order.len() < tasks.len() {
        return Err(BackendError::Refused { message: "the tasks of the plan wait for each other".to_owned() });
    }
    let mut place = vec![0; tasks.len()];
    for (new, &old) in order.iter().enumerate() {
        place[old] = new;
    }
    let mut tasks: Vec<Option<Task>> = tasks.into_iter().map(Some).collect();
    let moved = order.into_iter().filter_map(|old| tasks[old].take());
    Ok(moved
        .map(|mut task| {
            for after in &mut task.after {
                after.task = place[after.task];
            }
            task.after.sort();
            task.after.dedup();
            task
        })
        .collect())
}
