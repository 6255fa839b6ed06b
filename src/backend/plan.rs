//! A plan: what an apply would do to each object and why, and the graph of small tasks that it is carried out by.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{BackendError, ObservedContainer, graph};
use crate::compose::Project;
use crate::domain::{Adopted, ContainerId, ContainerName, ObjectKey, ServiceName};

/// Everything an apply would do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Plan {
    /// One step per object, kept ones included, in no particular order.
    pub steps: Vec<Step>,
    /// How the steps are carried out: each task after those that it names, which stand before it.
    pub tasks: Vec<Task>,
    /// What `settle` must know to put back what ran before.
    pub undo: UndoNote,
    /// What the author should know, a sentence each.
    pub warnings: Vec<String>,
    /// The containers that were looked at, as status has them: an answer that nothing had to be done needs no second look.
    /// Empty where the backend does not tell.
    #[serde(skip)]
    pub standing: Vec<ObservedContainer>,
}

impl Plan {
    /// The plan of these steps alone.
    pub(super) fn of_steps(steps: Vec<Step>, project: &Project) -> Result<Self, BackendError> {
        let tasks = graph::tasks(&steps, project, &graph::Circumstances::default())?;
        Ok(Self { steps, tasks, ..Self::default() })
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.iter().all(|step| step.action == Action::Keep)
    }
}

/// One object and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The object.
    #[serde(flatten)]
    pub object: PlannedObject,
    /// What becomes of it.
    pub action: Action,
    /// Why, for a person.
    pub reason: String,
}

impl Step {
    /// The container that it is about, if it is about one.
    pub(super) fn slot(&self) -> Option<Slot<'_>> {
        match &self.object {
            PlannedObject::Container { service, number, name, existing } => {
                Some(Slot { service, number: *number, name, existing: existing.as_ref(), action: self.action })
            }
            _ => None,
        }
    }
}

/// A container's place in a plan.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot<'a> {
    pub(super) service: &'a ServiceName,
    pub(super) number: u32,
    pub(super) name: &'a ContainerName,
    pub(super) existing: Option<&'a ContainerId>,
    pub(super) action: Action,
}

/// One small piece of work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Task {
    /// What is done.
    #[serde(flatten)]
    pub work: Work,
    /// What must have happened before.
    pub after: Vec<After>,
    /// How long to rest between that and this (`update_config.delay`).
    pub pause: Duration,
}

/// What a task does; the numbers are places in [`Plan::steps`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "work", content = "step", rename_all = "snake_case")]
pub enum Work {
    /// Nothing, now: it hands the order on from what the object depends on to what depends on it.
    Keep(usize),
    /// The object is made; what it replaces is set aside and goes on.
    Make(usize),
    /// All new objects are there. Up to here nothing was disturbed.
    AllMade,
    /// The container that is there stops.
    Stop(usize),
    /// What is in the file no more has stopped, and its ports are free.
    AllCleared,
    /// The container starts, and its `post_start` hooks run.
    Start(usize),
    /// The container becomes what makes its service's part of the apply a success.
    Await(usize),
    /// As `Await`, and it stays so for this time (`update_config.monitor`).
    Monitor(usize, Duration),
}

impl Work {
    /// The place of the step that it belongs to.
    pub fn step(self) -> Option<usize> {
        match self {
            Self::Keep(step) | Self::Make(step) | Self::Stop(step) | Self::Start(step) => Some(step),
            Self::Await(step) | Self::Monitor(step, _) => Some(step),
            Self::AllMade | Self::AllCleared => None,
        }
    }
}

/// Something that a task waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct After {
    /// The place in [`Plan::tasks`] of a task that must be done.
    pub task: usize,
    /// What its container must have become since then.
    pub until: Until,
    /// Whether the failure of that is a failure here.
    pub required: bool,
}

/// What is waited for once a task is done (`depends_on.condition`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// Nothing more.
    Done,
    /// Its container runs.
    Started,
    /// Its container is healthy.
    Healthy,
    /// Its container has exited with code 0.
    Completed,
}

/// What a step is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "object", rename_all = "snake_case")]
pub enum PlannedObject {
    /// A network; no key when it is in the project no more.
    Network {
        /// Key in the file.
        key: Option<ObjectKey>,
        /// Name in the backend.
        name: String,
    },
    /// A volume.
    Volume {
        /// Key in the file.
        key: ObjectKey,
        /// Name in the backend.
        name: String,
    },
    /// A container.
    Container {
        /// Its service.
        service: ServiceName,
        /// Its number within the service.
        number: u32,
        /// The name it has or will have.
        name: ContainerName,
        /// The one that exists, if any.
        existing: Option<ContainerId>,
    },
}

/// What becomes of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It stays as it is.
    Keep,
    /// It is made.
    Create,
    /// It is set aside and made anew.
    Recreate,
    /// It is there and has to be started.
    Start,
    /// It is stopped, and started again.
    Restart,
    /// It is set aside, and removed once the change is committed.
    Remove,
}

/// What a tenant can take over from others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Adoption {
    /// The objects.
    pub adopted: Adopted,
    /// What the author should know, a sentence each.
    pub warnings: Vec<String>,
}

impl fmt::Display for PlannedObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network { name, .. } => write!(f, "network {name}"),
            Self::Volume { name, .. } => write!(f, "volume {name}"),
            Self::Container { service, number, .. } => write!(f, "container {service}-{number}"),
        }
    }
}

/// A line a task: number, work, object; at the first task of a step the reason; what it comes after.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut explained = vec![false; self.steps.len()];
        for (number, task) in self.tasks.iter().enumerate() {
            write!(f, "{number}. ")?;
            match task.work.step().and_then(|at| Some((at, self.steps.get(at)?))) {
                None if task.work == Work::AllMade => write!(f, "all is made")?,
                None => write!(f, "all that goes has stopped")?,
                Some((at, step)) => {
                    let object = &step.object;
                    match (task.work, step.action) {
                        (Work::Keep(_), Action::Remove) => write!(f, "remove {object} after the commit")?,
                        (Work::Keep(_), _) => write!(f, "keep {object}")?,
                        (Work::Make(_), Action::Recreate) => write!(f, "make {object} anew")?,
                        (Work::Make(_), _) => write!(f, "make {object}")?,
                        (Work::Stop(_), Action::Recreate) => write!(f, "stop the old {object}")?,
                        (Work::Stop(_), _) => write!(f, "stop {object}")?,
                        (Work::Start(_), _) => write!(f, "start {object}")?,
                        (Work::Monitor(_, time), _) => write!(f, "watch {object} for {time:?}")?,
                        _ => write!(f, "wait for {object}")?,
                    }
                    if !std::mem::replace(&mut explained[at], true) {
                        write!(f, ": {}", step.reason)?;
                    }
                }
            }
            for (place, after) in task.after.iter().enumerate() {
                write!(f, "{} {}", if place == 0 { "; after" } else { "," }, after.task)?;
                match after.until {
                    Until::Done | Until::Started => {}
                    Until::Healthy => write!(f, " healthy")?,
                    Until::Completed => write!(f, " completed")?,
                }
                if !after.required {
                    write!(f, " if it can be")?;
                }
            }
            if !task.pause.is_zero() {
                write!(f, ", {:?} later", task.pause)?;
            }
            writeln!(f)?;
        }
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        Ok(())
    }
}

/// What ran before an apply began.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UndoNote {
    /// Containers that were running.
    pub running: Vec<ContainerId>,
    /// Volumes that were there: undoing never takes these, whatever their labels say.
    #[serde(default)]
    pub volumes: Vec<String>,
    /// Containers that were to be taken over, in the order in which they have to be started: undoing gives them back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adopted: Vec<ContainerId>,
}
