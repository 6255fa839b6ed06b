//! A plan: what an apply would do to each object, and why.

use serde::{Deserialize, Serialize};

use crate::domain::{Adopted, ContainerId, ContainerName, ObjectKey, ServiceName};

/// Everything an apply would do, in no particular order: dependencies give the order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Plan {
    /// One step per object, kept ones included.
    pub steps: Vec<Step>,
    /// What `settle` must know to put back what ran before.
    pub undo: UndoNote,
    /// What the author should know, a sentence each.
    pub warnings: Vec<String>,
}

impl Plan {
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
